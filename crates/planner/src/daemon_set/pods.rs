//! The pods of a set: whose they are, where they stand, what new ones look like.

use super::{Action, HASH_LABEL, Observed, nodes};
use crate::workload::phase;
use crate::workload::{controller, name, uid};
use api::kinds::daemon_set::TEMPLATE_GENERATION;
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

/// The label of a pod with the number of its template.
const GENERATION_LABEL: &str = "pod-template-generation";

/// A reference to the set as controller.
pub fn controller_reference(set: &DaemonSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "DaemonSet".to_owned(),
        name: set.metadata.name.clone().unwrap_or_default(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The set's selector.
pub(super) fn selector(set: &DaemonSet) -> LabelSelector {
    LabelSelector::of(Some(&set.spec.selector))
}

/// The set's pods, and who is to be adopted and let go. As upstream: `ClaimPods`.
pub(super) fn members<'a>(observed: &Observed<'a>) -> (Vec<&'a Pod>, Vec<Action>) {
    let own_uid = observed.set.metadata.uid.as_deref().unwrap_or_default();
    let selector = selector(observed.set);
    let (mut own, mut actions) = (Vec::new(), Vec::new());
    for pod in observed.pods.iter().copied() {
        let matches = selector.matches_optional(pod.metadata.labels.as_ref());
        let (name, uid) = (name(pod).to_owned(), uid(pod).to_owned());
        match controller(&pod.metadata) {
            Some(owner) if owner.uid == own_uid && matches => own.push(pod),
            Some(owner) if owner.uid == own_uid => actions.push(Action::ReleasePod { name, uid }),
            None if matches && pod.metadata.deletion_timestamp.is_none() => {
                actions.push(Action::AdoptPod { name, uid });
                own.push(pod);
            }
            _ => {}
        }
    }
    (own, actions)
}

/// Pods by the node that they are meant for, bound ones first, then the oldest. What has ended and is being deleted
/// stands in nobody's way.
pub(super) fn by_node<'a>(pods: &[&'a Pod]) -> BTreeMap<&'a str, Vec<&'a Pod>> {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        let ended = ["Succeeded", "Failed"].contains(&phase(pod));
        if ended && pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if let Some(node) = nodes::target_node(pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_cached_key(|pod| {
            let unbound = pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none());
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (unbound, made, name(pod).to_owned())
        });
    }
    by_node
}

/// A pod for a node: bound by the scheduler, which its affinity leaves no choice.
pub(super) fn new_pod(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let template = set.spec.template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let annotations = set.metadata.annotations.as_ref();
    if let Some(generation) = annotations.and_then(|all| all.get(TEMPLATE_GENERATION)) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    let mut spec = template.spec.unwrap_or_default();
    spec.tolerations = Some(nodes::tolerations(&spec));
    let affinity = spec.affinity.take().unwrap_or_default();
    spec.affinity = Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(only(node)),
            ..affinity.node_affinity.clone().unwrap_or_default()
        }),
        ..affinity
    });
    Pod {
        metadata: ObjectMeta {
            generate_name: set.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn only(node: &str) -> NodeSelector {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term =
        NodeSelectorTerm { match_fields: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    NodeSelector { node_selector_terms: vec![term] }
}
