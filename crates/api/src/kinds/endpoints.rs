//! Endpoints.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine, fine_update, nothing, list, text};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "Endpoints", plural: "endpoints", singular: "endpoints", short: &["ep"], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Endpoints>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: fine, update: fine_update, update_status: fine_update },
    columns: &[NAME, column("Endpoints", 0, |object, _| addresses(object)), AGE],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.core.v1.Endpoints",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Endpoints>()),
};

/// At most three, as upstream: `formatEndpoints`.
fn addresses(object: &Object) -> Value {
    let mut found = Vec::new();
    for subset in object.list_at("/subsets") {
        let ports = list(subset, "ports");
        for address in list(subset, "addresses") {
            if ports.is_empty() {
                found.push(text(address, "ip").to_owned());
            }
            found.extend(ports.iter().map(|port| format!("{}:{}", text(address, "ip"), port["port"])));
        }
    }
    match found.len() {
        0 => json!("<none>"),
        1..=3 => json!(found.join(",")),
        more => json!(format!("{} + {} more...", found[..3].join(","), more - 3)),
    }
}
