//! Where a pod runs. As upstream: the plugins in `pkg/scheduler/framework/plugins`.

use crate::workload::{controller, phase};
use api::quantity::Quantity;
use api::selector::label::LabelSelector;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, Pod, Toleration,
};
use k8s_openapi::api::storage::v1::StorageClass;
use std::collections::{BTreeMap, HashMap};

/// What a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The pod to place.
    pub pod: &'a Pod,
    /// All nodes.
    pub nodes: &'a [&'a Node],
    /// What each node's pods take; a node without pods need not stand here.
    pub occupied: &'a HashMap<String, Occupancy>,
    /// The pod's claims that exist.
    pub claims: &'a [&'a PersistentVolumeClaim],
    /// The volumes of these claims.
    pub volumes: &'a [&'a PersistentVolume],
    /// All classes.
    pub classes: &'a [&'a StorageClass],
}

/// What a pod takes of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The node.
    pub node: String,
    cpu: Quantity,
    memory: Quantity,
    /// The uid of the pod's controller.
    owner: Option<String>,
}

impl Share {
    /// Of a pod that has a node and has not ended.
    pub fn of(pod: &Pod) -> Option<Share> {
        let node = pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())?;
        let ended = ["Succeeded", "Failed"].contains(&phase(pod));
        (!ended).then(|| Share::on(pod, node))
    }

    /// Of a pod that is to go to a node.
    pub fn on(pod: &Pod, node: &str) -> Share {
        Share {
            node: node.to_owned(),
            cpu: request(pod, "cpu"),
            memory: request(pod, "memory"),
            owner: controller(&pod.metadata).map(|owner| owner.uid.clone()),
        }
    }
}

/// What all pods of a node take, kept while pods come and go: no decision has to look at every pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    pods: usize,
    cpu: Quantity,
    memory: Quantity,
    /// Pods by the uid of their controller.
    by_owner: HashMap<String, usize>,
}

impl Occupancy {
    /// A pod has come.
    pub fn add(&mut self, share: &Share) {
        self.pods += 1;
        self.cpu = self.cpu.plus(share.cpu);
        self.memory = self.memory.plus(share.memory);
        if let Some(owner) = &share.owner {
            *self.by_owner.entry(owner.clone()).or_default() += 1;
        }
    }

    /// A pod that was added has gone.
    pub fn remove(&mut self, share: &Share) {
        self.pods = self.pods.saturating_sub(1);
        self.cpu = self.cpu.minus(share.cpu);
        self.memory = self.memory.minus(share.memory);
        let Some(owner) = &share.owner else { return };
        let left = self.by_owner.get(owner).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            self.by_owner.insert(owner.clone(), left);
        } else {
            self.by_owner.remove(owner);
        }
    }

    /// Whether no pod is left.
    pub fn is_empty(&self) -> bool {
        self.pods == 0
    }
}

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Claims are to be provisioned or bound for this node first.
    Reserve {
        /// The node.
        node: String,
        /// Claims by name.
        claims: Vec<String>,
    },
    /// It may go there now.
    Bind(String),
    /// It fits nowhere, and why.
    Nowhere(String),
}

/// Why a node does not do, in upstream's words.
type Reason = String;

