//! A Deployment in a small world: its plans are carried out, its ReplicaSets obey, and everything is checked at each step.

use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    pods: Vec<Pod>,
    now: i64,
    /// The template of this image never becomes available.
    broken: &'static str,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> World {
        let deployment = json!({"metadata": {"name": "web", "namespace": "default", "uid": "own", "generation": 1},
            "spec": {"replicas": replicas, "strategy": strategy, "selector": {"matchLabels": {"app": "web"}}, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}});
        World {
            deployment: serde_json::from_value(deployment).unwrap(),
            sets: Vec::new(),
            pods: Vec::new(),
            now: 1_000_000,
            broken: "",
        }
    }

    fn rolling(replicas: i32) -> World {
        World::new(
            replicas,
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
        )
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.template.spec.as_mut().unwrap();
        spec.containers[0].image = Some(image.to_owned());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.replicas = Some(replicas);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn plan(&self) -> Plan {
        let taken: Vec<String> = self.sets.iter().map(|set| set_name(set).to_owned()).collect();
        let now = Timestamp::from_second(self.now).unwrap();
        plan(&Observed {
            deployment: &self.deployment,
            sets: &self.sets.iter().collect::<Vec<_>>(),
            pods: &self.pods.iter().collect::<Vec<_>>(),
            taken: &taken,
            now,
        })
    }

    /// Carries one plan out; returns what was done, in words.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        let mut told = Vec::new();
        for action in plan.actions {
            match action {
                Action::CreateReplicaSet(mut set) => {
                    told.push(format!("create {}", size(&set)));
                    set.metadata.uid = Some(set_name(&set).to_owned());
                    set.metadata.generation = Some(1);
                    set.metadata.creation_timestamp =
                        Timestamp::from_second(self.now).ok().map(Time);
                    self.sets.push(*set);
                    self.now += 1;
                }
                Action::UpdateReplicaSet(update) => {
                    let set =
                        self.sets.iter_mut().find(|set| set_name(set) == update.name).unwrap();
                    set.metadata.annotations.get_or_insert_default().extend(update.annotations);
                    if let Some((from, to)) = update.scale {
                        assert_eq!(from, size(set));
                        told.push(format!("{} {from} -> {to}", image_of(set)));
                        set.spec.replicas = Some(to);
                    }
                }
                Action::DeleteReplicaSet { name, .. } => {
                    let at = self.sets.iter().position(|set| set_name(set) == name).unwrap();
                    told.push(format!("delete {}", image_of(&self.sets.remove(at))));
                }
                Action::NumberDeployment { revision } => {
                    let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                    annotations.insert(REVISION.to_owned(), revision);
                }
                other @ (Action::AdoptReplicaSet { .. } | Action::ReleaseReplicaSet { .. }) => {
                    told.push(format!("{other:?}"));
                }
            }
        }
        self.deployment.status = Some(plan.status);
        told
    }

    /// ReplicaSets get all their pods at once, and they are available (or never).
    fn obey(&mut self) {
        for set in &mut self.sets {
            let replicas = size(set);
            let up = if image_of(set) == self.broken { 0 } else { replicas };
            set.status = Some(k8s_openapi::api::apps::v1::ReplicaSetStatus {
                replicas,
                ready_replicas: Some(up),
                available_replicas: Some(up),
                observed_generation: set.metadata.generation,
                ..Default::default()
            });
        }
    }

    /// Until nothing happens any more; returns all that was done.
    fn settle(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..100 {
            let before = self.deployment.status.clone();
            let done = self.step();
            let all: i32 = self.sets.iter().map(size).sum();
            let surge = if self.deployment.spec.strategy.as_ref().unwrap().type_.as_deref()
                == Some("Recreate")
            {
                0
            } else {
                (self.deployment.spec.replicas.unwrap() + 3) / 4
            };
            let most = self.deployment.spec.replicas.unwrap() + surge;
            assert!(all <= most.max(1) || done.is_empty(), "{all} pods of {most}: {done:?}");
            self.obey();
            if done.is_empty() && self.deployment.status == before {
                return told;
            }
            told.extend(done);
        }
        panic!("it never settles: {told:?}");
    }

    fn condition(&self, kind: &str) -> String {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.clone().unwrap();
        let found = conditions.iter().find(|condition| condition.type_.as_deref() == Some(kind));
        found.map_or(String::new(), |found| {
            format!(
                "{} {}",
                found.status.as_deref().unwrap_or_default(),
                found.reason.as_deref().unwrap_or_default()
            )
        })
    }
}

fn image_of(set: &ReplicaSet) -> String {
    set.spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

#[test]
fn the_first_set_is_made_at_full_size() {
    let mut world = World::rolling(3);
    assert_eq!(world.settle(), ["create 3"]);
    let set = &world.sets[0];
    let labels = set.metadata.labels.as_ref().unwrap();
    let hash = &labels[HASH_LABEL];
    assert_eq!(set_name(set), format!("web-{hash}"));
    assert_eq!(set.spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL], *hash);
    assert_eq!(annotation(set, REVISION), Some("1"));
    assert_eq!((annotation(set, DESIRED), annotation(set, MAX)), (Some("3"), Some("4")));
    assert_eq!(world.deployment.metadata.annotations.as_ref().unwrap()[REVISION], "1");
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(world.condition("Available"), "True MinimumReplicasAvailable");
}

