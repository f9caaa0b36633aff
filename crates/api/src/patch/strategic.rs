//! Strategic merge patch. As upstream: `k8s.io/apimachinery/pkg/util/strategicpatch`.

use super::merge_keys::{Field, field};
use crate::status_error::ApiError;
use serde_json::{Map, Value};

/// Applies `patch` to an object of the type `definition`.
pub fn apply(definition: &str, current: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
        ));
    };
    merge_object(definition, current, patch)
}

fn merge_object(
    definition: &str,
    current: &mut Value,
    patch: &Map<String, Value>,
) -> Result<(), ApiError> {
    match patch.get("$patch").map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            let kept = patch
                .iter()
                .filter(|(key, _)| *key != "$patch")
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            *current = Value::Object(kept);
            return Ok(());
        }
        Some("delete") => {
            *current = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            return Err(ApiError::bad_request(format!("unrecognized patch directive: {other}")));
        }
    }
    if !current.is_object() {
        *current = Value::Object(Map::new());
    }
    let Some(object) = current.as_object_mut() else { return Ok(()) };
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        object.retain(|key, _| retained.iter().any(|name| name == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_from_primitive_list(object, list, value);
        } else if !key.starts_with('$') {
            merge_field(
                definition,
                object,
                key,
                value,
                patch.get(&format!("$setElementOrder/{key}")),
            )?;
        }
    }
    // An order may be given for a list that the patch does not otherwise touch.
    for (key, order) in patch {
        if let Some(list) =
            key.strip_prefix("$setElementOrder/").filter(|list| !patch.contains_key(*list))
            && let (Some(Value::Array(elements)), Some(order)) =
                (object.get_mut(list), order.as_array())
        {
            set_order(elements, order, merge_key(definition, list), &[]);
        }
    }
    Ok(())
}

fn merge_key(definition: &str, list: &str) -> Option<&'static str> {
    match field(definition, list) {
        Some(Field::List(_, key)) => Some(key),
        _ => None,
    }
}

