//! Many throw-away clusters beside each other leave nothing behind.

use crate::harness::{abide_run, web};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

/// What a machine has that a cluster could leave: processes of abide, mounts, network interfaces, cgroups, files.
fn traces() -> BTreeSet<String> {
    let shell = "ps -eo args= | grep -E '^[^ ]*abide (run|server|shim|run-init|run-reaper)' | sed 's/^/process /'; \
        sed 's/^/mount /' /proc/self/mounts; ip -o link | awk '{print \"link \" $2}'; ip -o route | sed 's/^/route /'; \
        ls -d /tmp/abide-run-* 2>/dev/null; find /sys/fs/cgroup -type d -path '*/abide/abide-run-*' 2>/dev/null | sed 's/^/cgroup /'; \
        ip netns list | sed 's/^/netns /'; nft list tables 2>/dev/null | sed 's/^/nft /'; true";
    let output = Command::new("bash").args(["-c", shell]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What of a run's own traces is still there, by the names that it uses.
fn left_by(places: &[String]) -> Vec<String> {
    traces()
        .into_iter()
        .filter(|trace| places.iter().any(|place| trace.contains(place.as_str())))
        .collect()
}

/// The folder of a run, as its command sees it.
fn place_of(data_dir: &str) -> String {
    data_dir.split('/').find(|part| part.starts_with("abide-run-")).unwrap().to_owned()
}

fn script(number: u32) -> String {
    format!(
        "set -e\ncat > $ABIDE_DATA_DIR/web.yaml <<'END'\n{}\nEND\nkubectl apply -f $ABIDE_DATA_DIR/web.yaml >&2\n\
         kubectl create configmap mark --from-literal=number={number} >&2\n\
         until [ \"$(kubectl get sts web -o jsonpath='{{.status.readyReplicas}}')\" = 2 ]; do :; done\n\
         kubectl exec web-0 -- curl -s --max-time 5 web-1.nginx | grep -q Welcome\n\
         kubectl get configmap -A -o jsonpath='{{.items[*].data.number}}'; echo; echo $ABIDE_DATA_DIR\n",
        web(2, "")
    )
}

/// Twenty clusters, four at a time: each sees itself alone, and nothing stays.
#[test]
fn twenty_clusters_four_at_a_time_do_not_disturb_each_other() {
    let mut places = Vec::new();
    for round in 0..5 {
        let runs: Vec<_> = (0..4)
            .map(|slot| {
                let number = round * 4 + slot;
                let child = abide_run(&["nginx:1.12"])
                    .args(["--", "bash", "-c", &script(number)])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                (number, child)
            })
            .collect();
        for (number, child) in runs {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines();
            assert_eq!(lines.next(), Some(number.to_string().as_str()), "{text}");
            places.push(place_of(lines.next().unwrap()));
        }
    }
    assert_eq!(left_by(&places), Vec::<String>::new());
}

/// SIGKILL of `abide run`: everything goes with it.
#[test]
fn a_killed_run_leaves_nothing_behind() {
    let mut child = abide_run(&["nginx:1.12"])
        .args(["--", "bash", "-c", &format!("{}\ncat", script(99))])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "99");
    let place = place_of(&lines.next().unwrap().unwrap());
    let before = left_by(std::slice::from_ref(&place));
    assert!(before.iter().any(|trace| trace.starts_with("process ")), "{before:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    // The command held the other end of its output: it closes when the last process of the cluster is gone.
    assert!(lines.next().is_none());
    let began = std::time::Instant::now();
    while !left_by(std::slice::from_ref(&place)).is_empty() {
        assert!(began.elapsed().as_secs() < 30, "{:?}", left_by(&[place]));
    }
}

/// The exit status is the command's, its input and output are its own.
#[test]
fn a_run_passes_through_input_output_and_exit_status() {
    let mut child = abide_run(&[])
        .args(["--", "bash", "-c", "cat; echo complaint >&2; exit 42"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("complaint"));
}
