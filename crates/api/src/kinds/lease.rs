//! Lease.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine, fine_update, nothing};
use crate::kind::{Kind, Names, Scope, Validate};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases", singular: "lease", short: &[], categories: &[] },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::coordination::v1::Lease>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate { name: crate::metadata::dns_subdomain, create: fine, update: fine_update, update_status: fine_update },
    columns: &[NAME, column("Holder", 0, |object, _| serde_json::json!(object.str_at("/spec/holderIdentity"))), AGE],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.coordination.v1.Lease",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::coordination::v1::Lease>()),
};
