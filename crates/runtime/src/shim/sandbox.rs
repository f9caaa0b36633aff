//! Makes the sandbox around this process: namespaces held by bind mounts, shared memory, control group.

#![expect(
    unsafe_code,
    reason = "an interface is brought up, and inherited file descriptors are closed, by bare system calls"
)]

use crate::cgroup::Hierarchies;
use crate::layout::{SandboxDir, SandboxRecord};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Size of a pod's /dev/shm, as containerd's.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// Cuts this process off from who started it: session, directory, file descriptors, signals.
pub(super) fn detach() -> io::Result<()> {
    // SAFETY: closes descriptors this process inherited but does not know; nothing of ours is open beyond 2 yet.
    // JUSTIFICATION: neither std nor nix offers the call.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // A session leader already is fine.
    let _ = nix::unistd::setsid();
    nix::unistd::chdir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
    ] {
        // SAFETY: ignoring a signal runs no code of ours.
        // JUSTIFICATION: nix marks every change of a disposition as unsafe.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    }
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::prctl::set_name(c"abide-shim")?;
    Ok(())
}

/// Makes what the record asks for.
pub(super) fn build(dir: &SandboxDir, record: &SandboxRecord) -> io::Result<()> {
    let hierarchies = Hierarchies::read()?;
    if let Some((parent, _)) = record.cgroup.rsplit_once('/') {
        // Without it everything works but an upgrade under systemd.
        if let Err(error) = hierarchies.leave_unit(&format!("{parent}/shims")) {
            super::warn(format_args!("leave the systemd unit: {error}"));
        }
    }
    hierarchies.create(&record.cgroup, &record.config.resources)?;
    namespaces(dir, record)?;
    fs::create_dir_all(dir.shm())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), &dir.shm(), Some("tmpfs"), flags, Some(SHM_OPTIONS))?;
    fs::write(dir.hostname(), format!("{}\n", record.config.hostname))?;
    fs::create_dir_all(dir.run())?;
    Ok(())
}

fn namespaces(dir: &SandboxDir, record: &SandboxRecord) -> io::Result<()> {
    let mut flags = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let mut kinds = vec!["ipc", "uts"];
    if !record.config.host_network {
        flags |= CloneFlags::CLONE_NEWNET;
        kinds.push("net");
    }
    unshare(flags)?;
    nix::unistd::sethostname(&record.config.hostname)?;
    if !record.config.host_network {
        loopback_up()?;
    }
    fs::create_dir_all(dir.0.join("ns"))?;
    for kind in kinds {
        let place = dir.namespace(kind);
        File::create(&place)?;
        let source = Path::new("/proc/self/ns").join(kind);
        mount(Some(&source), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the structure is plain data for which all zeros is valid; the kernel reads the name and the flags from it, both set.
    // JUSTIFICATION: netlink would need a crate and more code for this one flag.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
