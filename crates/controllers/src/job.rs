//! The Job controller: observe, plan, act.

use crate::dependents::words;
use crate::events::Recorder;
use crate::harness::{Caches, Change, Key, TRACKED, drive, queue};
use crate::pod_control::PodControl;
use api::selector::label::LabelSelector;
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use planner::job::{
    Action, BackOff, Observed, Plan, TRACKING, controller_reference, is_forgotten, is_tracked, plan,
};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Finalizers that are removed side by side.
const AT_ONCE: usize = 64;

#[derive(Clone)]
struct Controller {
    client: Client,
    caches: Caches,
    pods: PodControl,
    clock: crate::Clock,
    /// What was last planned of failures, by the Job's uid.
    back_offs: Arc<Mutex<HashMap<String, BackOff>>>,
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, clock: crate::Clock) {
    let (queue, keys) = queue();
    queue.feed(&caches.jobs, |change: &Change<Job>| {
        let job = change.new.as_ref().or(change.old.as_ref());
        job.map(|job| (job.namespace().unwrap_or_default(), job.name_any())).into_iter().collect()
    });
    queue.feed(&caches.pods, {
        let caches = caches.clone();
        move |change: &Change<Pod>| concerned(&caches, change)
    });
    tokio::join!(caches.jobs.synced(), caches.pods.synced());
    let recorder = Recorder::new(client.clone(), "job-controller");
    let pods = PodControl { client: client.clone(), pods: caches.pods.clone(), recorder };
    let controller =
        Arc::new(Controller { client, caches, pods, clock, back_offs: Arc::default() });
    drive("job", queue, keys, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

/// The Job that controls a pod.
fn owner(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.controller == Some(true) && owner.kind == "Job")
        .map(|owner| owner.name.as_str())
        .next()
}

fn is_controlled(pod: &Pod) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
}

/// The Jobs that would adopt a pod which nobody controls.
fn adopters(caches: &Caches, pod: &Pod) -> Vec<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let jobs = caches.jobs.of_namespace(&namespace);
    let wants = |job: &Job| {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        LabelSelector::of(selector).matches_optional(pod.metadata.labels.as_ref())
            && job.metadata.deletion_timestamp.is_none()
    };
    jobs.iter().filter(|job| wants(job)).map(|job| job.name_any()).collect()
}

/// The Jobs that a change of a pod concerns. Nobody's pods that wait to be counted are looked at under an empty name.
fn concerned(caches: &Caches, change: &Change<Pod>) -> Vec<Key> {
    let mut names: Vec<String> = Vec::new();
    let mut namespace = String::new();
    for pod in [&change.old, &change.new].into_iter().flatten() {
        namespace = pod.namespace().unwrap_or_default();
        names.extend(owner(pod).map(str::to_owned));
    }
    if let Some(pod) = change.new.as_ref().filter(|pod| !is_controlled(pod)) {
        names.extend(adopters(caches, pod));
        if is_tracked(pod) {
            names.push(String::new());
        }
    }
    names.sort();
    names.dedup();
    names.into_iter().map(|name| (namespace.clone(), name)).collect()
}

fn pair(pod: &(String, String)) -> (&str, &str) {
    (&pod.0, &pod.1)
}

impl Controller {
    async fn reconcile(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        self.release_forgotten(namespace, name).await?;
        let Some(job) = self.caches.jobs.get(namespace, name) else { return Ok(None) };
        let uid = job.uid().unwrap_or_default();
        let mut pods = self.caches.pods.controlled_by(namespace, &uid);
        pods.extend(self.caches.pods.orphans(namespace));
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let back_off = self.remembered(&uid);
        let plan = plan(&Observed { job: &job, pods: &pods, back_off, now: (self.clock)() });
        let acted = self.act(&job, &plan).await;
        // What a Job comes to is said only when its pods are indeed on their way out.
        if acted.is_ok() || !plan.actions.iter().any(is_deletion) {
            if let Some(status) = &plan.status {
                self.write_status(&job, status, &plan).await?;
                self.remember(&uid, plan.back_off);
            }
            self.untrack(namespace, &plan.untrack).await?;
        }
        acted?;
        Ok(plan.look_again_after)
    }

