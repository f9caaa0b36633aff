//! The controller of PodDisruptionBudgets: observe, plan, tell.

use crate::dependents::{key_of, words};
use crate::events::Recorder;
use crate::harness::{Cached, Caches, Change, Key, drive, queue, with_labels};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use planner::disruption::{Observed, Plan, Workload, covers, plan};
use planner::workload::controller;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    clock: crate::Clock,
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, clock: crate::Clock) {
    let (queue, keys) = queue();
    queue.feed(&caches.budgets, |change| key_of(change).into_iter().collect());
    queue.feed(&caches.pods, {
        let budgets = caches.budgets.clone();
        move |change: &Change<Pod>| {
            let Some((namespace, _)) = key_of(change) else { return Vec::new() };
            let pods: Vec<&Arc<Pod>> = [&change.old, &change.new].into_iter().flatten().collect();
            let covering = budgets
                .of_namespace(&namespace)
                .into_iter()
                .filter(|budget| pods.iter().any(|pod| covers(budget, pod)));
            covering.map(|budget| (namespace.clone(), budget.name_any())).collect()
        }
    });
    // Shares are of what the controllers of pods want.
    queue.feed(&caches.sets, scales(&caches, |set: &StatefulSet| set.spec.replicas));
    queue.feed(&caches.replica_sets, scales(&caches, |set: &ReplicaSet| set.spec.replicas));
    queue.feed(&caches.deployments, scales(&caches, |one: &Deployment| one.spec.replicas));
    tokio::join!(
        caches.budgets.synced(),
        caches.pods.synced(),
        caches.sets.synced(),
        caches.replica_sets.synced(),
        caches.deployments.synced()
    );
    let controller = Arc::new(Controller {
        recorder: Recorder::new(client.clone(), "controllermanager"),
        client,
        caches,
        clock,
    });
    drive("disruption", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

/// The budgets of a namespace in which something is scaled, made or gone.
fn scales<K: Cached>(
    caches: &Caches,
    replicas: impl Fn(&K) -> Option<i32> + Send + Sync + 'static,
) -> impl Fn(&Change<K>) -> Vec<Key> + Send + Sync + 'static {
    let budgets = caches.budgets.clone();
    move |change| {
        let wanted = |object: &Option<Arc<K>>| object.as_ref().map(|object| replicas(object));
        match key_of(change) {
            Some((namespace, _)) if wanted(&change.old) != wanted(&change.new) => {
                let all = budgets.of_namespace(&namespace).into_iter();
                all.map(|budget| (namespace.clone(), budget.name_any())).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What controls pods, kept alive while the planner looks at it.
#[derive(Default)]
struct Owners {
    sets: Vec<Arc<StatefulSet>>,
    replica_sets: Vec<Arc<ReplicaSet>>,
    deployments: Vec<Arc<Deployment>>,
}

impl Controller {
    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(budget) = self.caches.budgets.get(namespace, name) else { return Ok(None) };
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let labels = selector.and_then(|selector| selector.match_labels.as_ref());
        let pods = with_labels(&self.caches.pods, namespace, labels.into_iter().flatten());
        let pods: Vec<&Pod> =
            pods.iter().map(|pod| &**pod).filter(|pod| covers(&budget, pod)).collect();
        let owners = self.owners(namespace, &pods);
        let workloads: Vec<Workload<'_>> = { owners.sets.iter() }
            .map(|set| Workload::StatefulSet(set))
            .chain(owners.replica_sets.iter().map(|set| Workload::ReplicaSet(set)))
            .chain(owners.deployments.iter().map(|one| Workload::Deployment(one)))
            .collect();
        let now = (self.clock)();
        let decided = plan(&Observed { budget: &budget, pods: &pods, workloads: &workloads, now });
        self.tell(&budget, &pods, &decided);
        self.write(&budget, &decided).await?;
        Ok(decided.look_again_after)
    }

    /// What controls these pods, and what controls that.
    fn owners(&self, namespace: &str, pods: &[&Pod]) -> Owners {
        let controllers: BTreeSet<(&str, &str)> = pods
            .iter()
            .filter_map(|pod| controller(&pod.metadata))
            .map(|owner| (owner.kind.as_str(), owner.name.as_str()))
            .collect();
        let mut owners = Owners::default();
        for (kind, name) in controllers {
            match kind {
                "StatefulSet" => owners.sets.extend(self.caches.sets.get(namespace, name)),
                "ReplicaSet" => {
                    owners.replica_sets.extend(self.caches.replica_sets.get(namespace, name));
                }
                "Deployment" => {
                    owners.deployments.extend(self.caches.deployments.get(namespace, name));
                }
                _ => {}
            }
        }
        let above: BTreeSet<String> = owners
            .replica_sets
            .iter()
            .filter_map(|set| controller(&set.metadata))
            .map(|owner| owner.name.clone())
            .collect();
        let deployments = &self.caches.deployments;
        owners
            .deployments
            .extend({ above }.iter().filter_map(|name| deployments.get(namespace, name)));
        owners
    }

    fn tell(&self, budget: &PodDisruptionBudget, pods: &[&Pod], decided: &Plan) {
        for telling in &decided.tellings {
            let (kind, reason, message) = (telling.kind, telling.reason, &telling.message);
            match &telling.pod {
                None => self.recorder.tell(budget, kind, reason, message),
                Some(name) => {
                    let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
                    pod.iter().for_each(|pod| self.recorder.tell(**pod, kind, reason, message));
                }
            }
        }
    }

    /// Writes the status if the budget is still as it was seen: an eviction counts down in it too.
    async fn write(&self, budget: &PodDisruptionBudget, decided: &Plan) -> Result<(), String> {
        if budget.status.as_ref() == Some(&decided.status) {
            return Ok(());
        }
        let told = PodDisruptionBudget { status: Some(decided.status.clone()), ..budget.clone() };
        let namespace = budget.namespace().unwrap_or_default();
        let api = Api::<PodDisruptionBudget>::namespaced(self.client.clone(), &namespace);
        match api.replace_status(&budget.name_any(), &PostParams::default(), &told).await {
            Ok(written) => self.caches.budgets.wait_for_write(&written).await,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(words(&error)),
        }
        Ok(())
    }
}
