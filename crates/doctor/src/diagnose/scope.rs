//! Which of what was observed is asked about.

use super::world::{World, controller, is_ready, name, ordinal, phase, space, wanted};
use crate::observed::Workload;
use crate::subject::{Subject, Target};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What is asked about.
pub(super) struct Scope<'a> {
    world: World<'a>,
    subject: &'a Subject,
    /// A pod that its set has not made yet: its set is what is asked about.
    awaited: Option<&'a StatefulSet>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(world: World<'a>, subject: &'a Subject) -> Scope<'a> {
        let awaited = match &subject.target {
            Some(Target::Pod(pod))
                if !world.pods().iter().any(|own| name(&own.metadata) == pod) =>
            {
                awaiting(world, pod)
            }
            _ => None,
        };
        Scope { world, subject, awaited }
    }

    fn target(&self) -> Option<&'a Target> {
        self.subject.target.as_ref()
    }

    /// Whether it is this very set that is asked about.
    pub(super) fn is_asked(&self, set: &StatefulSet) -> bool {
        matches!(self.target(), Some(Target::Set(asked)) if asked == name(&set.metadata))
    }

    /// Whether a set is asked about, by name or with everything.
    pub(super) fn is_asked_or_all(&self, set: &StatefulSet) -> bool {
        self.target().is_none() || self.is_asked(set)
    }

    /// Whether it is a Service that is asked about.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.target(), Some(Target::Service(_)))
    }

    /// Whether a set or something of it is asked about.
    pub(super) fn has_set(&self, set: &StatefulSet) -> bool {
        let own = |pod: &str| {
            self.world.pods_of(set).iter().any(|(_, found)| name(&found.metadata) == pod)
        };
        match self.target() {
            None => true,
            Some(Target::Set(asked)) => asked == name(&set.metadata),
            Some(Target::Pod(pod)) => {
                own(pod) || self.awaited.is_some_and(|awaited| std::ptr::eq(awaited, set))
            }
            Some(Target::Claim(claim)) => self.mounting(claim).any(|pod| own(name(&pod.metadata))),
            Some(Target::Service(service)) => set.spec.service_name.as_ref() == Some(service),
            Some(Target::Workload { .. }) => false,
        }
    }

    pub(super) fn has_pod(&self, pod: &Pod) -> bool {
        match self.target() {
            None => true,
            Some(Target::Set(_) | Target::Service(_)) => {
                self.world.set_of(pod).is_some_and(|set| self.has_set(set))
                    || matches!(self.target(), Some(Target::Service(service)) if self.serves(service, pod))
            }
            Some(Target::Pod(asked)) => {
                asked == name(&pod.metadata)
                    || self.awaited.is_some_and(|set| {
                        self.world.set_of(pod).is_some_and(|own| std::ptr::eq(own, set))
                    })
            }
            Some(Target::Claim(claim)) => mounts(pod, claim),
            Some(Target::Workload { kind, name: asked }) => self.belongs(pod, kind, asked),
        }
    }

    /// Whether a Service itself is asked about: by name, or with everything.
    pub(super) fn has_service(&self, service: &Service) -> bool {
        match self.target() {
            None => true,
            Some(Target::Service(asked)) => asked == name(&service.metadata),
            Some(_) => false,
        }
    }

    pub(super) fn has_claim(&self, claim: &PersistentVolumeClaim) -> bool {
        match self.target() {
            None => true,
            Some(Target::Claim(asked)) => asked == name(&claim.metadata),
            Some(_) => false,
        }
    }

    fn serves(&self, service: &str, pod: &Pod) -> bool {
        self.world.service(space(&pod.metadata), service).is_some_and(|service| {
            self.world.selected(service).iter().any(|own| std::ptr::eq(*own, pod))
        })
    }

    fn mounting(&self, claim: &str) -> impl Iterator<Item = &'a Pod> {
        let claim = claim.to_owned();
        self.world.pods().iter().filter(move |pod| mounts(pod, &claim))
    }

    fn belongs(&self, pod: &Pod, kind: &str, asked: &str) -> bool {
        let Some(owner) = controller(&pod.metadata) else { return false };
        let above = self.world.0.workloads.iter().flatten().find(|workload: &&Workload| {
            workload.kind == owner.kind && workload.metadata.uid.as_ref() == Some(&owner.uid)
        });
        let named = |metadata: &ObjectMeta, is_kind: bool| is_kind && name(metadata) == asked;
        above.is_some_and(|workload| {
            named(&workload.metadata, workload.kind == kind)
                || controller(&workload.metadata)
                    .is_some_and(|top| top.kind == kind && top.name == asked)
        })
    }

    /// How things stand, in sentences.
    pub(super) fn state(&self, others: &[&Pod], healthy: bool) -> Vec<String> {
        let end = if healthy { "; nothing to say" } else { "" };
        let many = self.subject.namespace.is_none();
        let mut sentences: Vec<String> = Vec::new();
        for set in self.world.sets().iter().filter(|set| self.has_set(set)) {
            let ready = self.world.pods_of(set).iter().filter(|(_, pod)| is_ready(pod)).count();
            let replicas = wanted(set).count();
            let place = if many { format!("{}/", space(&set.metadata)) } else { String::new() };
            let name = name(&set.metadata);
            sentences.push(format!("{place}{name}: {ready} of {replicas} pods are Ready{end}"));
        }
        let living: Vec<&&Pod> = others.iter().filter(|pod| phase(pod) != "Succeeded").collect();
        if !living.is_empty() {
            let ready = living.iter().filter(|pod| is_ready(pod)).count();
            let other = if sentences.is_empty() { "" } else { "other " };
            sentences.push(format!("{ready} of {} {other}pods are Ready{end}", living.len()));
        }
        if sentences.is_empty() && healthy {
            sentences.push(match (self.target(), &self.subject.namespace) {
                (Some(target), _) => {
                    format!(
                        "{} {} has no pods that should run; nothing to say",
                        target.kind(),
                        target.name()
                    )
                }
                (None, Some(namespace)) => {
                    format!("namespace {namespace} has no pods that should run; nothing to say")
                }
                (None, None) => {
                    "the cluster has no pods that should run; nothing to say".to_owned()
                }
            });
        }
        sentences
    }
}

/// The set that will make a pod which does not exist yet.
pub(super) fn awaiting<'a>(world: World<'a>, pod: &str) -> Option<&'a StatefulSet> {
    world.sets().iter().find(|set| {
        ordinal(name(&set.metadata), pod).is_some_and(|ordinal| wanted(set).contains(&ordinal))
    })
}

/// Whether a pod has a claim among its volumes.
pub(super) fn mounts(pod: &Pod, claim: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| names_claim(spec, claim))
}

/// Whether a pod of this description has a claim among its volumes.
pub(super) fn names_claim(spec: &k8s_openapi::api::core::v1::PodSpec, claim: &str) -> bool {
    spec.volumes.iter().flatten().any(|volume| {
        volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim)
    })
}
