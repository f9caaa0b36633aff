//! Lease. As upstream: `pkg/apis/coordination/validation`.

use super::parts::{AGE, ALL, NAME, PREPARE_PLAIN, column, fine_update, nothing};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::object::Object;

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        short: &[],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::coordination::v1::Lease>,
    default: nothing,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update: |new, _| validate(new),
        update_status: fine_update,
    },
    columns: &[
        NAME,
        column("Holder", 0, |object, _| serde_json::json!(object.str_at("/spec/holderIdentity"))),
        AGE,
    ],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.coordination.v1.Lease",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::coordination::v1::Lease>())
    },
};

fn validate(object: &Object) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    if let Some(seconds) =
        object.int_at("/spec/leaseDurationSeconds").filter(|seconds| *seconds <= 0)
    {
        errors.push(FieldError::invalid(
            &spec.child("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
    if let Some(count) = object.int_at("/spec/leaseTransitions").filter(|count| *count < 0) {
        errors.push(FieldError::invalid(
            &spec.child("leaseTransitions"),
            count,
            "must be greater than or equal to 0",
        ));
    }
    if object.at("/spec/holderIdentity").is_some()
        && object.str_at("/spec/holderIdentity").is_empty()
    {
        errors.push(FieldError::invalid(&spec.child("holderIdentity"), "", "must not be empty"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lease_lasts_longer_than_nothing() {
        let refused = |spec: serde_json::Value| {
            validate(&Object::new(json!({"spec": spec})).unwrap())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(refused(json!({"leaseDurationSeconds": 40, "holderIdentity": "n"})), "");
        assert_eq!(
            refused(json!({"leaseDurationSeconds": 0})),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"
        );
    }
}
