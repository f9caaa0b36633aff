//! `cargo xtask demo`: PostgreSQL with streaming replicas on real containers, step by step, with the kubectl line behind
//! each step.

mod view;

use crate::{cargo, images, root, step, system, target};
use anyhow::{Context, Result, bail, ensure};
use std::io::IsTerminal;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use view::View;

const IMAGES: &[&str] = &["postgres:15"];

/// How long a step may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Builds abide and the images, and runs the demo in a throw-away cluster.
pub(crate) fn run(debug: bool) -> Result<()> {
    system::need_root()?;
    system::install()?;
    // Before the build, which may put a new file in this one's place.
    let me = std::env::current_exe().context("find the program's own file")?;
    let profile = if debug { "debug" } else { "release" };
    // Without optimisation the same build as that of the tests.
    let mut build = cargo(&["build"]);
    build.args(if debug {
        ["--workspace", "--bins"].as_slice()
    } else {
        &["--release", "--package", "abide"]
    });
    eprintln!("building abide ({profile}; some minutes the first time)");
    step(&mut build)?;
    let archives = images::build(IMAGES)?;
    let abide = target().join(profile).join("abide");
    let mut command = Command::new(&abide);
    command.arg("run").arg("--image-store").arg(target().join("images/store"));
    for archive in &archives {
        command.arg("--image").arg(archive);
    }
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
    let story = Story { number: std::cell::Cell::new(0) };
    come_up(&story)?;
    replicate(&story)?;
    lose_pods(&story)?;
    update(&story)?;
    stay(&story)
}

fn come_up(story: &Story) -> Result<()> {
    story.title("A primary and two replicas: each starts when its predecessor is Ready");
    story.say("examples/postgres: ConfigMap, Secret, three Services, a disruption budget, a StatefulSet, a nightly backup");
    let view = View::start("app=postgres")?;
    let began = Instant::now();
    story.show("kubectl apply -f examples/postgres")?;
    story.until_ready(3)?;
    view.end()?;
    story.say(&format!(
        "All three Ready {:.1} s after `kubectl apply` began.",
        began.elapsed().as_secs_f64()
    ));
    story.title("Each has a name, an address and a disk");
    story.show("kubectl get statefulset,pods,pvc -l app=postgres")?;
    story.show("kubectl exec postgres-1 -- getent ahostsv4 postgres-0.postgres-headless.default.svc.cluster.local")?;
    Ok(())
}

fn replicate(story: &Story) -> Result<()> {
    story.title("What is written on the primary is read on the replicas");
    story.until_streaming()?;
    story.show(STREAMING)?;
    story.show(&psql(0, "CREATE TABLE test (id SERIAL PRIMARY KEY, data TEXT)"))?;
    story.show(&psql(0, "INSERT INTO test (data) VALUES ('written on the primary')"))?;
    story.until_read(1)?;
    story.show(&psql(1, "SELECT * FROM test"))?;
    let refused =
        story.show_refused(&psql(2, "INSERT INTO test (data) VALUES ('on a replica')"))?;
    ensure!(refused.contains("read-only transaction"), "a replica took a write");
    Ok(())
}

fn lose_pods(story: &Story) -> Result<()> {
    story.title(
        "A replica is lost: its successor has its name and its disk, and goes on from there",
    );
    lose(story, 2)?;
    story.show("kubectl logs postgres-2 -c prepare")?;
    story.title("The primary is lost: the data are still there, and the replicas find it again");
    lose(story, 0)?;
    story.until_read(0)?;
    story.show(&psql(0, "SELECT * FROM test"))?;
    story.until_streaming()?;
    story.show(STREAMING).map(drop)
}

