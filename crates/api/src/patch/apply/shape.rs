//! How values are made up: which lists are sets, which are keyed, and what is only ever replaced whole. The types come
//! from the kinds' own OpenAPI definitions; how their lists merge is added by [`super::lists`].

use super::field_set::{PathElement, Scalar};
use super::lists::{self, Merging};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a plain value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Text,
    Number,
    Boolean,
    /// Any plain value: amounts, times, ports by number or name.
    Any,
}

#[derive(Debug)]
enum Type {
    Plain(Plain),
    /// Fields by name.
    Struct {
        name: String,
        fields: BTreeMap<String, Type>,
        atomic: bool,
    },
    /// Free keys.
    Map {
        element: Box<Type>,
        atomic: bool,
    },
    List {
        element: Box<Type>,
        merging: Merging,
    },
    /// A definition.
    Named(String),
    /// Told by the value alone: objects are merged, lists are replaced whole.
    Free,
    /// Never looked at.
    Ignored,
}

#[derive(Debug)]
struct Types(BTreeMap<String, Type>);

/// How a value is made up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'a> {
    shape: &'a Type,
    types: &'a Types,
}

/// How a value is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// Replaced whole.
    Leaf,
    /// Field by field.
    Object,
    /// Element by element.
    List,
    /// Not at all.
    Ignored,
}

static FREE: Type = Type::Free;

impl Shape<'static> {
    /// The shape of a definition, e.g. `io.k8s.api.apps.v1.StatefulSet`.
    pub(super) fn of(definition: &str) -> Shape<'static> {
        static TYPES: OnceLock<Types> = OnceLock::new();
        let types = TYPES.get_or_init(|| {
            let definitions = crate::openapi::plain_definitions(crate::kinds::KINDS);
            Types(
                definitions
                    .iter()
                    .map(|(name, schema)| (name.clone(), read(name, schema)))
                    .collect(),
            )
        });
        Shape { shape: types.0.get(definition).unwrap_or(&FREE), types }
    }
}

fn read(name: &str, schema: &Value) -> Type {
    let short = name.rsplit('.').next().unwrap_or(name);
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => Type::Struct {
            name: short.to_owned(),
            atomic: lists::is_atomic(short),
            fields: properties
                .iter()
                .map(|(field, schema)| (field.clone(), property(short, field, schema)))
                .collect(),
        },
        None => property(short, "", schema),
    }
}

fn property(owner: &str, field: &str, schema: &Value) -> Type {
    let reference = [&schema["$ref"], &schema["allOf"][0]["$ref"]];
    if (owner, field) == ("ObjectMeta", "managedFields") {
        return Type::Ignored;
    }
    if let Some(reference) = reference.into_iter().find_map(Value::as_str) {
        return Type::Named(reference.rsplit('/').next().unwrap_or_default().to_owned());
    }
    let format = schema["format"].as_str().unwrap_or_default();
    match schema["type"].as_str() {
        Some("string") if ["int-or-string", "date-time"].contains(&format) => {
            Type::Plain(Plain::Any)
        }
        Some("string") => Type::Plain(Plain::Text),
        Some("integer" | "number") => Type::Plain(Plain::Number),
        Some("boolean") => Type::Plain(Plain::Boolean),
        Some("array") => Type::List {
            element: Box::new(property(owner, "", &schema["items"])),
            merging: lists::merging(owner, field),
        },
        Some("object") if schema.get("additionalProperties").is_some() => Type::Map {
            element: Box::new(property(owner, "", &schema["additionalProperties"])),
            atomic: lists::is_atomic_map(owner, field),
        },
        _ => Type::Free,
    }
}

