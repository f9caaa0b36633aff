//! Troubles that came with an update (G5).

use super::world::{World, labels, listed, name, space};
use super::{Patient, Trouble};
use crate::finding::{Finding, Severity, evidence, hint, step};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

const REVISION: &str = "controller-revision-hash";
/// How many differences are shown.
const MOST: usize = 6;
/// Troubles that no template makes.
const INNOCENT: [&str; 9] = [
    "claim-missing",
    "claim-terminating",
    "volume-lost",
    "named-volume",
    "no-default-class",
    "class-missing",
    "no-fitting-volume",
    "provisioning-failed",
    "stuck-terminating",
];

/// Tells of troubled pods whether their revision is to blame.
pub(super) fn judge(world: World<'_>, set: &StatefulSet, patients: &mut [Patient<'_>]) {
    let Some((current, update)) = revisions(set) else { return };
    let blamed = |patient: &Patient<'_>| {
        let rule = patient.trouble.as_ref().filter(|trouble| trouble.is_problem())?.finding.rule;
        (!INNOCENT.contains(&rule)).then_some(rule)
    };
    let old: Vec<&str> =
        patients.iter().filter(|p| revision(p.pod) != update).filter_map(blamed).collect();
    let broken: Vec<String> = patients
        .iter()
        .filter(|p| revision(p.pod) == update && blamed(p).is_some_and(|rule| !old.contains(&rule)))
        .map(|patient| name(&patient.pod.metadata).to_owned())
        .collect();
    let partition = partition(set);
    for patient in patients.iter_mut() {
        let own = name(&patient.pod.metadata).to_owned();
        let (at, ordinal) = (revision(patient.pod).to_owned(), patient.ordinal);
        let Some(trouble) = patient.trouble.as_mut().filter(|trouble| trouble.is_problem()) else {
            continue;
        };
        if broken.contains(&own) {
            broke(world, set, trouble, current, update, &broken);
        } else if at != update && ordinal >= partition && !INNOCENT.contains(&trouble.finding.rule)
        {
            outdated(set, trouble, &at, update);
        }
    }
}

/// The revisions before and after, while an update is under way.
fn revisions(set: &StatefulSet) -> Option<(&str, &str)> {
    let status = set.status.as_ref()?;
    let (current, update) =
        (status.current_revision.as_deref()?, status.update_revision.as_deref()?);
    (current != update && !current.is_empty() && !update.is_empty()).then_some((current, update))
}

fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION)).map_or("", String::as_str)
}

fn partition(set: &StatefulSet) -> i64 {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    i64::from(rolling.and_then(|rolling| rolling.partition).unwrap_or(0))
}

fn stored<'a>(world: World<'a>, set: &StatefulSet, wanted: &str) -> Option<&'a ControllerRevision> {
    world.0.revisions.iter().flatten().find(|revision| {
        name(&revision.metadata) == wanted && revision.metadata.namespace == set.metadata.namespace
    })
}

fn broke(
    world: World<'_>,
    set: &StatefulSet,
    trouble: &mut Trouble,
    current: &str,
    update: &str,
    broken: &[String],
) {
    let (space, set_name) = (space(&set.metadata), name(&set.metadata));
    let (before, after) = (stored(world, set, current), stored(world, set, update));
    let number = |revision: Option<&ControllerRevision>| {
        revision.and_then(|found| found.revision).map_or(String::new(), |at| format!(" {at}"))
    };
    let changes = match (before, after) {
        (Some(before), Some(after)) => differences(before, after),
        _ => Vec::new(),
    };
    let what = if changes.is_empty() {
        String::new()
    } else {
        format!(", which changed {}", listed(&changes))
    };
    let old = trouble.finding.clone();
    let undo = match before.and_then(|before| before.revision) {
        Some(before) => format!(
            "kubectl rollout undo -n {space} statefulset/{set_name} --to-revision={}",
            before
        ),
        None => format!("kubectl rollout undo -n {space} statefulset/{set_name}"),
    };
    let finding = Finding::new("broken-update", Severity::Problem, old.object, format!("since the update: {}", old.summary))
        .because(format!("It is of the new revision{} ({update}){what}. {}", number(after), old.cause))
        .seen(
            format!("set {set_name}"),
            &format!("status.currentRevision {current} (revision{}), status.updateRevision {update} (revision{})", number(before), number(after)),
        )
        .seen_all(changes.iter().map(|change| evidence("changed by the update", change)))
        .seen_all(old.evidence)
        .step(
            format!("Go back to revision{}, and delete what is broken: a set does not replace a pod that never became Ready", number(before)),
            format!("{undo}\nkubectl delete pod -n {space} {}", broken.join(" ")),
        );
    let finding = match old.advice.is_empty() {
        true => finding,
        false => finding.hint("Or keep the update, and cure it:"),
    };
    let again = |advice: &crate::finding::Step| advice.sentence.starts_with("Go back to the image");
    trouble.finding =
        finding.steps(old.advice.into_iter().filter(|advice| !again(advice)).collect());
}