fn merge_field(
    definition: &str,
    object: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    order: Option<&Value>,
) -> Result<(), ApiError> {
    let kind = field(definition, key);
    match (value, kind) {
        (Value::Null, _) => {
            object.remove(key);
        }
        (Value::Object(_), Some(Field::Atomic(_))) => {
            object.insert(key.to_owned(), value.clone());
        }
        (Value::Object(patch), _) => {
            let child = match kind {
                Some(Field::Object(child)) => child,
                _ => "",
            };
            if patch.get("$patch").is_some_and(|directive| directive == "delete") {
                object.remove(key);
            } else {
                merge_object(child, object.entry(key.to_owned()).or_insert(Value::Null), patch)?;
            }
        }
        (Value::Array(patch), Some(Field::List(child, merge_key))) => {
            let current = match object.remove(key) {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            let merged =
                merge_list(child, merge_key, current, patch, order.and_then(Value::as_array))?;
            object.insert(key.to_owned(), Value::Array(merged));
        }
        (Value::Array(patch), Some(Field::Set)) => {
            let list = object.entry(key.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                let added: Vec<Value> =
                    patch.iter().filter(|value| !list.contains(value)).cloned().collect();
                list.extend(added);
                if let Some(order) = order.and_then(Value::as_array) {
                    set_order(list, order, None, patch);
                }
            }
        }
        _ => {
            object.insert(key.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn delete_from_primitive_list(object: &mut Map<String, Value>, list: &str, gone: &Value) {
    if let (Some(Value::Array(elements)), Value::Array(gone)) = (object.get_mut(list), gone) {
        elements.retain(|element| !gone.contains(element));
    }
}

fn merge_list(
    child: &str,
    merge_key: &'static str,
    mut current: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, ApiError> {
    if patch.iter().any(|element| {
        element["$patch"] == "replace" && element.as_object().is_some_and(|e| e.len() == 1)
    }) {
        return Ok(patch
            .iter()
            .filter(|element| element["$patch"] != "replace")
            .cloned()
            .collect());
    }
    for element in patch {
        let Value::Object(fields) = element else {
            return Err(ApiError::bad_request(format!(
                "invalid element in a list of {child}: expected an object"
            )));
        };
        let Some(key) = fields.get(merge_key) else {
            return Err(ApiError::bad_request(format!(
                "map: {element} does not contain declared merge key: {merge_key}"
            )));
        };
        let place = current.iter().position(|existing| existing.get(merge_key) == Some(key));
        match fields.get("$patch").and_then(Value::as_str) {
            Some("delete") => current.retain(|existing| existing.get(merge_key) != Some(key)),
            Some("replace") => {
                let kept: Map<String, Value> = fields
                    .iter()
                    .filter(|(name, _)| *name != "$patch")
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                match place {
                    Some(place) => current[place] = Value::Object(kept),
                    None => current.push(Value::Object(kept)),
                }
            }
            _ => match place {
                Some(place) => merge_object(child, &mut current[place], fields)?,
                None => {
                    let mut new = Value::Object(Map::new());
                    merge_object(child, &mut new, fields)?;
                    current.push(new);
                }
            },
        }
    }
    if let Some(order) = order {
        set_order(&mut current, order, Some(merge_key), patch);
    }
    Ok(current)
}

/// Puts the elements that `order` names into that order; an element that it does not name (the server's own) keeps
/// its place behind the element it followed.
fn set_order(
    elements: &mut Vec<Value>,
    order: &[Value],
    merge_key: Option<&str>,
    _patch: &[Value],
) {
    let key_of = |element: &Value| {
        merge_key.map_or_else(|| Some(element.clone()), |key| element.get(key).cloned())
    };
    let rank = |element: &Value| {
        let key = key_of(element)?;
        order.iter().position(|named| key_of(named).as_ref() == Some(&key))
    };
    let mut last = None;
    let mut ranked: Vec<(Option<usize>, usize, Value)> = Vec::new();
    for (index, element) in std::mem::take(elements).into_iter().enumerate() {
        match rank(&element) {
            Some(rank) => {
                last = Some(rank);
                ranked.push((Some(rank), 0, element));
            }
            None => ranked.push((last, index + 1, element)),
        }
    }
    ranked.sort_by_key(|(rank, index, _)| (*rank, *index));
    *elements = ranked.into_iter().map(|(_, _, element)| element).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: &str = "io.k8s.api.core.v1.Pod";
    const SET: &str = "io.k8s.api.apps.v1.StatefulSet";

    fn patched(definition: &str, current: Value, patch: Value) -> Value {
        let mut result = current;
        apply(definition, &mut result, &patch).unwrap();
        result
    }

    #[test]
    fn containers_are_merged_by_name() {
        let set = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image, "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b"}]}}}});
        let patch = json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "a", "image": "new"}]}}}});
        assert_eq!(patched(SET, set("old"), patch), set("new"));
    }

    #[test]
    fn elements_are_deleted_replaced_added_and_ordered() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}});
        let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "$patch": "replace", "command": ["x"]}, {"name": "c"}]}});
        assert_eq!(
            patched(POD, pod, patch),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "b", "command": ["x"]}]}})
        );
    }

    #[test]
    fn an_objects_replacement_keeps_nothing() {
        let set = json!({"spec": {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true}}}});
        let patch =
            json!({"spec": {"template": {"$patch": "replace", "spec": {"containers": []}}}});
        assert_eq!(
            patched(SET, set, patch),
            json!({"spec": {"replicas": 1, "template": {"spec": {"containers": []}}}})
        );
    }

    #[test]
    fn a_budgets_selector_is_replaced_whole() {
        let budget = |selector: Value| json!({"spec": {"selector": selector}});
        assert_eq!(
            patched(
                "io.k8s.api.policy.v1.PodDisruptionBudget",
                budget(json!({"matchLabels": {"a": "b"}})),
                budget(json!({"matchLabels": {"c": "d"}}))
            ),
            budget(json!({"matchLabels": {"c": "d"}}))
        );
    }

    #[test]
    fn finalizers_are_a_set() {
        let pod = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(patched(POD, pod, patch), json!({"metadata": {"finalizers": ["b", "c"]}}));
    }

    #[test]
    fn retained_keys_drop_the_rest() {
        let pod = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}});
        assert_eq!(
            patched(POD, pod, patch),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}})
        );
    }

    #[test]
    fn an_element_without_its_key_is_refused() {
        let error = apply(POD, &mut json!({}), &json!({"spec": {"containers": [{"image": "x"}]}}))
            .unwrap_err();
        assert!(error.message.contains("does not contain declared merge key: name"), "{error}");
    }
}
