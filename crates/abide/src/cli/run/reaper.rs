//! Removes what a throw-away cluster leaves in the machine: whatever of its processes should still be there, its
//! cgroups, its mount point.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// How often removal is tried, and how long between tries: processes that were just killed hold their cgroup for some
/// milliseconds.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The run's folder.
    #[arg(long)]
    place: PathBuf,
}

/// Starts the reaper: it lives in a process group of its own and watches `life`.
pub(crate) fn start(executable: &Path, life: PipeReader, place: &Path) -> Result<Child> {
    Command::new(executable)
        .arg("run-reaper")
        .arg("--place")
        .arg(place)
        .stdin(Stdio::from(life))
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the reaper")
}

impl Arguments {
    /// Waits until standard input ends, then cleans up.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut nothing = Vec::new();
        std::io::stdin().read_to_end(&mut nothing).context("watch the sign of life")?;
        let (_, never) =
            std::io::pipe().map(|(reader, writer)| (writer, reader)).context("make a pipe")?;
        for _ in 0..TRIES {
            end_first_process(&self.place);
            if remove(&self.place) {
                return Ok(ExitCode::SUCCESS);
            }
            pause(&never);
        }
        anyhow::bail!("{} or its cgroups could not be removed", self.place.display())
    }
}

/// Waits [`PAUSE`].
fn pause(never: &PipeReader) {
    use std::os::fd::AsFd;
    let timeout = nix::poll::PollTimeout::try_from(PAUSE).unwrap_or(nix::poll::PollTimeout::ZERO);
    let mut fds = [nix::poll::PollFd::new(never.as_fd(), nix::poll::PollFlags::empty())];
    // Nothing can be wrong with polling our own pipe; were it so, the bounded tries would just pass sooner.
    let _ = nix::poll::poll(&mut fds, timeout);
}

/// The first process inside dies with the one outside, but for the instant before it has asked for that.
fn end_first_process(place: &Path) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let ours = words.get(1) == Some(&b"run-init".as_slice())
            && words.get(3) == Some(&place.as_os_str().as_encoded_bytes());
        if ours {
            // It may have ended meanwhile, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Tries once; whether everything is gone.
fn remove(place: &Path) -> bool {
    let cgroups_gone = runtime::remove_control_group(&super::cgroup_of(place)).is_ok();
    let place_gone = match std::fs::remove_dir_all(place) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    cgroups_gone && place_gone
}
