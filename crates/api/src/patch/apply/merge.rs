//! Merging a configuration into an object, taking fields out of one, naming the fields that one has, and comparing
//! two. As upstream: structured-merge-diff, `typed/{merge,remove,tofieldset,compare}.go`.

use super::field_set::{FieldSet, PathElement};
use super::shape::{Shape, Walk};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Nothing, as far as merging goes: absent, null, or without content.
fn is_blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn fields(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn at<'v>(value: Option<&'v Value>, name: &str) -> Option<&'v Value> {
    value.and_then(|value| value.get(name))
}

/// The elements that can be told from others: of a configuration all, of an object nearly always.
fn elements<'v>(shape: Shape<'_>, list: &'v [Value]) -> Vec<(PathElement, &'v Value)> {
    list.iter().filter_map(|item| Some((shape.path_element(item).ok()?, item))).collect()
}

/// How to walk two values: two that have nothing in them are no different from plain ones.
fn walk_both(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Walk {
    match shape.walk(new.or(old)) {
        Walk::Object | Walk::List if is_blank(old) && is_blank(new) => Walk::Leaf,
        walk => walk,
    }
}

/// The object with the configuration merged in; what the configuration does not speak of stays.
pub(super) fn merge(
    shape: Shape<'_>,
    object: Option<&Value>,
    configuration: Option<&Value>,
) -> Option<Value> {
    match walk_both(shape, object, configuration) {
        Walk::Ignored => None,
        Walk::Leaf => configuration.or(object).cloned(),
        Walk::Object => {
            let names: BTreeSet<&String> =
                fields(object).chain(fields(configuration)).map(|(name, _)| name).collect();
            let merged: Map<String, Value> = names
                .into_iter()
                .filter_map(|name| {
                    let shape = shape.field(name);
                    Some((name.clone(), merge(shape, at(object, name), at(configuration, name))?))
                })
                .collect();
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
        Walk::List => merge_list(shape, items(object), items(configuration)),
    }
}

/// The elements of both lists: in the configuration's order where it speaks, the object's others near where they were.
fn merge_list(shape: Shape<'_>, object: &[Value], configuration: &[Value]) -> Option<Value> {
    let (old, new) = (elements(shape, object), elements(shape, configuration));
    // Of several elements with one name in the object none is the one that the configuration's is merged with.
    let mut only: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (element, item) in &old {
        only.entry(element).and_modify(|one| *one = None).or_insert(Some(item));
    }
    let wanted: BTreeSet<&PathElement> = new.iter().map(|(element, _)| element).collect();
    let mut shared = new.iter().map(|(e, _)| e).filter(|e| only.contains_key(e)).peekable();
    let mut done = BTreeSet::new();
    let mut merged = Vec::new();
    let (mut left, mut right) = (0, 0);
    while left < old.len() || right < new.len() {
        let next = new.get(right);
        if let Some((element, item)) = old.get(left) {
            if !wanted.contains(element) {
                merged.extend(merge(shape.element(), Some(item), None));
                left += 1;
                continue;
            }
            let is_here = next.is_some_and(|(next, _)| next == element);
            let is_later = shared.peek().is_some_and(|next| *next != element);
            if next.is_some() && !is_here && is_later {
                // Its place is where the configuration names it.
                left += 1;
                continue;
            }
            if is_here || done.contains(element) {
                left += 1;
            }
        }
        let Some((element, item)) = next else { continue };
        let counterpart = only.get(element).copied().flatten();
        merged.extend(merge(shape.element(), counterpart, Some(item)));
        done.insert(element);
        right += 1;
        if shared.peek() == Some(&element) {
            shared.next();
        }
    }
    (!merged.is_empty()).then_some(Value::Array(merged))
}

/// The value without the fields of the set; what has nothing left in it becomes null.
pub(super) fn remove(shape: Shape<'_>, value: &Value, gone: &FieldSet) -> Value {
    match (shape.walk(Some(value)), value) {
        (Walk::Object, Value::Object(object)) if !object.is_empty() => {
            let mut kept = Map::new();
            for (name, value) in object {
                let element = PathElement::Field(name.clone());
                if gone.contains(&element) {
                    continue;
                }
                let value = match gone.below(&element) {
                    Some(below) => remove(shape.field(name), value, below),
                    None => value.clone(),
                };
                kept.insert(name.clone(), value);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Walk::List, Value::Array(list)) if !list.is_empty() => {
            let kept: Vec<Value> = list
                .iter()
                .filter_map(|item| {
                    let Ok(element) = shape.path_element(item) else { return Some(item.clone()) };
                    if gone.contains(&element) {
                        return None;
                    }
                    Some(match gone.below(&element) {
                        Some(below) => remove(shape.element(), item, below),
                        None => item.clone(),
                    })
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Walk::Object | Walk::List, _) => Value::Null,
        (Walk::Leaf | Walk::Ignored, _) => value.clone(),
    }
}

/// The fields that a value has.
pub(super) fn fields_of(shape: Shape<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    match (shape.walk(Some(value)), value) {
        (Walk::Object, Value::Object(object)) => {
            for (name, value) in object {
                let (child, element) = (shape.field(name), PathElement::Field(name.clone()));
                let is_member = match child.walk(Some(value)) {
                    Walk::Ignored => continue,
                    Walk::Leaf => true,
                    Walk::Object => {
                        !shape.is_named(name)
                            || value.is_null()
                            || value.as_object().is_some_and(Map::is_empty)
                    }
                    Walk::List => !shape.is_named(name) || value.is_null(),
                };
                if is_member {
                    set.add(element.clone());
                }
                set.add_below(element, fields_of(child, value));
            }
        }
        (Walk::List, Value::Array(list)) => {
            let elements = elements(shape, list);
            for (element, item) in &elements {
                let is_alone = elements.iter().filter(|(other, _)| other == element).count() == 1;
                if is_alone {
                    set.add_below(element.clone(), fields_of(shape.element(), item));
                }
                set.add(element.clone());
            }
        }
        _ => {}
    }
    set
}

/// What differs between two objects.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Without what is no business of the write's.
    pub(super) fn without(self, ignored: &FieldSet) -> Comparison {
        Comparison {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }

    fn compare_child(
        &mut self,
        element: &PathElement,
        shape: Shape<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        let below = compare(shape, old, new);
        let walk = walk_both(shape, old, new);
        match (old, new, walk) {
            (_, _, Walk::Ignored) => return,
            (None, Some(_), _) => self.added.add(element.clone()),
            (Some(_), None, _) => self.removed.add(element.clone()),
            (Some(old), Some(new), Walk::Leaf) if !same(old, new) => {
                self.modified.add(element.clone())
            }
            _ => {}
        }
        self.added.add_below(element.clone(), below.added);
        self.modified.add_below(element.clone(), below.modified);
        self.removed.add_below(element.clone(), below.removed);
    }
}

/// Numbers are the same however they are written.
fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Number(_), Value::Number(_)) => old.as_f64() == new.as_f64(),
        _ => old == new,
    }
}

/// Compares two objects, field by field as their shape says.
pub(super) fn compare(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut found = Comparison::default();
    match walk_both(shape, old, new) {
        Walk::Leaf | Walk::Ignored => {}
        Walk::Object => {
            for (name, value) in fields(old) {
                let other = new.and_then(|new| new.get(name));
                if other != Some(value) {
                    let element = PathElement::Field(name.clone());
                    found.compare_child(&element, shape.field(name), Some(value), other);
                }
            }
            for (name, value) in
                fields(new).filter(|(name, _)| old.is_none_or(|old| old.get(name).is_none()))
            {
                let element = PathElement::Field(name.clone());
                found.compare_child(&element, shape.field(name), None, Some(value));
            }
        }
        Walk::List => compare_lists(&mut found, shape, items(old), items(new)),
    }
    found
}

fn compare_lists(found: &mut Comparison, shape: Shape<'_>, old: &[Value], new: &[Value]) {
    let mut pairs: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (element, item) in elements(shape, old) {
        pairs.entry(element).or_default().0.push(item);
    }
    for (element, item) in elements(shape, new) {
        pairs.entry(element).or_default().1.push(item);
    }
    for (element, (old, new)) in pairs {
        match (&old[..], &new[..]) {
            ([] | [_], [] | [_]) => {
                let (old, new) = (old.first().copied(), new.first().copied());
                found.compare_child(&element, shape.element(), old, new);
            }
            // Several with one name count as one field, whatever is in them.
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    found.modified.add(element);
                }
            }
            ([_, _, ..], rest) => {
                if let [only] = rest {
                    found.compare_child(&element, shape.element(), None, Some(only));
                }
                found.removed.add(element);
            }
            (rest, _) => {
                if let [only] = rest {
                    found.compare_child(&element, shape.element(), Some(only), None);
                }
                found.added.add(element);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::apply::field_set::show_path;
    use serde_json::json;

    fn pod() -> Shape<'static> {
        Shape::of("io.k8s.api.core.v1.Pod")
    }

    fn shown(set: &FieldSet) -> Vec<String> {
        set.paths().iter().map(|path| show_path(path)).collect()
    }

    fn merged(object: Value, configuration: Value) -> Value {
        merge(pod(), Some(&object), Some(&configuration)).unwrap()
    }

    fn finalizers(object: &[&str], configuration: &[&str]) -> Vec<String> {
        let pod = |list: &[&str]| json!({"metadata": {"finalizers": list}});
        let merged = merged(pod(object), pod(configuration));
        serde_json::from_value(merged["metadata"]["finalizers"].clone()).unwrap()
    }

    #[test]
    fn maps_and_keyed_lists_are_merged_and_the_rest_is_replaced() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "managedFields": []}, "spec": {
            "nodeSelector": {"x": "1"}, "containers": [{"name": "a", "image": "1", "args": ["x", "y"]}, {"name": "b", "image": "2"}]}});
        let configuration = json!({"metadata": {"labels": {"b": "3"}}, "spec": {
            "nodeSelector": {"y": "2"}, "containers": [{"name": "b", "image": "4"}, {"name": "c"}, {"name": "a", "args": ["z"]}]}});
        assert_eq!(
            merged(object, configuration),
            json!({"metadata": {"labels": {"a": "1", "b": "3"}}, "spec": {"nodeSelector": {"y": "2"}, "containers": [
                {"name": "b", "image": "4"}, {"name": "c"}, {"name": "a", "image": "1", "args": ["z"]}]}})
        );
    }

    #[test]
    fn elements_of_both_lists_keep_their_orders() {
        // As upstream: structured-merge-diff, typed/merge_test.go.
        for (object, configuration, expected) in [
            (vec!["a", "b", "c"], vec!["a", "b", "c"], vec!["a", "b", "c"]),
            (vec!["a", "b", "c"], vec!["c", "b", "a"], vec!["c", "b", "a"]),
            (vec!["a", "b"], vec!["c", "b"], vec!["a", "c", "b"]),
            (vec!["a", "b", "c"], vec!["b"], vec!["a", "b", "c"]),
            (vec!["a", "b", "c"], vec!["x", "b"], vec!["a", "x", "b", "c"]),
            (vec![], vec!["b", "a"], vec!["b", "a"]),
            (vec!["a", "a", "b"], vec!["c"], vec!["a", "a", "b", "c"]),
            (vec!["a", "a", "b"], vec!["a"], vec!["a", "b"]),
        ] {
            assert_eq!(
                finalizers(&object, &configuration),
                expected,
                "{object:?} {configuration:?}"
            );
        }
    }

    #[test]
    fn an_empty_object_is_kept_and_a_null_is_a_value() {
        let object = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}], "priority": 3, "nodeName": "n"}});
        let configuration = json!({"metadata": {"labels": null}, "spec": {"securityContext": {}, "priority": null}});
        assert_eq!(
            merged(object, configuration),
            json!({"metadata": {"labels": null}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}, "priority": null, "nodeName": "n"}})
        );
    }

    #[test]
    fn the_fields_of_an_object_are_named() {
        let object = json!({"kind": "Pod", "metadata": {"labels": {"a": "1"}, "managedFields": [{}], "annotations": {}}, "spec": {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}, {"name": "b"}], "dnsPolicy": null,
            "volumes": [], "hostAliases": null, "nodeSelector": {"a": "b"}}});
        assert_eq!(
            shown(&fields_of(pod(), &object)),
            [
                ".kind",
                ".metadata.annotations",
                ".metadata.labels.a",
                ".spec.dnsPolicy",
                ".spec.hostAliases",
                ".spec.nodeSelector",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"b\"]",
                ".spec.containers[name=\"a\"].name",
                ".spec.containers[name=\"a\"].resources.limits.cpu",
            ]
        );
    }

    #[test]
    fn differences_are_told_field_by_field() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}});
        let new = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 1}]}, {"name": "a", "image": "2"}]}});
        let found = compare(pod(), Some(&old), Some(&new));
        assert_eq!(shown(&found.modified), [".spec.containers[name=\"a\"].image"]);
        assert_eq!(
            shown(&found.removed),
            [
                ".metadata.labels.b",
                ".spec.containers[name=\"b\"]",
                ".spec.containers[name=\"b\"].name"
            ]
        );
        assert_eq!(
            shown(&found.added),
            [
                ".spec.nodeName",
                ".spec.containers[name=\"c\"]",
                ".spec.containers[name=\"c\"].name",
                ".spec.containers[name=\"c\"].ports",
                ".spec.containers[name=\"c\"].ports[containerPort=1,protocol=\"TCP\"]",
                ".spec.containers[name=\"c\"].ports[containerPort=1,protocol=\"TCP\"].containerPort",
            ]
        );
        assert!(compare(pod(), Some(&old), Some(&old)).is_same());
    }

    #[test]
    fn fields_are_taken_out_and_what_is_left_empty_becomes_null() {
        let object = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x"]}, "spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}});
        let gone = FieldSet::from_json(&json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}, "k:{\"name\":\"b\"}": {}}}}))
        .unwrap();
        assert_eq!(
            remove(pod(), &object, &gone),
            json!({"metadata": {"labels": null, "finalizers": null}, "spec": {"containers": [{"name": "a"}]}})
        );
    }
}
