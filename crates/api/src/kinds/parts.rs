//! What kinds share: verbs, common columns, the usual rules of spec and status.

use crate::field_path::FieldError;
use crate::kind::{Column, Prepare};
use crate::object::Object;
use crate::table;
use serde_json::{Value, json};

/// All verbs.
pub(super) const ALL: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name of the object.",
    cell: |object, _| json!(object.name()),
};

pub(super) const AGE: Column = Column {
    name: "Age",
    kind: "string",
    format: "",
    priority: 0,
    description: "Time since the object was made.",
    cell: |object, now| json!(table::age(object, now)),
};

pub(super) const fn column(
    name: &'static str,
    priority: i32,
    cell: fn(&Object, jiff::Timestamp) -> Value,
) -> Column {
    Column { name, kind: "string", format: "", priority, description: name, cell }
}

/// A text cell, or `<none>`.
pub(super) fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// A text cell, or `<unset>`.
pub(super) fn or_unset(text: &str) -> Value {
    json!(if text.is_empty() { "<unset>" } else { text })
}

pub(super) fn nothing(_: &mut Object) {}
pub(super) fn keep(_: &mut Object, _: &Object) {}
pub(super) fn fine(_: &Object) -> Vec<FieldError> {
    Vec::new()
}
pub(super) fn fine_update(_: &Object, _: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// For kinds without spec and status.
pub(super) const PREPARE_PLAIN: Prepare =
    Prepare { create: nothing, update: keep, update_status: keep };

/// For kinds with spec and status whose generation counts changes of the spec.
pub(super) const PREPARE_SPEC: Prepare =
    Prepare { create: create_spec, update: update_spec, update_status: update_status_only };

fn create_spec(object: &mut Object) {
    object.remove("/status");
    object.set("/metadata/generation", json!(1));
}

/// Before a create: what is observed is not the client's to say.
pub(super) fn drop_status(object: &mut Object) {
    object.remove("/status");
}

/// Takes the stored status back.
pub(super) fn keep_status(new: &mut Object, old: &Object) {
    put_back(new, old, "status");
}

fn put_back(new: &mut Object, old: &Object, field: &str) {
    let pointer = format!("/{field}");
    match old.at(&pointer) {
        Some(value) => new.set(&pointer, value.clone()),
        None => {
            new.remove(&pointer);
        }
    }
}

/// Takes the stored status back and counts a change of the spec.
pub(super) fn update_spec(new: &mut Object, old: &Object) {
    keep_status(new, old);
    let step = i64::from(new.at("/spec") != old.at("/spec"));
    new.set("/metadata/generation", json!(old.generation() + step));
}

/// Takes everything but the status back (labels and annotations may change with it, as upstream).
pub(super) fn update_status_only(new: &mut Object, old: &Object) {
    put_back(new, old, "spec");
    if old.generation() > 0 {
        new.set("/metadata/generation", json!(old.generation()));
    }
}

/// Puts `value` where nothing stands.
pub(super) fn default_at(value: &mut Value, field: &str, default: Value) {
    if let Some(map) = value.as_object_mut().filter(|map| map.get(field).is_none_or(Value::is_null))
    {
        map.insert(field.to_owned(), default);
    }
}

/// The object at `field`, made if absent.
pub(super) fn child<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    default_at(value, field, json!({}));
    &mut value[field]
}

/// The elements of the list at `field`.
pub(super) fn each<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The elements of the list at `field`, to look at.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text at `field`; empty when absent.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}
