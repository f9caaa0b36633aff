//! What outlives whom, and what is left behind: nothing.

use super::world::{SHIM, World, ended, exec, exit_code, log_text};
use futures::StreamExt;
use runtime::{ContainerRuntime, ContainerState, RuntimeEvent, SandboxConfig};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A1: kill -9 of the server; its successor finds everything running, and no log line is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_adopts_what_a_killed_server_has_started() {
    let world = World::new().await;
    let log = world.log("main");
    let state = world.dir.path().join("state");
    let mut server = tokio::process::Command::new(SHIM)
        .arg("serve")
        .args([&state, &world.dir.path().join("images")])
        .arg(&world.cgroup)
        .arg(&log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let id = lines.next_line().await.unwrap().expect("the server says the container's id");
    server.kill().await.unwrap();
    let successor = World::open(world.dir.path(), &world.images, &world.cgroup);
    let sandboxes = successor.list().await.unwrap();
    assert!(sandboxes.len() == 1 && sandboxes[0].ready);
    assert!(
        matches!(sandboxes[0].containers[0].state, ContainerState::Running { .. }),
        "{sandboxes:?}"
    );
    let (code, ..) = exec(&successor, "pod", &id, "exit 5").await;
    assert_eq!(code, 5);
    assert_eq!(exit_code(&ended(&successor, "pod", &id).await), 42);
    let expected: String = (1..=2000).map(|n| format!("stdout F line {n}\n")).collect();
    assert_eq!(log_text(&log), expected);
    world.finish().await;
}

/// A throw-away cluster that is killed takes its containers with it.
#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_sandboxes_end_with_their_server() {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let world = World::new().await;
    let state = world.dir.path().join("state");
    let mut server = tokio::process::Command::new(SHIM)
        .arg("serve-ephemeral")
        .args([&state, &world.dir.path().join("images")])
        .arg(&world.cgroup)
        .arg(world.log("main"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().expect("the server says the container's id");
    let record = fs::read(state.join("sandboxes/pod/sandbox.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let pid = i32::try_from(record["shim"]["pid"].as_i64().unwrap()).unwrap();
    let supervisor = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    server.kill().await.unwrap();
    let mut fds = [nix::poll::PollFd::new(
        std::os::fd::AsFd::as_fd(&supervisor),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(nix::poll::poll(&mut fds, 30_000_u16).unwrap(), 1, "the supervisor ends");
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(
            !controller.unwrap().path().join(&world.cgroup).exists(),
            "its control groups are gone"
        );
    }
    let successor = World::open(world.dir.path(), &world.images, &world.cgroup);
    let list = successor.list().await.unwrap();
    assert!(!list[0].ready);
    assert_eq!(exit_code(&list[0].containers[0].state), 137);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_supervisor_a_sandbox_is_lost_and_can_be_removed() {
    let world = World::new().await;
    world.sandbox("pod").await;
    let id = world.start("pod", &world.config("main", "sleep 1000")).await;
    let mut events = world.runtime.events();
    let status = world.runtime.status("pod").await.unwrap();
    let ContainerState::Running { pid, .. } = status.containers[0].state else {
        panic!("{status:?}")
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let supervisor: i32 =
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(supervisor),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await.unwrap();
    assert_eq!(event, Some(RuntimeEvent::SandboxLost { sandbox: "pod".into() }));
    let status = world.runtime.status("pod").await.unwrap();
    assert!(!status.ready);
    assert_eq!(exit_code(&status.containers[0].state), 255);
    assert_eq!(world.runtime.status("pod").await.unwrap(), status, "told the same way for ever");
    world.runtime.stop_container("pod", &id, Duration::from_secs(1)).await.unwrap();
    world.runtime.stop_pod_sandbox("pod").await.unwrap();
    let left = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(
        left.is_empty() || left.contains(") Z ") || left.contains(") X "),
        "its processes are dead: {left}"
    );
    world.runtime.remove_container("pod", &id).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_another_boot_nothing_runs() {
    let world = World::new().await;
    world.sandbox("pod").await;
    world.start("pod", &world.config("main", "sleep 1000")).await;
    world.runtime.stop_pod_sandbox("pod").await.unwrap();
    // As a machine leaves it behind that lost its power: running, of another boot.
    let dir = world.dir.path().join("state/sandboxes/pod");
    let record = fs::read_to_string(dir.join("sandbox.json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(dir.join("sandbox.json"), record.replace(boot.trim(), "another-boot")).unwrap();
    let container = fs::read_dir(dir.join("containers")).unwrap().next().unwrap().unwrap().path();
    fs::write(container.join("state.json"), r#"{"Running":{"started_at":5,"pid":1}}"#).unwrap();
    let successor = World::open(world.dir.path(), &world.images, &world.cgroup);
    let list = successor.list().await.unwrap();
    assert!(!list[0].ready);
    assert!(matches!(
        list[0].containers[0].state,
        ContainerState::Exited { started_at: 5, exit_code: 255, .. }
    ));
    successor.remove_pod_sandbox("pod").await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_cannot_be_made_leaves_nothing() {
    let world = World::new().await;
    let config =
        SandboxConfig { id: "pod".into(), hostname: "x".repeat(300), ..SandboxConfig::default() };
    assert!(world.runtime.run_pod_sandbox(&config).await.is_err());
    for id in ["", "..", "a/b", ".hidden"] {
        let config = SandboxConfig { id: id.into(), ..SandboxConfig::default() };
        assert!(world.runtime.run_pod_sandbox(&config).await.is_err(), "{id:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sandboxes_start_at_once_and_go_without_a_trace() {
    let world = std::sync::Arc::new(World::new().await);
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let world = world.clone();
            tokio::spawn(async move {
                let pod = format!("pod-{n}");
                let begin = Instant::now();
                world.sandbox(&pod).await;
                let config = world.config(&pod, "echo up; sleep 1000");
                let id = world.start(&pod, &config).await;
                let taken = begin.elapsed();
                assert_eq!(exec(&world.runtime, &pod, &id, "hostname").await.1, format!("{pod}\n"));
                taken
            })
        })
        .collect();
    let mut times: Vec<_> =
        futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    times.sort_unstable();
    println!(
        "run_pod_sandbox to running, 20 at once: median {:?}, slowest {:?}",
        times[10], times[19]
    );
    assert_eq!(
        world.runtime.list().await.unwrap().iter().filter(|sandbox| sandbox.ready).count(),
        20
    );
    let removed = (0..20).map(|n| {
        let world = world.clone();
        async move { world.runtime.remove_pod_sandbox(&format!("pod-{n}")).await.unwrap() }
    });
    futures::future::join_all(removed).await;
    let mut times = Vec::new();
    for n in 0..11 {
        let pod = format!("alone-{n}");
        let begin = Instant::now();
        world.sandbox(&pod).await;
        world.start(&pod, &world.config(&pod, "sleep 1000")).await;
        times.push(begin.elapsed());
        world.runtime.remove_pod_sandbox(&pod).await.unwrap();
    }
    times.sort_unstable();
    println!(
        "run_pod_sandbox to running, one by one: median {:?}, range {:?} to {:?}",
        times[5], times[0], times[10]
    );
    std::sync::Arc::into_inner(world).unwrap().finish().await;
}
