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
      containers: [{name: main, image: busybox, command: [sh, -c, 'trap exit TERM; while true; do sleep 0.02; done'], volumeMounts: [{name: www, mountPath: /data}]}]
  volumeClaimTemplates:
  - metadata: {name: www}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
END
now() { date +%s%3N; }
ready() { until [ "$(kubectl get sts web -o jsonpath='{.status.readyReplicas}')" = $1 ]; do :; done; }
"#;

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
        name: "one pod deleted (object seen gone) until its successor is Ready",
        unit: "ms",
        upstream: "720",
        target: "80",
        flags: &["busybox"],
        script: "W=3; kubectl apply -f $ABIDE_DATA_DIR/web.yaml >&2; ready 3; kubectl delete pod web-1 --wait=false >&2; \
                 kubectl wait --for=condition=ready=false pod/web-1 --timeout=5s >&2 2>/dev/null; ready 3; \
                 kubectl get pod web-1 -o json | python3 -c 'import json,sys,datetime as d; p=json.load(sys.stdin); t=lambda s: d.datetime.fromisoformat(s.replace(\"Z\",\"+00:00\")); \
                 c={c[\"type\"]:c for c in p[\"status\"][\"conditions\"]}; print(int((t(c[\"Ready\"][\"lastTransitionTime\"])-t(p[\"metadata\"][\"creationTimestamp\"])).total_seconds()*1000))'",
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
        script: r#"for i in $(seq 100); do cat <<END
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set-$i}
spec: {serviceName: s, replicas: 5, selector: {matchLabels: {app: set-$i}}, template: {metadata: {labels: {app: set-$i}}, spec: {containers: [{name: main, image: busybox}]}}}
---
END
done > $ABIDE_DATA_DIR/sets.yaml; kubectl create -f $ABIDE_DATA_DIR/sets.yaml >&2
until [ "$(kubectl get sts -o jsonpath='{.items[*].status.readyReplicas}' | tr ' ' '\n' | grep -c '^5$')" = 100 ]; do :; done
kubectl get pods -o json | python3 -c 'import json,sys,datetime as d; ps=json.load(sys.stdin)["items"]; t=lambda s: d.datetime.fromisoformat(s.replace("Z","+00:00")); r=[t(c["lastTransitionTime"]) for p in ps for c in p["status"]["conditions"] if c["type"]=="Ready"]; print(int((max(r)-min(t(p["metadata"]["creationTimestamp"]) for p in ps)).total_seconds()*1000))'"#,
    },
];

/// Measures the rows whose names contain `filter`.
pub(crate) fn run(filter: Option<&str>, runs: usize) -> Result<()> {
    system::need_root()?;
    system::install()?;
    images::build(&["busybox"])?;
    step(&mut cargo(&["build", "--release", "--package", "abide"]))?;
    let abide = target().join("release/abide");
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
    eprintln!("{name:70} {median:8.0} {first:8.0} {last:8.0} {unit:5} {upstream:>9} {target:>7}");
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