/// Decides where a pod goes.
pub fn place(observed: &Observed<'_>) -> Placement {
    let wanted: Vec<&str> = observed
        .pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| claim.claim_name.as_str())
        .collect();
    let all = observed.nodes.len();
    let nowhere = |why: &str| {
        Placement::Nowhere(format!(
            "0/{all} nodes are available: {why}. preemption: 0/{all} nodes are available: {all} Preemption is not helpful for scheduling."
        ))
    };
    let mut unbound = Vec::new();
    for name in wanted {
        let Some(claim) =
            observed.claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name))
        else {
            return nowhere(&format!("persistentvolumeclaim {name:?} not found"));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return nowhere(&format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref())
            .unwrap_or_default()
            .is_empty()
        {
            if !waits_for_consumer(observed, claim) {
                return nowhere("pod has unbound immediate PersistentVolumeClaims");
            }
            unbound.push(*claim);
        } else if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound")
        {
            if let Some(node) = selected_node(claim) {
                // Its binding is under way: nothing to do and nothing to complain about.
                return Placement::Reserve { node: node.to_owned(), claims: Vec::new() };
            }
            return nowhere("pod has unbound immediate PersistentVolumeClaims");
        }
    }
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    let mut fitting: Vec<&Node> = Vec::new();
    for node in observed.nodes {
        match refusal(observed, node, &unbound) {
            None => fitting.push(node),
            Some(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    let best = fitting
        .into_iter()
        .max_by_key(|node| (score(observed, node), std::cmp::Reverse(name(node).to_owned())));
    match best {
        Some(node) if unbound.is_empty() => Placement::Bind(name(node).to_owned()),
        Some(node) => {
            let claims = unbound.iter().filter_map(|claim| claim.metadata.name.clone()).collect();
            Placement::Reserve { node: name(node).to_owned(), claims }
        }
        None if all == 0 => Placement::Nowhere("no nodes available to schedule pods".to_owned()),
        None => nowhere(
            &reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn waits_for_consumer(observed: &Observed<'_>, claim: &PersistentVolumeClaim) -> bool {
    let class =
        claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    observed.classes.iter().any(|found| {
        found.metadata.name.as_deref() == Some(class)
            && found.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
    })
}

/// Why a node does not do; `None` if it does.
fn refusal(
    observed: &Observed<'_>,
    node: &Node,
    unbound: &[&PersistentVolumeClaim],
) -> Option<Reason> {
    let pod = observed.pod;
    let spec = pod.spec.as_ref()?;
    let node_spec = node.spec.as_ref();
    let tolerates = |key: &str, value: &str, effect: &str| {
        let mut tolerations = spec.tolerations.iter().flatten();
        tolerations.any(|toleration| matches(toleration, key, value, effect))
    };
    if node_spec.and_then(|spec| spec.unschedulable) == Some(true)
        && !tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule")
    {
        return Some("node(s) were unschedulable".to_owned());
    }
    let taints = node_spec.into_iter().flat_map(|spec| spec.taints.iter().flatten());
    for taint in taints.filter(|taint| taint.effect != "PreferNoSchedule") {
        if !tolerates(&taint.key, taint.value.as_deref().unwrap_or_default(), &taint.effect) {
            return Some(format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default()
            ));
        }
    }
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let chosen =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    if !chosen
        || required.is_some_and(|required| {
            !required.node_selector_terms.iter().any(|term| term_matches(term, node))
        })
    {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if volume_conflict(observed, node) {
        return Some("node(s) had volume node affinity conflict".to_owned());
    }
    let elsewhere = unbound.iter().any(|claim| {
        selected_node(claim).is_some_and(|selected| {
            selected != name(node) && observed.nodes.iter().any(|other| name(other) == selected)
        })
    });
    if elsewhere {
        return Some("node(s) had volume node affinity conflict".to_owned());
    }
    insufficient(observed, node)
}

/// The node that a claim was promised to.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim
        .metadata
        .annotations
        .as_ref()?
        .get(crate::claim_binding::SELECTED_NODE)
        .map(String::as_str)
}

/// Whether a toleration is for a taint.
pub(crate) fn matches(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let effect_matches =
        toleration.effect.as_deref().is_none_or(|own| own.is_empty() || own == effect);
    let own_key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    effect_matches
        && (own_key == key && (exists || toleration.value.as_deref().unwrap_or_default() == value)
            || own_key.is_empty() && exists)
}

/// Whether a node is meant by a term. An empty term means none.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let requirement =
        |expressions: &Option<Vec<k8s_openapi::api::core::v1::NodeSelectorRequirement>>| {
            LabelSelector::of_node_expressions(expressions.iter().flatten().map(|e| {
                (e.key.as_str(), e.operator.as_str(), e.values.as_deref().unwrap_or_default())
            }))
        };
    let fields = BTreeMap::from([("metadata.name".to_owned(), name(node).to_owned())]);
    let some = term.match_expressions.iter().flatten().next().is_some()
        || term.match_fields.iter().flatten().next().is_some();
    some && requirement(&term.match_expressions).matches(labels)
        && requirement(&term.match_fields).matches(&fields)
}

fn volume_conflict(observed: &Observed<'_>, node: &Node) -> bool {
    let bound =
        observed.claims.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.as_deref());
    bound.into_iter().any(|volume| {
        let volume =
            observed.volumes.iter().find(|found| found.metadata.name.as_deref() == Some(volume));
        let required = volume
            .and_then(|volume| volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref());
        required.is_some_and(|required| {
            !required.node_selector_terms.iter().any(|term| term_matches(term, node))
        })
    })
}

/// What a pod asks for: the sum of its containers, or the largest init container if that is more.
fn request(pod: &Pod, resource: &str) -> Quantity {
    let Some(spec) = pod.spec.as_ref() else { return Quantity::ZERO };
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        let requests =
            container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests
            .and_then(|requests| requests.get(resource))
            .and_then(|amount| Quantity::parse(&amount.0).ok())
            .unwrap_or(Quantity::ZERO)
    };
    let (mut sidecars, mut largest) = (Quantity::ZERO, Quantity::ZERO);
    for container in spec.init_containers.iter().flatten() {
        if crate::pod::is_sidecar(container) {
            sidecars = sidecars.plus(of(container));
            largest = largest.max(sidecars);
        } else {
            largest = largest.max(sidecars.plus(of(container)));
        }
    }
    spec.containers.iter().map(of).fold(sidecars, Quantity::plus).max(largest)
}

fn allocatable(node: &Node, resource: &str) -> Quantity {
    let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    amounts
        .and_then(|amounts| amounts.get(resource))
        .and_then(|amount| Quantity::parse(&amount.0).ok())
        .unwrap_or(Quantity::ZERO)
}

fn insufficient(observed: &Observed<'_>, node: &Node) -> Option<Reason> {
    let nothing = Occupancy::default();
    let occupied = observed.occupied.get(name(node)).unwrap_or(&nothing);
    if i64::try_from(occupied.pods).unwrap_or(i64::MAX) >= allocatable(node, "pods").value() {
        return Some("Too many pods".to_owned());
    }
    [("cpu", occupied.cpu), ("memory", occupied.memory)].into_iter().find_map(|(resource, used)| {
        let wanted = request(observed.pod, resource);
        (wanted > Quantity::ZERO && used.plus(wanted) > allocatable(node, resource))
            .then(|| format!("Insufficient {resource}"))
    })
}

/// Higher is better: preferred nodes first, then few pods of the same owner, then few pods.
fn score(observed: &Observed<'_>, node: &Node) -> i64 {
    let preferred = observed.pod.spec.as_ref().and_then(|spec| {
        spec.affinity
            .as_ref()?
            .node_affinity
            .as_ref()?
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let weight: i64 = preferred
        .into_iter()
        .flatten()
        .filter(|term| term_matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum();
    let Some(occupied) = observed.occupied.get(name(node)) else { return weight * 1_000_000 };
    let siblings = controller(&observed.pod.metadata)
        .and_then(|owner| occupied.by_owner.get(&owner.uid))
        .copied()
        .unwrap_or(0);
    weight * 1_000_000 - i64::try_from(siblings * 1000 + occupied.pods).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, spec: serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec, "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"}}})).unwrap()
    }

    fn placed(spec: serde_json::Value, nodes: &[Node]) -> Placement {
        let mut whole = json!({"containers": [{"name": "c"}]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": whole})).unwrap();
        let nodes: Vec<&Node> = nodes.iter().collect();
        place(&Observed {
            pod: &pod,
            nodes: &nodes,
            occupied: &HashMap::new(),
            claims: &[],
            volumes: &[],
            classes: &[],
        })
    }

    #[test]
    fn a_pod_goes_where_it_fits() {
        let nodes = [
            node("a", json!({"unschedulable": true})),
            node("b", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})),
            node("c", json!({})),
        ];
        assert_eq!(placed(json!({}), &nodes), Placement::Bind("c".into()));
        assert_eq!(
            placed(
                json!({"nodeSelector": {"kubernetes.io/hostname": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}),
                &nodes
            ),
            Placement::Bind("b".into())
        );
        let too_much =
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]});
        let Placement::Nowhere(why) = placed(too_much, &nodes) else { panic!() };
        assert!(why.starts_with("0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable."), "{why}");
    }

    #[test]
    fn pods_spread_by_owner_and_leave_no_trace() {
        let pod = |name: &str, owner: &str, node: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner, "uid": owner, "controller": true}]},
                "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]}})).unwrap()
        };
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let nodes: Vec<&Node> = nodes.iter().collect();
        let mut occupied: HashMap<String, Occupancy> = HashMap::new();
        let place = |pod: &Pod, occupied: &HashMap<String, Occupancy>| {
            place(&Observed {
                pod,
                nodes: &nodes,
                occupied,
                claims: &[],
                volumes: &[],
                classes: &[],
            })
        };
        let first = Share::of(&pod("web-0", "web", "a")).unwrap();
        occupied.entry(first.node.clone()).or_default().add(&first);
        assert_eq!(place(&pod("web-1", "web", ""), &occupied), Placement::Bind("b".into()));
        let second = Share::on(&pod("web-1", "web", ""), "b");
        occupied.entry(second.node.clone()).or_default().add(&second);
        let Placement::Nowhere(why) = place(&pod("web-2", "web", ""), &occupied) else { panic!() };
        assert!(why.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{why}");
        for share in [&first, &second] {
            occupied.get_mut(&share.node).unwrap().remove(share);
        }
        assert!(occupied.values().all(|left| *left == Occupancy::default()));
    }

    /// C6.
    #[test]
    fn a_pod_whose_claim_does_not_exist_waits() {
        let volumes =
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
        let Placement::Nowhere(why) = placed(volumes, &[node("a", json!({}))]) else { panic!() };
        assert!(why.contains("persistentvolumeclaim \"data\" not found"), "{why}");
    }
}
