//! A cluster's state in a file, and back.

use crate::harness::{abide, abide_run, story, web};
use std::path::Path;
use std::process::{Command, Output};

fn abide_with(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(abide()).args(arguments).env("ABIDE_DATA_DIR", data_dir).output().unwrap()
}

fn run(data_dir: &Path, script: &str) -> String {
    let output = abide_run(&["nginx:1.12"])
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--", "bash", "-ec", script])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{error}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// C2, B: set, claims, data and names come back; the same kubeconfig opens the door.
#[test]
fn a_cluster_is_backed_up_lost_and_restored_with_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, file) = (folder.path().join("data"), folder.path().join("all.abide"));
    std::fs::write(folder.path().join("web.yaml"), web(2, "")).unwrap();
    let ready = "kubectl wait --for=jsonpath='{.status.readyReplicas}'=2 sts/web --timeout=80s >&2";
    let uids = "kubectl get sts,pvc,pv -o jsonpath='{.items[*].metadata.uid}'";
    let before = run(
        &data_dir,
        &format!(
            "kubectl apply -f {}/web.yaml >&2; {ready}
             for i in 0 1; do kubectl exec web-$i -- sh -c 'hostname > /usr/share/nginx/html/data/name'; done; {uids}",
            folder.path().display()
        ),
    );
    let file = file.to_str().unwrap();
    let made = abide_with(&data_dir, &["backup", file, "--volumes"]);
    assert!(made.status.success(), "{made:?}");
    assert!(String::from_utf8_lossy(&made.stdout).contains("with volumes"), "{made:?}");
    // A second one under the same name, and a restore into what is there, are refused; nothing is changed.
    for (arguments, words) in [
        (["backup", file].as_slice(), "exists already"),
        (&["restore", file], "is not empty"),
        (&["restore", "Cargo.toml"], "is no backup of abide"),
        (&["restore", "none"], "open none"),
    ] {
        let place = if arguments[1] == file { data_dir.clone() } else { folder.path().join("x") };
        let refused = abide_with(&place, arguments);
        assert!(!refused.status.success());
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains(words), "{error}");
        assert!(!folder.path().join("x").exists());
    }
    std::fs::remove_dir_all(&data_dir).unwrap();
    let restored = abide_with(&data_dir, &["restore", file]);
    assert!(restored.status.success(), "{restored:?}");
    let after = run(
        &data_dir,
        &format!(
            "{ready}; for i in 0 1; do test \"$(kubectl exec web-$i -- cat /usr/share/nginx/html/data/name)\" = web-$i; done
             {uids}; kubectl delete sts web >&2; kubectl wait --for=delete pod --all --timeout=60s >&2"
        ),
    );
    assert_eq!(after, before);
}

/// A damaged backup is refused, and nothing is made of it.
#[test]
fn a_damaged_backup_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let empty = abide_with(&data_dir, &["backup", "x.abide"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("there is no cluster in"), "{empty:?}");
    let output = Command::new(abide())
        .args(["run", "--simulated-nodes", "1", "--data-dir"])
        .arg(&data_dir)
        .args(["--", "kubectl", "create", "configmap", "kept"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let file = folder.path().join("a.abide");
    assert!(abide_with(&data_dir, &["backup", file.to_str().unwrap()]).status.success());
    std::fs::remove_dir_all(&data_dir).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let refused = abide_with(&data_dir, &["restore", file.to_str().unwrap()]);
        assert!(!refused.status.success(), "{length} of {} bytes were taken", whole.len());
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

story! {
    /// A backup of a running server is a state that was: an object made before is in it, one made after is not.
    fn a_running_server_is_backed_up(k, []) {
        let abide = abide();
        let abide = abide.display();
        k.sh("for i in $(seq 50); do echo \"{apiVersion: v1, kind: ConfigMap, metadata: {name: many-$i}}\" | sed 's/^/# \\n/'; echo ---; done | kubectl create -f - >/dev/null &
             until kubectl get configmap many-1; do :; done; kubectl create configmap before");
        let text = k.sh(&format!("{abide} backup one.abide"));
        assert!(text.starts_with("one.abide: revision "), "{text}");
        assert_eq!(k.sh("stat -c %a one.abide"), "600\n");
        k.sh("kubectl create configmap after; mkdir seen; tar -xzf one.abide -C seen");
        let about = k.sh("cat seen/abide-backup.json");
        assert!(about.contains("\"volumes\": false"), "{about}");
        let bytes = k.sh("grep -ao 'configmaps/default/[a-z]*' seen/state/state.db | sort -u");
        assert!(bytes.contains("default/before\n") && !bytes.contains("default/after"), "{bytes}");
    }
}
