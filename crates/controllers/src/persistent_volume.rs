//! Claims and volumes: binding, the local provisioner, phases, protection.
//!
//! The provisioner `abide.dev/local` makes a volume that is a directory of the node: `hostPath` below the volume root,
//! with node affinity and the finalizer `abide.dev/local-volume`. When such a volume is Released and its policy is
//! Delete, the agent of its node removes the directory, deletes the object and takes the finalizer away.

use crate::events::Recorder;
use crate::harness::{CLAIM, Caches, Change, FREE, Key, claims_of, drive, queue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use planner::claim_binding::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, capacity, choose, is_bound_to, requested,
};
use planner::scheduling::selected_node;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The provisioner of the default class.
const PROVISIONER: &str = "abide.dev/local";
const CLASS: &str = "standard";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// On volumes of the local provisioner.
const LOCAL_VOLUME: &str = "abide.dev/local-volume";
/// Keys of volumes stand in this namespace, which no claim can have.
const VOLUMES: &str = "/";

#[derive(Clone)]
struct Binder {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    clock: crate::Clock,
    volume_root: String,
}

fn claim_key(claim: &PersistentVolumeClaim) -> Key {
    (claim.namespace().unwrap_or_default(), claim.name_any())
}

/// Runs for ever.
pub(crate) async fn run(client: Client, caches: Caches, clock: crate::Clock, volume_root: String) {
    let (queue, keys) = queue();
    queue.feed(&caches.claims, {
        let volumes = caches.volumes.clone();
        move |change: &Change<PersistentVolumeClaim>| {
            let mut keys: Vec<Key> = change
                .new
                .as_ref()
                .or(change.old.as_ref())
                .map(|claim| claim_key(claim))
                .into_iter()
                .collect();
            for claim in [&change.old, &change.new].into_iter().flatten() {
                keys.extend(
                    claim
                        .spec
                        .iter()
                        .filter_map(|spec| spec.volume_name.clone())
                        .filter(|name| !name.is_empty())
                        .map(|name| (VOLUMES.to_owned(), name)),
                );
                if change.new.is_none() {
                    let (namespace, name) = claim_key(claim);
                    let promised = volumes.found(CLAIM, &namespace, &name);
                    let bound = promised.iter().filter(|volume| is_bound_to(volume, claim));
                    keys.extend(bound.map(|volume| (VOLUMES.to_owned(), volume.name_any())));
                }
            }
            keys
        }
    });
    queue.feed(&caches.volumes, {
        let claims = caches.claims.clone();
        move |change: &Change<PersistentVolume>| {
            let mut keys = Vec::new();
            if let Some(volume) = change.new.as_ref().or(change.old.as_ref()) {
                keys.push((VOLUMES.to_owned(), volume.name_any()));
                match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
                    Some(claim) => keys.push((
                        claim.namespace.clone().unwrap_or_default(),
                        claim.name.clone().unwrap_or_default(),
                    )),
                    None => {
                        keys.extend(claims.found(FREE, "", "").iter().map(|claim| claim_key(claim)))
                    }
                }
            }
            keys
        }
    });
    queue.feed(&caches.pods, |change: &Change<Pod>| {
        // Pods hold claims: when one goes, its claims may.
        let gone = change.new.as_ref().is_none_or(|pod| ended(pod));
        let pod = change.new.as_ref().or(change.old.as_ref());
        let claims = pod.iter().flat_map(|pod| {
            claims_of(pod)
                .map(|claim| (pod.namespace().unwrap_or_default(), claim.to_owned()))
                .collect::<Vec<Key>>()
        });
        if gone { claims.collect() } else { Vec::new() }
    });
    queue.feed(&caches.classes, {
        let claims = caches.claims.clone();
        // A new default class is for those, too, who have asked for none (T126).
        move |change: &Change<StorageClass>| {
            let concerns = change.new.is_some();
            let waiting = claims.found(FREE, "", "");
            waiting.iter().filter(|_| concerns).map(|claim| claim_key(claim)).collect()
        }
    });
    tokio::join!(
        caches.claims.synced(),
        caches.volumes.synced(),
        caches.pods.synced(),
        caches.classes.synced()
    );
    let binder = Binder {
        recorder: Recorder::new(client.clone(), "persistentvolume-controller"),
        client,
        caches,
        clock,
        volume_root,
    };
    if let Err(error) = binder.make_class().await {
        tracing::error!(error, "the default storage class could not be made");
    }
    drive("persistentvolume", queue, keys, move |key| {
        let binder = binder.clone();
        async move {
            if key.0 == VOLUMES {
                binder.reconcile_volume(&key.1).await
            } else {
                binder.reconcile_claim(&key).await
            }
        }
    })
    .await;
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
}

