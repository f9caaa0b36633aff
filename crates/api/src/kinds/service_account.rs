//! ServiceAccount.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine, fine_update, nothing};
use crate::kind::{FieldSupport, Kind, Names, Scope, Support, Validate};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short: &["sa"],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::ServiceAccount>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: fine,
        update: fine_update,
        update_status: fine_update,
    },
    columns: &[
        NAME,
        column("Secrets", 0, |object, _| serde_json::json!(object.list_at("/secrets").len())),
        AGE,
    ],
    selectable_fields: &[],
    fields: &[FieldSupport {
        path: "automountServiceAccountToken",
        support: Support::StoredOnly,
        why: "no token is mounted",
    }],
    definition: "io.k8s.api.core.v1.ServiceAccount",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::core::v1::ServiceAccount>())
    },
};
