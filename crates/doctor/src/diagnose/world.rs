//! Looking things up in what was observed.

use crate::finding::{Evidence, ObjectName, evidence};
use crate::observed::Observed;
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

/// What was observed, with ways to find things in it.
#[derive(Clone, Copy)]
pub(super) struct World<'a>(pub(super) &'a Observed);

/// How long something may take before it is called stuck, in seconds.
pub(super) const PATIENCE: i64 = 30;

impl<'a> World<'a> {
    pub(super) fn sets(&self) -> &'a [StatefulSet] {
        self.0.sets.as_deref().unwrap_or_default()
    }

    pub(super) fn pods(&self) -> &'a [Pod] {
        self.0.pods.as_deref().unwrap_or_default()
    }

    pub(super) fn claims(&self) -> &'a [PersistentVolumeClaim] {
        self.0.claims.as_deref().unwrap_or_default()
    }

    pub(super) fn services(&self) -> &'a [Service] {
        self.0.services.as_deref().unwrap_or_default()
    }

    pub(super) fn pod(&self, space: &str, name: &str) -> Option<&'a Pod> {
        self.pods().iter().find(|pod| is(&pod.metadata, space, name))
    }

    pub(super) fn claim(&self, space: &str, name: &str) -> Option<&'a PersistentVolumeClaim> {
        self.claims().iter().find(|claim| is(&claim.metadata, space, name))
    }

    pub(super) fn service(&self, space: &str, name: &str) -> Option<&'a Service> {
        self.services().iter().find(|service| is(&service.metadata, space, name))
    }

    /// Seconds since; zero if it is not known.
    pub(super) fn age(&self, time: Option<&Time>) -> i64 {
        time.map_or(0, |time| (self.0.now.as_second() - time.0.as_second()).max(0))
    }

    /// How long ago, as kubectl writes it.
    pub(super) fn ago(&self, time: Option<&Time>) -> String {
        duration(self.age(time))
    }

    /// The set that controls a pod.
    pub(super) fn set_of(&self, pod: &Pod) -> Option<&'a StatefulSet> {
        let owner = controller(&pod.metadata)?;
        self.sets().iter().find(|set| set.metadata.uid.as_ref() == Some(&owner.uid))
    }

    /// The pods that a set controls, by ordinal.
    pub(super) fn pods_of(&self, set: &StatefulSet) -> Vec<(i64, &'a Pod)> {
        let mut own: Vec<(i64, &Pod)> = self
            .pods()
            .iter()
            .filter(|pod| {
                controller(&pod.metadata)
                    .is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
            })
            .filter_map(|pod| Some((ordinal(name(&set.metadata), name(&pod.metadata))?, pod)))
            .collect();
        own.sort_by_key(|(ordinal, _)| *ordinal);
        own
    }

    /// The pods that a Service selects.
    pub(super) fn selected(&self, service: &Service) -> Vec<&'a Pod> {
        let Some(selector) = selector(service) else { return Vec::new() };
        let selector = LabelSelector::of_map(selector);
        self.pods()
            .iter()
            .filter(|pod| pod.metadata.namespace == service.metadata.namespace)
            .filter(|pod| selector.matches_optional(pod.metadata.labels.as_ref()))
            .collect()
    }

    /// Events about an object, the newest last.
    pub(super) fn events(&self, kind: &str, about: &ObjectMeta) -> Vec<&'a Event> {
        let mut events: Vec<&Event> = self
            .0
            .events
            .iter()
            .flatten()
            .filter(|event| {
                let object = &event.involved_object;
                object.kind.as_deref() == Some(kind)
                    && object.name == about.name
                    && object.namespace == about.namespace
                    && (object.uid.is_none() || object.uid == about.uid)
            })
            .collect();
        events.sort_by_key(|event| time(event));
        events
    }

    /// The newest event with one of these reasons whose message contains the words.
    pub(super) fn last_event(
        &self,
        kind: &str,
        about: &ObjectMeta,
        reasons: &[&str],
        words: &str,
    ) -> Option<&'a Event> {
        self.events(kind, about).into_iter().rev().find(|event| {
            reasons.contains(&event.reason.as_deref().unwrap_or_default())
                && event.message.as_deref().unwrap_or_default().contains(words)
        })
    }

    /// The last lines that a container printed.
    pub(super) fn lines(&self, pod: &Pod, container: &str) -> &'a [String] {
        let wanted = (space(&pod.metadata), name(&pod.metadata), container);
        self.0
            .logs
            .iter()
            .find(|log| {
                (log.namespace.as_str(), log.pod.as_str(), log.container.as_str()) == wanted
            })
            .map_or(&[], |log| log.lines.as_slice())
    }
}

/// An event as evidence.
pub(super) fn told(event: &Event) -> Evidence {
    let object = &event.involved_object;
    let source = format!(
        "event {} of {} {}",
        event.reason.as_deref().unwrap_or_default(),
        object.kind.as_deref().unwrap_or_default(),
        object.name.as_deref().unwrap_or_default()
    );
    evidence(source, event.message.as_deref().unwrap_or_default())
}

pub(super) fn time(event: &Event) -> Option<jiff::Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let micro = event.event_time.as_ref().map(|time| time.0);
    series.map(|time| time.0).max(last).or(micro).or(event.first_timestamp.as_ref().map(|t| t.0))
}

pub(super) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn space(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

pub(super) fn is(metadata: &ObjectMeta, wanted_space: &str, wanted: &str) -> bool {
    name(metadata) == wanted && space(metadata) == wanted_space
}

pub(super) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub(super) fn object(kind: &'static str, metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(kind, space(metadata), name(metadata))
}

/// A Service's selector, if it has one.
pub(super) fn selector(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    (!selector.is_empty()).then_some(selector)
}

/// The ordinal in the name of a set's pod. `web-01` is nobody's.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let number = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = number.parse().ok()?;
    (ordinal >= 0 && ordinal.to_string() == number).then_some(i64::from(ordinal))
}

/// The ordinals that a set wants.
pub(super) fn wanted(set: &StatefulSet) -> std::ops::Range<i64> {
    let start = set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let replicas = set.spec.replicas.unwrap_or(1).max(0);
    i64::from(start)..i64::from(start) + i64::from(replicas)
}

pub(super) fn is_parallel(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy.as_deref() == Some("Parallel")
}

/// A condition's status, reason, message and time.
pub(super) fn condition<'a>(
    pod: &'a Pod,
    which: &str,
) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == which)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Statuses of a pod's containers with whether they are init containers, in the order in which they start.
pub(super) fn statuses(pod: &Pod) -> Vec<(&ContainerStatus, bool)> {
    let Some(status) = &pod.status else { return Vec::new() };
    let inits = status.init_container_statuses.iter().flatten().map(|status| (status, true));
    let others = status.container_statuses.iter().flatten().map(|status| (status, false));
    inits.chain(others).collect()
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Labels as kubectl takes them: `app=web,tier=db`.
pub(super) fn labels<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    map.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Seconds as kubectl writes ages.
pub(super) fn duration(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
