//! What a node does next with one of its pods, and what it reports.

pub mod back_off;
pub mod images;
mod status;

pub use status::{condition_is_true, status};

use back_off::BackOffs;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the runtime knows of a container. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Name within the pod.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Which try (the restart count).
    pub attempt: u32,
    /// Its image, exactly: `repository@sha256:…`, or `sha256:…` of its configuration.
    pub image_id: String,
    /// Life-cycle.
    pub state: State,
}

/// A container's life.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Made, not started.
    Created,
    /// Runs.
    Running {
        /// Since when.
        started_at: i64,
    },
    /// Has ended.
    Exited {
        /// When it was started; 0 if it never was.
        started_at: i64,
        /// When it ended.
        finished_at: i64,
        /// Exit code.
        exit_code: i32,
        /// Killed for using too much memory.
        oom_killed: bool,
        /// What it left to say.
        message: String,
    },
}

/// What keeps a container from being started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// `ErrImagePull`, `CreateContainerConfigError` …
    pub reason: String,
    /// In words.
    pub message: String,
    /// When it is tried again.
    pub until: Timestamp,
}

/// What probes have found, by container name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probed {
    /// The startup probe has succeeded (or there is none).
    pub started: bool,
    /// The readiness probe's last word (or, without one, true).
    pub ready: bool,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Containers of all tries, any order.
    pub seen: &'a [Seen],
    /// What probes have found, by container id.
    pub probed: &'a BTreeMap<String, Probed>,
    /// What keeps containers from being started, by name.
    pub obstacles: &'a BTreeMap<String, Obstacle>,
    /// Delays of containers that crash.
    pub back_offs: &'a BackOffs,
    /// The pod's address, once it has one.
    pub ip: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Containers to start, with the number of the try.
    pub start: Vec<(String, u32)>,
    /// Containers that wait out their back-off, and for how long.
    pub backing_off: Vec<(String, Duration)>,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// The newest try of a container.
pub fn newest<'a>(seen: &'a [Seen], name: &str) -> Option<&'a Seen> {
    seen.iter().filter(|container| container.name == name).max_by_key(|container| container.attempt)
}

/// Init containers that run on beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| spec.containers.as_slice())
}

fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a container that ended so is to run again. `init` containers are tried until they succeed.
fn runs_again(policy: &str, init: bool, exit_code: i32) -> bool {
    match policy {
        "Always" if !init => true,
        "Never" => false,
        _ => exit_code != 0,
    }
}

/// The first init container that is not done; `None` when the others may start.
pub fn initializing<'a>(observed: &Observed<'a>) -> Option<&'a Container> {
    init_containers(observed.pod).iter().find(|container| {
        let seen = newest(observed.seen, &container.name);
        match seen.map(|seen| (&seen.state, &seen.id)) {
            Some((State::Running { .. }, id)) => {
                !(is_sidecar(container)
                    && observed.probed.get(id).is_some_and(|probed| probed.started))
            }
            Some((State::Exited { exit_code, .. }, _)) => is_sidecar(container) || *exit_code != 0,
            _ => true,
        }
    })
}

/// Decides which containers to start now. Total.
pub fn next_step(observed: &Observed<'_>) -> Step {
    let mut step = Step::default();
    if is_over(observed) || past_deadline(observed) {
        return step;
    }
    let policy = restart_policy(observed.pod);
    let initializing = initializing(observed);
    for container in init_containers(observed.pod).iter().filter(|container| is_sidecar(container))
    {
        // A sidecar that ended is started again, whatever else goes on.
        if newest(observed.seen, &container.name).is_some() {
            consider(observed, container, "Always", false, &mut step);
        }
    }
    match initializing {
        Some(container) => {
            let init = !is_sidecar(container);
            let policy = if init && policy == "Always" { "OnFailure" } else { policy };
            consider(observed, container, if init { policy } else { "Always" }, init, &mut step);
        }
        None => {
            for container in containers(observed.pod) {
                consider(observed, container, policy, false, &mut step);
            }
        }
    }
    step.start.dedup();
    step
}

fn consider(
    observed: &Observed<'_>,
    container: &Container,
    policy: &str,
    init: bool,
    step: &mut Step,
) {
    let name = container.name.clone();
    let sooner = |wait: Duration, step: &mut Step| {
        step.look_again_after = Some(step.look_again_after.map_or(wait, |other| other.min(wait)))
    };
    if let Some(obstacle) = observed.obstacles.get(&name) {
        let wait = until(observed.now, obstacle.until);
        if !wait.is_zero() {
            return sooner(wait, step);
        }
    }
    match newest(observed.seen, &name).map(|seen| (seen.attempt, &seen.state)) {
        None => step.start.push((name, 0)),
        // Made, but its maker died before starting it: another try under the same number is not possible.
        Some((attempt, State::Created)) => step.start.push((name, attempt + 1)),
        Some((_, State::Running { .. })) => {}
        Some((attempt, State::Exited { finished_at, exit_code, .. }))
            if runs_again(policy, init, *exit_code) =>
        {
            match observed.back_offs.wait(&name, *finished_at, observed.now) {
                Some(wait) => {
                    sooner(wait, step);
                    step.backing_off.push((name, wait));
                }
                None => step.start.push((name, attempt + 1)),
            }
        }
        Some(_) => {}
    }
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// Whether the pod has had all the time it may have (`activeDeadlineSeconds`).
pub fn past_deadline(observed: &Observed<'_>) -> bool {
    let deadline = observed.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    let start = observed.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    matches!((deadline, start), (Some(seconds), Some(start)) if observed.now.as_second() - start.0.as_second() >= seconds)
}

/// Whether everything has ended for good.
pub fn is_over(observed: &Observed<'_>) -> bool {
    let policy = restart_policy(observed.pod);
    let failed_init = init_containers(observed.pod).iter().any(|container| {
        let seen = newest(observed.seen, &container.name).map(|seen| &seen.state);
        !is_sidecar(container)
            && matches!(seen, Some(State::Exited { exit_code, .. }) if *exit_code != 0)
            && policy == "Never"
    });
    failed_init
        || containers(observed.pod).iter().all(|container| {
            match newest(observed.seen, &container.name).map(|seen| &seen.state) {
                Some(State::Exited { exit_code, .. }) => !runs_again(policy, false, *exit_code),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests;
