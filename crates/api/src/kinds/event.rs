//! Event (core/v1), and how an event is made.

use super::parts::{ALL, PREPARE_PLAIN, column, fine, fine_update, nothing};
use crate::kind::{Kind, Names, Scope, SelectableField, Validate};
use crate::object::Object;
use crate::table::since;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

macro_rules! selectable {
    ($($name:literal => $pointer:literal),* $(,)?) => {
        &[$(SelectableField { name: $name, value: |object| object.str_at($pointer).to_owned() }),*]
    };
}

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "Event", plural: "events", singular: "event", short: &["ev"], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<Event>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: fine, update: fine_update, update_status: fine_update },
    columns: &[
        column("Last Seen", 0, last_seen),
        column("Type", 0, |object, _| json!(object.str_at("/type"))),
        column("Reason", 0, |object, _| json!(object.str_at("/reason"))),
        column("Object", 0, |object, _| about(object)),
        column("Subobject", 1, |object, _| json!(object.str_at("/involvedObject/fieldPath"))),
        column("Source", 1, |object, _| json!(source(object))),
        column("Message", 0, |object, _| json!(object.str_at("/message").trim())),
        column("First Seen", 1, |object, now| json!(since(object.str_at("/firstTimestamp"), now))),
        column("Count", 1, |object, _| json!(object.int_at("/count").unwrap_or(1).to_string())),
        column("Name", 1, |object, _| json!(object.name())),
    ],
    selectable_fields: selectable! {
        "involvedObject.kind" => "/involvedObject/kind",
        "involvedObject.namespace" => "/involvedObject/namespace",
        "involvedObject.name" => "/involvedObject/name",
        "involvedObject.uid" => "/involvedObject/uid",
        "involvedObject.apiVersion" => "/involvedObject/apiVersion",
        "involvedObject.resourceVersion" => "/involvedObject/resourceVersion",
        "involvedObject.fieldPath" => "/involvedObject/fieldPath",
        "reason" => "/reason",
        "reportingComponent" => "/reportingComponent",
        "source" => "/source/component",
        "type" => "/type",
    },
    fields: &[],
    definition: "io.k8s.api.core.v1.Event",
    schema: |generator| drop(generator.subschema_for::<Event>()),
};

fn last_seen(object: &Object, now: Timestamp) -> Value {
    let last = object.str_at("/lastTimestamp");
    json!(since(if last.is_empty() { object.str_at("/eventTime") } else { last }, now))
}

fn about(object: &Object) -> Value {
    json!(format!("{}/{}", object.str_at("/involvedObject/kind").to_lowercase(), object.str_at("/involvedObject/name")))
}

fn source(object: &Object) -> String {
    let (component, host) = (object.str_at("/source/component"), object.str_at("/source/host"));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

/// What there is to tell about an object.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// `Normal` or `Warning`.
    pub kind: &'a str,
    /// One CamelCase word.
    pub reason: &'a str,
    /// A sentence.
    pub message: &'a str,
    /// Who tells, e.g. `statefulset-controller`.
    pub component: &'a str,
    /// On which node; empty if on none.
    pub host: &'a str,
}

/// An event about an object. Its name follows from what it tells, so that telling the same again finds the first one,
/// whose count and last time can then be raised.
pub fn new_event(about: &ObjectReference, telling: Telling<'_>, now: Timestamp) -> Event {
    let key = format!("{:?}{:?}{:?}", about.uid, about.field_path, (telling.kind, telling.reason, telling.message, telling.component));
    let name = about.name.as_deref().unwrap_or_default();
    let time = Some(Time(now));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", &name[..name.len().min(200)], fnv(&key))),
            // Events about cluster-scoped objects live in the namespace default.
            namespace: Some(about.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(telling.kind.to_owned()),
        reason: Some(telling.reason.to_owned()),
        message: Some(telling.message.chars().take(1024).collect()),
        source: Some(EventSource { component: Some(telling.component.to_owned()), host: (!telling.host.is_empty()).then(|| telling.host.to_owned()) }),
        reporting_component: Some(telling.component.to_owned()),
        reporting_instance: Some(telling.host.to_owned()),
        count: Some(1),
        first_timestamp: time.clone(),
        last_timestamp: time,
        ..Event::default()
    }
}

/// FNV-1a, 64 bit.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_the_same_twice_gives_the_same_name() {
        let about = ObjectReference { name: Some("web".into()), namespace: Some("default".into()), uid: Some("u".into()), ..Default::default() };
        let told = |message| new_event(&about, Telling { kind: "Normal", reason: "R", message, component: "c", host: "" }, Timestamp::UNIX_EPOCH).metadata.name;
        assert_eq!(told("a"), told("a"));
        assert_ne!(told("a"), told("b"));
    }
}
