//! Numbers, names and types of the fields of protobuf messages.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What the tags of `types.go` say, of everything that kinds reach (`k8s.io/api`, `k8s.io/apimachinery/pkg/apis/meta/v1`).
///
/// A line without indentation names a message; those of other groups than the core's have their group before a dot. Its
/// fields follow: number, name in JSON (`-`: the message's fields stand among its parent's; `?`: left out when zero),
/// type (`*`: a pointer, whose zero is a value; `[]`: a list; `map`: from text).
const TABLE: &str = include_str!("messages.txt");

/// How often a field stands, and what its absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Zero is a value.
    Plain,
    /// Zero is nothing.
    PlainOrAbsent,
    /// Zero is a value, absence another.
    Pointer,
    /// Many.
    List,
    /// From text to values.
    Map,
    /// Its fields stand among its parent's.
    Inline,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Int,
    Bool,
    Blob,
    Time,
    IntOrString,
    Quantity,
    /// JSON, as it is.
    Raw,
    /// Another message.
    Message(&'static str),
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) of: Type,
}

/// All messages by their names.
pub(super) static MESSAGES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut messages = HashMap::new();
    let mut current = "";
    for line in TABLE.lines() {
        match line.strip_prefix(' ') {
            None => {
                current = line;
                messages.insert(current, Vec::new());
            }
            Some(row) => {
                if let (Some(field), Some(fields)) = (field(row), messages.get_mut(current)) {
                    fields.push(field);
                }
            }
        }
    }
    messages
});

fn field(row: &'static str) -> Option<Field> {
    let mut words = row.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let (name, of) = (words.next()?, words.next()?);
    let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
    let (shape, of) = if name == "-" {
        (Shape::Inline, of)
    } else if let Some(of) = of.strip_prefix("[]") {
        (Shape::List, of)
    } else if let Some(of) = of.strip_prefix("map ") {
        (Shape::Map, of)
    } else if let Some(of) = of.strip_prefix('*') {
        (Shape::Pointer, of)
    } else {
        (if optional { Shape::PlainOrAbsent } else { Shape::Plain }, of)
    };
    let of = match of {
        "string" => Type::Text,
        "int" => Type::Int,
        "bool" => Type::Bool,
        "bytes" => Type::Blob,
        "Time" => Type::Time,
        "IntOrString" => Type::IntOrString,
        "Quantity" => Type::Quantity,
        "Raw" => Type::Raw,
        other => Type::Message(other),
    };
    Some(Field { number, name, shape, of })
}

/// The fields of a kind.
pub(super) fn of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    let group = match api_version.split_once('/') {
        _ if kind == "DeleteOptions" => "",
        None if api_version == "v1" => "",
        Some((group, "v1")) => group.split('.').next().unwrap_or_default(),
        _ => return None,
    };
    let name = if group.is_empty() { kind.to_owned() } else { format!("{group}.{kind}") };
    MESSAGES.get(name.as_str()).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let rows = TABLE.lines().filter(|line| line.starts_with(' ')).count();
        assert_eq!(MESSAGES.values().map(Vec::len).sum::<usize>(), rows);
        for fields in MESSAGES.values() {
            for (index, field) in fields.iter().enumerate() {
                assert!(fields[..index].iter().all(|other| other.number != field.number));
                if let Type::Message(name) = field.of {
                    assert!(MESSAGES.contains_key(name), "{name}");
                }
            }
        }
    }

    /// So that a body cannot nest deeper than the table does.
    #[test]
    fn no_message_stands_in_itself() {
        fn walk(message: &str, above: &mut Vec<&'static str>) {
            for field in &MESSAGES[message] {
                if let Type::Message(inner) = field.of {
                    assert!(!above.contains(&inner), "{inner} in {above:?}");
                    above.push(inner);
                    walk(inner, above);
                    above.pop();
                }
            }
        }
        for name in MESSAGES.keys() {
            walk(name, &mut vec![name]);
        }
    }

    /// The names in JSON of a message's fields.
    fn names(message: &str) -> Vec<(&'static str, Field)> {
        let fields = MESSAGES[message].iter();
        fields
            .flat_map(|field| match (field.shape, field.of) {
                (Shape::Inline, Type::Message(inner)) => names(inner),
                _ => vec![(field.name, *field)],
            })
            .collect()
    }

    fn compare(
        document: &Value,
        definition: &str,
        message: &str,
        seen: &mut Vec<String>,
        missing: &mut Vec<String>,
    ) {
        if seen.iter().any(|name| name == definition) {
            return;
        }
        seen.push(definition.to_owned());
        let known = names(message);
        let properties = document["definitions"][definition]["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            if ["apiVersion", "kind"].contains(&name.as_str())
                && !known.iter().any(|(n, _)| n == name)
            {
                continue;
            }
            let Some((_, field)) = known.iter().find(|(known, _)| known == name) else {
                missing.push(format!("{definition}.{name}"));
                continue;
            };
            let inner = [
                &property["$ref"],
                &property["items"]["$ref"],
                &property["allOf"][0]["$ref"],
                &property["additionalProperties"]["$ref"],
            ];
            let inner = inner.into_iter().find_map(|found| found.as_str()?.rsplit('/').next());
            if let (Some(inner), Type::Message(message)) = (inner, field.of) {
                compare(document, inner, message, seen, missing);
            }
        }
    }

    /// What is served can be read: no field of any kind is missing in the table.
    #[test]
    fn the_table_has_every_field_of_every_kind() {
        let document = api::openapi::v2(api::kinds::KINDS);
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        for kind in api::kinds::KINDS {
            let group = kind.names.group.split('.').next().unwrap_or_default();
            let prefix = if group.is_empty() { String::new() } else { format!("{group}.") };
            let message = format!("{prefix}{}", kind.names.kind);
            compare(&document, kind.definition, &message, &mut seen, &mut missing);
        }
        assert!(seen.len() > 100, "{}", seen.len());
        missing.sort();
        // Newer than the `types.go` that the table is made from; a body that bears it is refused.
        assert_eq!(missing, ["io.k8s.api.core.v1.NodeSystemInfo.runningInUserNamespace"]);
    }
}
