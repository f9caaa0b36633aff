//! Worlds in, plans out; and roll-outs, step by step.

use super::*;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// A set, its nodes `a`, `b`, …, and what is made for it.
struct World {
    set: DaemonSet,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    revisions: Vec<ControllerRevision>,
    back_offs: BackOffs,
    now: i64,
    made: usize,
    told: Vec<String>,
    /// Whether new pods become Ready by themselves.
    works: bool,
}

fn merge(into: &mut Value, change: Value) {
    match change {
        Value::Object(fields) => {
            for (key, value) in fields {
                merge(&mut into[&key], value);
            }
        }
        other => *into = other,
    }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(name: &str, spec: Value) -> Node {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": spec}),
    )
    .unwrap()
}

impl World {
    fn new(nodes: &str, spec: Value) -> World {
        let mut set = json!({"metadata": {"name": "agent", "namespace": "default", "uid": "set-uid", "generation": 1,
            "annotations": {"deprecated.daemonset.template.generation": "1"}}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}});
        merge(&mut set["spec"], spec);
        World {
            set: serde_json::from_value(set).unwrap(),
            nodes: nodes.chars().map(|name| node(&name.to_string(), json!({}))).collect(),
            pods: Vec::new(),
            revisions: Vec::new(),
            back_offs: BackOffs::default(),
            now: 1000,
            made: 0,
            told: Vec::new(),
            works: true,
        }
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            set: &self.set,
            revisions: &self.revisions.iter().collect::<Vec<_>>(),
            pods: &self.pods.iter().collect::<Vec<_>>(),
            nodes: &self.nodes.iter().collect::<Vec<_>>(),
            back_offs: &self.back_offs,
            now: time(self.now),
        })
    }

    /// What a plan wants of pods, in words.
    fn wants(&self) -> Vec<String> {
        self.plan()
            .actions
            .iter()
            .filter_map(|action| {
                Some(match action {
                    Action::CreatePod(pod) => format!("create {}", target_node(pod).unwrap()),
                    Action::DeletePod { name, .. } => format!("delete {name}"),
                    Action::ForcePod { name, .. } => format!("force {name}"),
                    Action::AdoptPod { name, .. } => format!("adopt {name}"),
                    Action::ReleasePod { name, .. } => format!("release {name}"),
                    Action::CreateRevision(_)
                    | Action::AdoptRevision { .. }
                    | Action::RenumberRevision { .. }
                    | Action::DeleteRevision { .. } => return None,
                })
            })
            .collect()
    }

    /// One reconcile; pods are bound, become Ready and go at once. Says whether anything changed.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        let changed = !plan.actions.is_empty();
        for action in plan.actions {
            match action {
                Action::CreatePod(pod) => {
                    let mut pod = *pod;
                    let node = target_node(&pod).unwrap().to_owned();
                    let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
                    pod.metadata.name = Some(format!("{node}-{image}-{}", self.made));
                    pod.metadata.uid = Some(format!("uid-{}", self.made));
                    pod.metadata.creation_timestamp = Some(Time(time(self.now)));
                    pod.spec.as_mut().unwrap().node_name = Some(node);
                    self.made += 1;
                    self.pods.push(pod);
                    let word = if self.works { "True" } else { "False" };
                    self.set_ready(self.pods.len() - 1, word);
                }
                Action::DeletePod { name, .. } | Action::ForcePod { name, .. } => {
                    self.pods.retain(|pod| super::name(pod) != name);
                }
                Action::CreateRevision(revision) => self.revisions.push(*revision),
                Action::RenumberRevision { name, revision } => {
                    let found = self.revisions.iter_mut();
                    found.filter(|one| one.metadata.name.as_ref() == Some(&name)).for_each(|one| {
                        one.revision = Some(revision);
                    });
                }
                Action::DeleteRevision { name } => {
                    self.revisions.retain(|one| one.metadata.name.as_ref() != Some(&name));
                }
                Action::AdoptPod { .. }
                | Action::ReleasePod { .. }
                | Action::AdoptRevision { .. } => {}
            }
        }
        self.back_offs = plan.back_offs;
        self.told.extend(plan.tellings.into_iter().map(|telling| telling.message));
        self.set.status = Some(plan.status);
        changed
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.step() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.overview());
    }

    fn set_ready(&mut self, at: usize, word: &str) {
        let since = time(self.now).to_string();
        self.pods[at].status = serde_json::from_value(json!({"phase": "Running",
            "conditions": [{"type": "Ready", "status": word, "lastTransitionTime": since}]}))
        .unwrap();
    }

    fn set_phase(&mut self, at: usize, phase: &str) {
        self.pods[at].status = serde_json::from_value(json!({"phase": phase})).unwrap();
    }

    fn set_image(&mut self, image: &str) {
        let template = &mut self.set.spec.template;
        template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    }

    fn taint(&mut self, node: usize, taint: Value) {
        self.nodes[node].spec = serde_json::from_value(json!({"taints": [taint]})).unwrap();
    }

    /// The pods as `node-image`, sorted.
    fn overview(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .pods
            .iter()
            .map(|pod| super::name(pod).rsplit_once('-').unwrap().0.to_owned())
            .collect();
        all.sort();
        all
    }

    fn status(&self) -> Value {
        serde_json::to_value(self.plan().status).unwrap()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn each_node_has_one_pod_that_only_it_can_take() {
    let mut world = World::new(
        "ab",
        json!({"template": {"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "name", "operator": "Exists"}]}]}}}}}}),
    );
    assert_eq!(world.wants(), ["create a", "create b"]);
    world.settle();
    let pod = serde_json::to_value(&world.pods[1]).unwrap();
    assert_eq!(
        pod["spec"]["affinity"],
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}})
    );
    let keys: Vec<&str> = pod["spec"]["tolerations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|toleration| toleration["key"].as_str().unwrap().rsplit_once('/').unwrap().1)
        .collect();
    assert_eq!(
        keys,
        [
            "not-ready",
            "unreachable",
            "disk-pressure",
            "memory-pressure",
            "pid-pressure",
            "unschedulable"
        ]
    );
    assert_eq!(pod["metadata"]["generateName"], "agent-");
    assert_eq!(pod["metadata"]["labels"]["pod-template-generation"], "1");
    let hash = world.revisions[0].metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
    assert_eq!(pod["metadata"]["labels"][HASH_LABEL], hash);
    assert_eq!(world.revisions[0].metadata.name, Some(format!("agent-{hash}")));
    assert_eq!(
        world.status(),
        json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2,
            "updatedNumberScheduled": 2, "numberAvailable": 2})
    );
    assert_eq!(world.wants(), NOTHING);
}

