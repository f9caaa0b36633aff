//! Sketches of clusters, and what a budget says of them.

use super::*;
use serde_json::{Value, json};

const NOW: i64 = 1_000;

/// A pod of an owner (`kind/name`, or none), Ready or not.
fn pod(name: &str, owner: &str, ready: bool) -> Value {
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
    if let Some((kind, name)) = owner.split_once('/') {
        let version = match kind {
            "Job" => "batch/v1",
            "Thing" => "example.com/v1",
            _ => "apps/v1",
        };
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": version, "kind": kind, "name": name, "uid": owner, "controller": true}]);
    }
    pod
}

fn workload(kind: &str, name: &str, replicas: i32, above: Option<&str>) -> Value {
    let uid = format!("{kind}/{name}");
    let mut object = json!({"kind": kind, "metadata": {"name": name, "uid": uid}, "spec": {"replicas": replicas, "selector": {}, "serviceName": "s", "template": {}}});
    if let Some(above) = above {
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": above, "uid": format!("Deployment/{above}"), "controller": true}]);
    }
    object
}

struct Scene {
    budget: PodDisruptionBudget,
    pods: Vec<Pod>,
    sets: Vec<StatefulSet>,
    replica_sets: Vec<ReplicaSet>,
    deployments: Vec<Deployment>,
}

impl Scene {
    fn of(spec: Value, pods: Vec<Value>, workloads: Vec<Value>) -> Scene {
        let mut budget = json!({"metadata": {"name": "b", "namespace": "default", "generation": 3}, "spec": spec});
        budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
        let of_kind = |kind: &str| -> Vec<Value> {
            workloads.iter().filter(|object| object["kind"] == kind).cloned().collect()
        };
        Scene {
            budget: serde_json::from_value(budget).unwrap(),
            pods: serde_json::from_value(json!(pods)).unwrap(),
            sets: serde_json::from_value(json!(of_kind("StatefulSet"))).unwrap(),
            replica_sets: serde_json::from_value(json!(of_kind("ReplicaSet"))).unwrap(),
            deployments: serde_json::from_value(json!(of_kind("Deployment"))).unwrap(),
        }
    }

    fn set(spec: Value, replicas: i32, ready: usize) -> Scene {
        let pods = (0..usize::try_from(replicas).unwrap())
            .map(|n| pod(&format!("web-{n}"), "StatefulSet/web", n < ready))
            .collect();
        Scene::of(spec, pods, vec![workload("StatefulSet", "web", replicas, None)])
    }

    fn plan(&self) -> Plan {
        let workloads: Vec<Workload<'_>> = { self.sets.iter().map(Workload::StatefulSet) }
            .chain(self.replica_sets.iter().map(Workload::ReplicaSet))
            .chain(self.deployments.iter().map(Workload::Deployment))
            .collect();
        let pods: Vec<&Pod> = self.pods.iter().collect();
        plan(&Observed {
            budget: &self.budget,
            pods: &pods,
            workloads: &workloads,
            now: Timestamp::from_second(NOW).unwrap(),
        })
    }

    /// Expected, desired, healthy, allowed, and the condition's reason.
    fn check(&self, expected: (i32, i32, i32, i32, &str)) {
        let status = self.plan().status;
        let reason = status.conditions.as_ref().map(|list| list[0].reason.as_str());
        let told = (
            status.expected_pods.unwrap(),
            status.desired_healthy.unwrap(),
            status.current_healthy.unwrap(),
            status.disruptions_allowed.unwrap(),
            reason.unwrap_or_default(),
        );
        assert_eq!(told, expected, "{:?}", self.budget.spec);
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.plan().tellings.iter().map(|telling| telling.reason).collect()
    }
}

#[test]
fn what_may_go_is_what_is_healthy_beyond_what_has_to_be() {
    for (spec, replicas, ready, expected) in [
        (json!({"minAvailable": 2}), 3, 3, (3, 2, 3, 1, "SufficientPods")),
        (json!({"minAvailable": 2}), 3, 2, (3, 2, 2, 0, "InsufficientPods")),
        (json!({"minAvailable": 5}), 3, 3, (3, 5, 3, 0, "InsufficientPods")),
        (json!({"minAvailable": "50%"}), 3, 3, (3, 2, 3, 1, "SufficientPods")),
        (json!({"minAvailable": "100%"}), 3, 3, (3, 3, 3, 0, "InsufficientPods")),
        (json!({"maxUnavailable": 1}), 3, 3, (3, 2, 3, 1, "SufficientPods")),
        (json!({"maxUnavailable": 1}), 3, 1, (3, 2, 1, 0, "InsufficientPods")),
        (json!({"maxUnavailable": "30%"}), 3, 3, (3, 2, 3, 1, "SufficientPods")),
        (json!({"maxUnavailable": 9}), 3, 3, (3, 0, 3, 3, "SufficientPods")),
        (json!({"maxUnavailable": 0}), 3, 3, (3, 3, 3, 0, "InsufficientPods")),
        (json!({}), 3, 3, (0, 0, 3, 0, "InsufficientPods")),
    ] {
        Scene::set(spec, replicas, ready).check(expected);
    }
    assert_eq!(
        Scene::set(json!({"minAvailable": 1}), 3, 3).plan().status.observed_generation,
        Some(3)
    );
}

