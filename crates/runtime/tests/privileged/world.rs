//! A runtime of its own for each test, which leaves nothing behind.

use runtime::embedded::{Config, EmbeddedRuntime, Shim};
use runtime::images::Images;
use runtime::{
    ContainerConfig, ContainerRuntime, ContainerState, ExecIo, ExecRequest, ImageStore,
    RuntimeError, SandboxConfig,
};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_runtime-test-shim");

/// The programs that tests use; busybox is all of them.
const APPLETS: &[&str] = &[
    "sh", "sleep", "cat", "echo", "env", "id", "hostname", "ls", "true", "false", "touch", "head",
    "dd", "usleep", "tty", "stty", "grep", "wc", "mount", "df", "kill", "pwd", "tail", "seq",
    "stat",
];

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroup: String,
    pub(crate) images: Arc<Images>,
    pub(crate) runtime: EmbeddedRuntime,
    pub(crate) image_id: String,
}

/// A tar of a root file system with nothing but busybox.
pub(crate) fn busybox_tar(path: &Path) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add =
        |name: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            header.set_mtime(1_600_000_000);
            header.set_uid(0);
            header.set_gid(0);
            match link {
                Some(target) => tar.append_link(&mut header, name, target).unwrap(),
                None => tar.append_data(&mut header, name, content).unwrap(),
            }
        };
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        add(directory, tar::EntryType::Directory, mode, b"", None);
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &fs::read("/bin/busybox").unwrap(), None);
    for applet in APPLETS {
        add(&format!("bin/{applet}"), tar::EntryType::Link, 0o755, b"", Some("bin/busybox"));
    }
    let passwd = b"root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/tmp:/bin/sh\n";
    add("etc/passwd", tar::EntryType::Regular, 0o644, passwd, None);
    add(
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\nalice:x:1001:\nextra:x:1002:alice\n",
        None,
    );
    tar.finish().unwrap();
}

impl World {
    pub(crate) async fn new() -> World {
        // Deeper than the address of a socket can be long.
        let deep = "-".repeat(100);
        let dir = tempfile::Builder::new().prefix("runtime-test-").suffix(&deep).tempdir().unwrap();
        let images = Arc::new(Images::open(&dir.path().join("images")).unwrap());
        let tar = dir.path().join("busybox.tar");
        busybox_tar(&tar);
        let image_id = images.import(&tar, Some("busybox")).await.unwrap()[0].id.clone();
        let cgroup =
            format!("abide-test/{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let runtime = World::open(dir.path(), &images, &cgroup);
        World { dir, cgroup, images, runtime, image_id }
    }

    /// A runtime over the same state: a successor.
    pub(crate) fn open(dir: &Path, images: &Arc<Images>, cgroup: &str) -> EmbeddedRuntime {
        EmbeddedRuntime::new(Config {
            state_dir: dir.join("state"),
            images: images.clone(),
            cgroup_parent: cgroup.to_owned(),
            shim: Shim { executable: SHIM.into(), arguments: Vec::new() },
            ephemeral: false,
        })
        .unwrap()
    }

    pub(crate) async fn sandbox(&self, id: &str) {
        let config =
            SandboxConfig { id: id.into(), hostname: id.into(), ..SandboxConfig::default() };
        self.runtime.run_pod_sandbox(&config).await.unwrap();
    }

    pub(crate) fn config(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: name.into(),
            image_id: self.image_id.clone(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: self.log(name),
            ..ContainerConfig::default()
        }
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(name).join("0.log")
    }

    pub(crate) async fn start(&self, sandbox: &str, config: &ContainerConfig) -> String {
        let id = self.runtime.create_container(sandbox, config).await.unwrap();
        self.runtime.start_container(sandbox, &id).await.unwrap();
        id
    }

    /// Runs a script to its end: its exit state and its log without times.
    pub(crate) async fn run(
        &self,
        sandbox: &str,
        config: &ContainerConfig,
    ) -> (ContainerState, String) {
        let id = self.start(sandbox, config).await;
        let state = ended(&self.runtime, sandbox, &id).await;
        (state, log_text(&config.log_path))
    }

    /// Checks that nothing is left of anything.
    pub(crate) async fn finish(self) {
        sweep(&self.runtime).await;
        self.check_nothing_is_left();
    }

    fn check_nothing_is_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.dir.path().to_str().unwrap();
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(path)).collect();
        assert_eq!(left, Vec::<&str>::new(), "mounts are left");
        assert_eq!(
            fs::read_dir(self.dir.path().join("state/sandboxes")).unwrap().count(),
            0,
            "state is left"
        );
        assert_eq!(
            fs::read_dir(self.dir.path().join("images/pins")).unwrap().count(),
            0,
            "pins are left"
        );
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let group = controller.unwrap().path().join(&self.cgroup);
            assert!(!group.exists(), "{} is left", group.display());
        }
        for process in fs::read_dir("/proc").unwrap() {
            let line = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains(path), "a process is left: {line}");
        }
    }
}