    fn remembered(&self, uid: &str) -> Option<BackOff> {
        self.back_offs.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    fn remember(&self, uid: &str, back_off: BackOff) {
        let mut back_offs = self.back_offs.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = back_offs.insert(uid.to_owned(), back_off).is_none();
        // Those of Jobs that are gone are forgotten each time that the number has doubled.
        if is_new && back_offs.len() > 64 && back_offs.len().is_power_of_two() {
            let jobs = self.caches.jobs.all();
            let living: HashSet<Option<String>> = jobs.iter().map(|job| job.uid()).collect();
            back_offs.retain(|uid, _| living.contains(&Some(uid.clone())));
        }
    }

    /// Pods whose Job is gone, or another of that name, wait for nobody.
    async fn release_forgotten(&self, namespace: &str, name: &str) -> Result<(), String> {
        let job = self.caches.jobs.get(namespace, name);
        let forgotten: Vec<(String, String)> = self
            .caches
            .pods
            .found(TRACKED, namespace, name)
            .iter()
            .filter(|pod| match owner(pod) {
                Some(owner) => owner == name,
                None => name.is_empty() && adopters(&self.caches, pod).is_empty(),
            })
            .filter(|pod| is_forgotten(pod, job.as_deref()))
            .map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()))
            .collect();
        self.untrack(namespace, &forgotten).await
    }

    async fn untrack(&self, namespace: &str, pods: &[(String, String)]) -> Result<(), String> {
        for batch in pods.chunks(AT_ONCE) {
            let removed =
                batch.iter().map(|pod| self.pods.remove_finalizer(namespace, pair(pod), TRACKING));
            join_all(removed).await.into_iter().collect::<Result<(), String>>()?;
        }
        Ok(())
    }

    async fn act(&self, job: &Job, plan: &Plan) -> Result<(), String> {
        let namespace = job.namespace().unwrap_or_default();
        let (mut made, mut deleted, mut uncounted) = (Vec::new(), Vec::new(), Vec::new());
        for action in &plan.actions {
            match action {
                Action::AdoptPod { name, uid } => {
                    let reference = controller_reference(job);
                    self.pods.adopt(job, &reference, (name, uid), Some(TRACKING)).await?;
                }
                Action::ReleasePod { name, uid } => {
                    self.pods.release(job, (name, uid), Some(TRACKING)).await?;
                }
                Action::CreatePod(pod) => made.push(&**pod),
                Action::DeletePod { name, uid, uncounted: is_uncounted } => {
                    deleted.push((name.as_str(), uid.as_str()));
                    if *is_uncounted {
                        uncounted.push((name.clone(), uid.clone()));
                    }
                }
                Action::DeleteJob => self.delete(job).await?,
            }
        }
        self.untrack(&namespace, &uncounted).await?;
        self.pods.delete(job, &deleted, None).await?;
        self.pods.create(job, &made).await
    }

    /// A Job that has outlived its time goes after its pods, if it is still the one that was seen.
    async fn delete(&self, job: &Job) -> Result<(), String> {
        let api: Api<Job> =
            Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        let seen = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
        let options = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(seen),
            ..DeleteParams::default()
        };
        match api.delete(&job.name_any(), &options).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            // Changed meanwhile: perhaps its time is longer now.
            other => other.map(drop).map_err(|error| words(&error)),
        }
    }

    /// Writes the status, if it differs, over the very one that was read; then tells what is new.
    async fn write_status(&self, job: &Job, status: &JobStatus, plan: &Plan) -> Result<(), String> {
        if job.status.as_ref() == Some(status) {
            return Ok(());
        }
        let api: Api<Job> =
            Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        let mut new = job.clone();
        new.status = Some(status.clone());
        match api.replace_status(&job.name_any(), &PostParams::default(), &new).await {
            Ok(written) => {
                self.caches.jobs.wait_for_write(&written).await;
                for telling in &plan.tellings {
                    self.pods.recorder.tell(job, telling.kind, &telling.reason, &telling.message);
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}

fn is_deletion(action: &Action) -> bool {
    match action {
        Action::DeletePod { .. } => true,
        Action::AdoptPod { .. }
        | Action::ReleasePod { .. }
        | Action::CreatePod(_)
        | Action::DeleteJob => false,
    }
}
