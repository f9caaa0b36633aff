//! EndpointSlice.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine, fine_update, list, nothing};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::field_path::{FieldError, FieldPath};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "discovery.k8s.io", version: "v1", kind: "EndpointSlice", plural: "endpointslices", singular: "endpointslice", short: &[], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::discovery::v1::EndpointSlice>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: fine, update: update, update_status: fine_update },
    columns: &[NAME, column("AddressType", 0, |object, _| json!(object.str_at("/addressType"))), column("Ports", 0, ports), column("Endpoints", 0, endpoints), AGE],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::discovery::v1::EndpointSlice>()),
};

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    if new.str_at("/addressType") == old.str_at("/addressType") {
        return Vec::new();
    }
    vec![FieldError::invalid(&FieldPath::new("addressType"), new.str_at("/addressType"), "field is immutable")]
}

fn few(all: Vec<String>) -> Value {
    match all.len() {
        0 => json!("<unset>"),
        1..=3 => json!(all.join(",")),
        more => json!(format!("{} + {} more...", all[..3].join(","), more - 3)),
    }
}

fn ports(object: &Object, _: jiff::Timestamp) -> Value {
    few(object.list_at("/ports").iter().map(|port| port["port"].to_string()).collect())
}

fn endpoints(object: &Object, _: jiff::Timestamp) -> Value {
    few(object.list_at("/endpoints").iter().flat_map(|endpoint| list(endpoint, "addresses")).filter_map(Value::as_str).map(str::to_owned).collect())
}
