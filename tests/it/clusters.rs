//! Many throw-away clusters beside each other leave nothing behind.

use crate::harness::{abide, abide_run, story, web};
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

/// Signals reach the command, and a command that is ended by one ends the run.
#[test]
fn a_run_ends_with_the_signal_that_its_user_sends() {
    let script = "sleep 1000 & kill $!; wait $!; echo $?; cat; kill -TERM $$";
    let mut child = abide_run(&[])
        .args(["--simulated-nodes", "1", "--", "bash", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "143");
    let pid = i32::try_from(child.id()).unwrap();
    Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let output =
        abide_run(&[]).args(["--simulated-nodes", "1", "--", "no-such-program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("start no-such-program: No such file")
    );
}

#[test]
fn simulated_nodes_run_a_hundred_pods_without_a_container() {
    let script = "kubectl create -f - >&2 <<END
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: big}
spec: {serviceName: big, replicas: 100, podManagementPolicy: Parallel, selector: {matchLabels: {app: big}}, template: {metadata: {labels: {app: big}}, spec: {containers: [{name: main, image: absent}]}}}
END
kubectl wait --for=jsonpath='{.status.readyReplicas}'=100 sts/big --timeout=80s >&2 && kubectl get nodes -o name | wc -l
kubectl annotate pod big-7 abide.dev/simulated-ready=false >&2 && kubectl wait --for=condition=Ready=false pod/big-7 >&2
kubectl wait --for=jsonpath='{.status.readyReplicas}'=99 sts/big --timeout=80s >&2
kubectl annotate pod big-7 abide.dev/simulated-ready=true --overwrite >&2 && kubectl wait --for=condition=Ready pod/big-7 >&2
kubectl annotate pod big-8 abide.dev/simulated-exit-code=1 >&2
kubectl wait --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=CrashLoopBackOff pod/big-8 --timeout=80s >&2";
    let output = Command::new(abide())
        .args(["run", "--simulated-nodes", "3", "--", "bash", "-ec", script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3");
}

story! {
    /// Images come and go while the cluster runs.
    fn images_are_imported_listed_and_removed(k, ["busybox"]) {
        let abide = abide();
        let abide = abide.display();
        k.sh("mkdir -p root/bin && cp \"$(command -v busybox)\" root/bin/busybox && ln -s busybox root/bin/sh && tar -C root -cf root.tar .");
        assert!(k.sh_fails(&format!("{abide} image import root.tar")).contains("a root file system needs a name"));
        assert!(k.sh(&format!("{abide} image import root.tar --name my/box:1")).starts_with("docker.io/my/box:1  sha256:"));
        assert!(k.sh(&format!("{abide} image list")).contains("docker.io/my/box:1 "));
        k.sh("kubectl run box --image=my/box:1 --restart=Never -- sh -c 'echo hello'");
        k.until("kubectl get pod box -o jsonpath='{.status.phase}'", |text| text == "Succeeded");
        assert_eq!(k.sh("kubectl logs box"), "hello\n");
        assert_eq!(k.sh(&format!("{abide} image remove my/box:1")), "removed my/box:1\n");
        assert!(k.sh_fails(&format!("{abide} image remove my/box:1")).contains("not found"));
    }
}