#[test]
fn pods_follow_their_nodes() {
    let mut world = World::new("ab", json!({}));
    world.settle();
    world.nodes.push(node("c", json!({})));
    assert_eq!(world.wants(), ["create c"]);
    world.settle();
    world.nodes.remove(0);
    assert_eq!(world.wants(), ["force a-v1-0"], "nobody else would end it");
    world.settle();
    assert_eq!(world.overview(), ["b-v1", "c-v1"]);
}

#[test]
fn a_pod_that_waits_for_a_node_that_is_gone_is_deleted() {
    let mut world = World::new("a", json!({}));
    world.settle();
    world.pods[0].spec.as_mut().unwrap().node_name = None;
    world.nodes.clear();
    assert_eq!(world.wants(), ["delete a-v1-0"]);
}

#[test]
fn selectors_and_affinity_choose_nodes() {
    for template in [
        json!({"nodeSelector": {"name": "b"}}),
        json!({"nodeName": "b"}),
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["a", "c"]}]}]}}}}),
    ] {
        let world = World::new("abc", json!({"template": {"spec": template}}));
        assert_eq!(world.wants(), ["create b"], "{template}");
    }
    let mut moved = World::new("ab", json!({}));
    moved.settle();
    moved.nodes[0].metadata.labels = None;
    moved.set.spec.template.spec.as_mut().unwrap().node_selector =
        Some([("name".to_owned(), "b".to_owned())].into());
    assert_eq!(moved.wants(), ["delete a-v1-0"]);
    assert_eq!(moved.status()["numberMisscheduled"], 1);
    assert_eq!(moved.status()["desiredNumberScheduled"], 1);
}

