//! [`KINDS`]: the one list of kinds. One file a kind.

pub mod config_map;
pub mod controller_revision;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod job;
pub mod lease;
pub mod namespace;
pub mod node;
mod parts;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_disruption_budget;
pub mod replica_set;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod statefulset;
pub mod storage_class;
mod workload;

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
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &statefulset::KIND,
    &cron_job::KIND,
    &job::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &pod_disruption_budget::KIND,
    &storage_class::KIND,
];

/// The kind of a resource.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| {
        kind.names.group == group && kind.names.version == version && kind.names.plural == plural
    })
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
            for name in [kind.names.plural]
                .into_iter()
                .chain(singular)
                .chain(kind.names.short.iter().copied())
            {
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
            if ["pods", "services", "persistentvolumeclaims"].contains(&kind.names.plural)
                || kind.names.group == "apps"
            {
                given["spec"] = spec.clone();
                if kind.names.group != "apps" {
                    given["spec"]["selector"] = json!(null);
                }
            }
            if ["daemonsets", "jobs"].contains(&kind.names.plural) {
                given["spec"] = json!({"selector": spec["selector"], "template": spec["template"]});
            }
            if kind.names.plural == "cronjobs" {
                given["spec"] = json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": spec["template"]}}});
            }
            if kind.names.plural == "storageclasses" {
                given["provisioner"] = json!("p");
            }
            let once = |value| {
                let decoded = (kind.decode)(value)
                    .unwrap_or_else(|error| panic!("{}: {error}", kind.names.kind));
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

    /// Whatever little a client sends, it gets an answer.
    #[test]
    fn an_object_without_anything_is_prepared_and_judged() {
        for kind in KINDS {
            let old = Object::new(json!({"metadata": {}})).unwrap();
            let mut new = old.clone();
            (kind.default)(&mut new);
            (kind.prepare.create)(&mut new);
            (kind.prepare.update)(&mut new, &old);
            (kind.prepare.update_status)(&mut new, &old);
            (kind.validate.create)(&new);
            for (one, other) in [(&new, &old), (&old, &new)] {
                (kind.validate.update)(one, other);
                (kind.validate.update_status)(one, other);
            }
            for field in kind.selectable_fields {
                (field.value)(&old);
            }
        }
    }

    /// A stored object stays acceptable: an update that changes nothing is never refused.
    #[test]
    fn what_was_accepted_is_accepted_again() {
        let pod = json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v"}]});
        let mut batch_pod = pod.clone();
        batch_pod["restartPolicy"] = json!("Never");
        let given = [
            ("Pod", json!({"spec": pod})),
            (
                "StatefulSet",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}}),
            ),
            (
                "DaemonSet",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}}),
            ),
            ("Job", json!({"spec": {"template": {"spec": batch_pod}}})),
            (
                "CronJob",
                json!({"spec": {"schedule": "0 3 * * *", "timeZone": "UTC", "jobTemplate": {"spec": {"template": {"spec": batch_pod}}}}}),
            ),
            (
                "Service",
                json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}),
            ),
            (
                "PersistentVolumeClaim",
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            ),
            (
                "PersistentVolume",
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}),
            ),
            ("StorageClass", json!({"provisioner": "p"})),
            ("Secret", json!({"stringData": {"a": "b"}})),
            ("ConfigMap", json!({"data": {"a": "b"}})),
            (
                "Endpoints",
                json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]}),
            ),
            (
                "EndpointSlice",
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]}),
            ),
            (
                "Deployment",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}}),
            ),
            (
                "ReplicaSet",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}}),
            ),
            ("ControllerRevision", json!({"revision": 1, "data": {}})),
            ("Lease", json!({"spec": {"leaseDurationSeconds": 40}})),
            ("PodDisruptionBudget", json!({"spec": {"maxUnavailable": "25%", "selector": {}}})),
            ("Event", json!({"involvedObject": {"namespace": "team"}, "reason": "R"})),
            ("Namespace", json!({})),
            ("Node", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
            ("ServiceAccount", json!({})),
        ];
        assert_eq!(given.len(), KINDS.len());
        for (name, mut value) in given {
            let kind = KINDS.iter().find(|kind| kind.names.kind == name).unwrap();
            value["apiVersion"] = json!(kind.names.api_version());
            value["kind"] = json!(name);
            value["metadata"] = json!({"name": "x", "namespace": "team", "uid": "u"});
            let mut stored = Object::new((kind.decode)(value).unwrap().value).unwrap();
            (kind.default)(&mut stored);
            (kind.prepare.create)(&mut stored);
            (kind.default)(&mut stored);
            assert_eq!((kind.validate.create)(&stored), [], "{name}");
            let again = (kind.decode)(stored.value().clone()).unwrap();
            assert!(again.unknown_fields.is_empty(), "{name}: {:?}", again.unknown_fields);
            let mut new = Object::new(again.value).unwrap();
            (kind.default)(&mut new);
            (kind.prepare.update)(&mut new, &stored);
            assert_eq!(new, stored, "{name}");
            assert_eq!((kind.validate.update)(&new, &stored), [], "{name}");
        }
    }

    /// Warnings are for what somebody asked for: what defaults and admission fill in warns of nothing.
    #[test]
    fn nobody_is_warned_of_what_nobody_wrote() {
        let pod = json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority", "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}],
            "initContainers": [{"name": "i", "image": "i"}], "volumes": [{"name": "v"}, {"name": "m", "configMap": {"name": "m"}}]});
        let given = [
            (&pod::KIND, json!({"spec": pod})),
            (
                &statefulset::KIND,
                json!({"spec": {"template": {"spec": pod}, "volumeClaimTemplates": [{"metadata": {"name": "d"}}]}}),
            ),
            (&daemon_set::KIND, json!({"spec": {"template": {"spec": pod}}})),
            (&job::KIND, json!({"spec": {"template": {"spec": pod}}})),
            (
                &cron_job::KIND,
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}),
            ),
            (&service::KIND, json!({"spec": {"ports": [{"port": 80}]}})),
            (&persistent_volume_claim::KIND, json!({"spec": {}})),
            (&persistent_volume::KIND, json!({"spec": {"hostPath": {"path": "/x"}}})),
            (&storage_class::KIND, json!({})),
            (&service_account::KIND, json!({})),
        ];
        for (kind, value) in given {
            let mut object = Object::new(value).unwrap();
            (kind.default)(&mut object);
            for row in
                kind.fields.iter().filter(|row| row.support == crate::kind::Support::StoredOnly)
            {
                let found = row.path.split('.').fold(vec![object.value()], |here, name| {
                    let elements = here.into_iter().flat_map(|value| {
                        value.as_array().map_or(vec![value], |list| list.iter().collect())
                    });
                    elements.filter_map(|value| value.get(name)).collect()
                });
                assert!(found.is_empty(), "{}: {} is {found:?}", kind.names.kind, row.path);
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
                    let reference = [
                        &property["$ref"],
                        &property["items"]["$ref"],
                        &property["allOf"][0]["$ref"],
                    ];
                    here = reference
                        .into_iter()
                        .find_map(|r| r.as_str())
                        .and_then(|r| r.rsplit('/').next())
                        .unwrap_or_default()
                        .to_owned();
                }
            }
        }
    }
}
