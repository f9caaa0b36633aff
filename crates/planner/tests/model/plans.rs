//! Between worlds and the planner: a world as Kubernetes objects, a plan as small words.

use crate::world::{
    CLAIMS, Claim, ORDINALS, Owner, Phase, Pod, Revisions, Set, Status, TEMPLATES, View,
};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetOrdinals,
    StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetStatus, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use planner::statefulset::{Action, Claims, Observed, by_name, identity, plan};
use serde_json::json;
use std::collections::HashMap;
use std::rc::Rc;

/// The set's name. `foo-web` and `web-1` are others'.
pub(crate) const NAME: &str = "web";

/// What the controller is about to do, in a world's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    CreateRevision(usize),
    AdoptRevision(usize),
    Renumber(usize),
    DeleteRevision(usize),
    CreateClaim {
        template: usize,
        ordinal: usize,
        for_set: bool,
    },
    OwnClaim {
        template: usize,
        ordinal: usize,
        uid: u8,
        set: Option<u8>,
        pod: Option<u8>,
        foreign: bool,
    },
    CreatePod {
        ordinal: usize,
        template: u8,
    },
    DeletePod {
        ordinal: usize,
        uid: u8,
    },
    Mend {
        ordinal: usize,
        uid: u8,
    },
    Adopt {
        ordinal: usize,
        uid: u8,
    },
    Release {
        ordinal: usize,
        uid: u8,
    },
}

/// A plan in a world's words.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) acts: Vec<Act>,
    pub(crate) status: Status,
    pub(crate) available: u8,
    /// Why nothing more happens now is said.
    pub(crate) explained: bool,
}

/// Plans, remembering what was planned.
pub(crate) struct Planner {
    base: StatefulSet,
    /// Each template's revision.
    revisions: Vec<ControllerRevision>,
    known: HashMap<(View, Revisions), Rc<Planned>>,
}

fn set_uid(uid: u8) -> String {
    format!("set-{uid}")
}

fn image(template: u8) -> String {
    format!("image:v{template}")
}

fn number(text: &str) -> Option<u8> {
    text.rsplit_once(|c: char| !c.is_ascii_digit())?.1.parse().ok()
}

