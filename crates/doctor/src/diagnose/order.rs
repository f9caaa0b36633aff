//! What a pod's trouble means for the others of its set: the order in which pods start (G4).

use super::complaints::Complaint;
use super::remedies;
use super::world::{
    World, condition, is_parallel, is_ready, listed, name, object, ordinal, space, wanted,
};
use super::{Patient, Trouble};
use crate::finding::{Evidence, Finding, Severity, Step, evidence, hint, step};
use k8s_openapi::api::apps::v1::StatefulSet;

/// Troubles of a pod that only takes its time.
const STARTING: [&str; 4] = ["starting", "terminating", "probe-failing", "not-ready"];

/// Rewrites troubles that come from the order of starting, and says what waits for whom.
pub(super) fn judge(world: World<'_>, set: &StatefulSet, patients: &mut [Patient<'_>]) {
    if is_parallel(set) {
        let early: Vec<usize> =
            (0..patients.len()).filter(|at| starts_too_early(world, patients, *at)).collect();
        let names: Vec<String> =
            early.iter().map(|at| name(&patients[*at].pod.metadata).to_owned()).collect();
        for at in early {
            let found = out_of_order(world, set, patients, at, &names);
            patients[at].trouble = Some(found);
        }
        return;
    }
    if let Some(at) = patients.iter().position(|patient| patient.trouble.is_some()) {
        let waiting = waiting(set, patients, patients[at].ordinal);
        let locked = locked(set, &patients[at], &waiting);
        let Some(trouble) = patients[at].trouble.as_mut() else { return };
        if !waiting.is_empty() {
            trouble.finding.evidence.push(waits(set, &waiting, &trouble.finding.object.name));
        }
        if let Some(later) = locked {
            deadlock(world, set, trouble, &later);
        }
    }
}

/// What a Parallel set that is asked about, or is not well, is told.
pub(super) fn note(set: &StatefulSet, patients: &[Patient<'_>]) -> Option<String> {
    let told = patients
        .iter()
        .flat_map(|p| &p.trouble)
        .any(|trouble| trouble.finding.rule == "out-of-order");
    (is_parallel(set) && !told).then(|| {
        format!(
            "{} starts and deletes its pods all at once (podManagementPolicy: Parallel): none waits until its predecessor is Ready",
            name(&set.metadata)
        )
    })
}

/// Pods that are not made before another is Ready.
fn waiting(set: &StatefulSet, patients: &[Patient<'_>], blocker: i64) -> Vec<String> {
    wanted(set)
        .filter(|ordinal| {
            *ordinal > blocker && !patients.iter().any(|patient| patient.ordinal == *ordinal)
        })
        .map(|ordinal| format!("{}-{ordinal}", name(&set.metadata)))
        .collect()
}

fn waits(set: &StatefulSet, waiting: &[String], blocker: &str) -> Evidence {
    let (are, shown) = match waiting {
        [one] => ("is", one.clone()),
        [first, .., last] if waiting.len() > 4 => ("are", format!("{first} … {last}")),
        _ => ("are", listed(waiting)),
    };
    evidence(
        format!("set {}", name(&set.metadata)),
        &format!(
            "{shown} {are} not made before {blocker} is Ready (podManagementPolicy: OrderedReady)"
        ),
    )
}

/// Whether a crash comes from a peer that was not Ready yet, and may become so.
fn starts_too_early(world: World<'_>, patients: &[Patient<'_>], at: usize) -> bool {
    awaited(world, patients, at).is_some()
}

/// The earlier pod that a crashing pod needed and that was not Ready when it crashed.
fn awaited<'a, 'b>(
    world: World<'_>,
    patients: &'b [Patient<'a>],
    at: usize,
) -> Option<&'b Patient<'a>> {
    let trouble = patients[at].trouble.as_ref()?;
    let host = match trouble.complaint.as_ref()? {
        Complaint::Unreachable(host) | Complaint::NameUnknown(host) => host.as_deref(),
        _ => return None,
    };
    let asking = remedies::Patient { world, pod: patients[at].pod, container: "" };
    let named = host.and_then(|host| asking.peer(host)).map(|pod| name(&pod.metadata));
    patients[..at].iter().find(|earlier| {
        let is_meant = named.is_none_or(|named| named == name(&earlier.pod.metadata));
        let rule = earlier.trouble.as_ref().map_or("starting", |trouble| trouble.finding.rule);
        let starting = !is_ready(earlier.pod) && STARTING.contains(&rule);
        let ready_since =
            condition(earlier.pod, "Ready").and_then(|c| c.last_transition_time.as_ref());
        let late = is_ready(earlier.pod) && ready_since.map(|time| time.0) > trouble.crashed_at;
        is_meant && (starting || late)
    })
}

