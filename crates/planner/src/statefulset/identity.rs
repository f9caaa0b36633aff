//! Who is who: names, ordinals, labels, owners.

use super::{Action, Observed, claims, revision::Template};
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The label with a pod's name.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label with a pod's ordinal.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// The label with the name of a pod's revision.
pub const REVISION_LABEL: &str = "controller-revision-hash";

pub use crate::workload::{name, uid};

/// A set's name.
pub fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}
/// The name of the pod at an ordinal.
pub fn pod_name(set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{ordinal}", set_name(set))
}

/// The ordinal in a pod's name, if the rest of it is the set's.
pub fn ordinal(set: &StatefulSet, pod: &str) -> Option<i64> {
    let (parent, number) = pod.rsplit_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    // As upstream an ordinal is an int32; `web-01` would be written back as `web-1` and is a stranger.
    let ordinal = i64::from(number.parse::<i32>().ok()?);
    (digits && parent == set_name(set) && ordinal.to_string() == number).then_some(ordinal)
}

/// The first ordinal.
pub(super) fn start(set: &StatefulSet) -> i64 {
    set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).into()
}

/// How many replicas are wanted.
pub(super) fn replicas(set: &StatefulSet) -> i64 {
    set.spec.replicas.unwrap_or(1).max(0).into()
}

pub(super) use crate::workload::controller;

/// A reference to the set as controller.
pub fn controller_reference(set: &StatefulSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: set_name(set).to_owned(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Which pods are the set's, and where they stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Membership<'a> {
    /// Each wanted ordinal, ascending, and its pod.
    pub(super) replicas: Vec<(i64, Option<&'a Pod>)>,
    /// Pods at other ordinals, ascending.
    pub(super) condemned: Vec<(i64, &'a Pod)>,
    /// Pods of others that bear a name of ours.
    pub(super) foreign: Vec<&'a Pod>,
    /// Adoptions and releases.
    pub(super) ownership: Vec<Action>,
}

impl<'a> Membership<'a> {
    /// Every pod of the set.
    pub(super) fn pods(&self) -> impl Iterator<Item = &'a Pod> {
        self.replicas
            .iter()
            .filter_map(|(_, pod)| *pod)
            .chain(self.condemned.iter().map(|(_, pod)| *pod))
    }
}

/// Sorts the pods. As upstream: `ClaimPods` in `pkg/controller/controller_ref_manager.go`.
pub(super) fn membership<'a>(observed: &Observed<'a>) -> Membership<'a> {
    let set = observed.set;
    let selector = LabelSelector::of(Some(&set.spec.selector));
    let own_uid = set.metadata.uid.as_deref().unwrap_or_default();
    let mut members = Membership::default();
    let mut own: Vec<(i64, &Pod)> = Vec::new();
    for &pod in observed.pods {
        let at = ordinal(set, name(pod));
        let matches = selector.matches_optional(pod.metadata.labels.as_ref());
        let identity = || (name(pod).to_owned(), uid(pod).to_owned());
        match (controller(&pod.metadata), at) {
            (Some(owner), Some(at)) if owner.uid == own_uid && matches => own.push((at, pod)),
            (Some(owner), _) if owner.uid == own_uid => {
                if !matches && set.metadata.deletion_timestamp.is_none() {
                    let (name, uid) = identity();
                    members.ownership.push(Action::ReleasePod { name, uid });
                }
                if at.is_some() {
                    members.foreign.push(pod);
                }
            }
            (None, Some(at))
                if matches
                    && pod.metadata.deletion_timestamp.is_none()
                    && set.metadata.deletion_timestamp.is_none() =>
            {
                let (name, uid) = identity();
                members.ownership.push(Action::AdoptPod { name, uid });
                own.push((at, pod));
            }
            (_, Some(_)) => members.foreign.push(pod),
            (_, None) => {}
        }
    }
    own.sort_by_key(|(at, _)| *at);
    let (first, count) = (start(set), replicas(set));
    members.replicas = (first..first + count)
        .map(|wanted| {
            let found = own.binary_search_by_key(&wanted, |(at, _)| *at);
            (wanted, found.ok().map(|at| own[at].1))
        })
        .collect();
    members.condemned =
        own.into_iter().filter(|(at, _)| !(first..first + count).contains(at)).collect();
    members
}

/// Labels that identify a pod and that it does not have.
pub(super) fn missing_labels(pod: &Pod, ordinal: i64) -> Vec<(String, String)> {
    let has = |key: &str, value: &str| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .is_some_and(|found| found == value)
    };
    [(POD_NAME_LABEL, name(pod).to_owned()), (POD_INDEX_LABEL, ordinal.to_string())]
        .into_iter()
        .filter(|(key, value)| !has(key, value))
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The pod at an ordinal, from a revision's template.
pub(super) fn new_pod(set: &StatefulSet, template: &Template, ordinal: i64) -> Pod {
    let name = pod_name(set, ordinal);
    let metadata = template.template.metadata.clone().unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), template.revision.clone());
    let mut spec = template.template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.service_name.clone().filter(|service| !service.is_empty());
    let claims: Vec<Volume> = claims::templates(set)
        .map(|template| {
            let volume = template.metadata.name.clone().unwrap_or_default();
            let claim_name = claims::name(template, set, ordinal);
            let source = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
            Volume { name: volume, persistent_volume_claim: Some(source), ..Volume::default() }
        })
        .collect();
    let others = spec
        .volumes
        .take()
        .unwrap_or_default()
        .into_iter()
        .filter(|volume| claims.iter().all(|claim| claim.name != volume.name));
    let volumes: Vec<Volume> = claims.iter().cloned().chain(others).collect();
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", set_name(set))),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}
