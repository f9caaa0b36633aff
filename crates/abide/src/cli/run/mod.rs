//! `abide run`: a throw-away cluster for the life of a command.
//!
//! Three processes share the work. The one that the user started (this file) makes the namespaces and waits. The first
//! process inside them ([`init`]) starts the server and the command. A third ([`reaper`]) stays outside and removes
//! what namespaces do not: cgroups and the mount point. Because everything else lives in the process, mount and network
//! namespaces of the first process inside, and that one dies with the one outside, SIGKILL leaves nothing behind.

pub(crate) mod command;
pub(crate) mod init;
pub(crate) mod reaper;

use crate::cli::pulling::Registries;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Flags of `abide run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    cluster: Cluster,
    /// What to run; its KUBECONFIG is set, and its exit status becomes ours.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What kind of cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Cluster {
    /// Image archives that are loaded before COMMAND starts.
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// An image store that runs share, so that unpacking happens once.
    #[arg(long, value_name = "DIR")]
    image_store: Option<PathBuf>,
    #[command(flatten)]
    registries: Registries,
    /// Nodes whose pods become Ready without a container (scale tests), instead of the real one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    simulated_nodes: u32,
    /// Where the cluster keeps its state, which then outlives the run; a memory file system if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep the server's log here.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Cluster {
    /// The same, with paths that hold in any working directory.
    fn absolute(mut self) -> Result<Cluster> {
        for path in self
            .images
            .iter_mut()
            .chain(&mut self.image_store)
            .chain(&mut self.data_dir)
            .chain(&mut self.log)
        {
            *path =
                std::path::absolute(&*path).with_context(|| format!("find {}", path.display()))?;
        }
        self.registries = self.registries.absolute()?;
        for image in &self.images {
            std::fs::metadata(image)
                .with_context(|| format!("read image archive {}", image.display()))?;
        }
        Ok(self)
    }

    /// As flags, for the first process inside.
    fn flags(&self) -> Vec<std::ffi::OsString> {
        let mut flags: Vec<std::ffi::OsString> = Vec::new();
        let stores = [
            ("--image-store", &self.image_store),
            ("--data-dir", &self.data_dir),
            ("--log", &self.log),
        ];
        let given =
            stores.into_iter().filter_map(|(flag, path)| path.as_ref().map(|path| (flag, path)));
        for (flag, path) in self.images.iter().map(|path| ("--image", path)).chain(given) {
            flags.extend([flag.into(), path.into()]);
        }
        flags.extend(self.registries.flags());
        flags.extend(["--simulated-nodes".into(), self.simulated_nodes.to_string().into()]);
        flags
    }
}

impl Arguments {
    /// Runs the command in a cluster of its own and returns its exit status.
    pub(crate) fn run(self) -> Result<ExitCode> {
        crate::check::machine()?;
        let cluster = self.cluster.absolute()?;
        let executable = std::env::current_exe().context("find the program's own file")?;
        let place = make_place()?;
        // Nobody but us holds the writing end: it closes with our death, however we die, and then the reaper acts.
        let (reader, life) = std::io::pipe().context("make a pipe")?;
        let mut reaper = reaper::start(&executable, reader, &place)?;

        let signals = Signals::hold_back()?;
        unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWIPC,
        )
        .context("make namespaces")?;
        let status =
            start_init(&executable, &place, &cluster, &self.command).and_then(|mut init| {
                signals.hand_on_to(init.id());
                init.wait().context("wait for the cluster")
            });
        drop(life);
        reaper.wait().context("wait for the reaper")?;
        Ok(exit_code(status?))
    }
}

fn start_init(
    executable: &Path,
    place: &Path,
    cluster: &Cluster,
    command: &[String],
) -> Result<Child> {
    Command::new(executable)
        .arg("run-init")
        .arg("--place")
        .arg(place)
        .args(cluster.flags())
        .arg("--")
        .args(command)
        .spawn()
        .context("start the cluster's first process")
}

/// A folder of our own. With a memory file system it is only the mount point.
fn make_place() -> Result<PathBuf> {
    let template = std::env::temp_dir().join("abide-run-XXXXXX");
    nix::unistd::mkdtemp(&template)
        .with_context(|| format!("make a folder in {}", std::env::temp_dir().display()))
}

/// The cgroup under which everything of a run lives, relative to each hierarchy's root.
fn cgroup_of(place: &Path) -> String {
    format!("abide/{}", place.file_name().unwrap_or_default().to_string_lossy())
}

/// The signals that end programs, held back so that they reach the command and not us.
struct Signals {
    child: Arc<AtomicI32>,
}

impl Signals {
    /// Blocks them (children inherit that, and have to end it) and hands SIGTERM and SIGHUP on, once there is somebody. The keyboard's signals reach the whole process group anyway.
    ///
    /// Must come before a new process namespace is made: after that this process can have no new thread.
    fn hold_back() -> Result<Signals> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("hold back signals")?;
        let child = Arc::new(AtomicI32::new(0));
        let known = child.clone();
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                let from_keyboard = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
                let child = known.load(Ordering::Acquire);
                // One that has ended meanwhile needs no signal.
                if !from_keyboard && child > 0 && kill(Pid::from_raw(child), signal).is_err() {
                    return;
                }
            }
        });
        Ok(Signals { child })
    }

    /// Who gets them from now on.
    fn hand_on_to(&self, child: u32) {
        self.child.store(i32::try_from(child).unwrap_or(0), Ordering::Release);
    }
}

/// As a shell tells it: the code, or 128 and the signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
