//! Unpacks one layer's tar into a directory that overlayfs can use as a lower one.
//!
//! The archive is not trusted: every parent directory is resolved beneath the layer's root by the kernel (`openat2`), and the
//! last component is never followed.

use crate::beneath::{self, Root};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};

/// More than any sane layer has; what lies beyond is an attack or an accident.
const BYTES_MAX: u64 = 64 << 30;
const ENTRIES_MAX: u64 = 8_000_000;
/// overlayfs' own attributes say what lies below a directory: an archive must not.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// Hashes and counts what is read through it, and refuses to read on for ever.
#[derive(Debug)]
pub(super) struct Counted<R> {
    inner: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(inner: R) -> Self {
        Counted { inner, hash: Sha256::new(), length: 0 }
    }

    /// The digest (`sha256:…`) and length of everything, to the end.
    pub(super) fn finish(mut self) -> io::Result<(String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((digest_text(&self.hash.finalize()), self.length))
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.length += length as u64;
        if self.length > BYTES_MAX {
            return Err(invalid(format!("larger than {BYTES_MAX} bytes")));
        }
        Ok(length)
    }
}

pub(super) fn digest_text(digest: &[u8]) -> String {
    digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

pub(super) fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// Directories get their modes and times last: unpacking into them needs the one and changes the other.
type Directories = BTreeMap<PathBuf, (u32, u64)>;

/// Unpacks a whole tar into an empty directory. Returns the digest and the length of the tar.
pub(super) fn unpack(reader: impl Read, target: &Path) -> io::Result<(String, u64)> {
    let root = Root::open(target)?;
    let mut archive = tar::Archive::new(Counted::new(reader));
    let mut directories = Directories::new();
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(invalid(format!("more than {ENTRIES_MAX} entries")));
        }
        let path = entry.path()?.into_owned();
        unpack_entry(&root, &mut entry, &path, &mut directories).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
    }
    for (path, (mode, mtime)) in directories.iter().rev() {
        let directory = match root.directory(path) {
            Ok(directory) => directory,
            // Something else took its name later in the archive.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        fchmod(&directory, Mode::from_raw_mode(*mode))?;
        futimens(&directory, &times(*mtime))?;
    }
    archive.into_inner().finish()
}

fn unpack_entry<R: Read>(
    root: &Root,
    entry: &mut Entry<'_, R>,
    path: &Path,
    directories: &mut Directories,
) -> io::Result<()> {
    let kind = entry.header().entry_type();
    if matches!(
        kind,
        EntryType::XGlobalHeader
            | EntryType::XHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
    ) {
        return Ok(());
    }
    let path = clean(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return unpack_root(root, entry, directories);
    };
    let parent_directory = parent_directory(root, parent)?;
    if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
        return white_out(&parent_directory, hidden);
    }
    let place = Place { directory: &parent_directory, name };
    match kind {
        EntryType::Directory => {
            let directory = place.make_directory()?;
            own(&directory, entry)?;
            set_attributes(&directory, entry)?;
            directories.insert(path, (mode(entry)?, entry.header().mtime()?));
            Ok(())
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            place.write_file(entry)
        }
        EntryType::Link => place.link(root, entry),
        EntryType::Symlink => place.symlink(entry),
        EntryType::Char | EntryType::Block | EntryType::Fifo => place.make_node(entry, kind),
        other => Err(invalid(format!("unsupported kind of entry {other:?}"))),
    }
}

/// Opens the directory that an entry lies in, making it where the archive has no entry for it. A white-out in its way was meant for
/// the layers below.
fn parent_directory(root: &Root, path: &Path) -> io::Result<OwnedFd> {
    match root.make_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
        other => return other,
    }
    let mut above: Vec<&Path> =
        path.ancestors().filter(|above| !above.as_os_str().is_empty()).collect();
    above.reverse();
    for path in above {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let directory = root.directory(parent)?;
        let place = Place { directory: &directory, name };
        if place.is_white_out()? {
            place.make_directory()?;
        }
    }
    root.make_directory(path)
}

/// The entry for the layer's own root.
fn unpack_root<R: Read>(
    root: &Root,
    entry: &mut Entry<'_, R>,
    directories: &mut Directories,
) -> io::Result<()> {
    if !entry.header().entry_type().is_dir() {
        return Err(invalid("the root is no directory"));
    }
    own(&root.directory(Path::new(""))?, entry)?;
    directories.insert(PathBuf::new(), (mode(entry)?, entry.header().mtime()?));
    Ok(())
}

/// A path without `.`; `..` and absolute paths are refused.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(invalid("path escape"));
            }
        }
    }
    Ok(clean)
}

/// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` everything in its directory.
fn white_out(directory: &OwnedFd, hidden: &[u8]) -> io::Result<()> {
    if hidden == b".wh..opq" {
        return Ok(fsetxattr(directory, c"trusted.overlay.opaque", b"y", XattrFlags::empty())?);
    }
    // Other names with this beginning are aufs' own (`.wh..wh.plnk`).
    if hidden.is_empty() || hidden.starts_with(b".wh.") {
        return Ok(());
    }
    if matches!(hidden, b"." | b"..") {
        return Err(invalid("path escape"));
    }
    let name = OsStr::from_bytes(hidden);
    // It hides what lies below this layer, never what this layer brings itself, whichever comes first in the archive.
    match mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    match openat(directory, name, DIRECTORY, Mode::empty()) {
        Ok(own) => Ok(fsetxattr(own, c"trusted.overlay.opaque", b"y", XattrFlags::empty())?),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A directory itself, not what a link of its name leads to.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where one entry goes.
struct Place<'a> {
    directory: &'a OwnedFd,
    name: &'a OsStr,
}

impl Place<'_> {
    fn is_white_out(&self) -> io::Result<bool> {
        match rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok(FileType::from_raw_mode(there.st_mode) == FileType::CharacterDevice
                && there.st_rdev == 0),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn make_directory(&self) -> io::Result<OwnedFd> {
        let mut replaces_white_out = false;
        match openat(self.directory, self.name, DIRECTORY, Mode::empty()) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT) => {}
            // Something else has this name, or a link: what comes later wins.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                replaces_white_out = self.is_white_out()?;
                beneath::remove(self.directory, self.name)?;
            }
            Err(error) => return Err(error.into()),
        }
        mkdirat(self.directory, self.name, Mode::from_raw_mode(0o755))?;
        let directory = openat(self.directory, self.name, DIRECTORY, Mode::empty())?;
        if replaces_white_out {
            // The lower layers' directory stays hidden: this one is another.
            fsetxattr(&directory, c"trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        }
        Ok(directory)
    }

    fn write_file<R: Read>(&self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        beneath::remove(self.directory, self.name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file =
            File::from(openat(self.directory, self.name, flags, Mode::from_raw_mode(0o600))?);
        let expected = entry.size();
        let written = io::copy(entry, &mut file)?;
        if written != expected {
            return Err(invalid(format!("{written} bytes instead of {expected}")));
        }
        let file = OwnedFd::from(file);
        own(&file, entry)?;
        fchmod(&file, Mode::from_raw_mode(mode(entry)?))?;
        // After the owner, whose change takes file capabilities away.
        set_attributes(&file, entry)?;
        Ok(futimens(&file, &times(entry.header().mtime()?))?)
    }

    fn link<R: Read>(&self, root: &Root, entry: &Entry<'_, R>) -> io::Result<()> {
        let target = entry.link_name()?.ok_or_else(|| invalid("a link to nowhere"))?;
        // Some archivers write the targets of hard links as absolute paths; they mean the layer's root.
        let target = clean(target.strip_prefix("/").unwrap_or(&target))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(invalid("a hard link to a directory"));
        };
        let directory = root.directory(parent)?;
        let temporary = OsStr::new(".wh..wh.link");
        // By way of another name, so that a link to itself does not remove its target first.
        beneath::remove(self.directory, temporary)?;
        linkat(&directory, name, self.directory, temporary, AtFlags::empty()).map_err(|error| {
            io::Error::new(
                io::Error::from(error).kind(),
                format!("link to {}: {error}", target.display()),
            )
        })?;
        beneath::remove(self.directory, self.name)?;
        Ok(rustix::fs::renameat(self.directory, temporary, self.directory, self.name)?)
    }

    fn symlink<R: Read>(&self, entry: &Entry<'_, R>) -> io::Result<()> {
        let target = entry.link_name_bytes().ok_or_else(|| invalid("a link to nowhere"))?;
        let target = OsString::from_vec(target.into_owned());
        beneath::remove(self.directory, self.name)?;
        symlinkat(&target, self.directory, self.name)?;
        let (uid, gid) = owner(entry)?;
        chownat(self.directory, self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let times = times(entry.header().mtime()?);
        Ok(utimensat(self.directory, self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn make_node<R: Read>(&self, entry: &Entry<'_, R>, kind: EntryType) -> io::Result<()> {
        let number = |value: Option<u32>| value.ok_or_else(|| invalid("a device without a number"));
        let device = || {
            io::Result::Ok(makedev(
                number(entry.header().device_major()?)?,
                number(entry.header().device_minor()?)?,
            ))
        };
        let (kind, device) = match kind {
            EntryType::Char => (FileType::CharacterDevice, device()?),
            EntryType::Block => (FileType::BlockDevice, device()?),
            _ => (FileType::Fifo, 0),
        };
        beneath::remove(self.directory, self.name)?;
        let mode = Mode::from_raw_mode(mode(entry)?);
        mknodat(self.directory, self.name, kind, mode, device)?;
        let (uid, gid) = owner(entry)?;
        chownat(self.directory, self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        // Past the umask; the name is ours, just made, and no link.
        rustix::fs::chmodat(self.directory, self.name, mode, AtFlags::empty())?;
        Ok(utimensat(
            self.directory,
            self.name,
            &times(entry.header().mtime()?),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

fn mode<R: Read>(entry: &Entry<'_, R>) -> io::Result<u32> {
    Ok(entry.header().mode()? & 0o7777)
}

fn owner<R: Read>(entry: &Entry<'_, R>) -> io::Result<(Uid, Gid)> {
    let number = |value: u64| {
        u32::try_from(value)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| invalid("owner out of range"))
    };
    Ok((
        Uid::from_raw(number(entry.header().uid()?)?),
        Gid::from_raw(number(entry.header().gid()?)?),
    ))
}

fn own<R: Read>(file: &OwnedFd, entry: &Entry<'_, R>) -> io::Result<()> {
    let (uid, gid) = owner(entry)?;
    Ok(fchown(file, Some(uid), Some(gid))?)
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Extended attributes, which tar keeps in its extended headers.
fn set_attributes<R: Read>(file: &OwnedFd, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        if name.starts_with(OVERLAY) {
            return Err(invalid("an attribute that belongs to overlayfs"));
        }
        match fsetxattr(file, name, extension.value_bytes(), XattrFlags::empty()) {
            // Labels of security modules, and attributes that this file system does not know, are as good as absent here.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    struct Layer(tar::Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Self {
            Layer(tar::Builder::new(Vec::new()))
        }

        fn header(kind: EntryType, mode: u32, size: usize) -> tar::Header {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size as u64);
            header.set_mtime(1_000_000_000);
            header.set_uid(0);
            header.set_gid(0);
            header
        }

        fn add(mut self, kind: EntryType, path: &str, mode: u32, content: &str) -> Self {
            let mut header = Layer::header(kind, mode, content.len());
            // Past the builder's own check: tests need bad names, too.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            self.0.append(&header, content.as_bytes()).unwrap();
            self
        }

        fn file(self, path: &str, content: &str) -> Self {
            self.add(EntryType::Regular, path, 0o644, content)
        }

        fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
            let mut header = Layer::header(kind, 0o777, 0);
            let gnu = header.as_gnu_mut().unwrap();
            gnu.name[..path.len()].copy_from_slice(path.as_bytes());
            gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            self.0.append(&header, io::empty()).unwrap();
            self
        }

        fn unpack(self) -> (tempfile::TempDir, io::Result<(String, u64)>) {
            let dir = tempfile::tempdir().unwrap();
            let bytes = self.0.into_inner().unwrap();
            let result = unpack(&bytes[..], dir.path());
            (dir, result)
        }
    }

    #[test]
    fn files_directories_links_and_modes_are_kept() {
        let (dir, result) = Layer::new()
            .add(EntryType::Directory, "./a/", 0o2711, "")
            .add(EntryType::Regular, "a/suid", 0o4755, "x")
            .file("b/c/d", "deep")
            .link(EntryType::Link, "hard", "a/suid")
            .link(EntryType::Symlink, "soft", "/a/suid")
            .add(EntryType::Fifo, "pipe", 0o622, "")
            .unpack();
        let (digest, length) = result.unwrap();
        assert!(digest.starts_with("sha256:") && length % 512 == 0);
        let meta = |path: &str| std::fs::symlink_metadata(dir.path().join(path)).unwrap();
        assert_eq!((meta("a").mode() & 0o7777, meta("a").mtime()), (0o2711, 1_000_000_000));
        assert_eq!(meta("a/suid").mode() & 0o7777, 0o4755);
        assert_eq!(meta("hard").ino(), meta("a/suid").ino());
        assert_eq!(std::fs::read_link(dir.path().join("soft")).unwrap(), Path::new("/a/suid"));
        assert_eq!(meta("pipe").mode() & 0o777, 0o622);
        assert!(meta("pipe").file_type().is_fifo());
    }

    #[test]
    fn what_comes_later_wins() {
        let (dir, result) = Layer::new()
            .file("x", "1")
            .file("x", "2")
            .link(EntryType::Symlink, "d", "/etc")
            .add(EntryType::Directory, "d", 0o755, "")
            .file("d/new", "ours")
            .link(EntryType::Link, "x", "x")
            .unpack();
        result.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("x")).unwrap(), "2");
        assert!(dir.path().join("d/new").is_file() && !Path::new("/etc/new").exists());
    }

    #[test]
    fn nothing_leads_out_of_the_layer() {
        for layer in [
            Layer::new().file("../out", ""),
            Layer::new().file("/out", ""),
            Layer::new().file("a/../../out", ""),
            Layer::new().link(EntryType::Link, "a", "../../etc/passwd"),
            Layer::new().file(".wh...", ""),
        ] {
            let (_dir, result) = layer.unpack();
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        // A link that leads out is kept as it is; what goes through it stays beneath the root.
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap();
        let (dir, result) =
            Layer::new().link(EntryType::Symlink, "out", target).file("out/file", "").unpack();
        assert!(
            result.is_err()
                || dir.path().join(target.trim_start_matches('/')).join("file").exists()
        );
        assert!(!outside.path().join("file").exists());
    }

    #[test]
    fn a_directory_replaced_by_something_else_is_no_directory_any_more() {
        let (dir, result) =
            Layer::new().add(EntryType::Directory, "d", 0o700, "").file("d", "now a file").unpack();
        result.unwrap();
        assert!(dir.path().join("d").is_file());
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let bytes = Layer::new().file("a", &"x".repeat(2000)).0.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(unpack(&bytes[..1500], dir.path()).is_err());
    }
}
