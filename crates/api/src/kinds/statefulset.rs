//! StatefulSet. As upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation`, `pkg/registry/apps/statefulset`.

use super::parts::{AGE, ALL, NAME, PREPARE_SPEC, child, column, default_at, each};
use super::persistent_volume_claim::{default_claim, validate_claim};
use super::{pod, workload};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, Subresource, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// On a set: `podManagementPolicy` and `serviceName` may change.
pub const MUTABLE_FIELDS: &str = "abide.dev/mutable-fields";

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "apps",
        version: "v1",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short: &["sts"],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[
        Subresource::Status,
        Subresource::Scale {
            spec_replicas: "/spec/replicas",
            status_replicas: "/status/replicas",
            selector: "/spec/selector",
        },
    ],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::apps::v1::StatefulSet>,
    default,
    prepare: PREPARE_SPEC,
    validate: Validate {
        name: crate::metadata::dns_label,
        create: validate_create,
        update,
        update_status: validate_status,
    },
    columns: &[
        NAME,
        column("Ready", 0, |object, _| {
            json!(format!(
                "{}/{}",
                object.int_at("/status/readyReplicas").unwrap_or(0),
                object.int_at("/spec/replicas").unwrap_or(0)
            ))
        }),
        AGE,
        workload::CONTAINERS,
        workload::IMAGES,
    ],
    selectable_fields: &[],
    fields: pod::TEMPLATE_FIELDS,
    definition: "io.k8s.api.apps.v1.StatefulSet",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::apps::v1::StatefulSet>()),
};

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "replicas", json!(1));
    default_at(spec, "revisionHistoryLimit", json!(10));
    default_at(spec, "podManagementPolicy", json!("OrderedReady"));
    let strategy = child(spec, "updateStrategy");
    if strategy.get("type").is_none() {
        // Only who says nothing of the type gets the partition filled in.
        default_at(strategy, "type", json!("RollingUpdate"));
        child(strategy, "rollingUpdate");
    }
    if let Some(rolling) = strategy.get_mut("rollingUpdate") {
        default_at(rolling, "partition", json!(0));
    }
    let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
    default_at(retention, "whenDeleted", json!("Retain"));
    default_at(retention, "whenScaled", json!("Retain"));
    pod::default_template(child(spec, "template"));
    for claim in each(spec, "volumeClaimTemplates") {
        default_at(claim, "apiVersion", json!("v1"));
        default_at(claim, "kind", json!("PersistentVolumeClaim"));
        default_claim(claim);
    }
    // Both counters are always present, as upstream's type writes them.
    let status = child(object.value_mut(), "status");
    default_at(status, "replicas", json!(0));
    default_at(status, "availableReplicas", json!(0));
}

