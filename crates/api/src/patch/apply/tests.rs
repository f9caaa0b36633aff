//! Stories of managers, told over plain values.

use super::*;
use crate::kinds::{config_map, statefulset};
use proptest::prelude::*;

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", now: jiff::Timestamp::UNIX_EPOCH, tracks_creations: true }
}

/// As reading the result as its type does.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        plain => plain,
    }
}

fn set(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": spec})
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

/// An object and what was done to it.
struct Story {
    kind: &'static Kind,
    object: Option<Object>,
}

impl Story {
    fn of(kind: &'static Kind) -> Story {
        Story { kind, object: None }
    }
    fn try_apply(
        &mut self,
        manager: &str,
        configuration: &Value,
        force: bool,
    ) -> Result<(), ApiError> {
        let new = apply(self.kind, self.object.as_ref(), configuration, &writer(manager), force)?;
        self.object = Some(Object::new(without_nulls(new.into_value())).unwrap());
        Ok(())
    }
    fn apply(&mut self, manager: &str, configuration: Value) -> &mut Story {
        self.try_apply(manager, &configuration, false).unwrap();
        self
    }
    fn force(&mut self, manager: &str, configuration: Value) -> &mut Story {
        self.try_apply(manager, &configuration, true).unwrap();
        self
    }
    fn refused(&mut self, manager: &str, configuration: Value) -> ApiError {
        self.try_apply(manager, &configuration, false).unwrap_err()
    }
    fn write_to(
        &mut self,
        manager: &str,
        subresource: &str,
        change: impl Fn(&mut Object),
    ) -> &mut Story {
        let old = self.object.clone();
        let mut new = old.clone().unwrap_or_else(|| Object::new(map(json!({}))).unwrap());
        change(&mut new);
        record(self.kind, old.as_ref(), &mut new, &Writer { subresource, ..writer(manager) });
        self.object = Some(new);
        self
    }
    fn write(&mut self, manager: &str, change: impl Fn(&mut Object)) -> &mut Story {
        self.write_to(manager, "", change)
    }
    fn at(&self, pointer: &str) -> Value {
        self.object.as_ref().unwrap().at(pointer).cloned().unwrap_or_default()
    }
    /// The paths that each manager has.
    fn managers(&self) -> Vec<String> {
        let list = self.object.as_ref().unwrap().list_at("/metadata/managedFields");
        let shown = list.iter().map(|entry| {
            let fields = FieldSet::from_json(&entry["fieldsV1"]).unwrap();
            let paths: Vec<String> = fields.paths().iter().map(|path| show_path(path)).collect();
            let place =
                entry["subresource"].as_str().map_or(String::new(), |name| format!("/{name}"));
            format!(
                "{}{place} {}: {}",
                entry["manager"].as_str().unwrap(),
                entry["operation"].as_str().unwrap(),
                paths.join(" ")
            )
        });
        shown.collect()
    }
}

#[test]
fn a_field_that_its_only_manager_drops_is_removed() {
    let mut story = Story::of(&config_map::KIND);
    story.apply("a", map(json!({"x": "1", "y": "2"}))).apply("a", map(json!({"y": "3"})));
    assert_eq!(story.at("/data"), json!({"y": "3"}));
    assert_eq!(story.managers(), ["a Apply: .data.y"]);
}

#[test]
fn a_field_that_two_manage_stays_until_both_drop_it() {
    let mut story = Story::of(&config_map::KIND);
    story.apply("a", map(json!({"x": "1", "y": "2"}))).apply("b", map(json!({"x": "1"})));
    assert_eq!(story.managers(), ["a Apply: .data.x .data.y", "b Apply: .data.x"]);
    story.apply("a", map(json!({})));
    assert_eq!(story.at("/data"), json!({"x": "1"}));
    assert_eq!(story.managers(), ["a Apply: .data", "b Apply: .data.x"]);
    story.apply("b", map(json!(null)));
    assert_eq!(story.at("/data"), json!(null));
}

#[test]
fn another_value_for_a_managed_field_is_a_conflict_unless_forced() {
    let mut story = Story::of(&statefulset::KIND);
    story.apply("a", set(json!({"replicas": 1, "serviceName": "s"})));
    let error = story.refused("b", set(json!({"replicas": 2})));
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    assert_eq!(
        error.status()["details"],
        json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".spec.replicas"}]})
    );
    story.force("b", set(json!({"replicas": 2})));
    assert_eq!(story.managers(), ["a Apply: .spec.serviceName", "b Apply: .spec.replicas"]);
    // What was taken is not removed by who lost it.
    story.apply("a", set(json!({"serviceName": "s"})));
    assert_eq!(story.at("/spec/replicas"), 2);
}

