//! Containers that end, and should not.

use super::complaints::{Complaint, recognise};
use super::pods::failed;
use super::remedies::{Patient, Remedy};
use super::world::{World, name, object, space, told};
use super::{Trouble, workload};
use crate::finding::{Evidence, Finding, Severity, evidence, hint, step};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

/// How many of the last lines are quoted.
const QUOTED: usize = 4;

/// A container that crashes.
pub(super) fn look(
    world: World<'_>,
    pod: &Pod,
    status: &ContainerStatus,
    is_init: bool,
) -> Option<Trouble> {
    let ended = ended(pod, status, is_init)?;
    let killed = killed_by_probe(world, pod, status);
    let lines = world.lines(pod, &status.name);
    let patient = Patient { world, pod, container: &status.name };
    let heard = if killed.is_some() || ended.reason.as_deref() == Some("OOMKilled") {
        None
    } else {
        recognise(lines)
    };
    let (rule, remedy, complaint, quoted) = match (&killed, heard) {
        (Some(_), _) => ("killed-by-probe", liveness(world, pod, status), None, None),
        (None, Some((complaint, line))) => {
            (rule_of(&complaint), patient.remedy(&complaint), Some(complaint), Some(line))
        }
        (None, None) => ("crash", exit(world, pod, status, ended), None, None),
    };
    let finding = Finding::new(
        rule,
        Severity::Problem,
        object("Pod", &pod.metadata),
        summary(pod, status, is_init, &remedy),
    )
    .because(remedy.cause)
    .seen_all(killed.into_iter().flatten())
    .seen(
        format!("container {} of pod {}", status.name, name(&pod.metadata)),
        &outcome(status, ended),
    )
    .seen_all(quotes(pod, status, lines, quoted))
    .steps(remedy.steps);
    let crashed_at = ended.finished_at.as_ref().map(|time| time.0);
    Some(Trouble { finding, complaint, crashed_at })
}

fn rule_of(complaint: &Complaint) -> &'static str {
    match complaint {
        Complaint::DataIncompatible => "data-incompatible",
        Complaint::PasswordUnset(_) => "password-unset",
        Complaint::FolderNotEmpty => "data-folder-not-empty",
        Complaint::RoleMissing(_) => "role-missing",
        Complaint::DatabaseMissing(_) => "database-missing",
        Complaint::ReplicationRefused => "replication-refused",
        Complaint::PasswordWrong(_) => "password-wrong",
        Complaint::NameUnknown(_) => "name-unknown",
        Complaint::Unreachable(_) => "peer-unreachable",
        Complaint::DiskFull => "disk-full",
        Complaint::ReadOnly => "read-only",
        Complaint::AddressInUse => "address-in-use",
        Complaint::FileMissing => "file-missing",
        Complaint::PermissionDenied => "permission-denied",
    }
}

/// How the last try ended, if the container should not have ended.
fn ended<'a>(
    pod: &Pod,
    status: &'a ContainerStatus,
    is_init: bool,
) -> Option<&'a ContainerStateTerminated> {
    let state = status.state.as_ref()?;
    let before = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let always =
        pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
            == "Always";
    let must_run = always && !is_init;
    if let Some(now) = &state.terminated {
        return (now.exit_code != 0 || must_run).then_some(now);
    }
    if state.waiting.as_ref().is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff")) {
        return before;
    }
    // It runs (or is about to) after a crash.
    (failed(status, true) && status.restart_count > 0).then_some(before).flatten()
}

fn summary(pod: &Pod, status: &ContainerStatus, is_init: bool, remedy: &Remedy) -> String {
    let what = if is_init { "init container" } else { "container" };
    let times = match status.restart_count {
        0 => "has crashed".to_owned(),
        1 => "crashes (1 restart)".to_owned(),
        n => format!("crashes again and again ({n} restarts)"),
    };
    format!(
        "{} of {} {times}: {}",
        format_args!("{what} {}", status.name),
        name(&pod.metadata),
        remedy.symptom
    )
}

fn outcome(status: &ContainerStatus, ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().unwrap_or("ended");
    let message =
        ended.message.as_deref().map_or(String::new(), |text| format!(": {}", text.trim()));
    format!("{reason}, exit code {}, {} restarts{message}", ended.exit_code, status.restart_count)
}

fn quotes(
    pod: &Pod,
    status: &ContainerStatus,
    lines: &[String],
    quoted: Option<&str>,
) -> Vec<Evidence> {
    let source = format!("last lines of {} ({})", name(&pod.metadata), status.name);
    let spoken: Vec<&String> = lines.iter().filter(|line| !line.trim().is_empty()).collect();
    let last = &spoken[spoken.len().saturating_sub(QUOTED)..];
    let told = quoted.filter(|line| !last.iter().any(|other| other.as_str() == *line));
    told.into_iter()
        .chain(last.iter().map(|line| line.as_str()))
        .map(|line| evidence(source.clone(), line))
        .collect()
}

