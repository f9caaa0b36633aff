//! What a container sees, and what is seen of it.

use super::world::{World, collect, ended, exec, exit_code, log_text, write};
use runtime::{
    ContainerConfig, ContainerRuntime, ContainerState, ExecRequest, Mount, Resources, RuntimeError,
    SandboxConfig, Security,
};
use std::fs;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A2: the embedded runtime keeps the contract that the fake keeps.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_runtime_passes_the_conformance_suite() {
    let world = World::new().await;
    let logs = world.dir.path().join("logs");
    let command = ["sh", "-c", "trap 'exit 3' TERM; while true; do usleep 10000; done"];
    runtime::conformance::life_cycle(&world.runtime, &world.image_id, &logs, &command).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_logged_per_stream_and_the_exit_code_is_kept() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let (state, log) =
        world.run("pod", &world.config("main", "echo out; echo err >&2; printf end; exit 7")).await;
    assert!(
        matches!(
            state,
            ContainerState::Exited { started_at: 1.., exit_code: 7, oom_killed: false, .. }
        ),
        "{state:?}"
    );
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P end"]);
    let (state, _) = world
        .run("pod", &world.config("killed", "kill -9 $$; sleep 100 & kill -9 $!; exit 137"))
        .await;
    assert_eq!(exit_code(&state), 137);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_environment_host_name_mounts_and_user() {
    let world = World::new().await;
    world.sandbox("web-0").await;
    let shared = world.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    write(&shared.join("file"), "from the host\n");
    let mut config = world.config(
        "main",
        "echo $A $HOSTNAME; hostname; cat /data/file /etc/hostname; touch /data/x 2>&1; id; pwd; touch /made; \
         cat /proc/sys/kernel/ngroups_max >/dev/null; echo 1 > /proc/sys/kernel/pid_max; ls /dev/shm /sys/fs/cgroup",
    );
    config.env = vec![("A".into(), "b c".into())];
    config.mounts =
        vec![Mount { host_path: shared, container_path: "/data".into(), readonly: true }];
    config.working_dir = Some("/some/where".into());
    config.security.supplemental_groups = vec![77];
    let (_, log) = world.run("web-0", &config).await;
    for expected in [
        "stdout F b c web-0\nstdout F web-0\nstdout F from the host\nstdout F web-0\n",
        "touch: /data/x: Read-only file system",
        "stdout F uid=0(root) gid=0(root) groups=0(root),77",
        "stdout F /some/where\n",
        "Read-only file system\n",
        if fs::exists("/sys/fs/cgroup/memory").unwrap() {
            "stdout F memory\n"
        } else {
            "stdout F memory.max\n"
        },
    ] {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
    let mut config = world.config("user", "id; echo $HOME; touch /root/x");
    config.security = Security { run_as_user: Some(1000), ..Security::default() };
    let (state, log) = world.run("web-0", &config).await;
    assert!(
        log.contains("uid=1000(alice) gid=1001(alice) groups=1001(alice),1002(extra)"),
        "{log}"
    );
    assert!(log.contains("stdout F /tmp\n") && exit_code(&state) == 1, "{log}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_settings_reach_the_kernel() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let script = "grep -E 'CapEff|CapBnd|NoNewPrivs|SigBlk|SigIgn|Seccomp:' /proc/self/status; touch /x; cat /proc/kcore";
    let (_, log) = world.run("pod", &world.config("usual", script)).await;
    for expected in [
        "CapEff:\t00000000a80425fb",
        "NoNewPrivs:\t0",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
    let mut config = world.config("strict", script);
    config.security = Security {
        readonly_rootfs: true,
        no_new_privileges: true,
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Security::default()
    };
    let (_, log) = world.run("pod", &config).await;
    for expected in
        ["CapEff:\t0000000000000400", "NoNewPrivs:\t1", "touch: /x: Read-only file system"]
    {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
    let mut config = world.config("privileged", "echo ok > /proc/sys/kernel/hostname; hostname; ls /dev/vda /dev/loop-control; mount -t tmpfs x /tmp && echo mounted");
    config.security.privileged = true;
    let (_, log) = world.run("pod", &config).await;
    assert!(log.contains("stdout F ok\n") && log.contains("stdout F mounted"), "{log}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_network_ipc_and_shared_memory_but_not_processes() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let first =
        world.start("pod", &world.config("one", "echo hello > /dev/shm/x; sleep 1000")).await;
    let second = world.start("pod", &world.config("two", "sleep 1000")).await;
    let look = "for n in net ipc uts pid mnt; do stat -Lc %i /proc/self/ns/$n; done";
    let (_, one, _) = exec(&world.runtime, "pod", &first, look).await;
    let (_, two, _) = exec(&world.runtime, "pod", &second, look).await;
    let same: Vec<bool> = one.lines().zip(two.lines()).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, true, false, false]);
    // Shared memory holds what either writes; waiting for it needs no clock.
    let (code, out, _) = exec(
        &world.runtime,
        "pod",
        &second,
        "until [ -s /dev/shm/x ]; do usleep 1000; done; cat /dev/shm/x",
    )
    .await;
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    let status = world.runtime.status("pod").await.unwrap();
    let pinned = fs::metadata(status.network_namespace.unwrap()).unwrap();
    assert_eq!(
        one.lines().next().unwrap(),
        std::os::unix::fs::MetadataExt::ino(&pinned).to_string()
    );
    let host = fs::metadata("/proc/self/ns/net").unwrap();
    assert_ne!(one.lines().next().unwrap(), std::os::unix::fs::MetadataExt::ino(&host).to_string());
    let config = SandboxConfig {
        id: "host".into(),
        hostname: "h".into(),
        host_network: true,
        ..SandboxConfig::default()
    };
    assert_eq!(world.runtime.run_pod_sandbox(&config).await.unwrap().network_namespace, None);
    let (_, log) = world.run("host", &world.config("three", "stat -Lc %i /proc/self/ns/net")).await;
    assert_eq!(log.trim(), format!("stdout F {}", std::os::unix::fs::MetadataExt::ino(&host)));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_visible_in_the_cgroup_and_memory_is_enforced() {
    let world = World::new().await;
    let limits = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_limit_bytes: Some(32 << 20),
        pids_limit: Some(50),
    };
    let config = SandboxConfig {
        id: "pod".into(),
        hostname: "pod".into(),
        resources: Resources { memory_limit_bytes: Some(64 << 20), ..Resources::default() },
        ..SandboxConfig::default()
    };
    world.runtime.run_pod_sandbox(&config).await.unwrap();
    let mut container = world.config("main", "sleep 1000");
    container.resources = limits.clone();
    let id = world.start("pod", &container).await;
    let root = std::path::Path::new("/sys/fs/cgroup");
    let pod = format!("{}/pod", world.cgroup);
    if root.join("memory").exists() {
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap().trim().to_owned();
        assert_eq!(read(&format!("memory/{pod}/memory.limit_in_bytes")), (64 << 20).to_string());
        assert_eq!(
            read(&format!("memory/{pod}/{id}/memory.limit_in_bytes")),
            (32 << 20).to_string()
        );
        assert_eq!(read(&format!("cpu/{pod}/{id}/cpu.shares")), "512");
        assert_eq!(read(&format!("cpu/{pod}/{id}/cpu.cfs_quota_us")), "50000");
        assert_eq!(read(&format!("pids/{pod}/{id}/pids.max")), "50");
    } else {
        let read =
            |file: &str| fs::read_to_string(root.join(&pod).join(file)).unwrap().trim().to_owned();
        assert_eq!(read("memory.max"), (64 << 20).to_string());
        assert_eq!(read(&format!("{id}/memory.max")), (32 << 20).to_string());
        assert_eq!(read(&format!("{id}/cpu.max")), "50000 100000");
        assert_eq!(read(&format!("{id}/pids.max")), "50");
    }
    let mut hungry = world.config("hungry", "exec tail /dev/zero");
    hungry.resources = limits;
    let (state, _) = world.run("pod", &hungry).await;
    assert!(
        matches!(state, ContainerState::Exited { exit_code: 137, oom_killed: true, .. }),
        "{state:?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_told_in_the_words_of_runc() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let mut attempt = 0;
    let mut fault = async |change: &dyn Fn(&mut ContainerConfig)| {
        let mut config = world.config("main", "true");
        attempt += 1;
        config.attempt = attempt;
        change(&mut config);
        match world.runtime.create_container("pod", &config).await {
            Err(error) => (error, None),
            Ok(id) => {
                let error = world.runtime.start_container("pod", &id).await.unwrap_err();
                (error, Some(ended(&world.runtime, "pod", &id).await))
            }
        }
    };
    let (error, state) = fault(&|config| config.command = vec!["no-such-program".into()]).await;
    let text = "unable to start container process: exec: \"no-such-program\": executable file not found in $PATH";
    assert!(matches!(&error, RuntimeError::Start(message) if message == text), "{error:?}");
    let Some(ContainerState::Exited { started_at: 0, exit_code: 128, message, .. }) = state else {
        panic!("{state:?}")
    };
    assert_eq!(message, text);
    let (error, _) = fault(&|config| config.command = vec!["/etc/passwd".into()]).await;
    assert!(
        matches!(&error, RuntimeError::Start(message) if message.ends_with("exec: \"/etc/passwd\": permission denied")),
        "{error:?}"
    );
    let (error, _) = fault(&|config| config.security.run_as_user = Some(-5)).await;
    assert!(matches!(&error, RuntimeError::Config(_)), "{error:?}");
    let (error, _) = fault(&|config| config.security.add_capabilities = vec!["FLY".into()]).await;
    assert!(matches!(&error, RuntimeError::Config(_)), "{error:?}");
    let (error, _) = fault(&|config| {
        config.mounts = vec![Mount {
            host_path: "/no/such".into(),
            container_path: "/x".into(),
            readonly: false,
        }];
    })
    .await;
    assert!(
        matches!(&error, RuntimeError::Config(message) if message.contains("failed to stat \"/no/such\"")),
        "{error:?}"
    );
    let (error, _) = fault(&|config| config.image_id = format!("sha256:{}", "0".repeat(64))).await;
    assert!(matches!(&error, RuntimeError::NotFound(_)), "{error:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_runs_beside_the_main_process_with_pipes() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let mut config = world.config("main", "sleep 1000");
    config.env = vec![("A".into(), "1".into())];
    let id = world.start("pod", &config).await;
    let (code, out, err) =
        exec(&world.runtime, "pod", &id, "echo $A; hostname; echo oh >&2; exit 9").await;
    assert_eq!((code, out.as_str(), err.as_str()), (9, "1\npod\n", "oh\n"));
    let (code, ..) = exec(&world.runtime, "pod", &id, "kill -9 $$").await;
    assert_eq!(code, 137);
    // Standard input arrives, and so does its end.
    let request = ExecRequest { command: vec!["cat".into()], stdin: true, tty: false };
    let mut io = world.runtime.exec("pod", &id, request).await.unwrap();
    io.stdin.as_mut().unwrap().write_all(b"through the pipe").await.unwrap();
    assert_eq!(collect(io).await.unwrap(), (0, "through the pipe".into(), String::new()));
    let missing = ExecRequest { command: vec!["no-such".into()], ..ExecRequest::default() };
    let error = world.runtime.exec("pod", &id, missing).await.unwrap_err();
    let text =
        "unable to start container process: exec: \"no-such\": executable file not found in $PATH";
    assert!(matches!(&error, RuntimeError::Start(message) if message == text), "{error:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_with_a_terminal_can_be_resized() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", &world.config("main", "sleep 1000")).await;
    let command =
        ["sh", "-c", "tty; echo $TERM; read x; stty size; exit 5"].map(str::to_owned).to_vec();
    let mut io = world
        .runtime
        .exec("pod", &id, ExecRequest { command, tty: true, stdin: true })
        .await
        .unwrap();
    assert!(io.stderr.is_none());
    let mut text = String::new();
    let mut buffer = [0; 256];
    while !text.contains("xterm") {
        let length = io.stdout.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    let resize = io.resize.clone().unwrap();
    resize.send((101, 33)).await.unwrap();
    // The terminal's size is set by a task: it is done when the channel's room is free again.
    while resize.capacity() < resize.max_capacity() {
        tokio::task::yield_now().await;
    }
    exec(&world.runtime, "pod", &id, "true").await;
    io.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut rest = String::new();
    io.stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(io.exit.await.unwrap(), 5);
    assert!(text.contains("/dev/pts/0") && rest.contains("33 101"), "{text}{rest}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_nobody_wants_any_more_is_killed() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", &world.config("main", "sleep 1000")).await;
    let command = ["sh", "-c", "sleep 4321 & echo up; sleep 4321"].map(str::to_owned).to_vec();
    let mut io = world
        .runtime
        .exec("pod", &id, ExecRequest { command, ..ExecRequest::default() })
        .await
        .unwrap();
    let mut buffer = [0; 3];
    io.stdout.read_exact(&mut buffer).await.unwrap();
    drop(io);
    let script = "while grep -aq 4321 /proc/[0-9]*/cmdline 2>/dev/null; do usleep 1000; done";
    // The searching command line holds the number as well: it is spelt so that it does not match itself.
    let script = script.replace("4321", "432[1]");
    let watch = exec(&world.runtime, "pod", &id, &script);
    let (code, ..) = tokio::time::timeout(Duration::from_secs(30), watch)
        .await
        .expect("the exec's processes die");
    assert_eq!(code, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_speaks_to_the_main_process() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let mut config =
        world.config("main", "while read line; do echo got $line; [ $line = end ] && exit 4; done");
    config.stdin = true;
    let id = world.start("pod", &config).await;
    let mut io = world.runtime.attach("pod", &id, true).await.unwrap();
    let stdin = io.stdin.as_mut().unwrap();
    stdin.write_all(b"one\nend\n").await.unwrap();
    let mut text = String::new();
    io.stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "got one\ngot end\n");
    assert_eq!(io.exit.await.unwrap(), 4);
    ended(&world.runtime, "pod", &id).await;
    assert_eq!(log_text(&config.log_path), "stdout F got one\nstdout F got end\n");

    let mut config = world.config("terminal", "stty size; read x; stty size; exit 6");
    (config.stdin, config.tty) = (true, true);
    let id = world.start("pod", &config).await;
    let mut io = world.runtime.attach("pod", &id, true).await.unwrap();
    io.resize.as_ref().unwrap().send((120, 40)).await.unwrap();
    // Sizes and input take the same way, in order, but two tasks: the input follows when the size has left.
    while io.resize.as_ref().unwrap().capacity() < io.resize.as_ref().unwrap().max_capacity() {
        tokio::task::yield_now().await;
    }
    exec(&world.runtime, "pod", &id, "true").await;
    io.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(io.exit.await.unwrap(), 6);
    ended(&world.runtime, "pod", &id).await;
    assert!(log_text(&config.log_path).contains("40 120"), "{}", log_text(&config.log_path));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_for_the_first_who_attaches_ends_with_it() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let mut config = world.config("main", "cat; exit 5");
    (config.stdin, config.stdin_once) = (true, true);
    let id = world.start("pod", &config).await;
    // Who only listens does not end it.
    drop(world.runtime.attach("pod", &id, false).await.unwrap());
    let mut io = world.runtime.attach("pod", &id, true).await.unwrap();
    io.stdin.as_mut().unwrap().write_all(b"all of it\n").await.unwrap();
    io.stdin = None;
    assert_eq!(io.exit.await.unwrap(), 5);
    ended(&world.runtime, "pod", &id).await;
    assert_eq!(log_text(&config.log_path), "stdout F all of it\n");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_asks_first_and_kills_after_the_grace_period() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let polite = world
        .start(
            "pod",
            &world
                .config("polite", "trap 'exit 3' TERM; echo up; while true; do usleep 1000; done"),
        )
        .await;
    let stubborn = world
        .start(
            "pod",
            &world.config("stubborn", "trap '' TERM; echo up; while true; do usleep 1000; done"),
        )
        .await;
    for id in [&polite, &stubborn] {
        // The trap is set once the line is there.
        let (_, out, _) = exec(&world.runtime, "pod", id, "echo ready").await;
        assert_eq!(out, "ready\n");
    }
    for name in ["polite", "stubborn"] {
        while fs::read_to_string(world.log(name)).unwrap_or_default().is_empty() {
            tokio::task::yield_now().await;
        }
    }
    world.runtime.stop_container("pod", &polite, Duration::from_secs(60)).await.unwrap();
    assert_eq!(exit_code(&ended(&world.runtime, "pod", &polite).await), 3);
    let begin = Instant::now();
    world.runtime.stop_container("pod", &stubborn, Duration::from_millis(300)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300), "the grace period is kept");
    assert_eq!(exit_code(&ended(&world.runtime, "pod", &stubborn).await), 137);
    world.finish().await;
}