#[test]
fn whoever_writes_manages_and_several_conflicts_are_told_by_manager() {
    let mut story = Story::of(&statefulset::KIND);
    story.apply("a", set(json!({"replicas": 1, "serviceName": "s", "minReadySeconds": 1})));
    story.write("kubectl-edit", |set| set.set("/spec/serviceName", json!("t")));
    story.write_to("kubectl", "scale", |set| set.set("/spec/replicas", json!(5)));
    assert_eq!(
        story.managers(),
        [
            "a Apply: .spec.minReadySeconds",
            "kubectl/scale Update: .spec.replicas",
            "kubectl-edit Update: .spec.serviceName"
        ]
    );
    let wanted = set(json!({"replicas": 1, "serviceName": "s", "minReadySeconds": 1}));
    assert_eq!(
        story.refused("a", wanted.clone()).message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl\" with subresource \"scale\" using apps/v1:\n- .spec.replicas\n\
         conflicts with \"kubectl-edit\" using apps/v1:\n- .spec.serviceName"
    );
    story.force("a", wanted);
    assert_eq!(
        story.managers(),
        ["a Apply: .spec.minReadySeconds .spec.replicas .spec.serviceName"]
    );
}

#[test]
fn a_status_is_managed_apart_and_not_by_who_writes_the_rest() {
    let mut story = Story::of(&statefulset::KIND);
    story.apply("a", set(json!({"replicas": 1})));
    story.write_to("controller", "status", |set| {
        set.set("/status/replicas", json!(1));
        set.set("/spec/replicas", json!(7));
    });
    assert_eq!(
        story.managers(),
        ["a Apply: .spec.replicas", "controller/status Update: .status .status.replicas"]
    );
    let mut with_status = set(json!({"replicas": 7}));
    with_status["status"] = json!({"replicas": 9});
    story.force("b", with_status);
    assert!(
        story.managers().contains(&"b Apply: .spec.replicas".to_owned()),
        "{:?}",
        story.managers()
    );
}

#[test]
fn an_object_that_is_not_tracked_stays_so_until_somebody_applies() {
    let mut story = Story::of(&config_map::KIND);
    let mut new = Object::new(map(json!({"x": "1"}))).unwrap();
    record(story.kind, None, &mut new, &Writer { tracks_creations: false, ..writer("controller") });
    story.object = Some(new);
    story.write("kubectl-edit", |map| map.set("/data/y", json!("2")));
    assert_eq!(story.at("/metadata/managedFields"), json!(null));
    let error = story.refused("a", map(json!({"x": "3"})));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
    story.apply("a", map(json!({"x": "1"})));
    assert_eq!(
        story.managers(),
        ["a Apply: .data.x", "before-first-apply Update: .data .data.x .data.y"]
    );
}

#[test]
fn who_makes_an_object_manages_all_of_it() {
    let mut story = Story::of(&config_map::KIND);
    story.write("kubectl-create", |map| map.set("/data/x", json!("1")));
    assert_eq!(story.managers(), ["kubectl-create Update: .data .data.x"]);
    story.write("other", |map| drop(map.remove("/data/x")));
    assert_eq!(story.managers(), ["kubectl-create Update: .data"]);
}

#[test]
fn managed_fields_can_be_edited_and_forgotten() {
    let mut story = Story::of(&config_map::KIND);
    story.apply("a", map(json!({"x": "1"})));
    story.write("b", |map| map.set("/metadata/managedFields/0", json!(null)));
    assert_eq!(story.managers(), ["a Apply: .data.x"]);
    story.write("b", |map| {
        let mut list = map.at("/metadata/managedFields").cloned().unwrap();
        list[0]["manager"] = json!("c");
        map.set("/metadata/managedFields", list);
    });
    assert_eq!(story.managers(), ["c Apply: .data.x"]);
    story.write_to("b", "status", |map| map.set("/metadata/managedFields", json!([{}])));
    assert_eq!(story.managers(), ["c Apply: .data.x"]);
    story.write("b", |map| map.set("/metadata/managedFields", json!([{}])));
    assert_eq!(story.at("/metadata/managedFields"), json!(null));
}

