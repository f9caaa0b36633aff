//! OpenAPI documents, from the kinds' own schemas. Made on demand: nobody keeps the trees.

use crate::discovery::{group_versions, subresource_name};
use crate::kind::{Kind, Scope, Subresource};
use crate::patch::MEDIA_TYPES;
use crate::patch::apply::lists::{self, Merging};
use crate::patch::merge_keys::{Field, field};
use serde_json::{Map, Value, json};

/// Where a document keeps its definitions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// `/openapi/v2`.
pub fn v2(kinds: &[&Kind]) -> Value {
    let definitions = definitions(kinds, Dialect::V2);
    let mut paths = Map::new();
    for kind in kinds {
        add_paths(kind, Dialect::V2, &mut paths);
    }
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths, "definitions": definitions})
}

/// `/openapi/v3`: which documents there are. `hash` changes with the binary, so that clients may cache.
pub fn v3_index(kinds: &[&Kind], hash: &str) -> Value {
    let paths: Map<String, Value> = group_versions(kinds)
        .into_iter()
        .map(|(group, version)| {
            let path = path_of(group, version);
            (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
        })
        .collect();
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` and `/openapi/v3/apis/GROUP/VERSION`.
pub fn v3(kinds: &[&Kind], path: &str) -> Option<Value> {
    let wanted: Vec<&Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| path_of(kind.names.group, kind.names.version) == path)
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let schemas = definitions(&wanted, Dialect::V3);
    let mut paths = Map::new();
    for kind in &wanted {
        add_paths(kind, Dialect::V3, &mut paths);
    }
    Some(
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths, "components": {"schemas": schemas}}),
    )
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The definitions of these kinds and of all that they are made of, by their full names.
pub(crate) fn plain_definitions(kinds: &[&Kind]) -> Map<String, Value> {
    definitions(kinds, Dialect::V2)
}

fn definitions(kinds: &[&Kind], dialect: Dialect) -> Map<String, Value> {
    let mut generator = schemars::SchemaGenerator::default();
    for kind in kinds {
        (kind.schema)(&mut generator);
    }
    let mut definitions = Map::new();
    for (name, mut schema) in generator.take_definitions(true) {
        rewrite(&mut schema, dialect);
        add_merge_keys(&name, &mut schema);
        add_list_types(&name, &mut schema);
        definitions.insert(name, schema);
    }
    for kind in kinds {
        if let Some(Value::Object(schema)) = definitions.get_mut(kind.definition) {
            let names = &kind.names;
            schema.insert(
                "x-kubernetes-group-version-kind".into(),
                json!([{"group": names.group, "version": names.version, "kind": names.kind}]),
            );
        }
    }
    definitions
}

/// From JSON schema as schemars writes it to OpenAPI as kubectl reads it.
fn rewrite(schema: &mut Value, dialect: Dialect) {
    match schema {
        Value::Object(map) => {
            for key in ["$schema", "title", "format"] {
                let is_schema_word = map.get(key).is_some_and(Value::is_string);
                if is_schema_word
                    && (key != "format"
                        || matches!(map[key].as_str(), Some(text) if text.starts_with("uint")))
                {
                    map.remove(key);
                }
            }
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
                *reference = match dialect {
                    Dialect::V2 => format!("#/definitions/{name}"),
                    Dialect::V3 => format!("#/components/schemas/{name}"),
                };
                // Beside a reference OpenAPI 3.0 reads nothing; a description survives by way of allOf.
                if map.len() > 1 && dialect == Dialect::V3 {
                    let reference = map.remove("$ref").unwrap_or_default();
                    map.insert("allOf".into(), json!([{"$ref": reference}]));
                }
            }
            if let Some(Value::Array(types)) = map.get("type") {
                let first = types
                    .iter()
                    .find(|name| *name != "null")
                    .cloned()
                    .unwrap_or_else(|| json!("object"));
                map.insert("type".into(), first);
            }
            if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
                map.remove("anyOf");
                map.insert("type".into(), json!("string"));
                map.insert("format".into(), json!("int-or-string"));
            }
            if let Some(Value::Array(options)) = map.get("anyOf") {
                // An optional reference: a reference or null.
                let real: Vec<Value> =
                    options.iter().filter(|option| option["type"] != "null").cloned().collect();
                if let [only] = &real[..] {
                    let only = only.clone();
                    map.remove("anyOf");
                    for (key, value) in only.as_object().cloned().unwrap_or_default() {
                        map.entry(key).or_insert(value);
                    }
                    return rewrite(schema, dialect);
                }
            }
            map.values_mut().for_each(|value| rewrite(value, dialect));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rewrite(value, dialect)),
        _ => {}
    }
}

fn add_merge_keys(definition: &str, schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, property) in properties {
        match field(definition, name) {
            Some(Field::List(_, key)) => {
                property["x-kubernetes-patch-strategy"] = json!("merge");
                property["x-kubernetes-patch-merge-key"] = json!(key);
            }
            Some(Field::Set) => property["x-kubernetes-patch-strategy"] = json!("merge"),
            _ => {}
        }
    }
}

/// How lists and maps merge when a configuration is applied.
fn add_list_types(definition: &str, schema: &mut Value) {
    let owner = definition.rsplit('.').next().unwrap_or(definition);
    if lists::is_atomic(owner) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        if lists::is_atomic_map(owner, name) {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
        if property["type"] == "array" {
            let (word, keys) = match lists::merging(owner, name) {
                Merging::Atomic => ("atomic", None),
                Merging::Set => ("set", None),
                Merging::Keyed(keys) => ("map", Some(keys)),
            };
            property["x-kubernetes-list-type"] = json!(word);
            if let Some(keys) = keys {
                property["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
    }
}

/// The operations on a kind, with the parameters that clients look for.
fn add_paths(kind: &Kind, dialect: Dialect, paths: &mut Map<String, Value>) {
    let names = &kind.names;
    let base = format!("/{}", path_of(names.group, names.version));
    let collection = match kind.scope {
        Scope::Namespaced => format!("{base}/namespaces/{{namespace}}/{}", names.plural),
        Scope::Cluster => format!("{base}/{}", names.plural),
    };
    let object = format!("{collection}/{{name}}");
    let mut operations = Map::new();
    for (verb, method) in [("list", "get"), ("create", "post"), ("deletecollection", "delete")] {
        if kind.verbs.contains(&verb) {
            operations.insert(method.into(), operation(kind, verb, dialect));
        }
    }
    paths.insert(collection, Value::Object(operations));
    let mut operations = Map::new();
    for (verb, method) in
        [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")]
    {
        if kind.verbs.contains(&verb) {
            operations.insert(method.into(), operation(kind, verb, dialect));
        }
    }
    paths.insert(object.clone(), Value::Object(operations));
    for subresource in kind
        .subresources
        .iter()
        .filter(|s| matches!(s, Subresource::Status | Subresource::Scale { .. }))
    {
        let methods: Map<String, Value> = [("get", "get"), ("update", "put"), ("patch", "patch")]
            .into_iter()
            .map(|(verb, method)| (method.to_owned(), operation(kind, verb, dialect)))
            .collect();
        paths.insert(format!("{object}/{}", subresource_name(subresource)), Value::Object(methods));
    }
}

fn operation(kind: &Kind, verb: &str, dialect: Dialect) -> Value {
    let names = &kind.names;
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let queries: &[&str] = match verb {
        "create" | "update" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "list" => {
            &["labelSelector", "fieldSelector", "limit", "continue", "watch", "resourceVersion"]
        }
        _ => &[],
    };
    let parameters: Vec<Value> = queries
        .iter()
        .map(|name| match dialect {
            Dialect::V2 => json!({"name": name, "in": "query", "type": "string", "uniqueItems": true}),
            Dialect::V3 => json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}),
        })
        .collect();
    let mut operation = json!({
        "operationId": format!("{verb}{}{}", names.group.replace('.', ""), names.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": names.group, "version": names.version, "kind": names.kind}
    });
    if verb == "patch" {
        match dialect {
            Dialect::V2 => operation["consumes"] = json!(MEDIA_TYPES),
            Dialect::V3 => {
                let body =
                    |name: &&str| ((*name).to_owned(), json!({"schema": {"type": "object"}}));
                let content: Map<String, Value> = MEDIA_TYPES.iter().map(body).collect();
                operation["requestBody"] = json!({"content": content, "required": true});
            }
        }
    }
    operation
}
