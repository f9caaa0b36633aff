//! `cargo xtask bench`: our side of the performance table, several runs each, median and range. Timings are never
//! asserted; upstream's figures, taken on a machine with two cores, stand beside for orientation.

use crate::{cargo, images, step, system, target};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Stdio};

/// A row: what is measured by a script that prints one number.
struct Row {
    name: &'static str,
    unit: &'static str,
    upstream: &'static str,
    target: &'static str,
    /// Flags of `abide run`.
    flags: &'static [&'static str],
    /// Runs inside the cluster and prints the figure.
    script: &'static str,
}

const WEB: &str = r#"cat > $ABIDE_DATA_DIR/web.yaml <<'END'
apiVersion: v1
kind: Service
metadata: {name: nginx}
spec: {clusterIP: None, selector: {app: nginx}, ports: [{name: web, port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: nginx
  replicas: REPLICAS
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: busybox, command: [sh, -c, 'trap exit TERM; sleep 1000000 & wait'], volumeMounts: [{name: www, mountPath: /data}]}]
  volumeClaimTemplates:
  - metadata: {name: www}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
END
now() { date +%s%3N; }
S=$ABIDE_DATA_DIR/../stamped
# Everything that a watch of a kind (or of one object of it) shows, each line with the time (in microseconds) at which it came.
stamped() { kill $T 2> /dev/null; kubectl get $1 --watch-only --output-watch-events ${2:+--field-selector=metadata.name=$2} | while read -r line; do echo "${EPOCHREALTIME/[.,]/} $line"; done > $S & T=$!; sleep 1; }
# Milliseconds from the first line like $1 until the first like $2 after the first like $3.
between() { awk -v from="$1" -v to="$2" -v after="${3:-$1}" '!a && $0 ~ from {a=$1} $0 ~ after {s=1} s && a && $0 ~ to {print ($1 - a) / 1000; exit}' $S; }
# Makes so many sets of so many simulated replicas, by one curl (kubectl makes 30 a second), and waits until all are Ready.
sets() { stamped sts; local place=$ABIDE_DATA_DIR/../sets; mkdir $place
  local given="kubectl config view --raw -o jsonpath={.clusters[0].cluster.server}{'\n'}{.clusters[0].cluster.certificate-authority-data}{'\n'}{.users[0].user.client-certificate-data}{'\n'}{.users[0].user.client-key-data}"
  { read server; read ca; read cert; read key; } < <($given; echo)
  base64 -d <<< $ca > $place/ca; base64 -d <<< $cert > $place/cert; base64 -d <<< $key > $place/key
  for i in $(seq $1); do
    echo '{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "set-'$i'"}, "spec": {"serviceName": "s", "replicas": '$2', "podManagementPolicy": "'$([ $2 -gt 5 ] && echo Parallel || echo OrderedReady)'", "selector": {"matchLabels": {"app": "set-'$i'"}}, "template": {"metadata": {"labels": {"app": "set-'$i'"}}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}}}' > $place/$i
    printf '%s\n' next "url = $server/apis/apps/v1/namespaces/default/statefulsets" "json = @$place/$i" "cacert = $place/ca" "cert = $place/cert" "key = $place/key" "output = /dev/null" http2 fail
  done | tail -n +2 > $place/curl
  C=$(cpu); curl --silent --show-error --parallel --parallel-max 16 --config $place/curl >&2
  until [ $(grep -c " $2/$2 " $S) -ge $1 ]; do sleep 0.2; done; }
# Milliseconds from the first set made to the last one all Ready.
all_ready() { awk '!a {a=$1} $4 == "'$1/$1'" {z=$1} END {print (z - a) / 1000}' $S; }
cpu() { awk '{print ($14 + $15) / 100}' /proc/$(cat $ABIDE_DATA_DIR/server.pid)/stat; }
memory() { awk '/^Rss:/ {print int($2 / 1024)}' /proc/$(cat $ABIDE_DATA_DIR/server.pid)/smaps_rollup; }
ready() { until [ "$(kubectl get sts web -o jsonpath='{.status.readyReplicas}')" = $1 ]; do :; done; }
"#;

/// `W=` makes the helpers known; the value is not used.
const HUNDRED_SETS: &str = "W=0; sets 100 5; all_ready 5";
const HUNDRED_SETS_CPU: &str = "W=0; sets 100 5; echo $C $(cpu) | awk '{print $2 - $1}'";
const MANY_SETS: &str = "W=0; sets 1000 5; all_ready 5";
const MANY_SETS_CPU: &str = "W=0; sets 1000 5; echo $C $(cpu) | awk '{print $2 - $1}'";
const TEN_THOUSAND_MEMORY: &str = "W=0; sets 100 100; memory";
const TEN_THOUSAND_DELETE: &str = "W=0; sets 100 100; stamped pods set-7-42; kubectl delete pod set-7-42 --wait=false >&2; until grep -q ADDED $S; do sleep 0.1; done; between DELETED ADDED";

const ROWS: &[Row] = &[
    Row {
        name: "start until the API is ready, empty store",
        unit: "ms",
        upstream: "3300",
        target: "100",
        flags: &[],
        script: "grep -o 'ready after [0-9]* ms' $ABIDE_DATA_DIR/../server.log | head -1 | grep -o '[0-9]*'",
    },
    Row {
        name: "kubectl apply, 3 ordered replicas with claims, until all Ready",
        unit: "ms",
        upstream: "2800",
        target: "250",
        flags: &["busybox"],
        script: "W=3; a=$(now); kubectl apply -f $ABIDE_DATA_DIR/web.yaml >&2; kubectl wait --for=jsonpath='{.status.readyReplicas}'=3 sts/web --timeout=60s >&2; echo $(($(now) - a))",
    },
    Row {
        name: "the same, 10 replicas",
        unit: "ms",
        upstream: "8000",
        target: "600",
        flags: &["busybox"],
        script: "W=10; a=$(now); kubectl apply -f $ABIDE_DATA_DIR/web.yaml >&2; kubectl wait --for=jsonpath='{.status.readyReplicas}'=10 sts/web --timeout=60s >&2; echo $(($(now) - a))",
    },
    Row {
        name: "one pod deleted: from its end until its successor is Ready",
        unit: "ms",
        upstream: "720",
        target: "80",
        flags: &["busybox"],
        script: "W=3; kubectl apply -f $ABIDE_DATA_DIR/web.yaml >&2; ready 3; stamped pods web-1; kubectl delete pod web-1 --wait=false >&2; \
                 until sed -n '/ADDED.*web-1/,$p' $S | grep -q 'MODIFIED.*web-1 .*1/1'; do sleep 0.1; done; \
                 between 'DELETED.*web-1 ' 'MODIFIED.*web-1 .*1/1' 'ADDED.*web-1 '",
    },
    Row {
        name: "memory when idle, control plane and node",
        unit: "MiB",
        upstream: "640",
        target: "30",
        flags: &[],
        script: "sleep 2; awk '/^Rss:/ {print int($2 / 1024)}' /proc/$(cat $ABIDE_DATA_DIR/server.pid)/smaps_rollup",
    },
    Row {
        name: "100 StatefulSets x 5 ordered replicas, simulated nodes, until all Ready",
        unit: "ms",
        upstream: "70000",
        target: "1000",
        flags: &["--simulated-nodes=10"],
        script: HUNDRED_SETS,
    },
    Row {
        name: "the same: the server's CPU seconds",
        unit: "s",
        upstream: "17",
        target: "1",
        flags: &["--simulated-nodes=10"],
        script: HUNDRED_SETS_CPU,
    },
    Row {
        name: "1,000 StatefulSets x 5, simulated nodes, from the first to the last Ready",
        unit: "ms",
        upstream: "",
        target: "",
        flags: &["--simulated-nodes=10"],
        script: MANY_SETS,
    },
    Row {
        name: "the 1,000 StatefulSets: the server's CPU seconds",
        unit: "s",
        upstream: "",
        target: "",
        flags: &["--simulated-nodes=10"],
        script: MANY_SETS_CPU,
    },
    Row {
        name: "10,000 pods: the server's memory",
        unit: "MiB",
        upstream: "",
        target: "",
        flags: &["--simulated-nodes=100"],
        script: TEN_THOUSAND_MEMORY,
    },
    Row {
        name: "10,000 pods: from a pod's end until its successor exists",
        unit: "ms",
        upstream: "",
        target: "20",
        flags: &["--simulated-nodes=100"],
        script: TEN_THOUSAND_DELETE,
    },
];

/// Measures the rows whose names contain `filter`: of a release build, or of the binary that `ABIDE_BINARY` names.
pub(crate) fn run(filter: Option<&str>, runs: usize, debug: bool) -> Result<()> {
    system::need_root()?;
    system::install()?;
    images::build(&["busybox"])?;
    let abide = if let Some(path) = std::env::var_os("ABIDE_BINARY") {
        path.into()
    } else if debug {
        step(&mut cargo(&["build", "--workspace"]))?;
        target().join("debug/abide")
    } else {
        step(&mut cargo(&["build", "--release", "--package", "abide"]))?;
        target().join("release/abide")
    };
    eprintln!(
        "\n{:70} {:>8} {:>8} {:>8} {:5} {:>9} {:>7}",
        "", "median", "min", "max", "", "upstream", "target"
    );
    for row in ROWS.iter().filter(|row| filter.is_none_or(|words| row.name.contains(words))) {
        let mut figures =
            (0..runs.max(1)).map(|_| measure(&abide, row)).collect::<Result<Vec<f64>>>()?;
        figures.sort_by(f64::total_cmp);
        print(row.name, &figures, row.unit, row.upstream, row.target);
    }
    if filter.is_none_or(|words| "executable".contains(words)) {
        let size = abide.metadata()?.len() as f64 / 1_048_576.0;
        print("executable", &[size], "MiB", "430", "25");
    }
    Ok(())
}

fn print(name: &str, figures: &[f64], unit: &str, upstream: &str, target: &str) {
    let (median, first, last) =
        (figures[figures.len() / 2], figures[0], figures[figures.len() - 1]);
    let digits = usize::from(unit == "s");
    eprintln!(
        "{name:70} {median:8.digits$} {first:8.digits$} {last:8.digits$} {unit:5} {upstream:>9} {target:>7}"
    );
}

fn measure(abide: &Path, row: &Row) -> Result<f64> {
    let replicas = row.script.strip_prefix("W=").and_then(|rest| rest.split(';').next());
    let script = match replicas {
        Some(replicas) => format!("{}{}", WEB.replace("REPLICAS", replicas), row.script),
        None => row.script.to_owned(),
    };
    let mut command = Command::new(abide);
    command.arg("run").arg("--image-store").arg(target().join("images/store"));
    for flag in row.flags {
        if flag.starts_with("--") {
            command.arg(flag)
        } else {
            command.arg("--image").arg(images::archive(flag))
        };
    }
    let output = command
        .args(["--", "bash", "-c", &script])
        .env("PATH", system::path_with_kubectl()?)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("measure {}", row.name))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().lines().last().unwrap_or_default().parse().with_context(|| {
        format!("{}: the script printed {text:?} and ended with {}", row.name, output.status)
    })
}
