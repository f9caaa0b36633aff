//! Sets of fields, and how `metadata.managedFields` writes them (FieldsV1). As upstream: structured-merge-diff,
//! `fieldpath`.

use super::shape::Shape;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Sets nest no deeper than the objects they speak of (`decode::MAX_DEPTH`).
const MAX_DEPTH: usize = 100;

/// One step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object: `f:replicas`.
    Field(String),
    /// The element of a list whose key fields, in the order of their names, have these values: `k:{"name":"main"}`.
    Key(Vec<(String, Scalar)>),
    /// The element of a set: `v:"kubernetes.io/pvc-protection"`.
    Value(Scalar),
    /// The element at a place: `i:0`.
    Index(usize),
}

/// A JSON value that is no object and no list, with an order: numbers, then texts, then booleans, then null.
#[derive(Debug, Clone)]
pub struct Scalar(pub Value);

impl Scalar {
    fn rank(&self) -> u8 {
        match &self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Null => 3,
            Value::Array(_) | Value::Object(_) => 4,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) => self.rank().cmp(&other.rank()).then_with(|| {
                if self.rank() == 4 { a.to_string().cmp(&b.to_string()) } else { Ordering::Equal }
            }),
        }
    }
}
impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Scalar {}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
                write!(f, "[{}]", fields.join(","))
            }
            PathElement::Value(value) => write!(f, "[={}]", value.0),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl PathElement {
    fn write(&self) -> String {
        match self {
            PathElement::Field(name) => format!("f:{name}"),
            PathElement::Key(fields) => {
                let fields: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(fields))
            }
            PathElement::Value(value) => format!("v:{}", value.0),
            PathElement::Index(index) => format!("i:{index}"),
        }
    }

    /// `None` for a kind of step that is not known: a later version may know it.
    fn read(text: &str) -> Result<Option<PathElement>, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(format!("missing colon: {text}"));
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
        Ok(Some(match kind {
            "f" => PathElement::Field(rest.to_owned()),
            "v" => PathElement::Value(Scalar(json()?)),
            "i" => PathElement::Index(
                rest.parse().map_err(|_| format!("an index is a number: {text}"))?,
            ),
            "k" => match json()? {
                Value::Object(fields) => PathElement::Key(
                    fields.into_iter().map(|(name, value)| (name, Scalar(value))).collect(),
                ),
                _ => return Err(format!("a key is an object: {text}")),
            },
            _ => return Ok(None),
        }))
    }
}