impl<'a> Shape<'a> {
    fn resolved(self) -> Shape<'a> {
        let mut here = self;
        // A definition that is nothing but a name of another one.
        while let Type::Named(name) = here.shape {
            here.shape = self.types.0.get(name).unwrap_or(&FREE);
        }
        here
    }

    fn is(self, shape: &'a Type) -> Shape<'a> {
        Shape { shape, types: self.types }
    }

    /// How to walk this value.
    pub(super) fn walk(self, value: Option<&Value>) -> Walk {
        match self.resolved().shape {
            Type::Ignored => Walk::Ignored,
            Type::Struct { atomic: false, .. } | Type::Map { atomic: false, .. } => Walk::Object,
            Type::List { merging: Merging::Set | Merging::Keyed(_), .. } => Walk::List,
            Type::Free if value.is_some_and(Value::is_object) => Walk::Object,
            Type::Plain(_)
            | Type::Struct { .. }
            | Type::Map { .. }
            | Type::List { .. }
            | Type::Free
            | Type::Named(_) => Walk::Leaf,
        }
    }

    /// Whether objects of this shape have a field of this name by their type, not by their keys being free.
    pub(super) fn is_named(self, name: &str) -> bool {
        matches!(self.resolved().shape, Type::Struct { fields, .. } if fields.contains_key(name))
    }

    /// The shape of a field.
    pub(super) fn field(self, name: &str) -> Shape<'a> {
        match self.resolved().shape {
            Type::Struct { fields, .. } => self.is(fields.get(name).unwrap_or(&FREE)),
            Type::Map { element, .. } => self.is(element),
            _ => self.is(&FREE),
        }
    }

    /// The shape of a list's elements.
    pub(super) fn element(self) -> Shape<'a> {
        match self.resolved().shape {
            Type::List { element, .. } => self.is(element),
            _ => self.is(&FREE),
        }
    }

    /// What tells this element of a set or keyed list from the others. An error says why nothing does.
    pub(super) fn path_element(self, item: &Value) -> Result<PathElement, String> {
        match (self.resolved().shape, item) {
            (Type::List { merging: Merging::Keyed(keys), .. }, Value::Object(item)) => {
                self.element().key(keys, item)
            }
            (Type::List { merging: Merging::Keyed(_), .. }, Value::Null) => {
                Err("associative list with keys may not have a null element".to_owned())
            }
            (Type::List { merging: Merging::Keyed(_), .. }, _) => {
                Err("associative list with keys may not have non-map elements".to_owned())
            }
            (_, Value::Object(_)) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            (_, Value::Array(_)) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            (_, Value::Null) => {
                Err("associative list without keys has an element that's an explicit null"
                    .to_owned())
            }
            (_, plain) => Ok(PathElement::Value(Scalar(plain.clone()))),
        }
    }

    fn key(self, keys: &[&str], item: &Map<String, Value>) -> Result<PathElement, String> {
        let mut fields: Vec<(String, Scalar)> = keys
            .iter()
            .filter_map(|key| {
                let value = item.get(*key).cloned().or_else(|| self.key_default(key))?;
                Some(((*key).to_owned(), Scalar(value)))
            })
            .collect();
        if fields.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        fields.sort();
        Ok(PathElement::Key(fields))
    }

    /// What a key field that is left out counts as. As upstream: the OpenAPI defaults of required fields.
    fn key_default(self, key: &str) -> Option<Value> {
        let shape = self.resolved();
        if let Type::Struct { name, .. } = shape.shape
            && lists::KEYS_WITHOUT_DEFAULT.contains(&name.as_str())
        {
            return None;
        }
        match (key, shape.field(key).resolved().shape) {
            ("protocol", _) => Some(json!("TCP")),
            (_, Type::Plain(Plain::Number)) => Some(json!(0)),
            (_, Type::Plain(Plain::Text)) => Some(json!("")),
            _ => None,
        }
    }

    /// What is wrong with a value of a configuration, each with its path. As upstream: structured-merge-diff,
    /// `typed/validate.go`.
    pub(super) fn check(
        self,
        value: &Value,
        path: &mut Vec<PathElement>,
        errors: &mut Vec<String>,
    ) {
        let mut refuse = |path: &[PathElement], why: &str| {
            errors.push(format!("{}: {why}", super::field_set::show_path(path)));
        };
        let here = self.resolved();
        match (here.shape, value) {
            (Type::Free | Type::Ignored | Type::Named(_), _) | (_, Value::Null) => {}
            (Type::Plain(plain), value) => {
                if let Some(why) = misfit(*plain, value) {
                    refuse(path, &why);
                }
            }
            (Type::Struct { .. } | Type::Map { .. }, Value::Object(object)) => {
                for (name, value) in object {
                    path.push(PathElement::Field(name.clone()));
                    if matches!(here.shape, Type::Struct { .. }) && !here.is_named(name) {
                        errors.push(format!(
                            "{}: field not declared in schema",
                            super::field_set::show_path(path)
                        ));
                    } else {
                        here.field(name).check(value, path, errors);
                    }
                    path.pop();
                }
            }
            (Type::List { merging, .. }, Value::Array(list)) => {
                here.check_list(*merging, list, path, errors);
            }
            (Type::Struct { .. } | Type::Map { .. }, other) => {
                refuse(path, &format!("expected map, got {}", shown(other)));
            }
            (Type::List { .. }, other) => {
                refuse(path, &format!("expected list, got {}", shown(other)));
            }
        }
    }

    fn check_list(
        self,
        merging: Merging,
        list: &[Value],
        path: &mut Vec<PathElement>,
        errors: &mut Vec<String>,
    ) {
        let mut seen = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let element = if merging == Merging::Atomic {
                PathElement::Index(index)
            } else {
                match self.path_element(item) {
                    Ok(element) => element,
                    Err(why) => {
                        let at = super::field_set::show_path(path);
                        errors.push(format!("{at}: element {index}: {why}"));
                        return;
                    }
                }
            };
            if seen.contains(&element) {
                let at = super::field_set::show_path(path);
                errors.push(format!("{at}: duplicate entries for key {element}"));
            }
            path.push(element.clone());
            self.element().check(item, path, errors);
            path.pop();
            seen.push(element);
        }
    }
}