#[test]
fn taints_keep_new_pods_away_and_drive_old_ones_off() {
    let mut world = World::new("ab", json!({}));
    world.taint(1, json!({"key": "k", "effect": "NoSchedule"}));
    assert_eq!(world.wants(), ["create a"]);
    world.settle();
    world.taint(0, json!({"key": "k", "effect": "NoSchedule"}));
    assert_eq!(world.wants(), NOTHING, "who is there stays");
    world.taint(0, json!({"key": "k", "effect": "NoExecute"}));
    assert_eq!(world.wants(), ["delete a-v1-0"]);
    for key in ["not-ready", "unreachable"] {
        world.taint(0, json!({"key": format!("node.kubernetes.io/{key}"), "effect": "NoExecute"}));
        assert_eq!(world.wants(), NOTHING, "{key}");
    }
    world.taint(1, json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}));
    assert_eq!(world.wants(), ["create b"]);
    world
        .taint(1, json!({"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}));
    assert_eq!(world.wants(), NOTHING);
    world.set.spec.template.spec.as_mut().unwrap().host_network = Some(true);
    assert!(
        world.wants().contains(&"create b".to_owned()),
        "its own network is none of its business"
    );
}

#[test]
fn an_update_keeps_all_but_one_available() {
    let mut world = World::new("abcd", json!({}));
    world.settle();
    world.set_image("v2");
    world.works = false;
    assert_eq!(world.wants(), ["delete a-v1-0"]);
    world.step();
    assert_eq!(world.wants(), ["create a"]);
    world.step();
    assert_eq!(world.wants(), NOTHING, "until the new one is available");
    assert_eq!(world.status()["updatedNumberScheduled"], 1);
    assert_eq!(world.status()["numberUnavailable"], 1);
    world.works = true;
    world.set_ready(3, "True");
    world.settle();
    assert_eq!(world.overview(), ["a-v2", "b-v2", "c-v2", "d-v2"]);
}

#[test]
fn more_may_be_updated_at_once_and_broken_ones_always() {
    let mut world = World::new(
        "abcde",
        json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}}),
    );
    world.settle();
    world.set_image("v2");
    assert_eq!(world.wants().len(), 2, "30% of 5, rounded up");
    world.set_ready(4, "False");
    world.set_ready(3, "False");
    world.set_ready(2, "False");
    let mut wants = world.wants();
    wants.sort();
    assert_eq!(wants, ["delete c-v1-2", "delete d-v1-3", "delete e-v1-4"]);
}

#[test]
fn ready_for_some_time_means_available() {
    let mut world = World::new("ab", json!({"minReadySeconds": 30}));
    world.settle();
    assert_eq!(world.status().get("numberAvailable"), None);
    assert_eq!(world.status()["numberReady"], 2);
    assert_eq!(world.plan().look_again_after, Some(Duration::from_secs(30)));
    world.now += 30;
    assert_eq!(world.status()["numberAvailable"], 2);
    world.set_image("v2");
    world.settle();
    assert_eq!(world.overview(), ["a-v2", "b-v1"]);
    world.now += 30;
    world.settle();
    assert_eq!(world.overview(), ["a-v2", "b-v2"]);
}

#[test]
fn a_surge_makes_the_new_pod_before_the_old_one_goes() {
    let mut world = World::new(
        "abc",
        json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}),
    );
    world.settle();
    world.set_image("v2");
    world.works = false;
    assert_eq!(world.wants(), ["create a"]);
    world.step();
    assert_eq!(world.wants(), NOTHING);
    assert_eq!(world.overview(), ["a-v1", "a-v2", "b-v1", "c-v1"]);
    world.set_ready(3, "True");
    assert_eq!(world.wants(), ["delete a-v1-0"]);
    world.step();
    assert_eq!(world.wants(), ["create b"]);
    // An old pod that is of no use is replaced beside the others.
    world.set_ready(1, "False");
    let mut wants = world.wants();
    wants.sort();
    assert_eq!(wants, ["create b", "create c"]);
    world.works = true;
    world.settle();
    assert_eq!(world.overview(), ["a-v2", "b-v2", "c-v2"]);
}