/// A set of fields: a tree of which some nodes are members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    /// Never with an empty set in it.
    children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    /// Makes the field at this path a member; what is above it is not.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => drop(self.members.insert(last.clone())),
            [first, rest @ ..] => {
                self.children.entry(first.clone()).or_default().insert(rest);
            }
        }
    }

    /// Makes the element a member.
    pub(super) fn add(&mut self, element: PathElement) {
        self.members.insert(element);
    }

    /// Puts a set below an element.
    pub(super) fn add_below(&mut self, element: PathElement, below: FieldSet) {
        if !below.is_empty() {
            self.children.entry(element).or_default().absorb(below);
        }
    }

    fn absorb(&mut self, other: FieldSet) {
        self.members.extend(other.members);
        for (element, below) in other.children {
            self.add_below(element, below);
        }
    }

    /// Whether nothing is a member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Whether the field at this path is a member.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|below| below.has(rest)),
        }
    }

    /// Whether the element itself is a member.
    pub(super) fn contains(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    /// What stands below an element.
    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.children.get(element)
    }

    /// Members of either set.
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut all = self.clone();
        all.absorb(other.clone());
        all
    }

    /// Members of both sets.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut both = FieldSet {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (element, below) in &self.children {
            if let Some(others) = other.children.get(element) {
                both.add_below(element.clone(), below.intersection(others));
            }
        }
        both
    }

    /// Members of this set that are none of the other; what is below a member of the other stays.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.without(other, false)
    }

    /// Members of this set that are none of the other, nor below one.
    pub fn recursive_difference(&self, other: &FieldSet) -> FieldSet {
        self.without(other, true)
    }

    fn without(&self, other: &FieldSet, recursive: bool) -> FieldSet {
        let mut rest = FieldSet {
            members: self.members.difference(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (element, below) in &self.children {
            if recursive && other.members.contains(element) {
                continue;
            }
            let below = match other.children.get(element) {
                Some(others) => below.without(others, recursive),
                None => below.clone(),
            };
            rest.add_below(element.clone(), below);
        }
        rest
    }

    /// With every field of a structure that leads to a member.
    pub(super) fn with_named_fields(&self, shape: Shape<'_>) -> FieldSet {
        let mut all = FieldSet { members: self.members.clone(), children: BTreeMap::new() };
        for (element, below) in &self.children {
            let child = match element {
                PathElement::Field(name) => {
                    if shape.is_named(name) {
                        all.members.insert(element.clone());
                    }
                    shape.field(name)
                }
                PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => {
                    shape.element()
                }
            };
            all.children.insert(element.clone(), below.with_named_fields(child));
        }
        all
    }

    /// The paths of all members: those of a level before those below it.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut found: Vec<Vec<PathElement>> =
            self.members.iter().map(|element| vec![element.clone()]).collect();
        for (element, below) in &self.children {
            for rest in below.paths() {
                found.push([vec![element.clone()], rest].concat());
            }
        }
        found
    }

    /// As `fieldsV1` writes it.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        for element in &self.members {
            object.insert(element.write(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            let mut inner = below.to_json();
            if let Value::Object(inner) = &mut inner
                && self.members.contains(element)
            {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            object.insert(element.write(), inner);
        }
        Value::Object(object)
    }

    /// Reads what `fieldsV1` says. An error says what cannot be read.
    pub fn from_json(value: &Value) -> Result<FieldSet, String> {
        read(value, 0).map(|(set, _)| set)
    }
}

/// The set below a node, and whether the node is a member itself: by a dot, or because nothing stands below it.
fn read(value: &Value, depth: usize) -> Result<(FieldSet, bool), String> {
    let Value::Object(fields) = value else {
        return Err(format!("a field set is an object, not {value}"));
    };
    if depth > MAX_DEPTH {
        return Err("a field set is too deep".to_owned());
    }
    let (mut set, mut is_member) = (FieldSet::default(), false);
    for (text, below) in fields {
        if text == "." {
            is_member = true;
            continue;
        }
        let Some(element) = PathElement::read(text)? else { continue };
        let (below, child_is_member) = read(below, depth + 1)?;
        if child_is_member {
            set.members.insert(element.clone());
        }
        set.add_below(element, below);
    }
    let is_leaf = set.is_empty();
    Ok((set, is_member || is_leaf))
}

/// A path as conflicts name it: `.spec.template.spec.containers[name="main"].image`.
pub fn show_path(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn element() -> impl Strategy<Value = PathElement> {
        prop_oneof![
            "[a-d]".prop_map(PathElement::Field),
            "[a-b]"
                .prop_map(|name| PathElement::Key(vec![("name".to_owned(), Scalar(json!(name)))])),
            (0i64..3).prop_map(|number| PathElement::Value(Scalar(json!(number)))),
            (0usize..2).prop_map(PathElement::Index),
        ]
    }

    fn set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(set in set()) {
            prop_assert_eq!(FieldSet::from_json(&set.to_json()).unwrap(), set);
        }

        #[test]
        fn sets_are_sets(a in set(), b in set()) {
            let members = |set: &FieldSet| set.paths().into_iter().collect::<BTreeSet<_>>();
            let (in_a, in_b) = (members(&a), members(&b));
            prop_assert_eq!(members(&a.union(&b)), in_a.union(&in_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(members(&a.intersection(&b)), in_a.intersection(&in_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(members(&a.difference(&b)), in_a.difference(&in_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(a.difference(&a).is_empty(), true);
            for path in in_a {
                let above = (1..=path.len()).any(|end| in_b.contains(&path[..end]));
                prop_assert_eq!(a.recursive_difference(&b).has(&path), !above);
            }
        }
    }

    #[test]
    fn upstreams_own_example_is_read() {
        let text = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:image": {}}}, "f:finalizers": {"v:\"a\"": {}}, "x:later": {}}});
        let set = FieldSet::from_json(&text).unwrap();
        let shown: Vec<String> = set.paths().iter().map(|path| show_path(path)).collect();
        assert_eq!(
            shown,
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[containerPort=80,protocol=\"TCP\"].image",
                ".spec.finalizers[=\"a\"]",
            ]
        );
        for bad in [json!([]), json!({"f": {}}), json!({"k:[]": {}}), json!({"i:x": {}})] {
            assert!(FieldSet::from_json(&bad).is_err(), "{bad}");
        }
    }
}
