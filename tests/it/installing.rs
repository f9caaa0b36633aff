//! The Debian package: installed on a clean root file system, upgraded, removed.

use crate::harness::{abide, story};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a line of shell; what it prints.
fn sh(folder: &Path, line: &str) -> String {
    let output = Command::new("bash")
        .args(["-ec", line])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "$ {line}\n{text}{error}");
    text
}

/// The program that builds packages; it lies beside the binary under test.
fn xtask() -> String {
    abide().with_file_name("xtask").display().to_string()
}

#[test]
fn the_package_is_installed_and_removed_and_leaves_data_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (here, abide) = (folder.path(), abide());
    sh(here, &format!("{} dist --fast --binary {} --output .", xtask(), abide.display()));
    // What postgres would be to its image: a small Debian with the package's dependencies and systemd's own checker.
    sh(here, "mmdebstrap --quiet --variant=essential --include=systemd,nftables bookworm root");
    sh(here, "cp abide_*.deb root/abide.deb");
    let inside = |line: &str| {
        sh(
            here,
            &format!(
                "unshare --mount --pid --net --fork --mount-proc=root/proc chroot root bash -ec '{line}'"
            ),
        )
    };
    inside("dpkg --install /abide.deb");
    let version = sh(here, &format!("{} version", abide.display()));
    assert_eq!(inside("abide version"), version);
    inside("systemd-analyze verify --man=no /lib/systemd/system/abide.service");
    inside(
        "test -s /usr/share/man/man1/abide.1.gz && test -s /etc/default/abide && bash -n /usr/share/bash-completion/completions/abide",
    );
    assert!(
        inside("zcat /usr/share/man/man1/abide.1.gz").contains("abide \\- Kubernetes StatefulSets")
    );
    inside("mkdir -p /var/lib/abide/volumes/mine && echo data > /var/lib/abide/volumes/mine/file");
    inside(
        "echo changed >> /etc/default/abide; dpkg --install /abide.deb; grep -q changed /etc/default/abide",
    );
    inside(
        "dpkg --remove abide; test ! -e /usr/bin/abide; test -e /var/lib/abide/volumes/mine/file",
    );
    let purged = inside(
        "dpkg --purge abide; test ! -e /etc/default/abide; cat /var/lib/abide/volumes/mine/file",
    );
    assert!(purged.contains("rm -r /var/lib/abide") && purged.ends_with("data\n"), "{purged}");
    inside(
        "dpkg --install /abide.deb; ABIDE_REMOVE_DATA=yes dpkg --purge abide; test ! -e /var/lib/abide",
    );
}

story! {
    /// Before the program is removed the pods are stopped, which outlive their server; state and volumes stay, and a server
    /// that comes back starts them again.
    fn pods_are_stopped_when_the_program_is_to_go(k, ["nginx:1.12"]) {
        let abide = abide();
        let abide = abide.display();
        assert!(k.sh(&format!("{abide} stop-pods --data-dir none")).starts_with("there are no pods in"));
        assert!(k.sh_fails(&format!("{abide} stop-pods")).contains("stop the server first"));
        // A second server, with a network of its own, whose control group lies in the one that this cluster cleans up.
        // nginx's workers bear the master's name for a moment.
        k.file("server.sh", &format!(
            "export PLACE=$PWD/own; CGROUP=$(tr '\\0' ' ' < /proc/$(cat $ABIDE_DATA_DIR/server.pid)/cmdline | grep -o 'cgroup-parent [^ ]*' | cut -d' ' -f2)/own\n\
             start() {{ {abide} server --data-dir $PLACE --cgroup-parent $CGROUP --image-store $(readlink $ABIDE_DATA_DIR/images) 2> own.log & SERVER=$!; until grep -q 'ready after' own.log; do :; done; }}\n\
             export KUBECONFIG=$PLACE/kubeconfig; start\n\
             kubectl run web --image=nginx:1.12; kubectl wait --for=condition=ready pod/web --timeout=80s\n\
             kill $SERVER; wait $SERVER; POD=$(pgrep -f 'nginx: master' | tail -1); echo running $(cat /proc/$POD/comm)\n\
             {abide} stop-pods --data-dir $PLACE --cgroup-parent $CGROUP\n\
             [ -e /proc/$POD ] || echo gone; nft list tables\n\
             start; until [ \"$(pgrep -cf 'nginx: master')\" = 1 ]; do :; done; echo again 1\n\
             kubectl delete pod web --grace-period=1; kill $SERVER; wait $SERVER\n"
        ));
        let text = k.sh("unshare --net bash server.sh 2>&1");
        for words in ["running nginx\n1 pods stopped\ngone\nagain 1\n", "pod \"web\" deleted"] {
            assert!(text.contains(words), "{text}");
        }
    }
}
