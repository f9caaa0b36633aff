//! Which nodes are to have a pod. As upstream: `NodeShouldRunDaemonPod`, `AddOrUpdateDaemonPodTolerations`.

use crate::scheduling::{matches, term_matches};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Toleration};

/// What a node is for a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It has a pod.
    Runs,
    /// It gets none, but one that is there stays.
    Stays,
    /// It has none.
    Never,
}

/// Taints that the pods of every set tolerate: they say what is wrong with a node, which is no reason to leave it.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Of pods on the node's own network also this.
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A node's name.
pub(super) fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// The tolerations of a set's pods: its own, and those that every set has.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some(NO_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One for the same taint is replaced, as upstream: it may be bounded in time.
        match all
            .iter_mut()
            .find(|own| own.key == toleration.key && own.effect == toleration.effect)
        {
            Some(own) => *own = toleration,
            None => all.push(toleration),
        }
    }
    all
}

/// What a node is for a set.
pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let spec = set.spec.template.spec.clone().unwrap_or_default();
    let named = spec.node_name.as_deref().unwrap_or_default();
    if !named.is_empty() && named != name(node) {
        return Fit::Never;
    }
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    let meant = required
        .is_none_or(|one| one.node_selector_terms.iter().any(|term| term_matches(term, node)));
    if !selected || !meant {
        return Fit::Never;
    }
    let tolerations = tolerations(&spec);
    let untolerated = |effects: &[&str]| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.filter(|taint| effects.contains(&taint.effect.as_str())).any(|taint| {
            let value = taint.value.as_deref().unwrap_or_default();
            !tolerations.iter().any(|one| matches(one, &taint.key, value, &taint.effect))
        })
    };
    match (untolerated(&["NoSchedule", "NoExecute"]), untolerated(&["NoExecute"])) {
        (false, _) => Fit::Runs,
        (true, false) => Fit::Stays,
        (true, true) => Fit::Never,
    }
}

/// The node that a pod is on, or is meant for. As upstream: `GetTargetNodeName`.
pub fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| &term.match_fields).flatten();
    fields.filter(|field| field.key == "metadata.name" && field.operator == "In").find_map(
        |field| match field.values.as_deref() {
            Some([node]) => Some(node.as_str()),
            _ => None,
        },
    )
}