/// A pod of an old revision that is broken, and so keeps the new one from being rolled out.
fn outdated(set: &StatefulSet, trouble: &mut Trouble, at: &str, update: &str) {
    let (space, pod) = (space(&set.metadata), trouble.finding.object.name.clone());
    trouble.finding.evidence.push(evidence(
        format!("pod {pod}"),
        &format!("is of revision {at}, while the set's newest is {update}"),
    ));
    let mut advice = vec![
        step(
            "Delete it, so that it comes back from the newer template: a set waits until a pod is Ready before it replaces it",
            format!("kubectl delete pod -n {space} {pod}"),
        ),
        hint("If the newer template does not cure it:"),
    ];
    advice.append(&mut trouble.finding.advice);
    trouble.finding.advice = advice;
}

/// What is good to know of a set that is asked about: who has which revision, where that does not change by itself.
pub(super) fn note(set: &StatefulSet, patients: &[Patient<'_>]) -> Option<String> {
    let (_, update) = revisions(set)?;
    let strategy = set.spec.update_strategy.as_ref()?;
    let old: Vec<String> = patients
        .iter()
        .filter(|patient| revision(patient.pod) != update)
        .map(|patient| name(&patient.pod.metadata).to_owned())
        .collect();
    let why = match (strategy.type_.as_deref(), partition(set)) {
        (Some("OnDelete"), _) => {
            "until they are deleted by hand (updateStrategy: OnDelete)".to_owned()
        }
        (_, partition) if partition > 0 => format!("for the partition is {partition}"),
        _ => return None,
    };
    (!old.is_empty()).then(|| format!("{} keep the old revision {why}", listed(&old)))
}

/// What differs between two templates, as `containers[db].image: postgres:15 → postgres:16`.
fn differences(before: &ControllerRevision, after: &ControllerRevision) -> Vec<String> {
    let template = |revision: &ControllerRevision| revision.data.0["spec"]["template"].clone();
    let mut found = Vec::new();
    compare("", &template(before), &template(after), &mut found);
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() || path == "spec" {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(&path, &before[key], &after[key], found);
            }
        }
        (Value::Array(old), Value::Array(new)) if named(old) && named(new) => {
            let mut names: Vec<&str> =
                old.iter().chain(new).filter_map(|item| item["name"].as_str()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let item = |all: &[Value]| {
                    all.iter().find(|item| item["name"] == name).cloned().unwrap_or(Value::Null)
                };
                compare(&format!("{path}[{name}]"), &item(old), &item(new), found);
            }
        }
        _ if before == after => {}
        _ => found.push(format!("{path}: {} → {}", shown(path, before), shown(path, after))),
    }
}

fn named(items: &[Value]) -> bool {
    items.iter().all(|item| item["name"].is_string())
}

/// A value in a few words; what may be a password is not shown.
fn shown(path: &str, value: &Value) -> String {
    let upper = path.to_uppercase();
    let secret = path.contains("env[")
        && ["PASS", "SECRET", "TOKEN", "KEY"].iter().any(|word| upper.contains(word));
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        _ if secret => return "(not shown)".to_owned(),
        Value::String(text) => text.clone(),
        other if other["value"].is_string() && path.ends_with(']') => {
            return shown(path, &other["value"]);
        }
        other => other.to_string(),
    };
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// The labels by which a set finds its pods, for manifests.
pub(super) fn match_labels(set: &StatefulSet) -> String {
    let own = set.spec.selector.match_labels.as_ref();
    let template =
        set.spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    own.filter(|labels| !labels.is_empty()).or(template).map_or(String::new(), labels)
}
