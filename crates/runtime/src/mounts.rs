//! Mounts: what is mounted below a directory, and how it is taken away.

use nix::mount::{MntFlags, umount2};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of /proc/self/mountinfo, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPoint {
    pub(crate) path: PathBuf,
    pub(crate) file_system: String,
    /// The file system's own options.
    pub(crate) options: String,
}

/// Everything mounted in this mount namespace, oldest first.
pub(crate) fn all() -> io::Result<Vec<MountPoint>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse(mountinfo: &[u8]) -> Vec<MountPoint> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let separator = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    Some(MountPoint {
        path: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        file_system: String::from_utf8_lossy(fields.get(separator + 1)?).into_owned(),
        options: String::from_utf8_lossy(fields.get(separator + 3)?).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(&[a, b, c]) => {
                let value =
                    u32::from(a - b'0') * 64 + u32::from(b - b'0') * 8 + u32::from(c - b'0');
                out.push(u8::try_from(value & 0xff).expect("masked to eight bits"));
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Unmounts everything at and below a directory, newest first. Nothing mounted is no error.
pub(crate) fn unmount_below(directory: &Path) -> io::Result<()> {
    let below: Vec<_> =
        all()?.into_iter().filter(|mount| mount.path.starts_with(directory)).collect();
    for mount in below.iter().rev() {
        unmount(&mount.path)?;
    }
    Ok(())
}

/// Unmounts one mount point, now as far as names go, in truth when the last user is gone. Nothing mounted is no error.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(io::Error::new(
            io::Error::from(error).kind(),
            format!("unmount {}: {}", path.display(), error.desc()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_odd_names() {
        let text = b"29 1 0:26 / /a\\040b rw,nosuid shared:7 - tmpfs tmpfs rw,size=1k\n30 1 0:2 / /c rw - ext4 /dev/x rw\n\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].path, Path::new("/a b"));
        assert_eq!(
            (mounts[0].file_system.as_str(), mounts[0].options.as_str()),
            ("tmpfs", "rw,size=1k")
        );
        assert_eq!(mounts[1].file_system, "ext4");
    }
}
