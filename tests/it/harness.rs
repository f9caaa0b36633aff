//! Runs a story inside `abide run`: the test binary starts itself again as the command of a throw-away cluster.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test says that it does not come. Generous: two busy cores.
const PATIENCE: Duration = Duration::from_secs(90);

/// Declares a test whose body runs inside a throw-away cluster that has the named images.
macro_rules! story {
    ($(#[$doc:meta])* fn $name:ident($k:ident, $images:expr) $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            crate::harness::run(concat!(module_path!(), "::", stringify!($name)), &$images, |$k: &crate::harness::Cluster| $body);
        }
    };
}
pub(crate) use story;

/// Runs `body` inside a throw-away cluster: outside, starts `abide run` with this same test as its command.
pub(crate) fn run(test: &str, images: &[&str], body: impl FnOnce(&Cluster)) {
    if std::env::var_os("ABIDE_E2E_INSIDE").is_some() {
        body(&Cluster { folder: tempfile::tempdir().unwrap() });
        return;
    }
    let name = test.split_once("::").map_or(test, |(_, rest)| rest);
    let log = tempfile::NamedTempFile::new().unwrap();
    let output = abide_run(images)
        .arg("--log")
        .arg(log.path())
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("ABIDE_E2E_INSIDE", "1")
        .output()
        .unwrap();
    if !output.status.success() {
        let log = std::fs::read_to_string(log.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        panic!(
            "{}\n{}\n{}\n--- the server's log ends with\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            lines[lines.len().saturating_sub(60)..].join("\n")
        );
    }
}

/// `abide run` with images and the image store that all tests share.
pub(crate) fn abide_run(images: &[&str]) -> Command {
    let mut command = Command::new(abide());
    command.arg("run").arg("--image-store").arg(images_folder().join("store"));
    for image in images {
        command.arg("--image").arg(image_archive(image));
    }
    command
}

/// The binary under test.
pub(crate) fn abide() -> PathBuf {
    if let Some(path) = std::env::var_os("ABIDE_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("abide")
}

/// Where `cargo xtask images` keeps its archives.
fn images_folder() -> PathBuf {
    if let Some(path) = std::env::var_os("ABIDE_IMAGES") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).and_then(Path::parent).unwrap().join("images")
}

/// The archive of an image.
pub(crate) fn image_archive(name: &str) -> PathBuf {
    images_folder().join(format!("{}.tar", name.replace(['/', ':'], "_")))
}

/// A cluster, driven as its user drives it: by lines of shell.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Runs a line of shell; whatever it does.
    pub(crate) fn try_sh(&self, line: &str) -> Output {
        Command::new("bash")
            .args(["-c", line])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a line of shell, which must succeed, and returns what it printed.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        assert!(
            output.status.success(),
            "$ {line}\n{}{}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            output.status,
            self.overview()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a line of shell, which must fail, and returns what it complained.
    pub(crate) fn sh_fails(&self, line: &str) -> String {
        let output = self.try_sh(line);
        assert!(
            !output.status.success(),
            "$ {line}\nsucceeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs a line as a user at a terminal does.
    pub(crate) fn at_terminal(&self, line: &str) -> String {
        let mut child = Command::new("script")
            .args(["-qec", line, "/dev/null"])
            .current_dir(self.folder.path())
            // Open for as long as the program runs: the end of input would be typed into the terminal.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(input);
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert!(output.status.success(), "$ {line}\n{text}{}\n{}", output.status, self.overview());
        text
    }

    /// Repeats a line of shell until what it prints satisfies `wanted`; returns that.
    pub(crate) fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let output = self.try_sh(line);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && wanted(&text) {
                return text;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "$ {line}\ndid not come to what was wanted; at last:\n{text}{}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.overview()
            );
        }
    }

    /// Waits until a set has so many Ready pods and no others.
    pub(crate) fn until_ready(&self, set: &str, replicas: u32) {
        self.until(
            &format!("kubectl get statefulset {set} -o jsonpath='{{.status.readyReplicas}}/{{.status.replicas}}/{{.spec.replicas}}/{{.status.observedGeneration}}={{.metadata.generation}}'"),
            |text| {
                let Some((counts, generation)) = text.rsplit_once('/') else { return false };
                let (observed, wanted) = generation.split_once('=').unwrap_or(("", "-"));
                let counts = if replicas == 0 { counts.replace("//", "/0/").replacen('/', "0/", usize::from(counts.starts_with('/'))) } else { counts.to_owned() };
                observed == wanted && counts == format!("{replicas}/{replicas}/{replicas}")
            },
        );
    }

    /// Writes a file into the story's folder.
    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.file("manifest.yaml", manifest);
        self.sh("kubectl apply -f manifest.yaml")
    }

    /// A field of an object.
    pub(crate) fn field(&self, object: &str, path: &str) -> String {
        self.sh(&format!("kubectl get {object} -o jsonpath='{{{path}}}'"))
    }

    /// Starts a line of shell beside the story; what it prints is read when it is ended.
    pub(crate) fn beside(&self, line: &str) -> Beside {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        let child = Command::new("bash")
            .args(["-c", &format!("exec {line}")])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(file.reopen().unwrap())
            .stderr(file.reopen().unwrap())
            .spawn()
            .unwrap();
        Beside { child, file }
    }

    /// The port of this machine on which a `kubectl port-forward` listens, once it does.
    pub(crate) fn forwarded(&self, forward: &Beside) -> u16 {
        let port = self.until(&format!("cat {}", forward.file.path().display()), |text| {
            text.contains("Forwarding from 127.0.0.1:")
        });
        let port = port.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        port.unwrap().parse().unwrap()
    }

    /// For messages of failed tests.
    fn overview(&self) -> String {
        let output = self.try_sh("kubectl get sts,pods,pvc,pv,svc -o wide; kubectl get events | tail -n 15; kubectl get pods -o yaml | grep -A12 ' status:' | tail -n 40");
        format!(
            "--- the cluster now\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }
}

/// A program that runs beside a story.
pub(crate) struct Beside {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Beside {
    /// What it has printed so far.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.file.path()).unwrap_or_default()
    }

    /// Waits until what it printed satisfies `wanted`, ends it, and returns what it printed.
    pub(crate) fn until(mut self, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let text = self.text();
            if wanted(&text) {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                return text;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "a program beside the story did not print what was wanted, only:\n{text}"
            );
            std::thread::yield_now();
            // One look at a file per turn of the scheduler would be a busy loop: `true` is a pause without a clock.
            Command::new("true").status().unwrap();
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            // Already ended programs need no more.
            let _ended = self.child.wait();
        }
    }
}

/// The index of the first line that contains all `words`.
pub(crate) fn line_of(text: &str, words: &[&str]) -> usize {
    text.lines()
        .position(|line| words.iter().all(|word| line.split_whitespace().any(|w| w == *word)))
        .unwrap_or_else(|| panic!("no line with {words:?} in\n{text}"))
}

/// Whether a pod is in this state: the first words of its line of `kubectl get pods`.
pub(crate) fn shows(text: &str, words: &[&str]) -> bool {
    text.lines().any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
}

/// A set of nginx pods with a headless Service `nginx`, as tutorials have it.
pub(crate) fn web(replicas: u32, extra: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata:
  name: nginx
  labels: {{app: nginx}}
spec:
  clusterIP: None
  selector: {{app: nginx}}
  ports:
  - {{name: web, port: 80}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: nginx
  replicas: {replicas}
{extra}
  selector:
    matchLabels: {{app: nginx}}
  template:
    metadata:
      labels: {{app: nginx}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: nginx
        image: nginx:1.12
        ports:
        - {{name: web, containerPort: 80}}
        readinessProbe:
          httpGet: {{path: /, port: web}}
          periodSeconds: 1
        volumeMounts:
        - {{name: www, mountPath: /usr/share/nginx/html/data}}
  volumeClaimTemplates:
  - metadata:
      name: www
    spec:
      accessModes: [ReadWriteOnce]
      resources:
        requests:
          storage: 1Gi
"#
    )
}