fn own(uid: u8) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "StatefulSet".to_owned(),
        name: NAME.to_owned(),
        uid: set_uid(uid),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn other() -> OwnerReference {
    OwnerReference {
        api_version: "example.com/v1".to_owned(),
        kind: "Database".to_owned(),
        name: "another".to_owned(),
        uid: "another".to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn claim_template(template: usize) -> String {
    format!("data{template}")
}

impl Planner {
    pub(crate) fn new() -> Planner {
        let base: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": NAME, "namespace": "default", "uid": "set-0", "generation": 1},
            "spec": {"serviceName": "nginx", "selector": {"matchLabels": {"app": NAME}},
                "template": {"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [{"name": "main", "image": ""}]}}}}))
        .unwrap();
        let mut planner = Planner { base, revisions: Vec::new(), known: HashMap::new() };
        planner.revisions = (0..u8::try_from(TEMPLATES).unwrap())
            .map(|template| {
                let mut set = planner.base.clone();
                set.spec.template.spec.as_mut().unwrap().containers[0].image =
                    Some(image(template));
                let plan = plan(&Observed {
                    set: &set,
                    revisions: &[],
                    pods: &[],
                    claims: &Claims::new(),
                    now: jiff::Timestamp::UNIX_EPOCH,
                });
                plan.actions
                    .into_iter()
                    .find_map(|action| match action {
                        Action::CreateRevision(revision) => Some(*revision),
                        _ => None,
                    })
                    .unwrap()
            })
            .collect();
        planner
    }

    fn revision_name(&self, template: u8) -> String {
        self.revisions[usize::from(template)].metadata.name.clone().unwrap()
    }

    fn template_of(&self, revision: &str) -> u8 {
        let at = self.revisions.iter().position(|r| r.metadata.name.as_deref() == Some(revision));
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
    }

    fn set(&self, set: &Set) -> StatefulSet {
        let mut object = self.base.clone();
        object.metadata.uid = Some(set_uid(set.uid));
        if set.deleting {
            object.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        }
        let spec = &mut object.spec;
        spec.replicas = Some(set.replicas.into());
        spec.ordinals = Some(StatefulSetOrdinals { start: Some(set.start.into()) });
        spec.pod_management_policy =
            Some(if set.parallel { "Parallel" } else { "OrderedReady" }.to_owned());
        spec.update_strategy = Some(StatefulSetUpdateStrategy {
            type_: Some(if set.on_delete { "OnDelete" } else { "RollingUpdate" }.to_owned()),
            rolling_update: (!set.on_delete).then(|| RollingUpdateStatefulSetStrategy {
                partition: Some(set.partition.into()),
                max_unavailable: (set.max_unavailable > 0)
                    .then(|| IntOrString::Int(set.max_unavailable.into())),
            }),
        });
        let when = |delete: bool| Some(if delete { "Delete" } else { "Retain" }.to_owned());
        spec.persistent_volume_claim_retention_policy =
            Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: when(set.when_deleted),
                when_scaled: when(set.when_scaled),
            });
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image(set.template));
        spec.revision_history_limit = Some(1);
        spec.volume_claim_templates = Some(
            (0..usize::from(set.claims))
                .map(|template| {
                    let mut claim = core::PersistentVolumeClaim::default();
                    claim.metadata.name = Some(claim_template(template));
                    claim
                })
                .collect(),
        );
        let status = &set.status;
        let name = |template: u8| (template > 0).then(|| self.revision_name(template));
        object.status = (status.update_revision > 0).then(|| StatefulSetStatus {
            replicas: status.replicas.into(),
            ready_replicas: Some(status.ready.into()),
            current_replicas: Some(status.current.into()),
            updated_replicas: Some(status.updated.into()),
            current_revision: name(status.current_revision),
            update_revision: name(status.update_revision),
            collision_count: Some(0),
            ..StatefulSetStatus::default()
        });
        object
    }

    fn pod(&self, ordinal: usize, pod: &Pod) -> core::Pod {
        let name = format!("{NAME}-{ordinal}");
        let mut object = core::Pod::default();
        let metadata = &mut object.metadata;
        metadata.uid = Some(format!("pod-{ordinal}-{}", pod.uid));
        metadata.namespace = Some("default".to_owned());
        let labels = metadata.labels.get_or_insert_default();
        labels.insert("app".to_owned(), if pod.matches { NAME } else { "stranger" }.to_owned());
        labels.insert(identity::REVISION_LABEL.to_owned(), self.revision_name(pod.template));
        if pod.identified {
            labels.insert(identity::POD_NAME_LABEL.to_owned(), name.clone());
            labels.insert(identity::POD_INDEX_LABEL.to_owned(), ordinal.to_string());
        }
        metadata.name = Some(name);
        if pod.terminating {
            metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        }
        metadata.owner_references = match pod.owner {
            Owner::Set(uid) => Some(vec![own(uid)]),
            Owner::Other => Some(vec![other()]),
            Owner::Nobody => None,
        };
        let (phase, ready) = match pod.phase {
            Phase::Pending => ("Pending", "False"),
            Phase::Ready => ("Running", "True"),
            Phase::Unready => ("Running", "False"),
            Phase::Failed => ("Failed", "False"),
            Phase::Succeeded => ("Succeeded", "False"),
        };
        object.status = Some(core::PodStatus {
            phase: Some(phase.to_owned()),
            conditions: Some(vec![core::PodCondition {
                type_: "Ready".to_owned(),
                status: ready.to_owned(),
                last_transition_time: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
                ..core::PodCondition::default()
            }]),
            ..core::PodStatus::default()
        });
        object
    }

    fn claim(template: usize, ordinal: usize, claim: &Claim) -> core::PersistentVolumeClaim {
        let mut object = core::PersistentVolumeClaim::default();
        let metadata = &mut object.metadata;
        metadata.name = Some(format!("{}-{NAME}-{ordinal}", claim_template(template)));
        metadata.uid = Some(format!("claim-{template}-{ordinal}-{}", claim.uid));
        if claim.terminating {
            metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        }
        let mut owners = Vec::new();
        owners.extend(claim.foreign.then(other));
        owners
            .extend(claim.set.map(|uid| OwnerReference { block_owner_deletion: None, ..own(uid) }));
        owners.extend(claim.pod.map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: format!("{NAME}-{ordinal}"),
            uid: format!("pod-{ordinal}-{uid}"),
            controller: Some(true),
            block_owner_deletion: None,
        }));
        metadata.owner_references = (!owners.is_empty()).then_some(owners);
        object
    }

    /// What the planner wants next, seeing this.
    pub(crate) fn plan(
        &mut self,
        view: &View,
        revisions: &Revisions,
    ) -> Result<Rc<Planned>, String> {
        let key = (view.clone(), *revisions);
        if let Some(planned) = self.known.get(&key) {
            return Ok(planned.clone());
        }
        let set = self.set(view.set.as_ref().ok_or("there is no set to plan for")?);
        let pods: Vec<core::Pod> = view
            .pods
            .iter()
            .enumerate()
            .filter_map(|(ordinal, pod)| pod.as_ref().map(|pod| self.pod(ordinal, pod)))
            .collect();
        let mut claims = Vec::new();
        for (template, row) in view.claims.iter().enumerate() {
            for (ordinal, claim) in row.iter().enumerate() {
                claims.extend(claim.as_ref().map(|claim| Self::claim(template, ordinal, claim)));
            }
        }
        // Claims of sets whose names end or begin as this one's are always there.
        for (name, uid) in [("data0-foo-web-0", "foo"), ("data0-web-1-0", "web-1")] {
            let mut claim = Self::claim(
                0,
                0,
                &Claim { uid: 0, terminating: false, set: None, pod: None, foreign: false },
            );
            claim.metadata.name = Some(name.to_owned());
            claim.metadata.uid = Some(uid.to_owned());
            claims.push(claim);
        }
        let revisions: Vec<ControllerRevision> = (1..TEMPLATES)
            .filter(|template| revisions[*template].0 > 0)
            .map(|template| {
                let mut revision = self.revisions[template].clone();
                revision.revision = Some(revisions[template].0.into());
                revision.metadata.owner_references =
                    revisions[template].1.then(|| vec![own(view.set.map_or(0, |set| set.uid))]);
                revision
            })
            .collect();
        let plan = plan(&Observed {
            set: &set,
            revisions: &revisions,
            pods: &pods.iter().collect::<Vec<_>>(),
            claims: &by_name(&claims),
            now: jiff::Timestamp::from_second(1_000).unwrap(),
        });
        let planned = Rc::new(self.planned(&set, plan)?);
        self.known.insert(key, planned.clone());
        Ok(planned)
    }

    fn planned(
        &self,
        set: &StatefulSet,
        plan: planner::statefulset::Plan,
    ) -> Result<Planned, String> {
        let acts = plan
            .actions
            .iter()
            .map(|action| self.act(set, action))
            .collect::<Result<Vec<Act>, String>>()?;
        let count = |count: Option<i32>| {
            u8::try_from(count.unwrap_or(0)).map_err(|_| format!("a count of {count:?}"))
        };
        let status = &plan.status;
        let template =
            |name: &Option<String>| self.template_of(name.as_deref().unwrap_or_default());
        Ok(Planned {
            acts,
            status: Status {
                replicas: count(Some(status.replicas))?,
                ready: count(status.ready_replicas)?,
                current: count(status.current_replicas)?,
                updated: count(status.updated_replicas)?,
                current_revision: template(&status.current_revision),
                update_revision: template(&status.update_revision),
            },
            available: count(status.available_replicas)?,
            explained: plan.waiting_for.is_some() || !plan.problems.is_empty(),
        })
    }

    /// An action in a world's words. Whatever names something that is not the set's is a broken promise.
    fn act(&self, set: &StatefulSet, action: &Action) -> Result<Act, String> {
        let stranger = || format!("{action:?} touches what is not the set's");
        let pod_at = |name: &str| {
            name.strip_prefix("web-")
                .and_then(|number| number.parse::<usize>().ok())
                .filter(|ordinal| *ordinal < ORDINALS)
                .ok_or_else(stranger)
        };
        let claim_at = |name: &str| {
            (0..CLAIMS)
                .flat_map(|template| (0..ORDINALS).map(move |ordinal| (template, ordinal)))
                .find(|(template, ordinal)| {
                    name == format!("{}-{NAME}-{ordinal}", claim_template(*template))
                })
                .ok_or_else(stranger)
        };
        let uid = |uid: &str| number(uid).ok_or_else(stranger);
        let revision = |name: &str| match self.template_of(name) {
            0 => Err(stranger()),
            template => Ok(usize::from(template)),
        };
        let own_uid = set.metadata.uid.as_deref().unwrap_or_default();
        Ok(match action {
            Action::CreateRevision(made) => {
                Act::CreateRevision(revision(made.metadata.name.as_deref().unwrap_or_default())?)
            }
            Action::AdoptRevision { name } => Act::AdoptRevision(revision(name)?),
            Action::RenumberRevision { name, .. } => Act::Renumber(revision(name)?),
            Action::DeleteRevision { name } => Act::DeleteRevision(revision(name)?),
            Action::CreateClaim { claim, .. } => {
                let (template, ordinal) =
                    claim_at(claim.metadata.name.as_deref().unwrap_or_default())?;
                let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
                Act::CreateClaim {
                    template,
                    ordinal,
                    for_set: owners.iter().any(|owner| owner.uid == own_uid),
                }
            }
            Action::UpdateClaimOwners { name, uid: of, owners } => {
                let (template, ordinal) = claim_at(name)?;
                let find = |kind: &str| owners.iter().find(|owner| owner.kind == kind);
                Act::OwnClaim {
                    template,
                    ordinal,
                    uid: uid(of)?,
                    set: find("StatefulSet").map(|owner| uid(&owner.uid)).transpose()?,
                    pod: find("Pod").map(|owner| uid(&owner.uid)).transpose()?,
                    foreign: find("Database").is_some(),
                }
            }
            Action::CreatePod(pod) => {
                let ordinal = pod_at(identity::name(pod))?;
                self.check_pod(set, pod, ordinal)?;
                let spec = pod.spec.as_ref().ok_or_else(stranger)?;
                let template = number(spec.containers[0].image.as_deref().unwrap_or_default())
                    .ok_or_else(stranger)?;
                let label = pod
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(identity::REVISION_LABEL));
                if label != Some(&self.revision_name(template)) {
                    return Err(format!("{action:?} bears another revision's name"));
                }
                Act::CreatePod { ordinal, template }
            }
            Action::DeletePod { name, uid: of } => {
                Act::DeletePod { ordinal: pod_at(name)?, uid: uid(of)? }
            }
            Action::UpdatePodIdentity { name, uid: of, .. } => {
                Act::Mend { ordinal: pod_at(name)?, uid: uid(of)? }
            }
            Action::AdoptPod { name, uid: of } => {
                Act::Adopt { ordinal: pod_at(name)?, uid: uid(of)? }
            }
            Action::ReleasePod { name, uid: of } => {
                Act::Release { ordinal: pod_at(name)?, uid: uid(of)? }
            }
        })
    }

    /// A claim of an ordinal is only ever mounted by that ordinal; the pod has its name, its host name, its labels.
    fn check_pod(&self, set: &StatefulSet, pod: &core::Pod, ordinal: usize) -> Result<(), String> {
        let spec = pod.spec.as_ref().ok_or("a pod without a spec")?;
        let mounted: Vec<String> = spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|volume| volume.persistent_volume_claim.as_ref())
            .map(|source| source.claim_name.clone())
            .collect();
        let wanted: Vec<String> = (0..set.spec.volume_claim_templates.as_ref().map_or(0, Vec::len))
            .map(|template| format!("{}-{NAME}-{ordinal}", claim_template(template)))
            .collect();
        if mounted != wanted {
            return Err(format!("pod {ordinal} mounts {mounted:?}"));
        }
        let name = format!("{NAME}-{ordinal}");
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let right = pod.metadata.name.as_ref() == Some(&name)
            && spec.hostname.as_ref() == Some(&name)
            && spec.subdomain.as_deref() == Some("nginx")
            && labels.get(identity::POD_NAME_LABEL) == Some(&name)
            && labels.get(identity::POD_INDEX_LABEL) == Some(&ordinal.to_string())
            && pod.metadata.owner_references.as_deref()
                == Some(&[identity::controller_reference(set)]);
        if right {
            Ok(())
        } else {
            Err(format!("pod {ordinal} is made without its identity: {pod:?}"))
        }
    }
}
