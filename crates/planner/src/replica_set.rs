//! What a ReplicaSet's controller does next. As upstream: `pkg/controller/replicaset`, `pkg/controller/controller_utils.go`.

use crate::workload::{
    controller, is_active, is_available, is_controlled_by, is_ready, phase, ready_since,
};
use api::selector::label::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use std::collections::HashMap;
use std::time::Duration;

/// The most pods that one step makes or deletes.
const BURST: usize = 500;
/// What the owner of a pod says about which goes first. As upstream: KEP-2255.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The world as the controller's caches show it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The set.
    pub set: &'a ReplicaSet,
    /// Pods that it controls, and those of its namespace that nobody controls.
    pub pods: &'a [&'a Pod],
    /// The active pods of the sets that have the same owner: of two pods the one on the fuller node goes first.
    pub related: &'a [&'a Pod],
    /// Why the last step failed, if it did.
    pub failure: Option<&'a Failure>,
    /// Now.
    pub now: Timestamp,
}

/// Why pods could not be made or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the API server said.
    pub message: String,
}

/// What to do next, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Takes an orphan that matches, after a live look.
    AdoptPod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Lets go of a pod that no longer matches.
    ReleasePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Makes a pod; the API server names it.
    CreatePod(Box<Pod>),
    /// Deletes a pod.
    DeletePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
}

/// What to do next, and what to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The status to write, if it differs.
    pub status: ReplicaSetStatus,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// A reference to the set as controller.
