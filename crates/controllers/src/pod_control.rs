//! How controllers make and end pods, and what they tell of it. As upstream: `RealPodControl` in
//! `pkg/controller/controller_utils.go`, `pkg/controller/controller_ref_manager.go`.

use crate::dependents::{self, Namespaced, words};
use crate::events::Recorder;
use crate::harness::Cache;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

/// Pods that are made or deleted side by side at most.
const AT_ONCE: usize = 64;

/// What an owner's pods are made and ended with.
#[derive(Clone)]
pub(crate) struct PodControl {
    pub(crate) client: Client,
    pub(crate) pods: Cache<Pod>,
    pub(crate) recorder: Recorder,
}

/// Whether an object is gone, or is another one by now: what was to be done with it is done.
pub(crate) fn is_settled(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// Whether something could not be made because its namespace is on its way out: no event could be made either.
fn namespace_ends(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

impl PodControl {
    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes pods, in growing batches, so that what is refused is not refused many times. The first error ends it.
    pub(crate) async fn create<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        pods: &[&Pod],
    ) -> Result<(), String> {
        let (mut rest, mut batch) = (pods, 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(batch));
            let made = join_all(now.iter().map(|pod| self.create_one(owner, pod))).await;
            made.into_iter().collect::<Result<(), String>>()?;
            (rest, batch) = (later, (batch * 2).min(AT_ONCE));
        }
        Ok(())
    }

    async fn create_one<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        pod: &Pod,
    ) -> Result<(), String> {
        let namespace = pod.namespace().unwrap_or_default();
        match self.api(&namespace).create(&PostParams::default(), pod).await {
            Ok(made) => {
                self.pods.wait_for_write(&made).await;
                let message = format!("Created pod: {}", made.name_any());
                self.recorder.tell(owner, "Normal", "SuccessfulCreate", &message);
                Ok(())
            }
            Err(error) => {
                let words = words(&error);
                if !namespace_ends(&error) {
                    let message = format!("Error creating: {words}");
                    self.recorder.tell(owner, "Warning", "FailedCreate", &message);
                }
                Err(words)
            }
        }
    }

    /// Deletes pods (name, uid), side by side. `grace_seconds` is the pods' own if absent.
    pub(crate) async fn delete<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        pods: &[(&str, &str)],
        grace_seconds: Option<u32>,
    ) -> Result<(), String> {
        for batch in pods.chunks(AT_ONCE) {
            let deleted = batch.iter().map(|pod| self.delete_one(owner, *pod, grace_seconds));
            join_all(deleted).await.into_iter().collect::<Result<(), String>>()?;
        }
        Ok(())
    }

    async fn delete_one<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        (name, uid): (&str, &str),
        grace_seconds: Option<u32>,
    ) -> Result<(), String> {
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let only_this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let options = DeleteParams {
            grace_period_seconds: grace_seconds,
            preconditions: Some(only_this),
            ..DeleteParams::default()
        };
        match self.api(&namespace).delete(name, &options).await {
            Ok(deleted) => {
                if let Some(pod) = deleted.left() {
                    self.pods.wait_for_write(&pod).await;
                }
                let message = format!("Deleted pod: {name}");
                self.recorder.tell(owner, "Normal", "SuccessfulDelete", &message);
                Ok(())
            }
            Err(error) if is_settled(&error) => Ok(()),
            Err(error) => {
                let words = words(&error);
                let message = format!("Error deleting: {words}");
                self.recorder.tell(owner, "Warning", "FailedDelete", &message);
                Err(words)
            }
        }
    }

    /// Makes an owner the controller of an orphan, after a live look at the owner: a cache may not know yet that it is
    /// going. `finalizer` is put on as well.
    pub(crate) async fn adopt<K: Namespaced>(
        &self,
        owner: &K,
        reference: &OwnerReference,
        (name, uid): (&str, &str),
        finalizer: Option<&str>,
    ) -> Result<(), String> {
        dependents::insist_on(&self.client, owner).await?;
        let namespace = owner.namespace().unwrap_or_default();
        let mut metadata = json!({"uid": uid, "ownerReferences": [reference]});
        if let Some(finalizer) = finalizer {
            metadata["finalizers"] = json!([finalizer]);
        }
        self.patch(&namespace, name, metadata).await
    }

    /// Takes an owner's reference off a pod.
    pub(crate) async fn release<K: Resource<DynamicType = ()>>(
        &self,
        owner: &K,
        (name, uid): (&str, &str),
        finalizer: Option<&str>,
    ) -> Result<(), String> {
        let own = owner.meta().uid.clone().unwrap_or_default();
        let mut metadata =
            json!({"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": own}]});
        if let Some(finalizer) = finalizer {
            metadata["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        self.patch(&owner.meta().namespace.clone().unwrap_or_default(), name, metadata).await
    }

    /// Takes a finalizer off a pod.
    pub(crate) async fn remove_finalizer(
        &self,
        namespace: &str,
        (name, uid): (&str, &str),
        finalizer: &str,
    ) -> Result<(), String> {
        let metadata = json!({"uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer]});
        self.patch(namespace, name, metadata).await
    }

    async fn patch(&self, namespace: &str, name: &str, metadata: Value) -> Result<(), String> {
        let change = Patch::Strategic(json!({"metadata": metadata}));
        match self.api(namespace).patch(name, &PatchParams::default(), &change).await {
            Ok(pod) => {
                self.pods.wait_for_write(&pod).await;
                Ok(())
            }
            Err(error) if is_settled(&error) => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}
