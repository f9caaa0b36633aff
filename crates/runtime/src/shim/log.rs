//! Container logs in CRI's format: `TIME stdout F line`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A log is rotated when it is larger; one older file is kept.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// A longer line is written in parts.
const MAX_LINE: usize = 16 * 1024;

/// A container's log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
}

/// What of a stream has not ended its line yet.
#[derive(Debug, Default)]
pub(super) struct Partial(Vec<u8>);

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Log> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Log { path: path.to_path_buf(), file, written })
    }

    /// Writes the lines that `bytes` completes.
    pub(super) fn write(&mut self, stream: &str, partial: &mut Partial, bytes: &[u8]) -> io::Result<()> {
        let mut text = Vec::with_capacity(bytes.len() + 64);
        partial.0.extend_from_slice(bytes);
        let mut rest = partial.0.as_slice();
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n').filter(|end| *end <= MAX_LINE) {
                line(&mut text, stream, 'F', &rest[..end]);
                rest = &rest[end + 1..];
            } else if rest.len() > MAX_LINE {
                line(&mut text, stream, 'P', &rest[..MAX_LINE]);
                rest = &rest[MAX_LINE..];
            } else {
                break;
            }
        }
        partial.0 = rest.to_vec();
        self.append(&text)
    }

    /// Writes what is left when a stream ends.
    pub(super) fn finish(&mut self, stream: &str, partial: &mut Partial) -> io::Result<()> {
        let rest = std::mem::take(&mut partial.0);
        if rest.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        // A last line without its end: kubectl prints it without one, too.
        line(&mut text, stream, 'P', &rest);
        self.append(&text)
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.written > MAX_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(text)?;
        self.written += text.len() as u64;
        Ok(())
    }
}

fn line(text: &mut Vec<u8>, stream: &str, tag: char, content: &[u8]) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    text.extend_from_slice(rfc3339(now.as_secs(), now.subsec_nanos()).as_bytes());
    text.extend_from_slice(format!(" {stream} {tag} ").as_bytes());
    text.extend_from_slice(content);
    text.push(b'\n');
}

/// `2026-01-02T03:04:05.000000006Z`.
fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, by the usual shift of the year's start to March.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_709_210_096, 7), "2024-02-29T12:34:56.000000007Z");
        assert_eq!(rfc3339(4_102_444_799, 0), "2099-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn lines_are_whole_or_marked_as_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/0.log");
        let mut log = Log::open(&path).unwrap();
        let mut partial = Partial::default();
        log.write("stdout", &mut partial, b"one\ntw").unwrap();
        log.write("stdout", &mut partial, b"o\n").unwrap();
        log.write("stderr", &mut Partial::default(), &[vec![b'x'; MAX_LINE + 1], vec![b'\n']].concat()).unwrap();
        log.write("stdout", &mut partial, b"end").unwrap();
        log.finish("stdout", &mut partial).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let shown: Vec<String> = text.lines().map(|line| line.split(' ').skip(1).map(|word| word.chars().take(4).collect::<String>()).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(shown, ["stdo F one", "stdo F two", "stde P xxxx", "stde F x", "stdo P end"]);
    }
}
