//! Container logs in CRI's format: `<time> <stream> <F|P> <line>`, in files of bounded size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A longer line is written in pieces, all but the last marked `P`, as containerd does.
const LINE_MAX: usize = 16 * 1024;
/// A file that has grown to this is put aside under its name with `.1` behind it, in place of the one before.
const FILE_MAX: u64 = 10 * 1024 * 1024;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The log of one container.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { path: path.to_owned(), file, size, max: FILE_MAX })
    }

    /// Writes lines that belong together in one go.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= self.max {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        fs::rename(&self.path, aside)?;
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

/// Cuts a stream into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Lines { stream, pending: Vec::new() }
    }

    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }

    /// Takes what was read at `now` (nanoseconds since 1970) and returns the log lines that are complete by it.
    pub(crate) fn push(&mut self, mut data: &[u8], now: i64) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(&data[..end]);
            data = &data[end + 1..];
            self.cut(&mut out, now);
            self.emit(&mut out, now, 'F');
        }
        self.pending.extend_from_slice(data);
        self.cut(&mut out, now);
        out
    }

    /// What is left when the stream has ended without a newline.
    pub(crate) fn finish(&mut self, now: i64) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.pending.is_empty() {
            self.emit(&mut out, now, 'P');
        }
        out
    }

    fn cut(&mut self, out: &mut Vec<u8>, now: i64) {
        while self.pending.len() > LINE_MAX {
            let rest = self.pending.split_off(LINE_MAX);
            self.emit(out, now, 'P');
            self.pending = rest;
        }
    }

    fn emit(&mut self, out: &mut Vec<u8>, now: i64, tag: char) {
        out.extend_from_slice(format!("{} {} {tag} ", rfc3339(now), self.stream.name()).as_bytes());
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

/// `2006-01-02T15:04:05.000000000Z`, always with nine digits.
pub(crate) fn rfc3339(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Years are reckoned from March, so that the day that comes and
/// goes is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn times_are_written_as_rfc_3339_with_nanoseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_827_696_000_000_001), "2000-02-29T12:34:56.000000001Z");
        assert_eq!(rfc3339(1_795_246_282_500_000_000), "2026-11-21T07:31:22.500000000Z");
    }

    #[test]
    fn lines_are_complete_or_marked_as_partial() {
        let mut lines = Lines::new(Stream::Stdout);
        let zero = "1970-01-01T00:00:00.000000000Z";
        assert_eq!(text(lines.push(b"a\nb", 0)), format!("{zero} stdout F a\n"));
        assert_eq!(
            text(lines.push(b"c\n\n", 0)),
            format!("{zero} stdout F bc\n{zero} stdout F \n")
        );
        assert_eq!(text(lines.push(b"end", 0)), "");
        assert_eq!(text(lines.finish(0)), format!("{zero} stdout P end\n"));
        assert_eq!(text(lines.finish(0)), "");
    }

    #[test]
    fn a_long_line_is_cut_and_its_last_piece_is_full() {
        let mut lines = Lines::new(Stream::Stderr);
        let mut data = vec![b'x'; 2 * LINE_MAX + 5];
        data.push(b'\n');
        let out = text(lines.push(&data, 0));
        let tags: Vec<_> = out.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, ["P", "P", "F"]);
        assert_eq!(out.bytes().filter(|byte| *byte == b'x').count(), 2 * LINE_MAX + 5);
    }

    #[test]
    fn a_log_keeps_two_files_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main/0.log");
        let mut log = LogFile::open(&path).unwrap();
        log.max = 10;
        for line in ["one 12345\n", "two 12345\n", "three 345\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "three 345\n");
        assert_eq!(fs::read_to_string(path.with_extension("log.1")).unwrap(), "two 12345\n");
    }
}
