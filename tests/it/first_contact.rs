//! What a newcomer meets: each mistake is answered with a sentence that has the remedy, and changes nothing.

use crate::harness::{abide, story};
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(abide()).args(arguments).output().unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_arguments_the_commands_are_listed() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    for command in ["server", "run", "image", "doctor", "backup", "restore", "kubeconfig"] {
        assert!(words(&output).contains(&format!("\n  {command} ")), "{output:?}");
    }
}

#[test]
fn wrong_arguments_are_named_with_what_would_be_right() {
    for (arguments, wanted) in [
        (["serve"].as_slice(), "some similar subcommands exist: 'restore', 'server'"),
        (&["server", "--listen", "1.2.3"], "invalid value '1.2.3' for '--listen <ADDR:PORT>'"),
        (
            &["server", "--cluster-cidr", "x"],
            "\"x\" is not a range of IPv4 addresses such as 10.42.0.0/16",
        ),
        (&["server", "--data-dirr", "x"], "a similar argument exists: '--data-dir'"),
        (&["run"], "Usage: abide run -- <COMMAND>..."),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(words(&output).contains(wanted), "{output:?}");
    }
    for (arguments, wanted) in [
        (["image", "import", "/nonexistent"].as_slice(), "import /nonexistent: No such file"),
        (
            &["run", "--image", "/nonexistent", "--", "true"],
            "read image archive /nonexistent: No such file",
        ),
        (
            &["kubeconfig", "--data-dir", "/nonexistent"],
            "is a server running with --data-dir /nonexistent?",
        ),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(words(&output).contains(wanted), "{output:?}");
        assert_eq!(words(&output).matches("No such file").count(), 1, "{output:?}");
    }
}

/// The file system of a test machine may be closed to other users: the binary is copied to where they can read it.
#[test]
fn an_ordinary_user_is_told_that_containers_need_root() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copy = folder.path().join("abide");
    std::fs::copy(abide(), &copy).unwrap();
    let open = Command::new("chmod").args(["755"]).arg(folder.path()).arg(&copy).status();
    assert!(open.unwrap().success());
    let data_dir = folder.path().join("data");
    for arguments in ["server --data-dir", "run --data-dir"] {
        let line = format!("{} {arguments} {} -- true", copy.display(), data_dir.display());
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c"])
            .arg(
                line.replace("server --data-dir", "server --listen 127.0.0.1:1 --data-dir")
                    .replace(
                        " -- true",
                        if arguments.starts_with("run") { " -- true" } else { "" },
                    ),
            )
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            words(&output).contains("containers need root: start abide with sudo, or as root"),
            "{output:?}"
        );
        assert!(!data_dir.exists());
    }
}

story! {
    /// A port or a folder that another server has, data of a newer version, a damaged file.
    fn a_server_that_cannot_start_says_why_and_changes_nothing(k, []) {
        let abide = abide();
        let server = format!("{} server --simulated-nodes 1", abide.display());
        let taken = k.sh_fails(&format!("{server} --data-dir new --listen 127.0.0.1:6443"));
        assert!(taken.contains("listen at 127.0.0.1:6443 (is another server running? choose another with --listen)"), "{taken}");
        k.sh("test ! -e new");
        let same = k.sh_fails(&format!("{server} --data-dir $ABIDE_DATA_DIR"));
        assert!(same.contains("/data/state is in use by another server (process "), "{same}");
        k.sh("touch file");
        let file = k.sh_fails(&format!("{server} --data-dir file --listen 127.0.0.1:7443"));
        assert!(file.contains("(choose another folder with --data-dir)"), "{file}");
        k.sh("mkdir -p damaged/state; head -c 5000 /dev/urandom > damaged/state/state.db; md5sum damaged/state/state.db > sum");
        let damaged = k.sh_fails(&format!("{server} --data-dir damaged --listen 127.0.0.1:7443"));
        assert!(damaged.contains("file is not a database (nothing was changed"), "{damaged}");
        k.sh("md5sum --check sum");
    }
}

story! {
    /// The start in two lines: what listens where, and the line to copy. For machines each line is an object.
    fn a_start_says_what_listens_where(k, []) {
        let abide = abide();
        let log = |format: &str| {
            k.sh(&format!(
                "{} server --simulated-nodes 1 --data-dir log --listen 127.0.0.1:7443 --log-format {format} 2> log.{format} & \
                 until grep -q KUBECONFIG log.{format}; do :; done; kill $!; wait $!; cat log.{format}",
                abide.display()
            ))
        };
        let text = log("text");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains(" ms: API https://127.0.0.1:7443, state /") && text.contains("export KUBECONFIG=/"), "{text}");
        let json = log("json");
        assert!(json.lines().all(|line| line.starts_with("{\"timestamp\":\"") && line.ends_with('}')), "{json}");
        assert_eq!(json.lines().count(), 3, "{json}");
    }
}
