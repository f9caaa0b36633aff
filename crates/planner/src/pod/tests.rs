//! Sketches of pods in, steps and states out.

use super::*;
use serde_json::json;

fn pod(policy: &str, init: &[&str]) -> Pod {
    let init: Vec<_> = init.iter().map(|name| json!({"name": name, "image": "i"})).collect();
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": {"restartPolicy": policy, "initContainers": init, "containers": [{"name": "a", "image": "i"}]}})).unwrap()
}

/// `name: state`, e.g. `a: run`, `a#2: exit 1`.
fn seen(sketches: &[&str]) -> Vec<Seen> {
    sketches
        .iter()
        .map(|sketch| {
            let (name, state) = sketch.split_once(": ").unwrap();
            let (name, attempt) = name
                .split_once('#')
                .map_or((name, 0), |(name, attempt)| (name, attempt.parse().unwrap()));
            let state = match state.split_once(' ') {
                Some((_, code)) => State::Exited {
                    started_at: 1,
                    finished_at: 100_000_000_000,
                    exit_code: code.parse().unwrap(),
                    oom_killed: false,
                    message: String::new(),
                },
                None => State::Running { started_at: 1 },
            };
            Seen {
                name: name.into(),
                id: format!("{name}-{attempt}"),
                attempt,
                image_id: "x".into(),
                state,
            }
        })
        .collect()
}

fn outcome(pod: &Pod, sketches: &[&str], crashes: u32) -> (String, String) {
    let seen = seen(sketches);
    let now = Timestamp::from_second(101).unwrap();
    let mut back_offs = BackOffs::default();
    for _ in 0..crashes {
        back_offs.step("a", now);
    }
    let probed =
        seen.iter().map(|seen| (seen.id.clone(), Probed { started: true, ready: true })).collect();
    let observed = Observed {
        pod,
        seen: &seen,
        probed: &probed,
        obstacles: &BTreeMap::new(),
        back_offs: &back_offs,
        ip: Some("10.0.0.1"),
        now,
    };
    let step = next_step(&observed);
    let status = status(&observed, "10.0.0.254");
    let ready = if condition_is_true(&status, "Ready") { " ready" } else { "" };
    let waiting = status.container_statuses.unwrap()[0]
        .state
        .clone()
        .unwrap()
        .waiting
        .and_then(|waiting| waiting.reason)
        .map_or(String::new(), |reason| format!(" {reason}"));
    let starts: Vec<String> =
        step.start.iter().map(|(name, attempt)| format!("{name}#{attempt}")).collect();
    (starts.join(" "), format!("{}{ready}{waiting}", status.phase.unwrap()))
}

fn check(pod: &Pod, sketches: &[&str], crashes: u32, starts: &str, status: &str) {
    assert_eq!(
        outcome(pod, sketches, crashes),
        (starts.to_owned(), status.to_owned()),
        "{sketches:?}"
    );
}

/// E2.
#[test]
fn init_containers_come_first_and_one_by_one() {
    let pod = pod("Always", &["i", "j"]);
    check(&pod, &[], 0, "i#0", "Pending PodInitializing");
    check(&pod, &["i: run"], 0, "", "Pending PodInitializing");
    check(&pod, &["i: exit 1"], 0, "i#1", "Pending PodInitializing");
    check(&pod, &["i: exit 0"], 0, "j#0", "Pending PodInitializing");
    check(&pod, &["i: exit 0", "j: exit 0"], 0, "a#0", "Pending PodInitializing");
    check(&pod, &["i: exit 0", "j: exit 0", "a: run"], 0, "", "Running ready");
}

/// E5, T120.
#[test]
fn a_container_that_ends_is_started_again_as_the_policy_says() {
    check(&pod("Always", &[]), &["a: exit 0"], 0, "a#1", "Running");
    check(&pod("OnFailure", &[]), &["a: exit 0"], 0, "", "Succeeded");
    check(&pod("OnFailure", &[]), &["a: exit 1"], 0, "a#1", "Running");
    check(&pod("Never", &[]), &["a: exit 1"], 0, "", "Failed");
    check(&pod("Always", &[]), &["a: exit 1", "a#1: exit 1"], 1, "", "Running CrashLoopBackOff");
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    check(&pod("Never", &["i"]), &["i: exit 1"], 0, "", "Failed PodInitializing");
}