fn validate(object: &Object) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    match object.str_at("/spec/podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        "" => errors.push(FieldError::required(&spec.child("podManagementPolicy"), "")),
        other => errors.push(FieldError::invalid(
            &spec.child("podManagementPolicy"),
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
    errors.extend(validate_strategy(object, &spec.child("updateStrategy")));
    for (field, values) in
        [("whenDeleted", ["Retain", "Delete"]), ("whenScaled", ["Retain", "Delete"])]
    {
        let value = object.str_at(&format!("/spec/persistentVolumeClaimRetentionPolicy/{field}"));
        if !values.contains(&value) {
            errors.push(FieldError::not_supported(
                &spec.child("persistentVolumeClaimRetentionPolicy").child(field),
                value,
                &values,
            ));
        }
    }
    for pointer in ["/spec/replicas", "/spec/minReadySeconds", "/spec/ordinals/start"] {
        workload::not_negative_at(object, pointer, &mut errors);
    }
    errors.extend(workload::validate_own_selector(object, "statefulset"));
    errors.extend(workload::validate_always_restarting(object, "StatefulSet"));
    errors
}

/// Of a new set: also what its pods and claims will be.
fn validate_create(object: &Object) -> Vec<FieldError> {
    let mut errors = validate(object);
    errors.extend(validate_template(object));
    errors.extend(validate_claims(object));
    errors
}

/// The template, whose containers may mount the set's claims.
fn validate_template(object: &Object) -> Vec<FieldError> {
    let claims: Vec<&str> = object
        .list_at("/spec/volumeClaimTemplates")
        .iter()
        .filter_map(|claim| claim.pointer("/metadata/name")?.as_str())
        .collect();
    let template = object.at("/spec/template").unwrap_or(&Value::Null);
    pod::validate_template(template, &FieldPath::new("spec").child("template"), &claims)
}

fn validate_claims(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("volumeClaimTemplates");
    let (mut errors, mut names) = (Vec::new(), Vec::new());
    for (index, claim) in object.list_at("/spec/volumeClaimTemplates").iter().enumerate() {
        let path = path.index(index);
        let at = path.child("metadata").child("name");
        let name = claim.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else {
            errors.extend(
                crate::metadata::dns_label(name)
                    .iter()
                    .map(|error| FieldError::invalid(&at, name, error)),
            );
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(&at, name));
        }
        names.push(name);
        errors.extend(validate_claim(claim, &path.child("spec")));
    }
    errors
}

fn validate_strategy(object: &Object, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let rolling = object.at("/spec/updateStrategy/rollingUpdate");
    match object.str_at("/spec/updateStrategy/type") {
        "RollingUpdate" => {
            workload::not_negative_at(
                object,
                "/spec/updateStrategy/rollingUpdate/partition",
                &mut errors,
            );
            if let Some(maximum) = rolling.and_then(|rolling| rolling.get("maxUnavailable")) {
                errors.extend(validate_max_unavailable(
                    maximum,
                    &path.child("rollingUpdate").child("maxUnavailable"),
                ));
            }
        }
        "OnDelete" if rolling.is_some() => {
            errors.push(FieldError::invalid(
                &path.child("rollingUpdate"),
                rolling,
                "only allowed for updateStrategy 'RollingUpdate'",
            ));
        }
        "OnDelete" => {}
        "" => errors.push(FieldError::required(path, "")),
        _ => errors.push(FieldError::invalid(
            path,
            object.at("/spec/updateStrategy"),
            "must be 'RollingUpdate' or 'OnDelete'",
        )),
    }
    errors
}

/// As upstream: `validateRollingUpdateStatefulSet`.
fn validate_max_unavailable(maximum: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = workload::validate_share(maximum, path);
    if errors.is_empty() && workload::is_zero(Some(maximum)) {
        errors.push(FieldError::invalid(path, maximum, "cannot be 0"));
    }
    errors
}

/// What of a set's spec may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
];

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    // What was accepted once stays acceptable; only a new template is looked at.
    if new.at("/spec/template") != old.at("/spec/template") {
        errors.extend(validate_template(new));
    }
    let opened: &[&str] = if new.annotation(MUTABLE_FIELDS) == Some("true") {
        &["podManagementPolicy", "serviceName"]
    } else {
        &[]
    };
    let fixed = |object: &Object| {
        let mut spec = object.at("/spec").cloned().unwrap_or_default();
        if let Value::Object(map) = &mut spec {
            map.retain(|key, _| {
                !MUTABLE.contains(&key.as_str()) && !opened.contains(&key.as_str())
            });
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.push(FieldError::forbidden(
            &FieldPath::new("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
             'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
    errors
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    const WHOLE: &str = "cannot be greater than status.replicas";
    workload::validate_counters(
        new,
        old,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &[
            ("readyReplicas", "replicas", WHOLE),
            ("currentReplicas", "replicas", WHOLE),
            ("updatedReplicas", "replicas", WHOLE),
            ("availableReplicas", "replicas", WHOLE),
            ("availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "namespace": "default"}, "spec": {
            "serviceName": "nginx", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.12"}]}}}})).unwrap();
        change(&mut object);
        let mut object = Object::new((KIND.decode)(object.into_value()).unwrap().value).unwrap();
        default(&mut object);
        object
    }

    fn refused(change: impl Fn(&mut Object)) -> String {
        validate_create(&set(change)).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// T72.
    #[test]
    fn a_set_gets_upstreams_defaults() {
        let object = set(|_| {});
        for (pointer, value) in [
            ("/spec/replicas", json!(1)),
            ("/spec/podManagementPolicy", json!("OrderedReady")),
            ("/spec/revisionHistoryLimit", json!(10)),
            (
                "/spec/updateStrategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
            ),
            (
                "/spec/persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            ),
            ("/spec/template/spec/terminationGracePeriodSeconds", json!(30)),
            ("/spec/template/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
        ] {
            assert_eq!(object.at(pointer), Some(&value), "{pointer}");
        }
        let only_type =
            set(|object| object.set("/spec/updateStrategy", json!({"type": "RollingUpdate"})));
        assert_eq!(only_type.at("/spec/updateStrategy/rollingUpdate"), None);
    }

    /// T73.
    #[test]
    fn bad_sets_are_refused_in_upstreams_words() {
        assert_eq!(refused(|_| {}), "");
        for (pointer, value, words) in [
            (
                "/spec/replicas",
                json!(-1),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/podManagementPolicy",
                json!("x"),
                "spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"app": "other"}}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ),
            (
                "/spec/ordinals",
                json!({"start": -1}),
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ),
        ] {
            assert_eq!(refused(|object| object.set(pointer, value.clone())), words);
        }
        let on_delete = refused(|object| {
            object.set(
                "/spec/updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
            )
        });
        assert!(
            on_delete.ends_with("only allowed for updateStrategy 'RollingUpdate'"),
            "{on_delete}"
        );
    }

    #[test]
    fn claims_of_the_set_may_be_mounted_and_others_not() {
        let mounting = |name: &'static str| {
            refused(move |object| {
                object.set("/spec/volumeClaimTemplates", json!([{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]));
                object.set("/spec/template/spec/containers", json!([{"name": "c", "image": "i", "volumeMounts": [{"name": name, "mountPath": "/d"}]}]));
            })
        };
        assert_eq!(mounting("d"), "");
        assert_eq!(
            mounting("e"),
            "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"e\""
        );
    }

    /// T70, D5.
    #[test]
    fn fixed_fields_stay_fixed_unless_the_set_opens_them() {
        let parallel =
            |object: &mut Object| object.set("/spec/podManagementPolicy", json!("Parallel"));
        assert_eq!(update(&set(parallel), &set(|_| {})).len(), 1);
        let opened = set(|object| {
            parallel(object);
            object.set("/metadata/annotations", json!({MUTABLE_FIELDS: "true"}));
        });
        assert_eq!(update(&opened, &set(|_| {})), []);
    }

    /// T71.
    #[test]
    fn an_identical_claim_template_is_no_change() {
        let template = |object: &mut Object| {
            object.set("/spec/volumeClaimTemplates", json!([{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}}}]))
        };
        let stored = set(template);
        assert_eq!(update(&set(template), &stored), []);
        assert_eq!(stored.str_at("/spec/volumeClaimTemplates/0/status/phase"), "Pending");
    }

    /// T74.
    #[test]
    fn the_generation_counts_changes_of_the_spec_alone() {
        let prepare = |change: &dyn Fn(&mut Object)| {
            let mut old = set(|_| {});
            (KIND.prepare.create)(&mut old);
            assert_eq!((old.generation(), old.at("/status/replicas")), (1, None));
            let mut new = old.clone();
            change(&mut new);
            (KIND.prepare.update)(&mut new, &old);
            (new.generation(), new.int_at("/status/replicas"))
        };
        assert_eq!(prepare(&|set| set.set("/spec/replicas", json!(5))), (2, None));
        assert_eq!(prepare(&|set| set.set("/metadata/labels", json!({"a": "b"}))), (1, None));
        assert_eq!(prepare(&|set| set.set("/status/replicas", json!(9))), (1, None));
    }

    /// T75.
    #[test]
    fn a_status_that_cannot_be_is_refused() {
        let object =
            set(|object| object.set("/status", json!({"replicas": 1, "readyReplicas": 2})));
        assert_eq!(
            validate_status(&object, &set(|_| {}))[0].to_string(),
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
        );
    }
}