fn ended(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| {
        ["Succeeded", "Failed"].contains(&status.phase.as_deref().unwrap_or_default())
    })
}

fn text(error: kube::Error) -> String {
    error.to_string()
}

/// Somebody else may have been faster: the next change tells.
fn settled<T>(result: Result<T, kube::Error>) -> Result<Option<T>, String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(None),
        other => other.map(Some).map_err(text),
    }
}

impl Binder {
    async fn make_class(&self) -> Result<(), String> {
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": CLASS, "annotations": {api::kinds::storage_class::DEFAULT_CLASS: "true"}},
            "provisioner": PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true
        })).map_err(|error| error.to_string())?;
        match Api::all(self.client.clone()).create(&PostParams::default(), &class).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop).map_err(text),
        }
    }

    fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    async fn patch_claim(
        &self,
        claim: &PersistentVolumeClaim,
        change: Value,
        status: bool,
    ) -> Result<(), String> {
        let (api, params) =
            (self.claims(&claim.namespace().unwrap_or_default()), PatchParams::default());
        let patch = Patch::Merge(change);
        let result = if status {
            api.patch_status(&claim.name_any(), &params, &patch).await
        } else {
            api.patch(&claim.name_any(), &params, &patch).await
        };
        if let Some(written) = settled(result)? {
            self.caches.claims.wait_for_write(&written).await;
        }
        Ok(())
    }

    /// Returns whether it was written: somebody else may have been faster.
    async fn patch_volume(
        &self,
        volume: &PersistentVolume,
        change: Value,
        status: bool,
    ) -> Result<bool, String> {
        let (api, params, patch) = (self.volumes(), PatchParams::default(), Patch::Merge(change));
        let result = if status {
            api.patch_status(&volume.name_any(), &params, &patch).await
        } else {
            api.patch(&volume.name_any(), &params, &patch).await
        };
        let Some(written) = settled(result)? else { return Ok(false) };
        self.caches.volumes.wait_for_write(&written).await;
        Ok(true)
    }

    async fn reconcile_claim(&self, (namespace, name): &Key) -> Result<Option<Duration>, String> {
        let Some(claim) = self.caches.claims.get(namespace, name) else { return Ok(None) };
        if claim.metadata.deletion_timestamp.is_some() {
            return self.release_claim(&claim).await.map(|()| None);
        }
        if is_bound(&claim) {
            return self.grow(&claim).await.map(|()| None);
        }
        if let Some(class) = self.default_class_for(&claim) {
            let change = json!({"metadata": {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version}, "spec": {"storageClassName": class}});
            return self.patch_claim(&claim, change, false).await.map(|()| None);
        }
        let volumes = self.candidates(&claim);
        let candidates: Vec<&PersistentVolume> = volumes.iter().map(|volume| &**volume).collect();
        let class = self.class(&claim);
        let waits = class.as_ref().is_some_and(|class| {
            class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
        });
        let promised =
            claim.spec.as_ref().is_some_and(|spec| {
                spec.volume_name.as_deref().is_some_and(|name| !name.is_empty())
            }) || candidates
                .iter()
                .any(|volume| planner::claim_binding::is_reserved_for(volume, &claim));
        if waits && !promised && selected_node(&claim).is_none() {
            self.recorder.tell(
                &*claim,
                "Normal",
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding",
            );
            return Ok(None);
        }
        if let Some(volume) = choose(&claim, &candidates) {
            return self.bind(&claim, volume).await.map(|()| None);
        }
        match class {
            Some(class) if class.provisioner == PROVISIONER => {
                self.provision(&claim, &class).await.map(|()| None)
            }
            _ => {
                self.recorder.tell(
                    &*claim,
                    "Normal",
                    "FailedBinding",
                    "no persistent volumes available for this claim and no storage class is set",
                );
                Ok(None)
            }
        }
    }

    /// The volumes that a claim may get: promised to it, named by it, or free.
    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        let (namespace, name) = claim_key(claim);
        let mut candidates = self.caches.volumes.found(CLAIM, &namespace, &name);
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        candidates.extend(named.and_then(|name| self.caches.volumes.get("", name)));
        candidates.extend(self.caches.volumes.found(FREE, "", ""));
        candidates
    }

    /// The class for a claim that was made when there was no default class, once there is one.
    /// As upstream: `assignDefaultStorageClass`, KEP-3333.
    fn default_class_for(&self, claim: &PersistentVolumeClaim) -> Option<String> {
        let spec = claim.spec.as_ref()?;
        if spec.storage_class_name.is_some()
            || spec.volume_name.as_deref().is_some_and(|name| !name.is_empty())
        {
            return None;
        }
        let classes = self.caches.classes.all();
        let defaults = classes.iter().filter(|class| {
            let marked = class.annotations().get(api::kinds::storage_class::DEFAULT_CLASS);
            marked.is_some_and(|marked| marked == "true")
        });
        let newest = defaults.max_by_key(|class| {
            let made = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (made, std::cmp::Reverse(class.name_any()))
        })?;
        Some(newest.name_any())
    }

    fn class(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let name =
            claim.spec.as_ref()?.storage_class_name.as_deref().filter(|name| !name.is_empty())?;
        self.caches.classes.get("", name)
    }

    /// First the volume says whose it is, then the claim says which it has: a crash between the two is taken up here.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), String> {
        if !is_bound_to(volume, claim) {
            let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name_any(), "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version});
            let change = json!({"metadata": {"resourceVersion": volume.metadata.resource_version, "annotations": {BOUND_BY_CONTROLLER: "yes"}}, "spec": {"claimRef": reference}});
            if !self.patch_volume(volume, change, false).await? {
                // Nobody's claim may be bound to a volume that does not name it.
                return Err(format!("volume {} has changed meanwhile", volume.name_any()));
            }
        }
        self.patch_volume(volume, json!({"status": {"phase": "Bound"}}), true).await?;
        let change = json!({"metadata": {"annotations": {BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"}}, "spec": {"volumeName": volume.name_any()}});
        self.patch_claim(claim, change, false).await?;
        let spec = volume.spec.clone().unwrap_or_default();
        self.patch_claim(claim, json!({"status": {"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity}}), true).await
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<(), String> {
        let name = format!("pvc-{}", claim.uid().unwrap_or_default());
        if self.caches.volumes.get("", &name).is_some() {
            return Ok(());
        }
        let node = selected_node(claim)
            .map(str::to_owned)
            .or_else(|| self.caches.nodes.all().first().map(|node| node.name_any()));
        let Some(node) = node else { return Err("there is no node to provision on".to_owned()) };
        self.recorder.tell(
            claim,
            "Normal",
            "Provisioning",
            &format!(
                "External provisioner is provisioning volume for claim \"{}/{}\"",
                claim.namespace().unwrap_or_default(),
                claim.name_any()
            ),
        );
        let spec = claim.spec.clone().unwrap_or_default();
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}, "finalizers": [LOCAL_VOLUME]},
            "spec": {
                "capacity": {"storage": requested(claim).to_string()}, "accessModes": spec.access_modes, "volumeMode": spec.volume_mode,
                "storageClassName": spec.storage_class_name, "persistentVolumeReclaimPolicy": class.reclaim_policy,
                "hostPath": {"path": format!("{}/{name}", self.volume_root), "type": "DirectoryOrCreate"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name_any(), "uid": claim.metadata.uid},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}
            }
        })).map_err(|error| error.to_string())?;
        match self.volumes().create(&PostParams::default(), &volume).await {
            Ok(made) => {
                self.caches.volumes.wait_for_write(&made).await;
                self.recorder.tell(
                    claim,
                    "Normal",
                    "ProvisioningSucceeded",
                    &format!("Successfully provisioned volume {name}"),
                );
                self.bind(claim, &made).await
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => {
                self.recorder.tell(
                    claim,
                    "Warning",
                    "ProvisioningFailed",
                    &format!(
                        "failed to provision volume with StorageClass {:?}: {error}",
                        class.name_any()
                    ),
                );
                Err(text(error))
            }
        }
    }

    /// Gives a claim that asks for more what it asks for. As upstream: the external resizer, KEP-1790.
    async fn grow(&self, claim: &PersistentVolumeClaim) -> Result<(), String> {
        let Some(volume) = claim
            .spec
            .as_ref()
            .and_then(|spec| self.caches.volumes.get("", spec.volume_name.as_deref()?))
        else {
            let lost =
                claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Lost"));
            return if lost {
                Ok(())
            } else {
                self.patch_claim(claim, json!({"status": {"phase": "Lost"}}), true).await
            };
        };
        let wanted = requested(claim);
        let status = claim.status.clone().unwrap_or_default();
        let has = planner::claim_binding::storage(status.capacity.as_ref());
        if wanted <= has {
            return Ok(());
        }
        if volume.annotations().get(PROVISIONED_BY).is_none_or(|by| by != PROVISIONER) {
            self.recorder.tell(
                claim,
                "Normal",
                "ExternalExpanding",
                "waiting for an external controller to expand this PVC",
            );
            return Ok(());
        }
        let amount = wanted.to_string();
        let name = volume.name_any();
        // Each step can be taken again: who dies between two of them is followed by one who goes on.
        if !status.conditions.iter().flatten().any(|condition| condition.type_ == "Resizing") {
            self.recorder.tell(
                claim,
                "Normal",
                "Resizing",
                &format!("External resizer is resizing volume {name}"),
            );
            let condition =
                json!({"type": "Resizing", "status": "True", "lastTransitionTime": self.now()});
            let change = json!({"status": {"conditions": [condition], "allocatedResources": {"storage": amount}, "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"}}});
            self.patch_claim(claim, change, true).await?;
        }
        if wanted > capacity(&volume) {
            self.patch_volume(&volume, json!({"spec": {"capacity": {"storage": amount}}}), false)
                .await?;
        }
        // The volume is a directory: there is no file system for the node to resize.
        let change = json!({"status": {"capacity": {"storage": amount}, "conditions": null, "allocatedResources": {"storage": amount}, "allocatedResourceStatuses": null}});
        self.patch_claim(claim, change, true).await?;
        self.recorder.tell(claim, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded");
        Ok(())
    }

    fn now(&self) -> String {
        let now = (self.clock)();
        jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
    }

    /// A claim that is deleted stays while a pod uses it.
    async fn release_claim(&self, claim: &PersistentVolumeClaim) -> Result<(), String> {
        let (namespace, name) = claim_key(claim);
        let users = self.caches.pods.found(CLAIM, &namespace, &name);
        let in_use = users.iter().any(|pod| !ended(pod));
        if in_use || !claim.finalizers().iter().any(|finalizer| finalizer == CLAIM_PROTECTION) {
            return Ok(());
        }
        let kept: Vec<&String> =
            claim.finalizers().iter().filter(|finalizer| *finalizer != CLAIM_PROTECTION).collect();
        settled(
            self.claims(&namespace)
                .patch(
                    &name,
                    &PatchParams::default(),
                    &Patch::Merge(
                        json!({"metadata": {"uid": claim.metadata.uid, "finalizers": kept}}),
                    ),
                )
                .await,
        )
        .map(drop)
    }

    async fn reconcile_volume(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(volume) = self.caches.volumes.get("", name) else { return Ok(None) };
        let spec = volume.spec.clone().unwrap_or_default();
        let claim = spec.claim_ref.as_ref().and_then(|reference| {
            self.caches.claims.get(reference.namespace.as_deref()?, reference.name.as_deref()?)
        });
        let promised_uid = spec
            .claim_ref
            .as_ref()
            .and_then(|reference| reference.uid.clone())
            .filter(|uid| !uid.is_empty());
        let phase = match (&spec.claim_ref, &promised_uid) {
            (None, _) | (Some(_), None) => "Available",
            (Some(_), Some(uid))
                if claim.as_ref().is_some_and(|claim| claim.metadata.uid.as_ref() == Some(uid)) =>
            {
                "Bound"
            }
            // The claim may be too new for our cache: a live look decides.
            (Some(reference), Some(uid)) => {
                let api = self.claims(reference.namespace.as_deref().unwrap_or_default());
                let live = api
                    .get_opt(reference.name.as_deref().unwrap_or_default())
                    .await
                    .map_err(text)?;
                if live.is_some_and(|live| live.metadata.uid.as_ref() == Some(uid)) {
                    "Bound"
                } else {
                    "Released"
                }
            }
        };
        let before = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if before != Some(phase) {
            self.patch_volume(&volume, json!({"status": {"phase": phase}}), true).await?;
        }
        if phase == "Released"
            && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
            && !volume.finalizers().iter().any(|name| name == LOCAL_VOLUME)
            && volume.annotations().contains_key(PROVISIONED_BY)
        {
            drop(settled(self.volumes().delete(name, &DeleteParams::default()).await)?);
        }
        if volume.metadata.deletion_timestamp.is_some()
            && phase != "Bound"
            && volume.finalizers().iter().any(|name| name == VOLUME_PROTECTION)
        {
            let kept: Vec<&String> =
                volume.finalizers().iter().filter(|name| *name != VOLUME_PROTECTION).collect();
            self.patch_volume(&volume, json!({"metadata": {"finalizers": kept}}), false).await?;
        }
        Ok(None)
    }
}
