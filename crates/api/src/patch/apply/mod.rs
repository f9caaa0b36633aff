//! Server-side apply: a configuration is merged into an object, and every field knows who manages it. As upstream:
//! KEP-555, structured-merge-diff (`merge/update.go`) and `k8s.io/apimachinery/pkg/util/managedfields`.
//!
//! Who manages what stands in `metadata.managedFields` of the objects that are tracked, see
//! `docs/decisions/0007-tracked-objects.md`. Enter at [`apply`] (somebody applies) and [`record`] (somebody writes).

pub mod field_set;
pub mod lists;
mod managers;
mod merge;
mod shape;

use crate::kind::{Kind, Subresource};
use crate::object::Object;
use crate::status_error::ApiError;
use field_set::{FieldSet, PathElement, show_path};
use managers::{Entry, Managers, Operation};
use merge::{Comparison, compare, fields_of, merge, remove};
use serde_json::{Map, Value, json};
use shape::Shape;

/// The manager that kubectl applies as. Objects that its client-side apply made go over to it without a conflict.
const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps its configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of everything that was there before anybody asked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Somebody who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The name of the manager, e.g. `kubectl-edit`.
    pub manager: &'a str,
    /// The subresource that is written to; empty for the object itself.
    pub subresource: &'a str,
    /// Now.
    pub now: jiff::Timestamp,
    /// Whether an object that this writer makes is tracked from the start.
    pub tracks_creations: bool,
}

impl Writer<'_> {
    fn entry(&self, kind: &Kind, manager: &str, operation: Operation) -> Entry {
        let now = jiff::Timestamp::from_second(self.now.as_second()).unwrap_or_default();
        Entry {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: kind.names.api_version(),
            subresource: self.subresource.to_owned(),
            time: now.to_string(),
            fields: FieldSet::default(),
        }
    }

    /// What a write here does not write, whatever it says.
    fn ignored(&self, kind: &Kind) -> FieldSet {
        let field = match self.subresource {
            "status" => Some("spec"),
            _ if kind.subresources.contains(&Subresource::Status) => Some("status"),
            _ => None,
        };
        let mut ignored = FieldSet::default();
        field.into_iter().for_each(|name| ignored.add(PathElement::Field(name.to_owned())));
        ignored
    }
}

