//! Files below a root that somebody else filled: no path, link or `..` leads out of it.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

/// A directory that is the root of everything asked of it.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { directory: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens a directory; links are followed as a process would that has this root as its own.
    pub(crate) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(self.resolve(path, flags)?)
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match openat2(&self.directory, path, flags, Mode::empty(), resolve) {
                // The kernel saw a rename elsewhere that it could not rule out as an escape.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// Reads a file of at most `max` bytes; `None` if there is none.
    pub(crate) fn read(&self, path: &Path, max: u64) -> io::Result<Option<String>> {
        let file = match self.resolve(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{} is no regular file", path.display())));
        }
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Opens a directory, making it and its parents (mode 0755) where they are missing.
    pub(crate) fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut walked = std::path::PathBuf::new();
        let mut at = self.directory(&walked)?;
        for part in path.components() {
            let name: &OsStr = match part {
                Component::Normal(name) => name,
                Component::CurDir | Component::RootDir => continue,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("path escape {}", path.display()),
                    ));
                }
            };
            match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            walked.push(name);
            at = self.directory(&walked)?;
        }
        Ok(at)
    }
}

/// Removes what has this name in a directory, with all below it. Nothing there is no error.
pub(crate) fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&inner)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            remove(&inner, std::os::unix::ffi::OsStrExt::from_bytes(bytes))?;
        }
    }
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_nowhere_but_beneath_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("../../../../etc", inside.path().join("up")).unwrap();
        std::fs::create_dir(inside.path().join("etc")).unwrap();
        std::fs::write(inside.path().join("etc/passwd"), "ours").unwrap();
        let root = Root::open(inside.path()).unwrap();
        assert_eq!(root.read(Path::new("up/passwd"), 100).unwrap().as_deref(), Some("ours"));
        assert_eq!(root.read(Path::new("/etc/passwd"), 2).unwrap().as_deref(), Some("ou"));
        assert_eq!(root.read(Path::new("etc/none"), 100).unwrap(), None);
        assert!(root.make_directory(Path::new("out/x")).is_err());
        assert!(root.make_directory(Path::new("../x")).is_err());
        assert!(!outside.path().join("x").exists());
        root.make_directory(Path::new("/up/a/b")).unwrap();
        assert!(inside.path().join("etc/a/b").is_dir());
        remove(&root.directory(Path::new("")).unwrap(), OsStr::new("out")).unwrap();
        remove(&root.directory(Path::new("")).unwrap(), OsStr::new("etc")).unwrap();
        assert!(outside.path().exists() && !inside.path().join("etc").exists());
    }
}
