//! Unpacks one layer into a folder that overlayfs can use.
//!
//! Nothing is ever made outside of the folder: each name's parent is resolved with the folder as root, so that neither
//! `..` nor a link that the layer itself made leads out.

use crate::RuntimeError;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags, linkat, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};

/// All unpacked files of a layer together, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;

fn bad(path: &Path, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Config(format!("unpack {}: {error}", path.display()))
}

/// Unpacks `reader` into `folder`.
pub(super) fn unpack(reader: &mut impl Read, folder: &Path) -> Result<(), RuntimeError> {
    let root = openat2(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).map_err(|error| bad(folder, &error))?;
    let mut archive = tar::Archive::new(reader);
    let mut folders: Vec<(PathBuf, u32)> = Vec::new();
    let mut total = 0u64;
    for entry in archive.entries().map_err(|error| bad(folder, &error))? {
        let mut entry = entry.map_err(|error| bad(folder, &error))?;
        let path = inside(&entry.path().map_err(|error| bad(folder, &error))?)?;
        total = total.saturating_add(entry.size());
        if total > MAX_BYTES {
            return Err(bad(&path, &"the layer is too large"));
        }
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            continue; // The top itself.
        };
        let parent = open_parent(&root, path.parent().unwrap_or(Path::new("")))?;
        if whiteout(&parent, &name).map_err(|error| bad(&path, &error))? {
            continue;
        }
        place(&root, &parent, &name, &path, &mut entry)?;
        if entry.header().entry_type() == EntryType::Directory {
            folders.push((path, entry.header().mode().unwrap_or(0o755)));
        }
    }
    // A folder that is not writable is made so only when all is in it.
    for (path, mode) in folders.into_iter().rev() {
        let opened = openat2(&root, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS);
        if let Ok(opened) = opened {
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode & 0o7777)).map_err(|error| bad(&path, &error))?;
        }
    }
    Ok(())
}

/// The path without `.` and leading `/`; one with `..` is refused.
fn inside(path: &Path) -> Result<PathBuf, RuntimeError> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(bad(path, &"the name leads out of the layer")),
        }
    }
    Ok(clean)
}

/// Opens a folder of the layer, making what is missing on the way.
fn open_parent(root: &OwnedFd, path: &Path) -> Result<OwnedFd, RuntimeError> {
    let open = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    };
    if let Ok(found) = open(path) {
        return Ok(found);
    }
    let mut so_far = PathBuf::new();
    for part in path.components() {
        let parent = open(&so_far).map_err(|error| bad(path, &error))?;
        match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(bad(path, &error)),
        }
        so_far.push(part);
    }
    open(path).map_err(|error| bad(path, &error))
}

/// Turns OCI's marks of what is gone into overlayfs's: a character device 0/0, or an opaque folder.
fn whiteout(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    let Some(gone) = name.as_bytes().strip_prefix(b".wh.") else { return Ok(false) };
    if name == ".wh..wh..opq" {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(parent));
        rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        return Ok(true);
    }
    let gone = OsStr::from_bytes(gone);
    if gone.is_empty() || gone == "." || gone == ".." {
        return Err(rustix::io::Errno::INVAL);
    }
    remove(parent, gone)?;
    mknodat(parent, gone, FileType::CharacterDevice, Mode::empty(), 0)?;
    Ok(true)
}

/// Removes what stands in the way of a new file. A folder with something in it stays.
fn remove(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => unlinkat(parent, name, AtFlags::REMOVEDIR),
        Err(error) => Err(error),
    }
}

fn place<R: Read>(root: &OwnedFd, parent: &OwnedFd, name: &OsString, path: &Path, entry: &mut Entry<'_, R>) -> Result<(), RuntimeError> {
    let failed = |error: rustix::io::Errno| bad(path, &error);
    let header = entry.header().clone();
    let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o644) & 0o7777);
    let kind = header.entry_type();
    if kind != EntryType::Directory {
        remove(parent, name).map_err(failed)?;
    }
    match kind {
        EntryType::Directory => match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        },
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(failed)?);
            std::io::copy(entry, &mut file).map_err(|error| bad(path, &error))?;
            own(parent.as_fd(), name, &header).map_err(failed)?;
            rustix::fs::fchmod(&file, mode).map_err(failed)?;
            extended_attributes(entry, &file);
            return times(parent, name, &header).map_err(failed);
        }
        EntryType::Symlink => {
            let target = entry.link_name().map_err(|error| bad(path, &error))?.ok_or_else(|| bad(path, &"a link without a target"))?;
            symlinkat(target.as_ref(), parent, name).map_err(failed)?;
        }
        EntryType::Link => {
            let target = entry.link_name().map_err(|error| bad(path, &error))?.ok_or_else(|| bad(path, &"a link without a target"))?;
            let target = inside(&target)?;
            let folder = open_parent(root, target.parent().unwrap_or(Path::new("")))?;
            let target_name = target.file_name().ok_or_else(|| bad(path, &"a link to the top"))?;
            return linkat(&folder, target_name, parent, name, AtFlags::empty()).map_err(failed);
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let file_type = match kind {
                EntryType::Char => FileType::CharacterDevice,
                EntryType::Block => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
            let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
            mknodat(parent, name, file_type, mode, device).map_err(failed)?;
        }
        _ => return Ok(()),
    }
    own(parent.as_fd(), name, &header).map_err(failed)?;
    if !matches!(kind, EntryType::Symlink | EntryType::Directory) {
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(failed)?;
    }
    if kind == EntryType::Directory { Ok(()) } else { times(parent, name, &header).map_err(failed) }
}

