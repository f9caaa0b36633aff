//! Sets whose pods are not made at all.

use super::Patient;
use super::world::{
    PATIENCE, World, condition, is, is_parallel, listed, name, object, space, told, wanted,
};
use crate::finding::{Evidence, Finding, Severity, Step, evidence, hint, step};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Why a set has fewer pods than it wants.
pub(super) fn look(world: World<'_>, set: &StatefulSet, patients: &[Patient<'_>]) -> Vec<Finding> {
    if world.0.pods.is_none() {
        return Vec::new();
    }
    if set.metadata.deletion_timestamp.is_some() {
        return vec![
            new(
                set,
                "terminating",
                Severity::Progress,
                format!("{} is being deleted", name(&set.metadata)),
            )
            .because("Its pods go before it.")
            .hint("Wait, and look again"),
        ];
    }
    unseen(world, set).or_else(|| missing(world, set, patients)).into_iter().collect()
}

fn new(set: &StatefulSet, rule: &'static str, severity: Severity, summary: String) -> Finding {
    Finding::new(rule, severity, object("StatefulSet", &set.metadata), summary)
}

/// When somebody last changed what the set asks for, as far as its managers' entries tell; else when it was made.
fn last_change(set: &StatefulSet) -> Option<&Time> {
    let entries = set.metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| entry.subresource.is_none())
        .filter_map(|entry| entry.time.as_ref())
        .max_by_key(|time| time.0)
        .or(set.metadata.creation_timestamp.as_ref())
}

/// The controller has not looked at what the set says now.
fn unseen(world: World<'_>, set: &StatefulSet) -> Option<Finding> {
    let generation = set.metadata.generation?;
    let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    if observed >= generation {
        return None;
    }
    let set_name = name(&set.metadata);
    let age = world.age(last_change(set));
    let late = age >= PATIENCE;
    let finding = new(
        set,
        "not-observed",
        if late { Severity::Problem } else { Severity::Progress },
        format!("the latest change of {set_name} has not been taken up for {age}s"),
    )
    .seen(
        format!("set {set_name}"),
        &format!("metadata.generation {generation}, status.observedGeneration {observed}"),
    );
    Some(match late {
        false => finding.because("The controller is about to look at it.").hint("Wait, and look again"),
        true => finding
            .because("The controller for StatefulSets does not run, or cannot reach the API server.")
            .hint("Look at the log of `abide server`, or of kube-controller-manager on another cluster"),
    })
}

fn missing(world: World<'_>, set: &StatefulSet, patients: &[Patient<'_>]) -> Option<Finding> {
    let (set_name, here) = (name(&set.metadata), space(&set.metadata));
    let absent: Vec<String> = wanted(set)
        .filter(|ordinal| !patients.iter().any(|patient| patient.ordinal == *ordinal))
        .map(|ordinal| format!("{set_name}-{ordinal}"))
        .collect();
    let first = absent.first()?;
    if let Some(other) = world.pods().iter().find(|pod| is(&pod.metadata, here, first)) {
        let owner = super::controller(&other.metadata)
            .map_or("nobody".to_owned(), |owner| format!("{} {}", owner.kind, owner.name));
        return Some(
            new(set, "pod-name-taken", Severity::Problem, format!("{set_name} cannot make {first}: there is a pod of that name already"))
                .because(format!("That pod belongs to {owner}, or its labels do not match the set's selector, so the set cannot take it over."))
                .seen(format!("pod {first}"), &format!("controlled by {owner}"))
                .step("Delete that pod, if it is not needed; the set makes its own", format!("kubectl delete pod -n {here} {first}")),
        );
    }
    if !is_parallel(set) && patients.iter().any(|patient| patient.trouble.is_some()) {
        return None; // They wait for the one in trouble, which says so.
    }
    let refused = world.last_event("StatefulSet", &set.metadata, &["FailedCreate"], first);
    // One that existed a moment ago does not exist now: the next try may succeed.
    if let Some(refused) = refused.filter(|event| !text(event).contains("already exists")) {
        let message = refused.message.clone().unwrap_or_default();
        let (cause, steps) = refusal(&message, here, set_name);
        return Some(
            new(
                set,
                "cannot-create",
                Severity::Problem,
                format!("{set_name} cannot make {}", listed(&absent)),
            )
            .because(cause)
            .seen_all([told(refused)])
            .steps(steps),
        );
    }
    Some(silent(world, set, patients, &absent))
}

fn refusal(message: &str, here: &str, set: &str) -> (&'static str, Vec<Step>) {
    let edit = step("Correct the template", format!("kubectl edit -n {here} statefulset/{set}"));
    if message.contains("exceeded quota") || message.contains("failed quota") {
        (
            "The namespace's quota does not allow more.",
            vec![
                step(
                    "Look what the quota allows and what is used",
                    format!("kubectl describe resourcequota -n {here}"),
                ),
                hint("Raise it, free something, or request less; the set tries again by itself"),
            ],
        )
    } else if message.contains("serviceaccount") && message.contains("not found") {
        (
            "The service account that the template names does not exist.",
            vec![
                hint(
                    "Create it (`kubectl create serviceaccount NAME`), or correct spec.template.spec.serviceAccountName",
                ),
                edit,
            ],
        )
    } else if message.contains("PodSecurity") {
        ("The namespace's level of pod security forbids what the template asks for.", vec![edit])
    } else if message.contains("is invalid") || message.contains("Invalid value") {
        ("The pod that the template describes is not valid.", vec![edit])
    } else {
        ("The API server refuses it, and says why.", vec![edit])
    }
}

fn silent(
    world: World<'_>,
    set: &StatefulSet,
    patients: &[Patient<'_>],
    absent: &[String],
) -> Finding {
    let set_name = name(&set.metadata);
    let ready = patients
        .iter()
        .filter_map(|patient| condition(patient.pod, "Ready")?.last_transition_time.as_ref())
        .map(|time| world.age(Some(time)));
    let quiet = ready.chain([world.age(last_change(set))]).min().unwrap_or(0);
    if quiet < PATIENCE {
        return new(
            set,
            "starting",
            Severity::Progress,
            format!("{set_name} is starting: {} to be made next", absent[0]),
        )
        .because("Nothing speaks against it; it was only looked at too early.")
        .hint("Wait, and look again");
    }
    new(
        set,
        "not-created",
        Severity::Problem,
        format!("{set_name} has not made {}, and nothing says why", listed(absent)),
    )
    .because("The controller for StatefulSets waits for something, or does not run.")
    .seen_all(conditions(set))
    .seen_all(world.events("StatefulSet", &set.metadata).last().map(|event| told(event)))
    .step(
        "Look at everything that is known of it",
        format!("kubectl describe statefulset -n {} {set_name}", space(&set.metadata)),
    )
}

fn conditions(set: &StatefulSet) -> Vec<Evidence> {
    let all = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.map(|condition| {
        evidence(
            format!("condition {} of set {}", said(&condition.type_), name(&set.metadata)),
            &format!("{}: {}", said(&condition.status), said(&condition.message)),
        )
    })
    .collect()
}

fn said(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn text(event: &k8s_openapi::api::core::v1::Event) -> &str {
    event.message.as_deref().unwrap_or_default()
}