#[test]
fn a_budget_without_pods_allows_nothing() {
    let scene = Scene::of(json!({"minAvailable": 0}), vec![], vec![]);
    scene.check((0, 0, 0, 0, "InsufficientPods"));
    assert_eq!(scene.reasons(), ["NoPods"]);
    let mut nobodys = Scene::set(json!({"minAvailable": 0}), 1, 1);
    nobodys.budget.spec.as_mut().unwrap().selector = None;
    nobodys.check((0, 0, 0, 0, "InsufficientPods"));
}

#[test]
fn the_denominator_is_what_the_controllers_want_each_once() {
    let replica_set = |name: &str, replicas| workload("ReplicaSet", name, replicas, Some("web"));
    let pods = vec![
        pod("a", "ReplicaSet/old", true),
        pod("b", "ReplicaSet/new", true),
        pod("c", "ReplicaSet/alone", true),
        pod("d", "StatefulSet/db", true),
    ];
    let workloads = vec![
        replica_set("old", 1),
        replica_set("new", 4),
        workload("Deployment", "web", 4, None),
        workload("ReplicaSet", "alone", 2, None),
        workload("StatefulSet", "db", 1, None),
    ];
    Scene::of(json!({"maxUnavailable": "50%"}), pods.clone(), workloads).check((
        7,
        3,
        4,
        1,
        "SufficientPods",
    ));
    // A set whose Deployment is gone speaks for itself.
    Scene::of(json!({"maxUnavailable": 1}), pods[1..2].to_vec(), vec![replica_set("new", 4)])
        .check((4, 3, 1, 0, "InsufficientPods"));
}

#[test]
fn pods_without_a_controller_are_told_of_and_count_only_by_number() {
    let pods = vec![pod("a", "", true), pod("b", "", true)];
    let share = Scene::of(json!({"minAvailable": "50%"}), pods.clone(), vec![]);
    share.check((0, 0, 2, 0, "InsufficientPods"));
    assert_eq!(share.reasons(), ["UnmanagedPods"]);
    let number = Scene::of(json!({"minAvailable": 1}), pods, vec![]);
    number.check((2, 1, 2, 1, "SufficientPods"));
    assert_eq!(number.reasons(), [""; 0]);
}

#[test]
fn what_cannot_be_told_closes_the_budget_and_keeps_the_rest() {
    for (owner, why) in [
        ("StatefulSet/gone", "found no controllers for pod \"a\""),
        ("Thing/x", "no matches for kind \"Thing\" in version \"example.com/v1\""),
    ] {
        let mut scene =
            Scene::of(json!({"maxUnavailable": 1}), vec![pod("a", owner, true)], vec![]);
        scene.budget.status =
            serde_json::from_value(json!({"currentHealthy": 4, "desiredHealthy": 3, "expectedPods": 4, "disruptionsAllowed": 1, "observedGeneration": 2}))
                .unwrap();
        scene.check((4, 3, 4, 0, "SyncFailed"));
        let plan = scene.plan();
        assert_eq!(plan.status.conditions.unwrap()[0].message, why);
        assert_eq!(plan.status.observed_generation, Some(2));
        assert_eq!(
            plan.tellings[0].message,
            format!("Failed to calculate the number of expected pods: {why}")
        );
    }
}

#[test]
fn an_evicted_pod_does_not_count_until_it_had_the_time_to_go() {
    let at = |second: i64| Timestamp::from_second(second).unwrap().to_string();
    let scene = |since: i64| {
        let mut scene = Scene::set(json!({"minAvailable": 1}), 3, 3);
        scene.budget.status = serde_json::from_value(
            json!({"currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3, "disruptionsAllowed": 2, "disruptedPods": {"web-1": at(since), "gone": at(since)}}),
        )
        .unwrap();
        scene
    };
    let fresh = scene(NOW - 20);
    fresh.check((3, 1, 2, 1, "SufficientPods"));
    let plan = fresh.plan();
    assert_eq!(plan.look_again_after, Some(Duration::from_secs(100)));
    assert_eq!(plan.status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["web-1"]);
    let late = scene(NOW - 120);
    late.check((3, 1, 3, 2, "SufficientPods"));
    let plan = late.plan();
    assert_eq!((plan.look_again_after, plan.status.disrupted_pods), (None, None));
    assert_eq!(
        plan.tellings,
        [Telling {
            pod: Some("web-1".to_owned()),
            kind: "Warning",
            reason: "NotDeleted",
            message: "Pod was expected by PDB default/b to be deleted but it wasn't".to_owned()
        }]
    );
    let mut going = scene(NOW);
    going.pods[1].metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    going.check((3, 1, 2, 1, "SufficientPods"));
    assert_eq!(going.plan().status.disrupted_pods, None);
}

#[test]
fn the_condition_keeps_its_time_while_it_holds() {
    let mut scene = Scene::set(json!({"minAvailable": 1}), 2, 2);
    let first = scene.plan().status;
    assert_eq!(first.conditions.as_ref().unwrap()[0].last_transition_time.0.as_second(), NOW);
    let mut before = first.clone();
    before.conditions.as_mut().unwrap()[0].last_transition_time = Time(Timestamp::UNIX_EPOCH);
    scene.budget.status = Some(before.clone());
    assert_eq!(scene.plan().status, before);
    scene.pods.truncate(1);
    assert_eq!(scene.plan().status.conditions.unwrap()[0].last_transition_time.0.as_second(), NOW);
}