fn lose(story: &Story, ordinal: u32) -> Result<()> {
    let view = View::start("app=postgres")?;
    let began = Instant::now();
    story.show(&format!("kubectl delete pod postgres-{ordinal}"))?;
    story.until_ready(3)?;
    view.end()?;
    story.say(&format!(
        "Ready again {:.1} s after `kubectl delete` began (PostgreSQL ends gracefully first).",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn update(story: &Story) -> Result<()> {
    story.title("A rolling update: the replicas first, the primary last, one at a time");
    let view = View::start("app=postgres")?;
    story.show("kubectl set env statefulset/postgres UPDATED=yes")?;
    story.run("kubectl rollout status statefulset/postgres --timeout=120s")?;
    story.until_ready(3)?;
    view.end()?;
    story.show("kubectl rollout history statefulset/postgres")?;
    story.title("Scaled down in reverse order; the disks stay");
    let view = View::start("app=postgres")?;
    story.show("kubectl scale statefulset postgres --replicas=1")?;
    story.until_ready(1)?;
    view.end()?;
    story.show("kubectl get pods,pvc -l app=postgres")?;
    story.until_read(0)?;
    story.show(&psql(0, "SELECT * FROM test")).map(drop)
}

/// Who sits at a terminal may go on with the cluster.
fn stay(story: &Story) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    story.title("The cluster is yours");
    let kubeconfig = std::env::var("KUBECONFIG").unwrap_or_default();
    story.say(&format!("KUBECONFIG={kubeconfig} is set in this shell; the cluster ends with it."));
    story.say("Try: kubectl get pods   kubectl scale sts postgres --replicas=5   kubectl describe sts postgres   exit");
    let mut shell = Command::new("bash");
    shell.current_dir(root()).env("PS1", "(abide) \\w # ").args(["--norc", "-i"]);
    shell.status().context("start a shell").map(drop)
}

const STREAMING: &str = "kubectl exec postgres-0 -- psql -U postgres -c \"SELECT application_name, client_addr, state FROM pg_stat_replication ORDER BY 1\"";

fn psql(ordinal: u32, query: &str) -> String {
    format!("kubectl exec postgres-{ordinal} -- psql -U postgres -c \"{query}\"")
}

struct Story {
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

    fn try_run(&self, line: &str) -> Result<Output> {
        let mut bash = Command::new("bash");
        bash.args(["-c", line]).current_dir(root()).stdin(Stdio::null());
        bash.output().with_context(|| format!("run {line}"))
    }

    /// Runs a line, and shows only that.
    fn run(&self, line: &str) -> Result<()> {
        view::print(&format!("\x1b[1m$ {line}\x1b[0m"));
        let output = self.try_run(line)?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Shows a line, runs it, shows what it prints.
    fn show(&self, line: &str) -> Result<String> {
        let output = self.shown(line)?;
        ensure!(output.status.success(), "{line}: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same for a line that must fail; returns its complaint.
    fn show_refused(&self, line: &str) -> Result<String> {
        let output = self.shown(line)?;
        ensure!(!output.status.success(), "{line}: succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn shown(&self, line: &str) -> Result<Output> {
        view::print(&format!("\x1b[1m$ {line}\x1b[0m"));
        let output = self.try_run(line)?;
        for bytes in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(bytes).lines() {
                view::print(&format!("  {line}"));
            }
        }
        Ok(output)
    }

    fn until(&self, line: &str, wanted: impl Fn(&str) -> bool, what: &str) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let output = self.try_run(line)?;
            if wanted(&String::from_utf8_lossy(&output.stdout)) {
                return Ok(());
            }
        }
        bail!("{what} not within {} s", PATIENCE.as_secs())
    }

    fn until_ready(&self, replicas: u32) -> Result<()> {
        let wanted = format!("{replicas} {replicas} {replicas}");
        let line = "kubectl get statefulset postgres -o jsonpath='{.status.readyReplicas} {.status.replicas} {.status.availableReplicas}'";
        self.until(line, |text| text == wanted, &format!("{replicas} of {replicas} Ready"))
    }

    /// Waits until the row is there: a replica follows its primary after a moment.
    fn until_read(&self, ordinal: u32) -> Result<()> {
        let query = psql(ordinal, "SELECT data FROM test");
        self.until(&query, |text| text.contains("written on the primary"), "the row is read")
    }

    fn until_streaming(&self) -> Result<()> {
        let both = |text: &str| text.matches("streaming").count() == 2;
        self.until(STREAMING, both, "two replicas streaming")
    }
}