/// The events of a container that its node killed because a probe failed.
fn killed_by_probe(world: World<'_>, pod: &Pod, status: &ContainerStatus) -> Option<Vec<Evidence>> {
    let own = |probe: &str| {
        world
            .last_event(
                "Pod",
                &pod.metadata,
                &["Killing"],
                &format!("{} failed {probe} probe", status.name),
            )
            .map(|event| (probe.to_owned(), event))
    };
    let (probe, killing) = own("liveness").or_else(|| own("startup"))?;
    let word = if probe == "liveness" { "Liveness" } else { "Startup" };
    let output = world.last_event("Pod", &pod.metadata, &["Unhealthy"], &format!("{word} probe"));
    Some(output.into_iter().chain([killing]).map(told).collect())
}

fn liveness(world: World<'_>, pod: &Pod, status: &ContainerStatus) -> Remedy {
    let space = space(&pod.metadata);
    let mut steps = vec![hint(
        "If the program only needs longer to start, give the container a startupProbe (the same check, failureThreshold 30): until it succeeds the liveness probe rests",
    )];
    if let Some(workload) = workload(world, pod) {
        steps.push(step("Change the probe", format!("kubectl edit -n {space} {workload}")));
    }
    steps.push(step(
        "Look what the program said before it was killed",
        format!(
            "kubectl logs -n {space} {} -c {} --previous --tail=20",
            name(&pod.metadata),
            status.name
        ),
    ));
    Remedy {
        symptom: "its node kills it, for its liveness or startup probe fails".to_owned(),
        cause: "The probe's check fails as often as failureThreshold allows, so the container is restarted: the check is wrong, too strict, or the program hangs.".to_owned(),
        steps,
    }
}

/// What an exit code says by itself.
fn exit(
    world: World<'_>,
    pod: &Pod,
    status: &ContainerStatus,
    ended: &ContainerStateTerminated,
) -> Remedy {
    let space = space(&pod.metadata);
    let workload = workload(world, pod);
    let logs = step(
        "Look at all that it printed",
        format!("kubectl logs -n {space} {} -c {} --tail=100", name(&pod.metadata), status.name),
    );
    let edit = |sentence: &str| match &workload {
        Some(workload) => step(sentence, format!("kubectl edit -n {space} {workload}")),
        None => hint(sentence),
    };
    let (symptom, cause, mut steps) = match (ended.reason.as_deref(), ended.exit_code) {
        (Some("OOMKilled"), _) => {
            let sentence =
                "Give it more memory, or let it use less (write the limit that you need)";
            let more = match &workload {
                Some(workload) => step(
                    sentence,
                    format!(
                        "kubectl set resources -n {space} {workload} -c {} --limits=memory=SIZE",
                        status.name
                    ),
                ),
                None => hint(sentence),
            };
            (
                "it uses more memory than it may".to_owned(),
                "The kernel killed it at its memory limit.",
                vec![more],
            )
        }
        (_, 0) => (
            "it ends by itself (exit code 0)".to_owned(),
            "A container of a pod that restarts always must run for ever; its program has done its work, or has put itself into the background.",
            vec![edit("Let the program stay in the foreground")],
        ),
        (_, 126) => (
            "its command cannot be run (exit code 126)".to_owned(),
            "The file exists, but is not executable, or not for this kind of machine.",
            vec![edit("Correct `command` and `args`")],
        ),
        (_, 127) => (
            "its command is not there (exit code 127)".to_owned(),
            "The image has no such program.",
            vec![edit("Correct `command` and `args`")],
        ),
        (_, 128) if ended.message.is_some() => (
            "it cannot be started".to_owned(),
            "The command could not be run at all.",
            vec![edit("Correct `command` and `args`")],
        ),
        (_, 137) => (
            "it is killed (exit code 137)".to_owned(),
            "Somebody sent it SIGKILL: the machine was short of memory, or it did not end in its grace period.",
            vec![],
        ),
        (_, 139) => (
            "it crashes with a segmentation fault (exit code 139)".to_owned(),
            "The program touched memory that it does not have: a fault of the program, or an image for another kind of machine.",
            vec![],
        ),
        (_, 143) => {
            ("it is told to end (exit code 143)".to_owned(), "Somebody sent it SIGTERM.", vec![])
        }
        (_, code) => (
            format!("it ends with exit code {code}"),
            "The program gave up; its last lines say why, as far as it does.",
            vec![],
        ),
    };
    steps.push(logs);
    Remedy { symptom, cause: cause.to_owned(), steps }
}
