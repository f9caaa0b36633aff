//! What a node reports of a pod. As upstream: `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/generate.go`.

use super::{
    Observed, Seen, State, containers, init_containers, initializing, is_over, is_sidecar, newest,
    past_deadline, restart_policy,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whether a condition holds.
pub fn condition_is_true(status: &PodStatus, kind: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn seconds(nanoseconds: i64) -> Option<Time> {
    Timestamp::from_second(nanoseconds / 1_000_000_000).ok().map(Time)
}

fn whole(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The whole status, from what is seen; times of conditions that did not change are kept.
pub fn status(observed: &Observed<'_>, host_ip: &str) -> PodStatus {
    let pod = observed.pod;
    let before = pod.status.clone().unwrap_or_default();
    let initialized = initializing(observed).is_none();
    let init: Vec<ContainerStatus> = init_containers(pod)
        .iter()
        .map(|container| container_status(observed, container, true))
        .collect();
    let main: Vec<ContainerStatus> = containers(pod)
        .iter()
        .map(|container| container_status(observed, container, initialized))
        .collect();
    let late = past_deadline(observed);
    let phase = if late { "Failed" } else { phase(observed, initialized) };
    let over = phase == "Succeeded" || phase == "Failed";
    let unready: Vec<&str> = main
        .iter()
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .chain(
            init.iter()
                .filter(|status| !status.ready && started_sidecar(pod, status))
                .map(|status| status.name.as_str()),
        )
        .collect();
    let ready = unready.is_empty() && !over;
    let unready_words = format!("containers with unready status: [{}]", unready.join(" "));
    let waiting: Vec<&str> = init_containers(pod)
        .iter()
        .filter(|_| !initialized)
        .map(|container| container.name.as_str())
        .collect();
    let why = |over: bool| {
        if over && phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" }
    };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let mut set = |kind: &str, holds: bool, reason: &str, message: &str| {
        set_condition(&mut conditions, kind, holds, reason, message, observed.now)
    };
    set("PodReadyToStartContainers", observed.ip.is_some() && !over, "", "");
    set(
        "Initialized",
        initialized,
        "ContainersNotInitialized",
        &format!("containers with incomplete status: [{}]", waiting.join(" ")),
    );
    set("Ready", ready, why(over), &unready_words);
    set("ContainersReady", ready, why(over), &unready_words);
    if !conditions.iter().any(|condition| condition.type_ == "PodScheduled") {
        set_condition(&mut conditions, "PodScheduled", true, "", "", observed.now);
    }
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: late.then(|| "DeadlineExceeded".to_owned()),
        message: late
            .then(|| "Pod was active on the node longer than the specified deadline".to_owned()),
        conditions: Some(conditions),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![k8s_openapi::api::core::v1::HostIP { ip: host_ip.to_owned() }]),
        pod_ip: observed.ip.map(str::to_owned),
        pod_ips: observed.ip.map(|ip| vec![PodIP { ip: ip.to_owned() }]),
        start_time: before.start_time.or_else(|| Some(whole(observed.now))),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        qos_class: before.qos_class,
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn started_sidecar(pod: &k8s_openapi::api::core::v1::Pod, status: &ContainerStatus) -> bool {
    init_containers(pod)
        .iter()
        .any(|container| container.name == status.name && is_sidecar(container))
}

fn phase(observed: &Observed<'_>, initialized: bool) -> &'static str {
    let states: Vec<Option<&State>> = containers(observed.pod)
        .iter()
        .map(|container| newest(observed.seen, &container.name).map(|seen| &seen.state))
        .collect();
    if is_over(observed) {
        let failed = states
            .iter()
            .any(|state| matches!(state, Some(State::Exited { exit_code, .. }) if *exit_code != 0));
        return if failed || !initialized { "Failed" } else { "Succeeded" };
    }
    let begun = states
        .iter()
        .any(|state| matches!(state, Some(State::Running { .. } | State::Exited { .. })));
    let all_begun = states
        .iter()
        .all(|state| matches!(state, Some(State::Running { .. } | State::Exited { .. })));
    let was_running = observed
        .pod
        .status
        .as_ref()
        .is_some_and(|status| status.phase.as_deref() == Some("Running"));
    // A pod whose containers are between two tries is Running; one that still makes its first ones is Pending.
    if all_begun && begun || was_running && initialized { "Running" } else { "Pending" }
}

fn set_condition(
    conditions: &mut Vec<PodCondition>,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let (reason, message) = if holds { (None, None) } else { (Some(reason), Some(message)) };
    let text = |words: Option<&str>| words.filter(|words| !words.is_empty()).map(str::to_owned);
    let kept = conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    let condition = PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: text(reason),
        message: text(message),
        last_transition_time: kept.or_else(|| Some(whole(now))),
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|existing| existing.type_ == kind) {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}

fn terminated(seen: &Seen) -> Option<ContainerStateTerminated> {
    let State::Exited { started_at, finished_at, exit_code, oom_killed, message } = &seen.state
    else {
        return None;
    };
    let reason = match (oom_killed, exit_code, started_at) {
        (true, _, _) => "OOMKilled",
        (_, _, 0) => "StartError",
        (_, 0, _) => "Completed",
        _ => "Error",
    };
    Some(ContainerStateTerminated {
        exit_code: *exit_code,
        reason: Some(reason.to_owned()),
        message: Some(message.clone()).filter(|message| !message.is_empty()),
        started_at: seconds(*started_at),
        finished_at: seconds(*finished_at),
        container_id: Some(format!("abide://{}", seen.id)),
        ..ContainerStateTerminated::default()
    })
}

fn container_status(observed: &Observed<'_>, container: &Container, turn: bool) -> ContainerStatus {
    let seen = newest(observed.seen, &container.name);
    let previous = seen.and_then(|newest| {
        observed
            .seen
            .iter()
            .filter(|other| other.name == newest.name && other.attempt < newest.attempt)
            .max_by_key(|other| other.attempt)
    });
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    let mut last_state = previous.and_then(terminated);
    let probed = seen.and_then(|seen| observed.probed.get(&seen.id)).cloned().unwrap_or_default();
    let init = init_containers(observed.pod).iter().any(|other| other.name == container.name)
        && !is_sidecar(container);
    let obstacle = observed.obstacles.get(&container.name);
    let (mut ready, mut started) = (false, false);
    let state = match (seen.map(|seen| &seen.state), obstacle) {
        (Some(State::Running { started_at }), _) => {
            started = probed.started;
            ready = !init && probed.started && probed.ready;
            ContainerState {
                running: Some(ContainerStateRunning { started_at: seconds(*started_at) }),
                ..ContainerState::default()
            }
        }
        (Some(State::Exited { finished_at, exit_code, .. }), obstacle) => {
            let ended = seen.and_then(terminated);
            let policy =
                if is_sidecar(container) { "Always" } else { restart_policy(observed.pod) };
            let again = super::runs_again(
                if init && policy == "Always" { "OnFailure" } else { policy },
                init,
                *exit_code,
            ) && !is_over(observed);
            let wait = observed.back_offs.wait(&container.name, *finished_at, observed.now);
            ready = init && *exit_code == 0;
            match (again, obstacle, wait) {
                (true, Some(obstacle), _) => {
                    last_state = ended;
                    waiting(&obstacle.reason, Some(obstacle.message.clone()))
                }
                (true, None, Some(_)) => {
                    last_state = ended;
                    let delay = observed.back_offs.delay(&container.name).as_secs();
                    let words = if delay >= 60 {
                        if delay.is_multiple_of(60) {
                            format!("{}m0s", delay / 60)
                        } else {
                            format!("{}m{}s", delay / 60, delay % 60)
                        }
                    } else {
                        format!("{delay}s")
                    };
                    waiting(
                        "CrashLoopBackOff",
                        Some(format!(
                            "back-off {words} restarting failed container={} pod={}",
                            container.name,
                            pod_words(observed)
                        )),
                    )
                }
                _ => ContainerState { terminated: ended, ..ContainerState::default() },
            }
        }
        (_, Some(obstacle)) => waiting(&obstacle.reason, Some(obstacle.message.clone())),
        _ if !turn
            || initializing(observed).is_some_and(|current| current.name != container.name) =>
        {
            waiting("PodInitializing", None)
        }
        _ if init_containers(observed.pod).is_empty() || init => waiting(
            if init && observed.ip.is_some() { "PodInitializing" } else { "ContainerCreating" },
            None,
        ),
        _ => waiting("PodInitializing", None),
    };
    let attempt = seen.map_or(0, |seen| seen.attempt);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: seen.map(|seen| seen.image_id.clone()).unwrap_or_default(),
        container_id: seen.map(|seen| format!("abide://{}", seen.id)),
        ready,
        started: Some(started),
        restart_count: i32::try_from(attempt).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(ContainerState { terminated: last_state, ..ContainerState::default() }),
        ..ContainerStatus::default()
    }
}

fn pod_words(observed: &Observed<'_>) -> String {
    let metadata = &observed.pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid))
}
