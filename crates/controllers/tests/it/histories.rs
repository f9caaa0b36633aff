//! Random histories of users and failures against the whole control plane: each ends in the wanted state, and no promise
//! is broken on the way. A history that fails names its seed; `ABIDE_HISTORIES=10000` runs that many.

use crate::cluster::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::eventually;

/// Histories that share a cluster, each in a namespace of its own.
const TOGETHER: u64 = 50;

/// What one history has allowed: claims that may go.
#[derive(Default)]
struct Allowed {
    /// Claims that a user deleted, as `namespace/name`.
    claims: BTreeSet<String>,
    /// Namespaces in which a policy may delete claims.
    policies: BTreeSet<String>,
}

struct History {
    seed: u64,
    namespace: String,
    random: StdRng,
    allowed: Arc<Mutex<Allowed>>,
    /// What was done, for whoever reads a failure.
    story: Vec<String>,
}

impl History {
    fn new(seed: u64, allowed: Arc<Mutex<Allowed>>) -> History {
        let namespace = format!("history-{seed}");
        History { seed, namespace, random: StdRng::seed_from_u64(seed), allowed, story: Vec::new() }
    }

    async fn live(mut self, cluster: Arc<Cluster>) {
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let namespace =
            serde_json::from_value(json!({"metadata": {"name": self.namespace}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(cluster.client.clone(), &self.namespace);
        eventually("the namespace's account", || async {
            accounts.get_opt("default").await.unwrap().map(|_| ())
        })
        .await;
        let sets: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let set = self.first();
        sets.create(&PostParams::default(), &set).await.unwrap();
        for _ in 0..self.random.random_range(3..12) {
            let pause = self.random.random_range(0..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.step(&cluster, &sets).await;
        }
        self.heal(&cluster).await;
        let done = tokio::time::timeout(Duration::from_secs(3600), async {
            while let Err(_why) = self.is_as_wanted(&cluster, &sets).await {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        if done.await.is_err() {
            let why = self.is_as_wanted(&cluster, &sets).await.err().unwrap_or_default();
            panic!("seed {}: {why}\nafter {:#?}", self.seed, self.story);
        }
    }

    fn first(&mut self) -> StatefulSet {
        let parallel = self.random.random_bool(0.3);
        let replicas = self.random.random_range(0..5);
        let when = |delete: bool| if delete { "Delete" } else { "Retain" };
        let (deleted, scaled) = (self.random.random_bool(0.2), self.random.random_bool(0.2));
        if deleted || scaled {
            self.allowed.lock().unwrap().policies.insert(self.namespace.clone());
        }
        self.story.push(format!(
            "{replicas} replicas, parallel {parallel}, claims {} {}",
            when(deleted),
            when(scaled)
        ));
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {
            "replicas": replicas, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": if parallel { "Parallel" } else { "OrderedReady" },
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when(deleted), "whenScaled": when(scaled)},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "v1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}))
        .unwrap()
    }

    async fn step(&mut self, cluster: &Cluster, sets: &Api<StatefulSet>) {
        let ordinal = self.random.random_range(0..5);
        let pod = format!("web-{ordinal}");
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let strategy = |value: Value| json!({"spec": {"updateStrategy": value}});
        let change = match self.random.random_range(0..12) {
            0..=2 => json!({"spec": {"replicas": self.random.random_range(0..5)}}),
            3 | 4 => {
                let image = format!("v{}", self.random.random_range(1..4));
                json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
            }
            5 => strategy(json!({"rollingUpdate": {"partition": self.random.random_range(0..3)}})),
            6 => {
                let now = DeleteParams::default();
                self.story.push(format!("delete {pod}"));
                return drop(pods.delete(&pod, &now).await);
            }
            7 => {
                self.story.push(format!("{pod} turns unready"));
                return cluster.node.set(&self.namespace, &pod, "Running", false).await;
            }
            8 => {
                self.story.push(format!("{pod} fails"));
                return cluster.node.set(&self.namespace, &pod, "Failed", false).await;
            }
            9 => {
                let name = format!("data-{pod}");
                self.allowed.lock().unwrap().claims.insert(format!("{}/{name}", self.namespace));
                self.story.push(format!("delete claim {name}"));
                let claims: Api<PersistentVolumeClaim> =
                    Api::namespaced(cluster.client.clone(), &self.namespace);
                return drop(claims.delete(&name, &DeleteParams::default()).await);
            }
            10 => {
                self.story.push(format!("{pod} loses its labels"));
                let change =
                    json!({"metadata": {"labels": {"apps.kubernetes.io/pod-index": null}}});
                return drop(
                    pods.patch(&pod, &PatchParams::default(), &Patch::Merge(change)).await,
                );
            }
            _ => json!({"spec": {"ordinals": {"start": self.random.random_range(0..2)}}}),
        };
        self.story.push(change.to_string());
        sets.patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// What a friendly kubelet and a friendly user do: pods that are not Ready become so, nothing is partitioned, and
    /// pods that ended beyond the wanted ordinals are removed (T33).
    async fn heal(&mut self, cluster: &Cluster) {
        let sets: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let change = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}});
        sets.patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &self.namespace);
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
                Some("Running") if pod.metadata.deletion_timestamp.is_none() => {
                    cluster.node.set(&self.namespace, &pod.name_any(), "Running", true).await;
                }
                Some("Failed") => {
                    drop(pods.delete(&pod.name_any(), &DeleteParams::default()).await)
                }
                _ => {}
            }
        }
    }

    async fn is_as_wanted(&self, cluster: &Cluster, sets: &Api<StatefulSet>) -> Result<(), String> {
        let set = sets.get("web").await.map_err(|error| error.to_string())?;
        let spec = &set.spec;
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let replicas = spec.replicas.unwrap_or(1);
        let image = spec.template.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let pods =
            pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let wanted: Vec<String> =
            (start..start + replicas).map(|ordinal| format!("web-{ordinal}")).collect();
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        if names != wanted {
            return Err(format!("pods are {names:?}, wanted {wanted:?}"));
        }
        for pod in &pods {
            let spec = pod.spec.as_ref().ok_or("no spec")?;
            if spec.containers[0].image != image {
                return Err(format!(
                    "{} is of {:?}, wanted {image:?}",
                    pod.name_any(),
                    spec.containers[0].image
                ));
            }
            if !pod.labels().contains_key("apps.kubernetes.io/pod-index") {
                return Err(format!("{} has lost its labels", pod.name_any()));
            }
        }
        let status = set.status.clone().unwrap_or_default();
        let said =
            (status.replicas, status.ready_replicas.unwrap_or(0), status.observed_generation);
        if said != (replicas, replicas, set.metadata.generation)
            || status.current_revision != status.update_revision
        {
            return Err(format!("the status says {status:?}"));
        }
        Ok(())
    }
}

/// Watches everything and notes each promise that is broken.
async fn guard(
    cluster: Arc<Cluster>,
    allowed: Arc<Mutex<Allowed>>,
    broken: Arc<Mutex<Vec<String>>>,
) {
    let pods = {
        let (cluster, broken) = (cluster.clone(), broken.clone());
        async move {
            let api: Api<Pod> = Api::all(cluster.client.clone());
            let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
            while let Ok(Some(event)) = events.try_next().await {
                let Event::Apply(pod) = event else { continue };
                let name = pod.name_any();
                let mounted = pod
                    .spec
                    .iter()
                    .flat_map(|spec| spec.volumes.iter().flatten())
                    .filter_map(|volume| volume.persistent_volume_claim.as_ref());
                for claim in mounted {
                    if claim.claim_name != format!("data-{name}") {
                        broken.lock().unwrap().push(format!("{name} mounts {}", claim.claim_name));
                    }
                }
                if pod.owner_references().len() != 1 {
                    broken
                        .lock()
                        .unwrap()
                        .push(format!("{name} has {} owners", pod.owner_references().len()));
                }
            }
        }
    };
    let claims = async move {
        let api: Api<PersistentVolumeClaim> = Api::all(cluster.client.clone());
        let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
        let mut uids: BTreeMap<String, String> = BTreeMap::new();
        while let Ok(Some(event)) = events.try_next().await {
            let (Event::Apply(claim) | Event::Delete(claim)) = event else { continue };
            let key = format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any());
            let uid = claim.uid().unwrap_or_default();
            let allowed = allowed.lock().unwrap();
            let may_go = allowed.claims.contains(&key)
                || allowed.policies.contains(&claim.namespace().unwrap_or_default());
            let replaced =
                uids.insert(key.clone(), uid.clone()).is_some_and(|before| before != uid);
            if (replaced || claim.metadata.deletion_timestamp.is_some()) && !may_go {
                broken
                    .lock()
                    .unwrap()
                    .push(format!("T42: claim {key} goes, and nobody wanted that"));
            }
            if !may_go && !claim.owner_references().is_empty() {
                broken.lock().unwrap().push(format!("T40: claim {key} is owned under Retain"));
            }
        }
    };
    tokio::join!(pods, claims);
}

async fn histories(seeds: std::ops::Range<u64>) {
    let cluster = Arc::new(Cluster::start().await);
    let (allowed, broken) =
        (Arc::new(Mutex::new(Allowed::default())), Arc::new(Mutex::new(Vec::new())));
    let guard = tokio::spawn(guard(cluster.clone(), allowed.clone(), broken.clone()));
    let mut lives = tokio::task::JoinSet::new();
    for seed in seeds {
        lives.spawn(History::new(seed, allowed.clone()).live(cluster.clone()));
    }
    while let Some(ended) = lives.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    guard.abort();
    let broken = broken.lock().unwrap();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A quarter of them, so that they run side by side.
fn quarter(part: u64) {
    let all: u64 =
        std::env::var("ABIDE_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let (from, to) = (all * part / 4, all * (part + 1) / 4);
    let mut first = from;
    while first < to {
        let last = (first + TOGETHER).min(to);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(histories(first..last));
        first = last;
    }
    println!("{} histories, seeds {from} to {}", to - from, to.saturating_sub(1));
}

#[test]
fn random_histories_end_as_wanted_first_quarter() {
    quarter(0);
}

#[test]
fn random_histories_end_as_wanted_second_quarter() {
    quarter(1);
}

#[test]
fn random_histories_end_as_wanted_third_quarter() {
    quarter(2);
}

#[test]
fn random_histories_end_as_wanted_last_quarter() {
    quarter(3);
}