#[test]
fn what_kubectl_applied_on_its_side_goes_over_without_a_conflict() {
    let mut story = Story::of(&config_map::KIND);
    let last = map(json!({"x": "1", "y": "1"})).to_string();
    story.write("kubectl-client-side-apply", |map| {
        map.set("/data", json!({"x": "1", "y": "2"}));
        map.set("/metadata/annotations", json!({LAST_APPLIED: last}));
    });
    // Somebody has changed y since: only that is a conflict.
    let error = story.refused("kubectl", map(json!({"x": "3", "y": "3"})));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.y"
    );
    assert_eq!(story.refused("other", map(json!({"x": "3"}))).code, 409);
    story.apply("kubectl", map(json!({"x": "3"})));
    assert_eq!(story.at("/data"), json!({"x": "3", "y": "2"}));
    let annotation = story.at("/metadata/annotations");
    let kept: Value = serde_json::from_str(annotation[LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(kept, map(json!({"x": "3"})));
}

#[test]
fn an_amount_is_the_same_however_it_is_written() {
    let pod = |memory: &str| {
        set(
            json!({"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"memory": memory}}}]}}}),
        )
    };
    let mut story = Story::of(&statefulset::KIND);
    story.apply("a", pod("1Gi")).apply("b", pod("1024Mi"));
}

#[test]
fn a_configuration_of_something_else_is_refused() {
    let mut story = Story::of(&statefulset::KIND);
    let error = story.refused("a", map(json!({})));
    assert_eq!(
        (error.code, error.message.as_str()),
        (400, "invalid object type: /v1, Kind=ConfigMap")
    );
    let mut managed = set(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(story.refused("a", managed).message, "metadata.managedFields must be nil");
    let mut unknown = set(json!({"replcas": 1}));
    unknown["metadata"]["namespace"] = json!("default");
    assert_eq!(
        story.refused("a", unknown).message,
        "failed to create typed patch object (default/web; apps/v1, Kind=StatefulSet): .spec.replcas: field not declared in schema"
    );
}

#[test]
fn times_alone_are_no_change() {
    let mut story = Story::of(&config_map::KIND);
    story.apply("a", map(json!({"x": "1"})));
    let old = story.object.clone().unwrap();
    let later = Writer { now: jiff::Timestamp::from_second(9).unwrap(), ..writer("a") };
    let mut new = apply(story.kind, Some(&old), &map(json!({"x": "1"})), &later, false).unwrap();
    assert_ne!(new, old);
    keep_times(&mut new, &old);
    assert_eq!(new, old);
    let mut changed =
        apply(story.kind, Some(&old), &map(json!({"x": "2"})), &later, false).unwrap();
    keep_times(&mut changed, &old);
    assert_eq!(changed.list_at("/metadata/managedFields")[0]["time"], "1970-01-01T00:00:09Z");
}

/// Some configuration of a StatefulSet.
fn configuration() -> impl Strategy<Value = Value> {
    let word = || prop::sample::select(vec!["p", "q", "r"]);
    let texts = || prop::collection::btree_map(word(), word(), 0..3).prop_map(|map| json!(map));
    let port = (1..4, prop::option::of(prop::sample::select(vec!["TCP", "UDP"])), word()).prop_map(
        |(number, protocol, name)| match protocol {
            Some(protocol) => json!({"containerPort": number, "protocol": protocol, "name": name}),
            None => json!({"containerPort": number, "name": name}),
        },
    );
    let unique = |list: Vec<Value>, key: fn(&Value) -> String| {
        let mut seen = std::collections::BTreeSet::new();
        list.into_iter().filter(|item| seen.insert(key(item))).collect::<Vec<_>>()
    };
    let container = (
        word(),
        prop::option::of(word()),
        prop::option::of(prop::collection::vec(word(), 0..3)),
        prop::collection::vec(port, 0..3),
    )
        .prop_map(move |(name, image, arguments, ports)| {
            let key = |port: &Value| {
                format!("{}{}", port["containerPort"], port["protocol"].as_str().unwrap_or("TCP"))
            };
            let mut container = json!({"name": name, "ports": unique(ports, key)});
            if let Some(image) = image {
                container["image"] = json!(image);
            }
            if let Some(arguments) = arguments {
                container["args"] = json!(arguments);
            }
            container
        });
    let containers = prop::collection::vec(container, 0..3)
        .prop_map(move |list| unique(list, |container| container["name"].to_string()));
    (
        texts(),
        prop::collection::btree_set(word(), 0..3),
        prop::option::of(0..3),
        containers,
        prop::option::of(texts()),
    )
        .prop_map(|(labels, finalizers, replicas, containers, selector)| {
            let mut object = set(json!({}));
            object["metadata"]["labels"] = labels;
            object["metadata"]["finalizers"] = json!(finalizers);
            object["spec"]["template"]["spec"]["containers"] = json!(containers);
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            if let Some(selector) = selector {
                object["spec"]["selector"] = json!({"matchLabels": selector});
            }
            object
        })
}

/// The value at a path.
fn at_path<'v>(shape: Shape<'_>, value: &'v Value, path: &[PathElement]) -> Option<&'v Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match first {
        PathElement::Field(name) => at_path(shape.field(name), value.get(name)?, rest),
        _ => {
            let mut items = value.as_array()?.iter();
            let item = items.find(|item| shape.path_element(item).as_ref() == Ok(first))?;
            at_path(shape.element(), item, rest)
        }
    }
}

proptest! {
    #[test]
    fn applied_twice_changes_nothing(first in configuration(), second in configuration()) {
        let mut story = Story::of(&statefulset::KIND);
        story.force("a", first).force("b", second.clone());
        let once = story.object.clone();
        story.apply("b", second);
        prop_assert_eq!(story.object, once);
    }

    #[test]
    fn every_leaf_of_a_configuration_is_in_the_object_and_its_managers(first in configuration(), second in configuration()) {
        let mut story = Story::of(&statefulset::KIND);
        story.force("a", first).force("b", second.clone());
        let object = story.object.unwrap();
        let shape = Shape::of(statefulset::KIND.definition);
        let managers = Managers::read(object.at("/metadata/managedFields"));
        let own = &managers.0.iter().find(|entry| entry.manager == "b");
        for path in fields_of(shape, &second).difference(&unmanaged()).paths() {
            let wanted = at_path(shape, &second, &path).unwrap();
            let found = at_path(shape, object.value(), &path);
            prop_assert!(own.is_some_and(|entry| entry.fields.has(&path)), "{}", show_path(&path));
            if shape_is_leaf(shape, &path, wanted) {
                prop_assert_eq!(found, Some(wanted), "{}", show_path(&path));
            } else {
                prop_assert!(found.is_some(), "{}", show_path(&path));
            }
        }
    }

    #[test]
    fn what_everybody_drops_is_gone(first in configuration(), second in configuration(), third in configuration()) {
        let mut story = Story::of(&statefulset::KIND);
        story.force("a", first).force("b", second).force("a", third);
        let nothing = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}});
        story.apply("a", nothing.clone()).apply("b", nothing.clone());
        let mut object = story.object.unwrap();
        // Nobody manages an empty list, as upstream (typed/tofieldset.go): it stays, as if it had been there before.
        let managers = Managers::read(object.remove("/metadata/managedFields").as_ref());
        prop_assert!(managers.0.iter().all(|entry| entry.manager == "before-first-apply"));
        prop_assert_eq!(without_blanks(object.into_value()), nothing);
    }

    #[test]
    fn no_configuration_makes_it_panic(first in configuration(), garbage in garbage()) {
        let mut story = Story::of(&statefulset::KIND);
        story.force("a", first);
        let mut configuration = set(garbage.clone());
        drop(story.try_apply("b", &configuration, true));
        configuration["metadata"]["labels"] = garbage;
        drop(story.try_apply("a", &configuration, false));
    }
}

/// Structures in which nothing is left are no fields.
fn without_blanks(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(name, value)| (name, without_blanks(value)))
                .filter(|(_, value)| *value != json!({}) && !value.is_null() && *value != json!([]))
                .collect(),
        ),
        other => other,
    }
}

fn shape_is_leaf(shape: Shape<'_>, path: &[PathElement], value: &Value) -> bool {
    let shape = path.iter().fold(shape, |shape, element| match element {
        PathElement::Field(name) => shape.field(name),
        _ => shape.element(),
    });
    shape.walk(Some(value)) == shape::Walk::Leaf
}

fn garbage() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "spec",
        "template",
        "containers",
        "name",
        "ports",
        "labels",
        "volumes",
        "x",
    ]);
    let leaf = prop_oneof![Just(json!(null)), Just(json!("p")), Just(json!(1)), Just(json!(true))];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::btree_map(name.clone(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}