fn out_of_order(
    world: World<'_>,
    set: &StatefulSet,
    patients: &[Patient<'_>],
    at: usize,
    early: &[String],
) -> Trouble {
    let (pod, set_name) = (patients[at].pod, name(&set.metadata));
    let earlier =
        awaited(world, patients, at).map_or(set_name, |earlier| name(&earlier.pod.metadata));
    let mut trouble = patients[at].trouble.clone().unwrap_or_else(|| {
        Finding::new("out-of-order", Severity::Problem, object("Pod", &pod.metadata), "").into()
    });
    let old = trouble.finding;
    let summary = format!(
        "{} started before {earlier} was Ready, and crashes: {}",
        name(&pod.metadata),
        short(&old.summary)
    );
    let space = space(&set.metadata);
    trouble.finding = Finding::new("out-of-order", Severity::Problem, object("Pod", &pod.metadata), summary)
        .because(format!("{set_name} starts all its pods at once (podManagementPolicy: Parallel), and its replicas need {earlier} to be up before them."))
        .seen(format!("set {set_name}"), "spec.podManagementPolicy: Parallel")
        .seen_all(old.evidence)
        .steps(vec![
            change(world, set, "podManagementPolicy", "Parallel", "OrderedReady", "Let the pods start one after the other, each once its predecessor is Ready (change it in your manifest too)"),
            step("Delete the pods that started too early; they come back in order", format!("kubectl delete pod -n {space} {}", early.join(" "))),
            hint(format!("Or keep Parallel, and let the replicas wait for {earlier} themselves: an init container that tries until it answers")),
        ]);
    trouble
}

/// The symptom of a crash without who has it.
fn short(summary: &str) -> &str {
    summary.split_once(": ").map_or(summary, |(_, symptom)| symptom)
}

/// A later pod that an earlier one needs, under OrderedReady.
fn locked(set: &StatefulSet, patient: &Patient<'_>, waiting: &[String]) -> Option<String> {
    let complaint = patient.trouble.as_ref()?.complaint.as_ref()?;
    let (Complaint::Unreachable(Some(host)) | Complaint::NameUnknown(Some(host))) = complaint
    else {
        return None;
    };
    let first = host.split('.').next()?;
    ordinal(name(&set.metadata), first)?;
    waiting.iter().find(|pod| *pod == first).cloned()
}

fn deadlock(world: World<'_>, set: &StatefulSet, trouble: &mut Trouble, later: &str) {
    let own = trouble.finding.object.name.clone();
    trouble.finding.rule = "ordered-deadlock";
    trouble.finding.cause = format!(
        "{own} needs {later}, and {later} is not made before {own} is Ready (podManagementPolicy: OrderedReady): each waits for the other."
    );
    trouble.finding.advice = vec![
        change(
            world,
            set,
            "podManagementPolicy",
            "OrderedReady",
            "Parallel",
            "Let the pods start all at once (change it in your manifest too)",
        ),
        hint(
            "And let their names resolve before they are Ready: publishNotReadyAddresses: true in the headless Service",
        ),
    ];
}

/// Changes a field that a set keeps for life.
pub(super) fn change(
    world: World<'_>,
    set: &StatefulSet,
    field: &str,
    old: &str,
    new: &str,
    sentence: &str,
) -> Step {
    let (space, set_name) = (space(&set.metadata), name(&set.metadata));
    if world.0.on_abide {
        return step(
            sentence,
            format!(
                "kubectl annotate statefulset -n {space} {set_name} abide.dev/mutable-fields=true --overwrite\nkubectl patch statefulset -n {space} {set_name} --type=merge -p '{{\"spec\":{{\"{field}\":\"{new}\"}}}}'"
            ),
        );
    }
    step(
        format!(
            "{sentence}. The field cannot be changed in place: the set is made anew, its pods are kept and taken over"
        ),
        format!(
            "kubectl get statefulset -n {space} {set_name} -o yaml | sed 's/^  {field}: {old}$/  {field}: {new}/' | kubectl replace --force --cascade=orphan -f -"
        ),
    )
}
