//! `cargo xtask demo`: a StatefulSet on real containers, step by step, with the kubectl line behind each step.

use crate::{cargo, images, step, system, target};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const IMAGES: &[&str] = &["nginx:1.12", "nginx:1.13"];

/// How long a step may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is shown, as a user would write it.
const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: nginx
spec:
  clusterIP: None          # headless: each pod gets a name of its own
  selector: {app: nginx}
  ports:
  - {name: web, port: 80}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: nginx
  replicas: 3
  selector:
    matchLabels: {app: nginx}
  template:
    metadata:
      labels: {app: nginx}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: nginx
        image: nginx:1.12
        ports:
        - {name: web, containerPort: 80}
        readinessProbe:
          httpGet: {path: /, port: web}
        volumeMounts:
        - {name: www, mountPath: /data}
  volumeClaimTemplates:    # each pod gets a disk of its own
  - metadata:
      name: www
    spec:
      accessModes: [ReadWriteOnce]
      resources:
        requests: {storage: 1Gi}
";

/// Builds abide and the images, and runs the demo in a throw-away cluster.
pub(crate) fn run(debug: bool) -> Result<()> {
    system::need_root()?;
    system::install()?;
    let profile = if debug { "debug" } else { "release" };
    let mut build = cargo(&["build", "--package", "abide"]);
    if !debug {
        build.arg("--release");
    }
    eprintln!("building abide ({profile}; some minutes the first time)");
    step(&mut build)?;
    let archives = images::build(IMAGES)?;
    let abide = target().join(profile).join("abide");
    let mut command = Command::new(&abide);
    command.arg("run").arg("--image-store").arg(target().join("images/store"));
    for archive in &archives {
        command.arg("--image").arg(archive);
    }
    let me = std::env::current_exe().context("find the program's own file")?;
    eprintln!("\nA throw-away cluster, in namespaces of its own:  abide run -- …\n");
    let began = Instant::now();
    let status = command
        .arg("--")
        .arg(me)
        .arg("demo-inside")
        .env("PATH", system::path_with_kubectl()?)
        .status()
        .with_context(|| format!("start {}", abide.display()))?;
    ensure!(status.success(), "the demo ended with {status}");
    eprintln!(
        "\nThe cluster is gone, and with it every process, mount and address ({:.1} s in all).",
        began.elapsed().as_secs_f64()
    );
    eprintln!("Your own:  {} run -- bash     (kubectl is ready to use inside)", abide.display());
    Ok(())
}

/// The demo itself, as the command of the throw-away cluster.
pub(crate) fn inside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("web.yaml"), MANIFEST)?;
    let story = Story { folder, number: std::cell::Cell::new(0) };

    story.title("A StatefulSet of three: each pod starts when its predecessor is Ready");
    story.show("cat web.yaml")?;
    let watch = story.watch("kubectl get pods -l app=nginx --watch")?;
    let began = Instant::now();
    story.show("kubectl apply -f web.yaml")?;
    story.until_ready(3)?;
    let took = began.elapsed();
    watch.end()?;
    story.say(&format!("All three Ready {} ms after `kubectl apply` began.", took.as_millis()));

    story.title("Each has a name, an address and a disk");
    story.show("kubectl get statefulset,pods,pvc -o wide")?;

    story.title("The names resolve: all of them, and each alone");
    story.show("kubectl exec web-0 -- getent ahostsv4 nginx")?;
    story.show("kubectl exec web-0 -- curl -sI web-2.nginx.default.svc.cluster.local")?;

    story.title("A pod is replaced; its name and its data stay");
    story.show("kubectl exec web-1 -- sh -c 'echo written by the first web-1 > /data/note'")?;
    story.show("kubectl get pod web-1 -o jsonpath='{.metadata.uid}  {.status.podIP}{\"\\n\"}'")?;
    let began = Instant::now();
    story.show("kubectl delete pod web-1")?;
    story.until_ready(3)?;
    story.say(&format!(
        "Its successor is Ready {} ms after `kubectl delete` began (nginx ends gracefully first).",
        began.elapsed().as_millis()
    ));
    story.show("kubectl get pod web-1 -o jsonpath='{.metadata.uid}  {.status.podIP}{\"\\n\"}'")?;
    let note = story.show("kubectl exec web-1 -- cat /data/note")?;
    ensure!(note == "written by the first web-1\n", "the data is not there: {note}");
    story.show("kubectl exec web-0 -- curl -sI web-1.nginx.default.svc.cluster.local")?;

    story.title("A rolling update: from the highest ordinal down, one at a time");
    let watch = story.watch("kubectl get pods -l app=nginx --watch-only -o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image,READY:.status.containerStatuses[0].ready,DELETED:.metadata.deletionTimestamp")?;
    story.show("kubectl set image statefulset/web nginx=nginx:1.13")?;
    story.show("kubectl rollout status statefulset/web")?;
    story.until_ready(3)?;
    watch.end()?;
    story.show(
        "kubectl get pods -o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image",
    )?;

    story.title("Scaled down in reverse order; the disks stay");
    story.show("kubectl scale statefulset web --replicas=1")?;
    story.until_ready(1)?;
    story.show("kubectl get pods,pvc")?;
    Ok(())
}

struct Story {
    folder: tempfile::TempDir,
    number: std::cell::Cell<u32>,
}

impl Story {
    fn title(&self, text: &str) {
        self.number.set(self.number.get() + 1);
        eprintln!("\n\x1b[1;36m{}. {text}\x1b[0m", self.number.get());
    }

    fn say(&self, text: &str) {
        eprintln!("\x1b[32m   {text}\x1b[0m");
    }

    /// Shows a line, runs it, shows what it prints.
    fn show(&self, line: &str) -> Result<String> {
        eprintln!("\x1b[1m$ {line}\x1b[0m");
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut out = std::io::stderr().lock();
        for line in text.lines().chain(String::from_utf8_lossy(&output.stderr).lines()) {
            writeln!(out, "  {line}")?;
        }
        ensure!(output.status.success(), "{line}: {}", output.status);
        Ok(text)
    }

    /// Starts a watch whose lines appear as they come.
    fn watch(&self, line: &str) -> Result<Watch> {
        eprintln!("\x1b[1m$ {line} &\x1b[0m");
        let mut child = Command::new("bash")
            .args(["-c", &format!("exec {line}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("the watch's output")?;
        let lines = std::thread::spawn(move || {
            for line in
                std::io::BufRead::lines(std::io::BufReader::new(output)).map_while(Result::ok)
            {
                eprintln!("  \x1b[33m{line}\x1b[0m");
            }
        });
        Ok(Watch { child, lines })
    }

    fn until_ready(&self, replicas: u32) -> Result<()> {
        let wanted = format!("{replicas} {replicas} {replicas}");
        let line = "kubectl get statefulset web -o jsonpath='{.status.readyReplicas} {.status.replicas} {.status.availableReplicas}'";
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let output = Command::new("bash").args(["-c", line]).output()?;
            if String::from_utf8_lossy(&output.stdout) == wanted {
                return Ok(());
            }
        }
        bail!("the set did not become {replicas}/{replicas} within {} s", PATIENCE.as_secs())
    }
}

struct Watch {
    child: std::process::Child,
    lines: std::thread::JoinHandle<()>,
}

impl Watch {
    fn end(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        ensure!(self.lines.join().is_ok(), "the watch's reader failed");
        Ok(())
    }
}