fn misfit(plain: Plain, value: &Value) -> Option<String> {
    let fits = match plain {
        Plain::Text => value.is_string(),
        Plain::Number => value.is_number(),
        Plain::Boolean => value.is_boolean(),
        Plain::Any => !value.is_object() && !value.is_array(),
    };
    let go_type = match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    };
    (!fits).then(|| match plain {
        Plain::Text => {
            format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value))
        }
        Plain::Number => format!("expected numeric (int or float), got {go_type}"),
        Plain::Boolean => format!("expected boolean, got {}", shown(value)),
        Plain::Any => format!("expected any scalar, got {}", shown(value)),
    })
}

/// As Go prints the value's source (`%#v`).
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Null => "interface {}(nil)".to_owned(),
        plain => plain.to_string(),
    }
}

/// As Go prints the wrapped value (`%v`).
fn shown(value: &Value) -> String {
    let plain = match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", bare(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => bare(other),
    };
    format!("&{{{plain}}}")
}

fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(bare).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", bare(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Null => "<nil>".to_owned(),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "io.k8s.api.apps.v1.StatefulSet";

    fn errors(configuration: Value) -> Vec<String> {
        let mut errors = Vec::new();
        Shape::of(SET).check(&configuration, &mut Vec::new(), &mut errors);
        errors
    }

    #[test]
    fn lists_know_what_tells_their_elements_apart() {
        let containers =
            Shape::of(SET).field("spec").field("template").field("spec").field("containers");
        assert_eq!(containers.walk(None), Walk::List);
        let ports = containers.element().field("ports");
        let element = ports.path_element(&json!({"containerPort": 80})).unwrap();
        assert_eq!(element.to_string(), "[containerPort=80,protocol=\"TCP\"]");
        assert_eq!(containers.element().field("args").walk(None), Walk::Leaf);
        let meta = Shape::of(SET).field("metadata");
        assert_eq!(meta.field("labels").walk(None), Walk::Object);
        assert_eq!(
            meta.field("finalizers").path_element(&json!("a")).unwrap().to_string(),
            "[=\"a\"]"
        );
        assert_eq!(Shape::of(SET).field("spec").field("selector").walk(None), Walk::Leaf);
        assert_eq!(meta.field("managedFields").walk(None), Walk::Ignored);
        let secrets = Shape::of("io.k8s.api.core.v1.ServiceAccount").field("secrets");
        assert!(secrets.path_element(&json!({"kind": "Secret"})).is_err());
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_told_field_by_field() {
        let container = json!({"name": "a", "imagee": "b", "args": "x", "resources": {"limits": {"cpu": 1, "memory": {}}}});
        assert_eq!(
            errors(
                json!({"spec": {"replicas": "three", "template": {"spec": {"hostNetwork": 3, "containers": [container, {"name": "a"}],
                "volumes": [{"name": "v", "hostPath": {"path": 7}}], "dnsConfig": 5}}}})
            ),
            [
                ".spec.replicas: expected numeric (int or float), got string",
                ".spec.template.spec.containers[name=\"a\"].args: expected list, got &{x}",
                ".spec.template.spec.containers[name=\"a\"].imagee: field not declared in schema",
                ".spec.template.spec.containers[name=\"a\"].resources.limits.memory: expected any scalar, got &{map[]}",
                ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
                ".spec.template.spec.dnsConfig: expected map, got &{5}",
                ".spec.template.spec.hostNetwork: expected boolean, got &{3}",
                ".spec.template.spec.volumes[name=\"v\"].hostPath.path: expected string, got &value.valueUnstructured{Value:7}",
            ]
        );
        assert_eq!(
            errors(
                json!({"metadata": {"name": "web", "creationTimestamp": null, "labels": null}, "spec": {"template": {"spec": {"containers": ["x"]}}}})
            ),
            [
                ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements"
            ]
        );
    }
}