#[test]
fn nothing_is_updated_by_itself_on_delete() {
    let mut world =
        World::new("ab", json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.settle();
    world.set_image("v2");
    world.settle();
    assert_eq!(world.overview(), ["a-v1", "b-v1"]);
    assert_eq!(world.status().get("updatedNumberScheduled"), None);
    world.pods.remove(0);
    world.settle();
    assert_eq!(world.overview(), ["a-v2", "b-v1"]);
}

#[test]
fn history_is_kept_renumbered_and_forgotten() {
    let mut world = World::new("a", json!({"revisionHistoryLimit": 1}));
    world.settle();
    let numbers = |world: &World| -> Vec<i64> {
        let mut numbers: Vec<i64> =
            world.revisions.iter().map(|revision| revision.revision.unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    world.set_image("v2");
    world.settle();
    assert_eq!(numbers(&world), [1, 2]);
    world.set_image("v1");
    world.settle();
    assert_eq!(numbers(&world), [2, 3], "an undo makes the old revision the newest");
    assert_eq!(world.overview(), ["a-v1"]);
    world.set_image("v3");
    world.settle();
    assert_eq!(numbers(&world), [3, 4]);
    let data = &world.revisions.iter().max_by_key(|one| one.revision).unwrap().data.0;
    assert_eq!(data["spec"]["template"]["$patch"], "replace");
    assert_eq!(data["spec"]["template"]["spec"]["containers"][0]["image"], "v3");
}

#[test]
fn a_name_that_another_has_is_made_differently() {
    let mut world = World::new("a", json!({}));
    let taken = world.plan().actions.into_iter().find_map(|action| match action {
        Action::CreateRevision(revision) => revision.metadata.name,
        _ => None,
    });
    world.revisions.push(serde_json::from_value(json!({"metadata": {"name": taken, "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "x", "uid": "x", "controller": true}]}, "data": {}, "revision": 1})).unwrap());
    world.settle();
    assert_eq!(world.status()["collisionCount"], 1);
    assert_eq!(world.revisions.len(), 2);
}

#[test]
fn pods_that_ended_are_made_anew_ever_more_slowly() {
    let mut world = World::new("a", json!({}));
    world.settle();
    world.set_phase(0, "Failed");
    assert_eq!(world.wants(), ["delete a-v1-0"]);
    world.settle();
    assert_eq!(
        world.told,
        ["Found failed daemon pod default/a-v1-0 on node a, will try to kill it"]
    );
    world.set_phase(0, "Failed");
    assert_eq!(world.wants(), NOTHING);
    assert_eq!(world.plan().look_again_after, Some(Duration::from_secs(1)));
    world.now += 1;
    world.settle();
    world.set_phase(0, "Failed");
    world.now += 1;
    assert_eq!(world.wants(), NOTHING);
    world.set_phase(0, "Succeeded");
    assert_eq!(world.wants(), ["delete a-v1-2"]);
}

#[test]
fn doubles_go_and_the_oldest_stays() {
    let mut world = World::new("a", json!({}));
    world.settle();
    let mut double = world.pods[0].clone();
    double.metadata.name = Some("double-v1-9".to_owned());
    double.metadata.uid = Some("double".to_owned());
    double.metadata.creation_timestamp = Some(Time(time(world.now) + SignedDuration::from_secs(1)));
    world.pods.insert(0, double);
    assert_eq!(world.wants(), ["delete double-v1-9"]);
}

#[test]
fn a_pod_on_its_way_out_is_waited_for() {
    let mut world = World::new("a", json!({}));
    world.settle();
    world.pods[0].metadata.deletion_timestamp = Some(Time(time(world.now)));
    assert_eq!(world.wants(), NOTHING);
    world.set_phase(0, "Failed");
    assert_eq!(world.wants(), ["create a"], "it has ended");
}

#[test]
fn strangers_are_adopted_and_those_who_left_are_let_go() {
    let mut world = World::new("a", json!({}));
    world.settle();
    world.pods[0].metadata.owner_references = None;
    assert_eq!(world.wants(), ["adopt a-v1-0"]);
    let mut left = World::new("a", json!({}));
    left.settle();
    left.pods[0].metadata.labels = None;
    assert_eq!(left.wants(), ["release a-v1-0", "create a"]);
    left.set.metadata.deletion_timestamp = Some(Time(time(1)));
    assert_eq!(left.wants(), NOTHING);
}
