//! What a failed pod means for its Job. As upstream: `pkg/controller/job/pod_failure_policy.go`, KEP-3329, KEP-3850.

use crate::workload::name;
use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

/// What a failed pod means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the limits.
    Counts,
    /// It counts for nothing, and is replaced.
    Ignored,
    /// Its index has failed for good.
    FailsIndex,
    /// The whole Job has failed, and why.
    FailsJob(String),
}

/// The verdict of the first rule that matches.
pub(super) fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map_or(&[][..], |policy| policy.rules.as_slice());
    for (index, rule) in rules.iter().enumerate() {
        let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap_or_default(), name(pod));
        let why = if let Some(requirement) = &rule.on_exit_codes {
            let Some(container) = ended_so(pod, requirement) else { continue };
            format!(
                "Container {} for pod {namespace}/{name} failed with exit code {} matching {} rule at index {index}",
                container.name,
                exit_code(container).unwrap_or(0),
                rule.action
            )
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            let Some(condition) = has_condition(pod, patterns) else { continue };
            format!(
                "Pod {namespace}/{name} has condition {} matching {} rule at index {index}",
                condition.type_, rule.action
            )
        };
        match rule.action.as_str() {
            "FailJob" => return Verdict::FailsJob(why),
            "FailIndex" => return Verdict::FailsIndex,
            "Ignore" => return Verdict::Ignored,
            "Count" => return Verdict::Counts,
            // An action that a later version knows: its rule matches nothing here.
            _ => {}
        }
    }
    Verdict::Counts
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The first container that failed with a code that the rule means.
fn ended_so<'a>(
    pod: &'a Pod,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let containers = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten());
    let named = |container: &ContainerStatus| {
        requirement.container_name.as_ref().is_none_or(|name| *name == container.name)
    };
    let matches = |code: i32| match requirement.operator.as_str() {
        "In" => requirement.values.contains(&code),
        "NotIn" => !requirement.values.contains(&code),
        _ => false,
    };
    containers
        .filter(|container| named(container))
        .find(|container| exit_code(container).is_some_and(|code| code != 0 && matches(code)))
}

fn has_condition<'a>(
    pod: &'a Pod,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
) -> Option<&'a PodCondition> {
    let matches = |condition: &PodCondition, pattern: &PodFailurePolicyOnPodConditionsPattern| {
        condition.type_ == pattern.type_
            && condition.status == pattern.status.as_deref().unwrap_or("True")
    };
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| patterns.iter().any(|pattern| matches(condition, pattern)))
}
