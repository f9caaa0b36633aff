//! Who owns which fields: `metadata.managedFields`. As upstream: `k8s.io/apimachinery/pkg/util/managedfields/internal`
//! (managedfields.go, capmanagers.go).

use super::field_set::FieldSet;
use serde_json::{Value, json};

/// How many managers of updates are kept apart; the oldest beyond are kept as one.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager of updates so old that nobody asks who made them.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    /// Empty: the object itself.
    pub(super) subresource: String,
    /// RFC 3339; empty if unknown.
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

impl Entry {
    fn read(value: &Value) -> Result<Entry, String> {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let operation = match value["operation"].as_str() {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        if text("fieldsType") != "FieldsV1" {
            return Err(format!("invalid fieldsType {:?} in managed fields", text("fieldsType")));
        }
        let fields = match value.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_json(fields)?,
        };
        Ok(Entry {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields,
        })
    }

    fn write(&self) -> Value {
        let operation = match self.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({"manager": self.manager, "operation": operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json()});
        for (field, text) in [("subresource", &self.subresource), ("time", &self.time)] {
            if !text.is_empty() {
                entry[field] = json!(text);
            }
        }
        entry
    }

    /// Whether both are one manager: somebody who applies is the same in every version.
    pub(super) fn is_of(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name the manager.
    pub(super) fn show(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown = format!("{shown} with subresource {:?}", self.subresource);
        }
        match self.operation {
            Operation::Apply => shown,
            Operation::Update => format!("{shown} using {}", self.api_version),
        }
    }
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) Vec<Entry>);

impl Managers {
    /// Reads `metadata.managedFields`; nothing if there is none or it cannot be read.
    pub(super) fn read(list: Option<&Value>) -> Managers {
        let entries = list.and_then(Value::as_array).into_iter().flatten().map(Entry::read);
        Managers(entries.collect::<Result<_, _>>().unwrap_or_default())
    }

    /// As `metadata.managedFields` says it; `None` if there is nothing to say.
    pub(super) fn write(mut self) -> Option<Value> {
        self.0.sort_by(|a, b| {
            (a.operation, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
                b.operation,
                &b.time,
                &b.manager,
                &b.api_version,
                &b.subresource,
            ))
        });
        (!self.0.is_empty()).then(|| Value::Array(self.0.iter().map(Entry::write).collect()))
    }

    /// The fields of this manager.
    pub(super) fn find(&self, who: &Entry) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.is_of(who))
    }

    /// Puts this manager's entry in the place of what it had.
    pub(super) fn put(&mut self, entry: Entry) {
        self.0.retain(|other| !other.is_of(&entry));
        if !entry.fields.is_empty() {
            self.0.push(entry);
        }
    }

    /// Takes fields from every manager but this one.
    pub(super) fn take_from_others(&mut self, who: &Entry, fields: &FieldSet) {
        for entry in self.0.iter_mut().filter(|entry| !entry.is_of(who)) {
            entry.fields = entry.fields.difference(fields);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Makes one of the oldest managers of updates when there are too many.
    pub(super) fn cap(&mut self) {
        let mut updates: Vec<Entry> = Vec::new();
        self.0.retain(|entry| {
            if entry.operation == Operation::Update {
                updates.push(entry.clone());
            }
            entry.operation == Operation::Apply
        });
        updates.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
        let surplus = updates.len().saturating_sub(MAX_UPDATE_MANAGERS);
        if surplus > 0 {
            let mut bucket = updates[surplus].clone();
            ANCIENT.clone_into(&mut bucket.manager);
            bucket.subresource.clear();
            for entry in updates.drain(..=surplus) {
                bucket.fields = bucket.fields.union(&entry.fields);
            }
            match updates.iter_mut().find(|entry| entry.is_of(&bucket)) {
                Some(ancient) => ancient.fields = ancient.fields.union(&bucket.fields),
                None => updates.push(bucket),
            }
        }
        self.0.extend(updates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, time: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {format!("f:{field}"): {}}}})
    }

    #[test]
    fn entries_are_read_and_written_in_order() {
        let mut apply = entry("z", "2026-01-02T00:00:00Z", "a");
        apply["operation"] = json!("Apply");
        let list = json!([
            entry("b", "2026-01-02T00:00:00Z", "b"),
            apply,
            entry("c", "2026-01-01T00:00:00Z", "c")
        ]);
        let written = Managers::read(Some(&list)).write().unwrap();
        let names: Vec<_> =
            written.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(names, ["z", "c", "b"]);
        assert_eq!(written[0], list[1]);
        let bad = json!([{"manager": "a", "operation": "Guess", "apiVersion": "v1"}]);
        assert_eq!(Managers::read(Some(&bad)).write(), None);
    }

    #[test]
    fn the_oldest_of_too_many_managers_are_one() {
        let list: Vec<Value> = (10..22)
            .map(|n| entry(&format!("m{n}"), &format!("2026-01-{n}T00:00:00Z"), &n.to_string()))
            .collect();
        let mut managers = Managers::read(Some(&json!(list)));
        managers.cap();
        assert_eq!(managers.0.len(), 10);
        let written = managers.write().unwrap();
        assert_eq!(written[0]["manager"], "ancient-changes");
        assert_eq!(written[0]["time"], "2026-01-12T00:00:00Z");
        assert_eq!(written[0]["fieldsV1"], json!({"f:data": {"f:10": {}, "f:11": {}, "f:12": {}}}));
        assert_eq!(written[1]["manager"], "m13");
    }
}
