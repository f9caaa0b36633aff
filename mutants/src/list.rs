/// A rule of the planner, and how it is broken.
#[derive(Debug)]
pub struct Mutant {
    /// Which promise that breaks.
    pub breaks: &'static str,
    /// Where the rule stands, below `crates/planner/src`.
    pub file: &'static str,
    /// The rule, between the marks, in words that stand once in the file.
    pub rule: &'static str,
    /// What stands there in the mutant.
    pub broken: &'static str,
    /// What stands there otherwise, where the rule itself has another type.
    pub kept: &'static str,
}

const SET: &str = "statefulset/mod.rs";
const ROLLOUT: &str = "statefulset/rollout.rs";
const REVISION: &str = "statefulset/revision.rs";
const CLAIMS: &str = "statefulset/claims.rs";
const IDENTITY: &str = "statefulset/identity.rs";
const STATUS: &str = "statefulset/status.rs";
const WORKLOAD: &str = "workload.rs";

const fn mutant(breaks: &'static str, file: &'static str, rule: &'static str, broken: &'static str) -> Mutant {
    Mutant { breaks, file, rule, broken, kept: "" }
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    mutant("T63: an update waits for the scale-down", SET, "«matches!(self.condemned(), Walk::Done)»", "{ drop(self.condemned()); true }"),
    mutant("T93: a set that is being deleted does nothing", SET, "let deleting = «self.observed.set.metadata.deletion_timestamp.is_some()»;", "false"),
    mutant("T1: one after the other", SET, "«self.spec().pod_management_policy.as_deref() != Some(\"Parallel\")»", "false"),
    mutant("T2: Parallel is all at once", SET, "«self.spec().pod_management_policy.as_deref() != Some(\"Parallel\")»", "true"),
    mutant("T6: Succeeded pods are replaced as well", SET, "«[\"Failed\", \"Succeeded\"]».contains", "[\"Failed\", \"Failed\"]"),
    mutant("T7: what is terminating is not deleted again", SET, "if «!terminating» {\n                self.delete(pod);", "true"),
    mutant("T12: a missing claim is made for a Pending pod", SET, "if «status::phase(pod) == \"Pending\" && !terminating» {", "false"),
    mutant("T5: an ordered set waits for a terminating pod", SET, "return if «monotonic» {\n                self.wait(format!(\"pod {name} to be gone\"))", "false"),
    mutant("T1: the predecessor is Ready", WORKLOAD, "&& «ready_condition(pod).is_some_and(|condition| condition.status == \"True\")»", "true"),
    mutant("T19: lost labels are put back", SET, "«self.mend(ordinal, pod)»;", "()"),
    mutant("T20: a name that is taken is respected", SET, "= «self.members.foreign.iter().find(|pod| identity::name(pod) == name)»", "None"),
    mutant("T13: a stale claim is waited for", SET, "|| «claims::belongs_to_a_dead_pod(found, &name)»", "false"),
    mutant("a former set's claim is waited for", SET, "|| «claims::belongs_to_a_dead_set(found, self.observed.set)»", "false"),
    mutant("T14: no pod starts on a dying claim", SET, "if «found.metadata.deletion_timestamp.is_some()»\n                        ||", "false"),
    Mutant { breaks: "T30: from the highest ordinal down", file: SET, rule: "in «condemned.iter().rev()» {", broken: "condemned.iter().collect::<Vec<_>>()", kept: "condemned.iter().rev().collect::<Vec<_>>()" },
    mutant("T30: the next waits until the last is gone", SET, "if «monotonic» {\n                    return self.wait(format!(\"pod {name} to be gone\"));\n                }\n                continue;", "false"),
    mutant("T33: the first unhealthy pod may go", SET, "&& «!is_first_unhealthy»\n", "true"),
    mutant("T35: claims know before their pod goes", SET, "«self.own_claims(*ordinal, pod, true)»;", "()"),
    mutant("T61: OnDelete leaves it to the user", ROLLOUT, "if «strategy.type_.as_deref() == Some(\"OnDelete\")» {", "false"),
    mutant("T57: pods below the partition are kept", ROLLOUT, "let partition = «usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0)»;", "0"),
    mutant("T50: old pods are replaced", ROLLOUT, "«revision != Some(&self.revisions.update.revision)»", "false"),
    mutant("T50: the next waits until the last is Ready", ROLLOUT, "if «!status::is_healthy(pod) || !self.is_available(pod)» {", "false"),
    mutant("T53: no more than may be unavailable", ROLLOUT, "let allowed = «at_most.saturating_sub(unavailable)»;", "at_most"),
    Mutant { breaks: "T50: from the highest ordinal down", file: ROLLOUT, rule: "for pod in «slots.iter().skip(partition).rev()» {", broken: "slots.iter().skip(partition).collect::<Vec<_>>()", kept: "slots.iter().skip(partition).rev().collect::<Vec<_>>()" },
    mutant("T57: below the partition pods come back as they were", REVISION, "if «ordinal < identity::start(set) + below» {", "false"),
    mutant("T111: an older template becomes the newest again", REVISION, "if «found.revision != Some(next_number - 1)» {", "false"),
    mutant("T113: revisions that pods live by stay", REVISION, "«!lives.contains(&revision.metadata.name.as_deref().unwrap_or_default())»", "true"),
    mutant("T103: orphaned revisions are adopted", REVISION, "«controller(&revision.metadata).is_none()»\n", "false"),
    mutant("T37: only a scale-down takes claims along", CLAIMS, "let by_pod = «condemned && with_scale»;", "with_scale"),
    mutant("T40: a condemned claim is its pod's alone", CLAIMS, "let by_set = «with_set && !by_pod»;", "with_set"),
    mutant("T40: whenDeleted makes the set an owner", CLAIMS, "«with_set && !by_pod»", "false"),
    mutant("T44: another controller's claim is left alone", CLAIMS, "«owner.uid != set_uid && owner.uid != identity::uid(pod)»)\n", "false"),
    mutant("T46: claims are known by their exact names", CLAIMS, "    «observed.claims.get(wanted.metadata.name.as_deref()?).copied()»\n", "observed.claims.values().copied().find(|claim| claim.metadata.name.as_deref().unwrap_or_default().ends_with(&wanted.metadata.name.as_deref().unwrap_or_default()[5..]))"),
    mutant("T100: only what matches is adopted", IDENTITY, "if «matches»\n                    && pod.metadata.deletion_timestamp.is_none()", "true"),
    mutant("T101: what no longer matches is released", IDENTITY, "if owner.uid == own_uid && «matches» =>", "true"),
    mutant("T18: a pod's host name is its own", IDENTITY, "spec.hostname = «Some(name.clone())»;", "None"),
    mutant("T90: terminating pods are not updated ones", STATUS, "«pod.metadata.deletion_timestamp.is_none()»\n                && pod.metadata.labels", "true"),
    mutant("T59: what is being deleted is not current", STATUS, ".saturating_sub(«lost_current»)", "0"),
    mutant("T62: an update is complete when all are Ready", STATUS, "&& «ready == replicas»\n", "true"),
    mutant("T50: what is terminating is not healthy", STATUS, "is_ready(pod) && «pod.metadata.deletion_timestamp.is_none()»", "true"),
];
