//! Which ReplicaSet holds the Deployment's template, and the numbers of rollouts.

use super::{
    Action, DESIRED, HASH_LABEL, MAX, Planner, REVISION, REVISION_HISTORY, annotation,
    controller_reference, name,
};
use crate::workload::hash;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// How long a set's list of earlier numbers may grow, in characters.
const HISTORY_MAX: usize = 2000;
/// Annotations of the Deployment that its sets do not get. As upstream: `annotationsToSkip`.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Whether a set holds this template: its own label aside, and by meaning.
pub(super) fn holds(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let metadata = template.metadata.get_or_insert_default();
        let labels = metadata.labels.get_or_insert_default();
        labels.remove(HASH_LABEL);
        template
    };
    set.spec.template.as_ref().is_some_and(|held| without_hash(held) == without_hash(template))
}

/// The number of a set's rollout; 0 if it bears none.
pub(super) fn number_of(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

impl Planner<'_> {
    /// The number that the newest set is to bear: one more than any other's.
    fn next_number(&self, newest: Option<usize>) -> i64 {
        self.old(newest)
            .into_iter()
            .map(|at| number_of(&self.sets[at]))
            .max()
            .unwrap_or(0)
            .saturating_add(1)
    }

    fn copied_annotations(&self) -> BTreeMap<String, String> {
        let mut copied = self.observed.deployment.metadata.annotations.clone().unwrap_or_default();
        copied.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
        copied
    }

    fn number_deployment(&mut self, revision: &str) {
        let annotations = self.observed.deployment.metadata.annotations.as_ref();
        if annotations.and_then(|held| held.get(REVISION)).map(String::as_str) != Some(revision) {
            self.actions.push(Action::NumberDeployment { revision: revision.to_owned() });
        }
    }

    /// Sees to it that the set with the Deployment's template bears the highest number, its annotations and its
    /// `minReadySeconds`.
    pub(super) fn keep_newest(&mut self, at: usize) -> usize {
        let next = self.next_number(Some(at));
        let held = number_of(&self.sets[at]);
        let revision = held.max(next).to_string();
        let mut annotations = self.copied_annotations();
        if held < next {
            annotations.insert(REVISION.to_owned(), revision.clone());
            if held > 0 {
                let before = annotation(&self.sets[at], REVISION_HISTORY).unwrap_or_default();
                annotations.insert(REVISION_HISTORY.to_owned(), history(before, held));
            }
        }
        let min_ready = self.observed.deployment.spec.min_ready_seconds.unwrap_or(0);
        self.update(at, |update| {
            update.annotations = annotations;
            update.min_ready_seconds = Some(min_ready);
        });
        self.number_deployment(&revision);
        at
    }

    /// Makes the set for the Deployment's template.
    pub(super) fn create_newest(&mut self, replicas: i32) -> usize {
        let deployment = self.observed.deployment;
        let revision = self.next_number(None).to_string();
        let data = serde_json::to_value(&deployment.spec.template).unwrap_or_default();
        let (word, set_name) = loop {
            let word = hash(&data, self.collisions);
            let set_name = format!("{}-{word}", name(deployment));
            if !self.observed.taken.contains(&set_name) {
                break (word, set_name);
            }
            self.collisions = self.collisions.saturating_add(1);
        };
        let mut template = deployment.spec.template.clone();
        let metadata = template.metadata.get_or_insert_default();
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), word.clone());
        let labels = labels.clone();
        let mut selector = deployment.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), word);
        let mut annotations = self.copied_annotations();
        let most = self.replicas().saturating_add(self.max_surge());
        annotations.insert(REVISION.to_owned(), revision.clone());
        annotations.insert(DESIRED.to_owned(), self.replicas().to_string());
        annotations.insert(MAX.to_owned(), most.to_string());
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(set_name),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: deployment.spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        };
        self.actions.push(Action::CreateReplicaSet(Box::new(set.clone())));
        self.number_deployment(&revision);
        self.sets.push(set);
        self.sets.len() - 1
    }
}

/// The list of earlier numbers with one more; the oldest are dropped when it grows too long.
fn history(before: &str, number: i64) -> String {
    let mut all: Vec<String> =
        before.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    all.push(number.to_string());
    let length = |all: &[String]| all.iter().map(|part| part.len() + 1).sum::<usize>();
    while length(&all) > HISTORY_MAX {
        all.remove(0);
    }
    all.join(",")
}