fn own(parent: BorrowedFd<'_>, name: &OsStr, header: &tar::Header) -> rustix::io::Result<()> {
    let id = |number: std::io::Result<u64>| number.ok().and_then(|number| u32::try_from(number).ok()).filter(|number| *number != u32::MAX).unwrap_or(0);
    let (uid, gid) = (rustix::fs::Uid::from_raw(id(header.uid())), rustix::fs::Gid::from_raw(id(header.gid())));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(parent: &OwnedFd, name: &OsStr, header: &tar::Header) -> rustix::io::Result<()> {
    let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::fs::utimensat(parent, name, &rustix::fs::Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)
}

/// Capabilities of programs are extended attributes. Those that the file system does not take are left out.
fn extended_attributes<R: Read>(entry: &mut Entry<'_, R>, file: &std::fs::File) {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return };
    for extension in extensions.flatten() {
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.").map(str::to_owned)) else { continue };
        if let Err(error) = rustix::fs::fsetxattr(file, name.as_str(), extension.value_bytes(), XattrFlags::empty()) {
            tracing::debug!(name, %error, "an extended attribute is left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    fn layer(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(if matches!(kind, EntryType::Regular) { content.len() as u64 } else { 0 });
        // Written past the builder's own checks: a hostile archive has none.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_cksum();
        let bytes: &[u8] = if matches!(kind, EntryType::Regular) { content.as_bytes() } else { &[] };
        builder.append(&header, bytes).unwrap();
    }

    #[test]
    fn files_links_and_whiteouts_are_placed() {
        let folder = tempfile::tempdir().unwrap();
        let tar = layer(|b| {
            add(b, "etc", EntryType::Directory, "");
            add(b, "etc/file", EntryType::Regular, "content");
            add(b, "etc/hard", EntryType::Link, "etc/file");
            add(b, "etc/soft", EntryType::Symlink, "/etc/file");
            add(b, "etc/.wh.gone", EntryType::Regular, "");
            add(b, "opaque/.wh..wh..opq", EntryType::Regular, "");
        });
        unpack(&mut tar.as_slice(), folder.path()).unwrap();
        let file = |name: &str| std::fs::symlink_metadata(folder.path().join(name)).unwrap();
        assert_eq!(file("etc/file").ino(), file("etc/hard").ino());
        assert_eq!(std::fs::read_link(folder.path().join("etc/soft")).unwrap(), Path::new("/etc/file"));
        assert!(file("etc/gone").file_type().is_char_device() && file("etc/gone").rdev() == 0);
        let mut value = [0; 4];
        let length = rustix::fs::getxattr(folder.path().join("opaque"), "trusted.overlay.opaque", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"y");
    }

    #[test]
    fn nothing_is_ever_made_outside() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("layer");
        std::fs::create_dir(&folder).unwrap();
        let dots = layer(|b| add(b, "../escaped", EntryType::Regular, "x"));
        assert!(unpack(&mut dots.as_slice(), &folder).unwrap_err().to_string().contains("leads out of the layer"));
        let link = layer(|b| {
            add(b, "out", EntryType::Symlink, "../..");
            add(b, "out/escaped", EntryType::Regular, "x");
            add(b, "abs", EntryType::Symlink, top.path().to_str().unwrap());
            add(b, "abs/escaped", EntryType::Regular, "x");
        });
        // Links are followed with the layer as root: the files land inside it, or the layer is refused.
        let _either = unpack(&mut link.as_slice(), &folder);
        assert!(!top.path().join("escaped").exists());
        let hard = layer(|b| add(b, "hard", EntryType::Link, "../../etc/passwd"));
        assert!(unpack(&mut hard.as_slice(), &folder).is_err());
    }
}