pub fn controller_reference(set: &ReplicaSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: set.metadata.name.clone().unwrap_or_default(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn identity(pod: &Pod) -> (String, String) {
    (pod.metadata.name.clone().unwrap_or_default(), pod.metadata.uid.clone().unwrap_or_default())
}

/// Decides the next step. Total.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let set = observed.set;
    let selector = LabelSelector::of(Some(&set.spec.selector));
    let deleting = set.metadata.deletion_timestamp.is_some();
    let mut actions = Vec::new();
    let mut own: Vec<&Pod> = Vec::new();
    for &pod in observed.pods {
        let matches = selector.matches_optional(pod.metadata.labels.as_ref());
        let (name, uid) = identity(pod);
        if is_controlled_by(&pod.metadata, set.metadata.uid.as_ref()) {
            if matches {
                own.push(pod);
            } else if !deleting {
                actions.push(Action::ReleasePod { name, uid });
            }
        } else if controller(&pod.metadata).is_none() && matches && is_active(pod) && !deleting {
            actions.push(Action::AdoptPod { name, uid });
            own.push(pod);
        }
    }
    let active: Vec<&Pod> = own.iter().copied().filter(|pod| is_active(pod)).collect();
    if !deleting {
        actions.extend(manage(observed, &active));
    }
    let status = status(observed, &own, &active);
    let min_ready = min_ready(set);
    let look_again_after = (min_ready > 0 && status.available_replicas != status.ready_replicas)
        .then(|| Duration::from_secs(min_ready + 1));
    Plan { actions, status, look_again_after }
}

fn min_ready(set: &ReplicaSet) -> u64 {
    set.spec.min_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
}

/// Makes what is missing, deletes what is too much.
fn manage(observed: &Observed<'_>, active: &[&Pod]) -> Vec<Action> {
    let wanted = usize::try_from(observed.set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if active.len() <= wanted {
        let missing = (wanted - active.len()).min(BURST);
        return (0..missing).map(|_| Action::CreatePod(Box::new(new_pod(observed.set)))).collect();
    }
    let surplus = (active.len() - wanted).min(BURST);
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in observed.related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(Rank, &Pod)> = active
        .iter()
        .map(|pod| (rank(pod, on_node.get(node(pod)).copied().unwrap_or(0), observed.now), *pod))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked
        .into_iter()
        .take(surplus)
        .map(|(_, pod)| {
            let (name, uid) = identity(pod);
            Action::DeletePod { name, uid }
        })
        .collect()
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The lower, the sooner a pod goes. As upstream: `ActivePodsWithRanks`.
type Rank =
    (bool, u8, bool, i64, std::cmp::Reverse<usize>, i64, std::cmp::Reverse<i32>, i64, String);

fn rank(pod: &Pod, on_node: usize, now: Timestamp) -> Rank {
    let ready = is_ready(pod);
    let phase = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DELETION_COST)?.parse::<i32>().ok())
        .unwrap_or(0);
    // What was ready for long stays. Ages are compared by their order of magnitude, as upstream does since 1.22.
    let magnitude = |since: Option<Timestamp>| {
        let seconds = since.map_or(0, |since| now.as_second() - since.as_second()).max(0);
        i64::from(seconds.checked_ilog2().map_or(0, |log| log + 1))
    };
    let restarts = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0);
    (
        !node(pod).is_empty(),
        phase,
        ready,
        cost.into(),
        std::cmp::Reverse(on_node),
        if ready { magnitude(ready_since(pod)) } else { 0 },
        std::cmp::Reverse(restarts),
        magnitude(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        pod.metadata.uid.clone().unwrap_or_default(),
    )
}

/// A pod from the set's template.
fn new_pod(set: &ReplicaSet) -> Pod {
    let template = set.spec.template.clone().unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// As upstream: `calculateStatus` in `pkg/controller/replicaset/replica_set_utils.go`.
fn status(observed: &Observed<'_>, own: &[&Pod], active: &[&Pod]) -> ReplicaSetStatus {
    let set = observed.set;
    let labels =
        set.spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let template = LabelSelector::of_map(&labels.unwrap_or_default());
    let count = |pods: &[&Pod], test: &dyn Fn(&Pod) -> bool| {
        let number = pods.iter().filter(|pod| test(pod)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let positive = |number: i32| (number > 0).then_some(number);
    let min_ready = min_ready(set);
    ReplicaSetStatus {
        replicas: count(active, &|_| true),
        fully_labeled_replicas: positive(count(active, &|pod| {
            template.matches_optional(pod.metadata.labels.as_ref())
        })),
        ready_replicas: positive(count(active, &is_ready)),
        available_replicas: positive(count(active, &|pod| {
            is_available(pod, min_ready, observed.now)
        })),
        terminating_replicas: Some(count(own, &|pod| {
            pod.metadata.deletion_timestamp.is_some()
                && !["Failed", "Succeeded"].contains(&phase(pod))
        })),
        observed_generation: set.metadata.generation,
        conditions: conditions(observed),
    }
}

fn conditions(observed: &Observed<'_>) -> Option<Vec<ReplicaSetCondition>> {
    let before = observed.set.status.as_ref().and_then(|status| status.conditions.clone());
    let mut conditions: Vec<ReplicaSetCondition> = before.unwrap_or_default();
    let failed = conditions
        .iter()
        .position(|condition| condition.type_.as_deref() == Some("ReplicaFailure"));
    match (observed.failure, failed) {
        (Some(failure), None) => conditions.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Timestamp::from_second(observed.now.as_second()).ok().map(Time),
        }),
        (None, Some(at)) => drop(conditions.remove(at)),
        (Some(_), Some(_)) | (None, None) => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default", "uid": "own", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}})).unwrap()
    }

    fn pod(name: &str, change: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": name, "uid": name, "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "own", "controller": true}]},
            "spec": {"nodeName": "one", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}]}});
        for (pointer, value) in change.as_object().into_iter().flatten() {
            *pod.pointer_mut(pointer).unwrap() = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn planned(set: &ReplicaSet, pods: &[Pod]) -> Plan {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let pods: Vec<&Pod> = pods.iter().collect();
        plan(&Observed { set, pods: &pods, related: &pods, failure: None, now })
    }

    fn deleted(set: &ReplicaSet, pods: &[Pod]) -> Vec<String> {
        let actions = planned(set, pods).actions;
        actions
            .into_iter()
            .map(|action| match action {
                Action::DeletePod { name, .. } => name,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_missing_is_made_at_once() {
        let plan = planned(&set(3), &[pod("a", json!({}))]);
        assert_eq!(plan.actions.len(), 2);
        let Action::CreatePod(made) = &plan.actions[0] else { panic!("{plan:?}") };
        assert_eq!(made.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(plan.status.replicas, 1);
        assert_eq!(
            (plan.status.ready_replicas, plan.status.fully_labeled_replicas),
            (Some(1), Some(1))
        );
    }

    #[test]
    fn the_pod_that_is_missed_least_goes_first() {
        let young = json!({"/metadata/creationTimestamp": "2026-01-01T00:59:00Z"});
        for (worse, change) in [
            ("not on a node", json!({"/spec/nodeName": ""})),
            ("pending", json!({"/status/phase": "Pending"})),
            ("not ready", json!({"/status/conditions/0/status": "False"})),
            (
                "ready since a short time",
                json!({"/status/conditions/0/lastTransitionTime": "2026-01-01T00:59:59Z"}),
            ),
            ("young", young),
        ] {
            let pods = [pod("a", json!({})), pod("b", change), pod("c", json!({}))];
            assert_eq!(deleted(&set(2), &pods), ["b"], "{worse}");
        }
        let mut cheap = pod("b", json!({}));
        cheap.metadata.annotations = Some([(DELETION_COST.to_owned(), "-1".to_owned())].into());
        assert_eq!(deleted(&set(1), &[pod("a", json!({})), cheap]), ["b"]);
        let crowded =
            [pod("a", json!({"/spec/nodeName": "two"})), pod("b", json!({})), pod("c", json!({}))];
        assert_eq!(deleted(&set(2), &crowded).len(), 1);
        assert_ne!(deleted(&set(2), &crowded), ["a"]);
    }

    #[test]
    fn orphans_that_match_are_taken_and_strangers_let_go() {
        let mut orphan = pod("orphan", json!({}));
        orphan.metadata.owner_references = None;
        let other = pod("other", json!({"/metadata/labels": {"app": "other"}}));
        let plan = planned(&set(1), &[orphan.clone(), other]);
        assert_eq!(
            plan.actions,
            [
                Action::AdoptPod { name: "orphan".to_owned(), uid: "orphan".to_owned() },
                Action::ReleasePod { name: "other".to_owned(), uid: "other".to_owned() },
            ]
        );
        let mut foreign = pod("foreign", json!({}));
        foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
        assert_eq!(planned(&set(0), &[foreign]).actions, []);
    }

    #[test]
    fn a_set_that_is_being_deleted_does_nothing() {
        let mut dying = set(3);
        dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(planned(&dying, &[]).actions, []);
    }

    #[test]
    fn ended_and_terminating_pods_are_replaced() {
        let mut dying = pod("dying", json!({}));
        dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let plan = planned(&set(2), &[dying, pod("failed", json!({"/status/phase": "Failed"}))]);
        assert_eq!(plan.actions.len(), 2);
        assert_eq!((plan.status.replicas, plan.status.terminating_replicas), (0, Some(1)));
    }

    #[test]
    fn a_failure_is_told_until_it_is_over() {
        let failure = Failure { reason: "FailedCreate", message: "no".to_owned() };
        let mut own = set(1);
        let now = Timestamp::UNIX_EPOCH;
        let told = |own: &ReplicaSet, failure| {
            plan(&Observed { set: own, pods: &[], related: &[], failure, now }).status
        };
        let status = told(&own, Some(&failure));
        assert_eq!(status.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
        own.status = Some(status);
        assert_eq!(told(&own, None).conditions, None);
    }

    #[test]
    fn available_is_ready_for_some_time() {
        let mut patient = set(1);
        patient.spec.min_ready_seconds = Some(3 * 3600);
        let plan = planned(&patient, &[pod("a", json!({}))]);
        assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (Some(1), None));
        assert_eq!(plan.look_again_after, Some(Duration::from_secs(3 * 3600 + 1)));
    }
}
