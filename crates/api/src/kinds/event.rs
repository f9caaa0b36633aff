//! Event (core/v1), and how an event is made.

use super::parts::{ALL, PREPARE_PLAIN, column, fine_update, nothing};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, SelectableField, Validate};
use crate::object::Object;
use crate::table::since;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

macro_rules! selectable {
    ($($name:literal => $pointer:literal $(or $other:literal)?),* $(,)?) => {
        &[$(SelectableField { name: $name, value: |object| first_of(object, &[$pointer $(, $other)?]).to_owned() }),*]
    };
}

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<Event>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update: |new, _| validate(new),
        update_status: fine_update,
    },
    columns: &[
        column("Last Seen", 0, last_seen),
        column("Type", 0, |object, _| json!(object.str_at("/type"))),
        column("Reason", 0, |object, _| json!(object.str_at("/reason"))),
        column("Object", 0, |object, _| about(object)),
        column("Subobject", 1, |object, _| json!(object.str_at("/involvedObject/fieldPath"))),
        column("Source", 1, |object, _| json!(source(object))),
        column("Message", 0, |object, _| json!(object.str_at("/message").trim())),
        column("First Seen", 1, |object, now| json!(since(first(object), now))),
        column("Count", 1, |object, _| json!(count(object))),
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
        "type" => "/type",
        "source" => "/source/component" or "/reportingComponent",
    },
    fields: &[],
    definition: "io.k8s.api.core.v1.Event",
    schema: |generator| drop(generator.subschema_for::<Event>()),
};

/// The first of these strings that is not empty.
fn first_of<'a>(object: &'a Object, pointers: &[&str]) -> &'a str {
    pointers
        .iter()
        .map(|pointer| object.str_at(pointer))
        .find(|text| !text.is_empty())
        .unwrap_or("")
}

/// When it first happened.
fn first(object: &Object) -> &str {
    first_of(object, &["/firstTimestamp", "/eventTime"])
}

fn last_seen(object: &Object, now: Timestamp) -> Value {
    let last = first_of(object, &["/series/lastObservedTime", "/lastTimestamp"]);
    json!(since(if last.is_empty() { first(object) } else { last }, now))
}

fn count(object: &Object) -> i64 {
    object
        .int_at("/series/count")
        .or_else(|| object.int_at("/count"))
        .filter(|count| *count > 0)
        .unwrap_or(1)
}

fn about(object: &Object) -> Value {
    let (kind, name) = (
        object.str_at("/involvedObject/kind").to_lowercase(),
        object.str_at("/involvedObject/name"),
    );
    json!(if name.is_empty() { kind } else { format!("{kind}/{name}") })
}

fn source(object: &Object) -> String {
    let component = first_of(object, &["/source/component", "/reportingComponent"]);
    let host = first_of(object, &["/source/host", "/reportingInstance"]);
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

/// An event lives where its object does; events about cluster-scoped objects live in `default`.
fn validate(object: &Object) -> Vec<FieldError> {
    let about = object.str_at("/involvedObject/namespace");
    let home = object.namespace();
    if if about.is_empty() { home.is_empty() || home == "default" } else { about == home } {
        return Vec::new();
    }
    vec![FieldError::invalid(
        &FieldPath::new("involvedObject").child("namespace"),
        about,
        "does not match event.namespace",
    )]
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

/// How much of an object's name begins the event's: both have room for 253 characters.
const NAME_MAX: usize = 200;
/// As upstream: `noteLengthLimit`.
const MESSAGE_MAX: usize = 1024;

/// An event about an object. Its name follows from what it tells, so that telling the same again finds the first one,
/// whose count and last time can then be raised.
pub fn new_event(about: &ObjectReference, telling: Telling<'_>, now: Timestamp) -> Event {
    let key = format!(
        "{:?}{:?}{:?}",
        about.uid,
        about.field_path,
        (telling.kind, telling.reason, telling.message, telling.component)
    );
    let name: String = about.name.as_deref().unwrap_or_default().chars().take(NAME_MAX).collect();
    let time = Some(Time(now));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", fnv(&key))),
            // Events about cluster-scoped objects live in the namespace default.
            namespace: Some(
                about
                    .namespace
                    .clone()
                    .filter(|namespace| !namespace.is_empty())
                    .unwrap_or_else(|| "default".to_owned()),
            ),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(telling.kind.to_owned()),
        reason: Some(telling.reason.to_owned()),
        message: Some(telling.message.chars().take(MESSAGE_MAX).collect()),
        source: Some(EventSource {
            component: Some(telling.component.to_owned()),
            host: (!telling.host.is_empty()).then(|| telling.host.to_owned()),
        }),
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
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_the_same_twice_gives_the_same_name() {
        let about = ObjectReference {
            name: Some("web".into()),
            namespace: Some("default".into()),
            uid: Some("u".into()),
            ..Default::default()
        };
        let told = |message| {
            new_event(
                &about,
                Telling { kind: "Normal", reason: "R", message, component: "c", host: "" },
                Timestamp::UNIX_EPOCH,
            )
            .metadata
            .name
        };
        assert_eq!(told("a"), told("a"));
        assert_ne!(told("a"), told("b"));
    }

    #[test]
    fn a_told_event_is_a_legal_event_about_its_object() {
        let about = ObjectReference {
            name: Some("web-0".into()),
            namespace: Some("team".into()),
            kind: Some("Pod".into()),
            ..Default::default()
        };
        let event = new_event(
            &about,
            Telling {
                kind: "Normal",
                reason: "Started",
                message: "m",
                component: "kubelet",
                host: "n",
            },
            Timestamp::UNIX_EPOCH,
        );
        let object = Object::new(serde_json::to_value(event).unwrap()).unwrap();
        assert_eq!(validate(&object), []);
        assert!(crate::metadata::dns_subdomain(object.name()).is_empty());
        let cells: Vec<Value> = KIND
            .columns
            .iter()
            .map(|column| (column.cell)(&object, Timestamp::from_second(60).unwrap()))
            .collect();
        assert_eq!(
            cells[..9],
            [
                json!("60s"),
                json!("Normal"),
                json!("Started"),
                json!("pod/web-0"),
                json!(""),
                json!("kubelet, n"),
                json!("m"),
                json!("60s"),
                json!(1)
            ]
        );
    }

    #[test]
    fn events_about_what_has_no_namespace_live_in_default() {
        let event = new_event(
            &ObjectReference::default(),
            Telling { kind: "Normal", reason: "R", message: "m", component: "c", host: "" },
            Timestamp::UNIX_EPOCH,
        );
        let mut object = Object::new(serde_json::to_value(event).unwrap()).unwrap();
        assert_eq!(validate(&object), []);
        object.set("/metadata/namespace", json!("team"));
        assert_eq!(
            validate(&object)[0].to_string(),
            "involvedObject.namespace: Invalid value: \"\": does not match event.namespace"
        );
    }
}
