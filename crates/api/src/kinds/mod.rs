//! [`KINDS`]: the one list of kinds. One file a kind.

pub mod config_map;
pub mod controller_revision;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
mod parts;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod statefulset;
pub mod storage_class;

use crate::kind::Kind;

/// Every kind that is served, in the order of discovery.
pub const KINDS: &[&Kind] = &[
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &namespace::KIND,
    &node::KIND,
    &persistent_volume_claim::KIND,
    &persistent_volume::KIND,
    &pod::KIND,
    &secret::KIND,
    &service_account::KIND,
    &service::KIND,
    &controller_revision::KIND,
    &statefulset::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &storage_class::KIND,
];

/// The kind of a resource.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.names.group == group && kind.names.version == version && kind.names.plural == plural)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Object;
    use serde_json::json;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<(&str, &str)> = Vec::new();
        for kind in KINDS {
            let singular = Some(kind.names.singular).filter(|name| *name != kind.names.plural);
            for name in [kind.names.plural].into_iter().chain(singular).chain(kind.names.short.iter().copied()) {
                assert!(!names.contains(&(kind.names.group, name)), "{name}");
                names.push((kind.names.group, name));
            }
        }
    }

    #[test]
    fn defaults_applied_twice_change_nothing() {
        let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "serviceName": "s", "ports": [{"port": 80}],
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}},
            "containers": [{"name": "c", "image": "i:1", "livenessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v", "configMap": {"name": "m"}}],
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}});
        for kind in KINDS {
            let mut given = json!({"apiVersion": kind.names.api_version(), "kind": kind.names.kind, "metadata": {"name": "x", "namespace": "default"}});
            if ["pods", "statefulsets", "services", "persistentvolumeclaims"].contains(&kind.names.plural) {
                given["spec"] = spec.clone();
                if kind.names.plural != "statefulsets" {
                    given["spec"]["selector"] = json!(null);
                }
            }
            if kind.names.plural == "storageclasses" {
                given["provisioner"] = json!("p");
            }
            let once = |value| {
                let decoded = (kind.decode)(value).unwrap_or_else(|error| panic!("{}: {error}", kind.names.kind));
                let mut object = Object::new(decoded.value).unwrap();
                (kind.default)(&mut object);
                object.into_value()
            };
            let first = once(given);
            assert_eq!(once(first.clone()), first, "{}", kind.names.kind);
        }
    }

    #[test]
    fn every_column_shows_any_object() {
        for kind in KINDS {
            let object = Object::new(json!({"metadata": {}})).unwrap();
            for column in kind.columns {
                (column.cell)(&object, jiff::Timestamp::UNIX_EPOCH);
            }
        }
    }

    #[test]
    fn every_field_row_names_a_field_that_exists() {
        let kinds: Vec<&Kind> = KINDS.to_vec();
        let document = crate::openapi::v2(&kinds);
        for kind in KINDS {
            for row in kind.fields {
                let mut here = kind.definition.to_owned();
                for name in row.path.split('.') {
                    let property = &document["definitions"][&here]["properties"][name];
                    assert!(!property.is_null(), "{}: {} ({name})", kind.names.kind, row.path);
                    let reference = [&property["$ref"], &property["items"]["$ref"], &property["allOf"][0]["$ref"]];
                    here = reference.into_iter().find_map(|r| r.as_str()).and_then(|r| r.rsplit('/').next()).unwrap_or_default().to_owned();
                }
            }
        }
    }
}