/// What nobody manages: the object's identity and what the server writes itself.
fn unmanaged() -> FieldSet {
    let mut set = FieldSet::default();
    let field = |name: &str| PathElement::Field(name.to_owned());
    for name in ["apiVersion", "kind", "metadata"] {
        set.add(field(name));
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
}

/// Keeps `metadata.managedFields` right when somebody writes: who changes a field manages it from then on. `old` is the
/// stored object, `None` when there is none; `new` is what the client wants, with the managed fields it sent.
///
/// Objects that are not tracked stay so.
pub fn record(kind: &Kind, old: Option<&Object>, new: &mut Object, writer: &Writer<'_>) {
    let sent = new.remove("/metadata/managedFields");
    let stored = old.and_then(|old| old.at("/metadata/managedFields"));
    let base = match &sent {
        // Who writes a subresource has no say in it.
        Some(_) | None if !writer.subresource.is_empty() => stored,
        Some(sent) if resets(sent) => None,
        Some(sent) if Managers::read(Some(sent)) != Managers::default() => Some(sent),
        Some(_) | None => stored,
    };
    if base.is_none() && (old.is_some() || !writer.tracks_creations) {
        return;
    }
    let blank = skeleton(new.value());
    let before = old.map_or(&blank, Object::value);
    let difference = compare(Shape::of(kind.definition), Some(before), Some(new.value()))
        .without(&writer.ignored(kind));
    let written = if difference.is_same() {
        Managers::read(base).write()
    } else {
        let mut managers = of_this_version(kind, Managers::read(base));
        change_hands(
            &mut managers,
            difference,
            writer.entry(kind, writer.manager, Operation::Update),
        );
        managers.cap();
        managers.write()
    };
    if let Some(list) = written {
        new.set("/metadata/managedFields", list);
    }
}

/// An empty list, or one of an empty entry, asks for no managers at all.
fn resets(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// What changed is the writer's from now on, and nobody else's.
fn change_hands(managers: &mut Managers, difference: Comparison, mut writer: Entry) {
    let changed = difference.added.union(&difference.modified);
    let own = changed.difference(&unmanaged());
    let nobody = Entry { manager: String::new(), fields: FieldSet::default(), ..writer.clone() };
    managers.take_from_others(&nobody, &changed.union(&difference.removed));
    if !own.is_empty() {
        let had = managers.find(&writer).map(|entry| entry.fields.clone()).unwrap_or_default();
        writer.fields = had.union(&own);
        managers.put(writer);
    }
}

/// Managers of versions that are not served know fields that are not there.
fn of_this_version(kind: &Kind, mut managers: Managers) -> Managers {
    let version = kind.names.api_version();
    managers.0.retain(|entry| entry.api_version == version);
    managers
}

/// What every object of the kind has before anything is in it: upstream's structures that are no pointers, which nobody
/// manages as such.
fn skeleton(value: &Value) -> Value {
    const BONES: [&str; 7] =
        ["metadata", "spec", "status", "template", "jobTemplate", "strategy", "updateStrategy"];
    let is_bone =
        |(name, value): &(&String, &Value)| BONES.contains(&name.as_str()) && value.is_object();
    let bones = value.as_object().into_iter().flatten().filter(is_bone);
    Value::Object(bones.map(|(name, value)| (name.clone(), skeleton(value))).collect())
}

/// Merges a configuration into the stored object, or makes one if there is none. Fields that only this manager had and
/// that its configuration has no longer are removed. The result's `managedFields` are as they are to be; its defaults
/// are not yet applied, and what is null in it is to be dropped.
///
/// An error is 400 for a configuration that is none of this kind, 409 for fields that others manage with other values
/// (unless `force` takes them over).
pub fn apply(
    kind: &Kind,
    stored: Option<&Object>,
    configuration: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Object, ApiError> {
    check(kind, configuration)?;
    // An amount is the same however it is written. One that is none is refused when the result is read.
    let mut canonical = configuration.clone();
    let amounts = crate::decode::canonical_amounts(&mut canonical, false);
    let empty = json!({});
    let application = Application {
        kind,
        shape: Shape::of(kind.definition),
        live: stored.map_or(&empty, Object::value),
        configuration: if amounts.is_ok() { &canonical } else { configuration },
        writer,
    };
    let managers = application.managers();
    let outcome = match application.carry_out(managers.clone(), force) {
        Err(conflicts) if writer.manager == KUBECTL => {
            match application.beyond_last_applied(conflicts) {
                beyond if beyond.is_empty() => application.carry_out(managers, true),
                beyond => Err(beyond),
            }
        }
        outcome => outcome,
    };
    let (mut value, managers) = outcome.map_err(refused)?;
    if writer.manager == KUBECTL {
        keep_last_applied(&mut value, configuration);
    }
    let mut object = Object::new(value).map_err(|_| ApiError::internal("an object became none"))?;
    if let Some(list) = managers.write() {
        object.set("/metadata/managedFields", list);
    }
    Ok(object)
}

/// Refuses a configuration that is none of this kind.
fn check(kind: &Kind, configuration: &Value) -> Result<(), ApiError> {
    let text =
        |pointer: &str| configuration.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let names = &kind.names;
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let given = format!("{group}/{version}, Kind={}", text("/kind"));
    if given != format!("{}/{}, Kind={}", names.group, names.version, names.kind) {
        return Err(ApiError::bad_request(format!("invalid object type: {given}")));
    }
    if configuration.pointer("/metadata/managedFields").is_some_and(|list| !list.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let mut errors = Vec::new();
    Shape::of(kind.definition).check(configuration, &mut Vec::new(), &mut errors);
    let why = match &errors[..] {
        [] => return Ok(()),
        [only] => only.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    Err(ApiError::bad_request(format!(
        "failed to create typed patch object ({}/{}; {given}): {why}",
        text("/metadata/namespace"),
        text("/metadata/name"),
    )))
}

/// A field that somebody else manages with another value.
#[derive(Debug)]
struct Conflict {
    manager: String,
    path: Vec<PathElement>,
}

fn refused(conflicts: Vec<Conflict>) -> ApiError {
    let mut words = format!("Apply failed with {} conflicts:", conflicts.len());
    let mut last = "";
    for Conflict { manager, path } in &conflicts {
        if last != manager {
            words = format!(
                "{words}{}conflicts with {manager}:",
                if last.is_empty() { " " } else { "\n" }
            );
        }
        words = format!("{words}\n- {}", show_path(path));
        last = manager;
    }
    if let [Conflict { manager, path }] = &conflicts[..] {
        words =
            format!("Apply failed with 1 conflict: conflict with {manager}: {}", show_path(path));
    }
    let causes = conflicts.iter().map(|Conflict { manager, path }| {
        json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": show_path(path)})
    });
    ApiError::apply_conflict(words, causes.collect())
}

/// One configuration on its way into one object.
struct Application<'a> {
    kind: &'a Kind,
    shape: Shape<'static>,
    /// The stored object; empty if there is none.
    live: &'a Value,
    configuration: &'a Value,
    writer: &'a Writer<'a>,
}

impl Application<'_> {
    /// Who manages the stored object: if it is not tracked, nobody in particular manages all that is in it.
    fn managers(&self) -> Managers {
        let list = self.live.pointer("/metadata/managedFields");
        let mut managers = of_this_version(self.kind, Managers::read(list));
        if managers.0.is_empty() {
            let blank = skeleton(self.live);
            let all = compare(self.shape, Some(&blank), Some(self.live))
                .without(&self.writer.ignored(self.kind));
            let nobody = self.writer.entry(self.kind, BEFORE_FIRST_APPLY, Operation::Update);
            change_hands(&mut managers, all, nobody);
        }
        managers
    }

    fn carry_out(
        &self,
        mut managers: Managers,
        force: bool,
    ) -> Result<(Value, Managers), Vec<Conflict>> {
        let ignored = self.writer.ignored(self.kind);
        let mut own = self.writer.entry(self.kind, self.writer.manager, Operation::Apply);
        own.fields = fields_of(self.shape, self.configuration).recursive_difference(&ignored);
        let had = managers.find(&own).map(|entry| entry.fields.clone()).unwrap_or_default();
        managers.put(own.clone());
        let merged = merge(self.shape, Some(self.live), Some(self.configuration));
        let new = self.pruned(merged.unwrap_or_else(|| json!({})), &had, &managers);
        let difference = compare(self.shape, Some(self.live), Some(&new)).without(&ignored);
        let changed = difference.added.union(&difference.modified);
        let mut conflicts = Vec::new();
        for other in managers.0.iter().filter(|entry| !entry.is_of(&own)) {
            let paths = other.fields.intersection(&changed).paths();
            conflicts
                .extend(paths.into_iter().map(|path| Conflict { manager: other.show(), path }));
        }
        if !force && !conflicts.is_empty() {
            conflicts.sort_by(|a, b| (&a.manager, &a.path).cmp(&(&b.manager, &b.path)));
            return Err(conflicts);
        }
        managers.take_from_others(&own, &changed.union(&difference.removed));
        own.fields = own.fields.difference(&unmanaged());
        managers.put(own);
        Ok((new, managers))
    }

    /// Without what the manager had and has no longer, unless somebody else has it.
    fn pruned(&self, merged: Value, had: &FieldSet, managers: &Managers) -> Value {
        if had.is_empty() {
            return merged;
        }
        let named = |set: FieldSet| set.with_named_fields(self.shape);
        let fields = |value: &Value| named(fields_of(self.shape, value));
        let had = named(had.clone());
        let owned = managers.0.iter().fold(FieldSet::default(), |all, e| all.union(&e.fields));
        let all = fields(&merged);
        let without_own = remove(self.shape, &merged, &had);
        // What others manage comes back,
        let gone = all.difference(&fields(&without_own).union(&named(owned)));
        let with_others = remove(self.shape, &merged, &gone);
        // and what nobody manages, when it went only because what is around it went.
        let gone = all.difference(&fields(&with_others)).intersection(&had);
        remove(self.shape, &merged, &gone)
    }

    /// The conflicts about fields that kubectl itself wrote, by client-side apply, and nobody changed since, are none.
    fn beyond_last_applied(&self, conflicts: Vec<Conflict>) -> Vec<Conflict> {
        let annotations = self.live.pointer("/metadata/annotations");
        let text = annotations.and_then(|list| list.get(LAST_APPLIED)).and_then(Value::as_str);
        let Some(mut last) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return conflicts;
        };
        if last["apiVersion"] != self.kind.names.api_version() {
            return conflicts;
        }
        // What cannot be read as an amount was not written by kubectl.
        let _unreadable = crate::decode::canonical_amounts(&mut last, false);
        let since = compare(self.shape, Some(&last), Some(self.live));
        let own = fields_of(self.shape, &last)
            .difference(&since.modified)
            .difference(&since.added)
            .difference(&since.removed);
        conflicts.into_iter().filter(|conflict| !own.has(&conflict.path)).collect()
    }
}

/// Where client-side apply was used it can be used again: its annotation says what was applied last.
fn keep_last_applied(object: &mut Value, configuration: &Value) {
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut last = configuration.clone();
    if let Some(Value::Object(own)) = last.pointer_mut("/metadata/annotations") {
        own.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.to_owned(), json!(format!("{last}\n")));
    let size: usize =
        annotations.iter().map(|(key, v)| key.len() + v.as_str().map_or(0, str::len)).sum();
    if size > crate::metadata::ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Takes the stored times back when nothing but times has changed, so that applying again is no change.
pub fn keep_times(new: &mut Object, old: &Object) {
    const LIST: &str = "/metadata/managedFields";
    let (Some(before), Some(after)) = (old.at(LIST), new.at(LIST)) else { return };
    let timeless = |list: &Value| {
        let mut list = list.clone();
        for entry in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        list
    };
    // The order follows the times, so that entries are looked for.
    let (before, after) = (timeless(before), timeless(after));
    let (before, after) = (before.as_array(), after.as_array());
    let (Some(before), Some(after)) = (before, after) else { return };
    if before.len() != after.len() || !before.iter().all(|entry| after.contains(entry)) {
        return;
    }
    let mut same = new.clone();
    for pointer in [LIST, "/metadata/resourceVersion"] {
        if let Some(value) = old.at(pointer) {
            same.set(pointer, value.clone());
        }
    }
    if same == *old {
        same.remove("/metadata/resourceVersion");
        if let Some(version) = new.at("/metadata/resourceVersion") {
            same.set("/metadata/resourceVersion", version.clone());
        }
        *new = same;
    }
}

#[cfg(test)]
mod tests;