async fn sweep(runtime: &EmbeddedRuntime) {
    for sandbox in runtime.list().await.unwrap() {
        runtime.remove_pod_sandbox(&sandbox.config.id).await.unwrap();
    }
    runtime.cleanup().await.unwrap();
}

impl Drop for World {
    /// A test that failed leaves nothing behind, either.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let swept = std::thread::scope(|scope| {
                let sweeping = scope.spawn(|| {
                    let tokio =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    tokio.block_on(async {
                        sweep(&World::open(self.dir.path(), &self.images, &self.cgroup)).await
                    });
                });
                sweeping.join()
            });
            if swept.is_err() {
                eprintln!("{} could not be swept", self.dir.path().display());
            }
        }
        // Shared by all tests: whoever is last succeeds.
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(Result::ok) {
            let _ = fs::remove_dir(controller.path().join("abide-test"));
        }
        let _ = fs::remove_dir("/sys/fs/cgroup/abide-test");
    }
}

/// Waits for a container's end, by its events and the truth.
pub(crate) async fn ended(runtime: &EmbeddedRuntime, sandbox: &str, id: &str) -> ContainerState {
    use futures::StreamExt;
    let mut events = runtime.events();
    loop {
        let status = runtime.status(sandbox).await.unwrap();
        let container = status.containers.into_iter().find(|container| container.id == id).unwrap();
        if matches!(container.state, ContainerState::Exited { .. }) {
            return container.state;
        }
        tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("an event comes");
    }
}

pub(crate) fn exit_code(state: &ContainerState) -> i32 {
    match state {
        ContainerState::Exited { exit_code, .. } => *exit_code,
        other => panic!("{other:?} is no exit"),
    }
}

/// A CRI log: each line without its time.
pub(crate) fn log_text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned() + "\n").collect()
}

pub(crate) async fn exec(
    runtime: &EmbeddedRuntime,
    sandbox: &str,
    id: &str,
    script: &str,
) -> (i32, String, String) {
    let command = vec!["sh".into(), "-c".into(), script.into()];
    let io =
        runtime.exec(sandbox, id, ExecRequest { command, ..ExecRequest::default() }).await.unwrap();
    collect(io).await.unwrap()
}

pub(crate) async fn collect(mut io: ExecIo) -> Result<(i32, String, String), RuntimeError> {
    drop(io.stdin.take());
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let mut error_stream = io.stderr.take();
    let errors = async {
        if let Some(stream) = &mut error_stream {
            stream.read_to_string(&mut stderr).await.unwrap();
        }
    };
    let (read, ()) = tokio::join!(io.stdout.read_to_string(&mut stdout), errors);
    read.unwrap();
    let code = io.exit.await?;
    Ok((code, stdout, stderr))
}

/// Writes a file for a test.
pub(crate) fn write(path: &Path, text: &str) {
    fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}
