//! The decision: what was observed in, what to say out. Pure.
//!
//! One file a family of rules. `pods` looks at one pod after the other; `order` and `rollout` know what a
//! pod's trouble means for its set; `names`, `leftovers` and `sets` look at sets.

mod claims;
mod complaints;
mod crashes;
mod leftovers;
mod names;
mod order;
mod pods;
mod probes;
mod remedies;
mod rollout;
mod scheduling;
mod scope;
mod sets;
mod starting;
#[cfg(test)]
mod tests;
mod volumes;
mod world;

use crate::finding::{Diagnosis, Finding, Severity};
use crate::observed::Observed;
use crate::subject::Subject;
use complaints::Complaint;
use k8s_openapi::api::core::v1::Pod;
use scope::Scope;
use world::{World, controller, name};

pub use pods::wanted_logs;

/// Whether a pod does not exist yet only because its set has not made it.
pub fn is_awaited(observed: &Observed, pod: &str) -> bool {
    scope::awaiting(World(observed), pod).is_some()
}

/// A pod's trouble, while it is still being judged.
#[derive(Debug, Clone)]
struct Trouble {
    finding: Finding,
    /// What its log complains about.
    complaint: Option<Complaint>,
    /// When it last crashed.
    crashed_at: Option<jiff::Timestamp>,
}

impl Trouble {
    fn is_problem(&self) -> bool {
        self.finding.severity == Severity::Problem
    }
}

impl From<Finding> for Trouble {
    fn from(finding: Finding) -> Trouble {
        Trouble { finding, complaint: None, crashed_at: None }
    }
}

/// A pod and its trouble, if it has one.
struct Patient<'a> {
    ordinal: i64,
    pod: &'a Pod,
    trouble: Option<Trouble>,
}

/// Decides what is wrong, why, and what to do.
pub fn diagnose(observed: &Observed, subject: &Subject) -> Diagnosis {
    let world = World(observed);
    let scope = Scope::new(world, subject);
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    for set in world.sets().iter().filter(|set| scope.has_set(set)) {
        let mut patients: Vec<Patient<'_>> = world
            .pods_of(set)
            .into_iter()
            .map(|(ordinal, pod)| Patient { ordinal, pod, trouble: pods::look(world, pod) })
            .collect();
        rollout::judge(world, set, &mut patients);
        order::judge(world, set, &mut patients);
        findings.extend(sets::look(world, set, &patients));
        findings.extend(names::judge(world, set, &mut patients));
        findings.extend(merged(
            patients
                .iter()
                .filter(|patient| scope.has_pod(patient.pod))
                .filter_map(|patient| patient.trouble.clone().map(|trouble| trouble.finding)),
        ));
        if scope.is_asked(set) || patients.iter().any(|patient| patient.trouble.is_some()) {
            notes.extend(order::note(set, &patients));
            notes.extend(rollout::note(set, &patients));
        }
        notes.extend(
            patients
                .iter()
                .filter(|p| scope.has_pod(p.pod))
                .filter_map(|p| pods::note(world, p.pod)),
        );
    }
    let others =
        world.pods().iter().filter(|pod| world.set_of(pod).is_none() && scope.has_pod(pod));
    let others: Vec<&Pod> = others.collect();
    findings
        .extend(merged(others.iter().filter_map(|pod| pods::look(world, pod)).map(|t| t.finding)));
    notes.extend(others.iter().filter_map(|pod| pods::note(world, pod)));
    findings.extend(names::of_services(world, &scope));
    findings.extend(claims::alone(world, &scope));
    findings.extend(leftovers::look(world, &scope));
    findings.sort_by_key(|finding| finding.severity);
    Diagnosis {
        healthy: findings.is_empty(),
        state: scope.state(&others, findings.is_empty()),
        findings,
        notes,
        unseen: observed.unseen.clone(),
    }
}

/// Joins findings that differ only in the pod that they are about: one rule, one cause, one cure.
fn merged(findings: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        match kept.iter_mut().find(|other| is_same(other, &finding)) {
            Some(other) => join(other, finding.object.name),
            None => kept.push(finding),
        }
    }
    kept
}

fn is_same(one: &Finding, other: &Finding) -> bool {
    let nameless = |finding: &Finding| {
        let rename = |text: &str| text.replace(&finding.object.name, "…");
        let steps: Vec<(String, Option<String>)> = finding
            .advice
            .iter()
            .map(|step| (rename(&step.sentence), step.command.as_deref().map(rename)))
            .collect();
        (rename(&finding.cause), steps)
    };
    one.rule == other.rule
        && one.severity == other.severity
        && one.object.namespace == other.object.namespace
        && (one.cause == other.cause && one.advice == other.advice
            || nameless(one) == nameless(other))
}

/// Adds a pod to a finding, and to the command that deletes the finding's pod.
fn join(finding: &mut Finding, pod: String) {
    let own = format!(" {}", finding.object.name);
    let named = finding.also.iter().map(|other| format!(" {other}")).collect::<String>();
    for command in finding.advice.iter_mut().filter_map(|step| step.command.as_mut()) {
        if command.starts_with("kubectl delete pod") && command.ends_with(&format!("{own}{named}"))
        {
            *command += &format!(" {pod}");
        }
    }
    finding.also.push(pod);
}

/// The word for a pod's workload on kubectl's command line: `statefulset/web`.
fn workload(world: World<'_>, pod: &Pod) -> Option<String> {
    let owner = controller(&pod.metadata)?;
    if owner.kind != "ReplicaSet" {
        return Some(format!("{}/{}", owner.kind.to_lowercase(), owner.name));
    }
    let set = world.0.workloads.iter().flatten().find(|workload| {
        workload.kind == "ReplicaSet" && workload.metadata.uid.as_ref() == Some(&owner.uid)
    })?;
    let above = controller(&set.metadata);
    Some(above.map_or(format!("replicaset/{}", name(&set.metadata)), |above| {
        format!("{}/{}", above.kind.to_lowercase(), above.name)
    }))
}