#[test]
fn a_rolling_update_keeps_between_its_fence_posts() {
    let mut world = World::rolling(4);
    world.settle();
    world.image("v2");
    assert_eq!(world.settle(), ["create 1", "v1 4 -> 2", "v2 1 -> 3", "v1 2 -> 0", "v2 3 -> 4"]);
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0, 4]);
}

#[test]
fn a_broken_update_stops_and_its_deadline_is_told() {
    let mut world = World::rolling(4);
    world.settle();
    world.broken = "v2";
    world.image("v2");
    world.settle();
    let sizes: Vec<i32> = world.sets.iter().map(size).collect();
    assert_eq!(sizes, [3, 2], "one old pod is given up, and no more");
    assert_eq!(world.condition("Available"), "True MinimumReplicasAvailable");
    assert!(world.plan().look_again_after.is_some());
    world.now += 700;
    world.settle();
    assert_eq!(world.condition("Progressing"), "False ProgressDeadlineExceeded");
    // Back: the old template's set is found, numbered anew, and grows again.
    world.image("v1");
    world.settle();
    let sizes: Vec<i32> = world.sets.iter().map(size).collect();
    assert_eq!(sizes, [4, 0]);
    assert_eq!(annotation(&world.sets[0], REVISION), Some("3"));
    assert_eq!(annotation(&world.sets[0], REVISION_HISTORY), Some("1"));
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn recreate_lets_nothing_new_run_beside_the_old() {
    let mut world = World::new(2, json!({"type": "Recreate"}));
    assert_eq!(world.settle(), ["create 2"]);
    let old = world.sets[0].metadata.uid.clone().unwrap();
    world.pods = vec![serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": old, "controller": true}]}, "status": {"phase": "Running"}})).unwrap()];
    world.image("v2");
    assert_eq!(world.settle(), ["v1 2 -> 0"]);
    world.pods.clear();
    assert_eq!(world.settle(), ["create 2"]);
}

#[test]
fn scaling_in_the_midst_of_a_rollout_is_shared_in_proportion() {
    let mut world = World::new(
        10,
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}),
    );
    world.settle();
    world.broken = "v2";
    world.image("v2");
    for _ in 0..10 {
        world.step();
        world.obey();
    }
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [8, 5]);
    // The example of Kubernetes' documentation.
    world.scale(15);
    world.step();
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [11, 7]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::rolling(2);
    world.settle();
    world.deployment.spec.paused = Some(true);
    world.image("v2");
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.condition("Progressing"), "Unknown DeploymentPaused");
    world.scale(4);
    assert_eq!(world.settle(), ["v1 2 -> 4"]);
    world.deployment.spec.paused = Some(false);
    world.settle();
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0, 4]);
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn history_has_a_limit() {
    let mut world = World::rolling(1);
    world.deployment.spec.revision_history_limit = Some(1);
    for image in ["v1", "v2", "v3"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.sets.iter().map(image_of).collect::<Vec<_>>(), ["v2", "v3"]);
}

#[test]
fn orphans_are_taken_and_strangers_let_go() {
    let mut world = World::rolling(1);
    world.settle();
    world.sets[0].metadata.owner_references = None;
    let plan = world.plan();
    assert!(matches!(&plan.actions[0], Action::AdoptReplicaSet { .. }), "{plan:?}");
    let mut stranger = world.sets[0].clone();
    stranger.metadata.owner_references = Some(vec![controller_reference(&world.deployment)]);
    stranger.metadata.labels = None;
    world.sets = vec![stranger];
    assert!(matches!(&world.plan().actions[0], Action::ReleaseReplicaSet { .. }));
}

#[test]
fn zero_replicas_is_complete_without_pods() {
    let mut world = World::rolling(0);
    assert_eq!(world.settle(), ["create 0"]);
    assert_eq!(world.condition("Progressing"), "True NewReplicaSetAvailable");
    world.image("v2");
    world.settle();
    world.scale(2);
    world.settle();
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0, 2]);
}

/// Two templates whose words collide do not share a set.
#[test]
fn a_taken_name_is_avoided() {
    let mut world = World::rolling(1);
    let name = {
        let plan = world.plan();
        let made = plan.actions.iter().find_map(|action| match action {
            Action::CreateReplicaSet(set) => Some(set_name(set).to_owned()),
            _ => None,
        });
        made.unwrap()
    };
    let mut other = World::rolling(1);
    other.image("other");
    other.settle();
    let mut foreign = other.sets.remove(0);
    foreign.metadata.name = Some(name.clone());
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    world.sets.push(foreign);
    world.step();
    assert_eq!(world.sets.len(), 2);
    assert_ne!(set_name(&world.sets[1]), name);
    assert_eq!(world.deployment.status.as_ref().unwrap().collision_count, Some(1));
}
