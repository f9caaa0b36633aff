//! Defaults of pods and templates. As upstream: `pkg/apis/core/v1/defaults.go`.

use super::super::parts::{child, default_at, each, text};
use crate::object::Object;
use serde_json::{Value, json};

/// Defaults of a pod.
pub(super) fn default_pod(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
        }
    }
    default_spec(spec);
    default_at(spec, "enableServiceLinks", json!(true));
    // On the node's own network a container's port is the node's. Templates stay as they are.
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for port in each(spec, list).flat_map(|container| each(container, "ports")) {
                let number = port["containerPort"].clone();
                default_at(port, "hostPort", number);
            }
        }
    }
}

/// Defaults of a template.
pub(in super::super) fn default_template(template: &mut Value) {
    child(template, "metadata");
    default_spec(child(template, "spec"));
}

/// What is limited and not requested is requested up to its limit.
fn requests_from_limits(container: &mut Value) {
    let Some(Value::Object(limits)) = container.pointer("/resources/limits").cloned() else {
        return;
    };
    let requests = child(child(container, "resources"), "requests");
    for (name, amount) in limits {
        default_at(requests, &name, amount);
    }
}

fn default_spec(spec: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
    ] {
        default_at(spec, field, value);
    }
    let account = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")]
        .into_iter()
        .find(|name| !name.is_empty())
        .map(str::to_owned);
    if let Some(account) = account {
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
    }
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            default_container(container);
        }
    }
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
}

fn default_container(container: &mut Value) {
    let policy = if has_latest_tag(text(container, "image")) { "Always" } else { "IfNotPresent" };
    default_at(container, "imagePullPolicy", json!(policy));
    default_at(container, "terminationMessagePath", json!("/dev/termination-log"));
    default_at(container, "terminationMessagePolicy", json!("File"));
    default_at(container, "resources", json!({}));
    for port in each(container, "ports") {
        default_at(port, "protocol", json!("TCP"));
    }
    for variable in each(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            default_at(reference, "apiVersion", json!("v1"));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                default_at(probe, field, json!(value));
            }
            default_http(probe.get_mut("httpGet"));
            if let Some(action) = probe.get_mut("grpc") {
                default_at(action, "service", json!(""));
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        default_http(container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")));
    }
}

fn default_http(action: Option<&mut Value>) {
    if let Some(action) = action {
        default_at(action, "path", json!("/"));
        default_at(action, "scheme", json!("HTTP"));
    }
}

/// Whether a reference means the newest image there is: no tag and no digest, or the tag `latest`.
fn has_latest_tag(image: &str) -> bool {
    let (name, digest) =
        image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    match name.rsplit('/').next().unwrap_or(name).split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !name.is_empty(),
    }
}

fn default_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|fields| fields.len() == 1 && fields.contains_key("name")) {
        volume["emptyDir"] = json!({});
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            default_at(source, "defaultMode", json!(0o644));
            for item in each(source, "items").filter(|item| item.get("fieldRef").is_some()) {
                default_at(&mut item["fieldRef"], "apiVersion", json!("v1"));
            }
        }
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in each(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default_at(token, "expirationSeconds", json!(3600));
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                for item in each(downward, "items").filter(|item| item.get("fieldRef").is_some()) {
                    default_at(&mut item["fieldRef"], "apiVersion", json!("v1"));
                }
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        default_at(path, "type", json!(""));
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate") {
        default_at(child(claim, "spec"), "volumeMode", json!("Filesystem"));
    }
    if let Some(image) = volume.get_mut("image") {
        let policy =
            if has_latest_tag(text(image, "reference")) { "Always" } else { "IfNotPresent" };
        default_at(image, "pullPolicy", json!(policy));
    }
    if let Some(target) = volume.get_mut("iscsi") {
        default_at(target, "iscsiInterface", json!("default"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_tag_is_always_pulled() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("r:5000/nginx", true),
            ("r:5000/n:1", false),
            ("n@sha256:0", false),
            ("n:latest@sha256:0", true),
            ("", false),
        ] {
            assert_eq!(has_latest_tag(image), latest, "{image}");
        }
    }

    #[test]
    fn a_pod_on_the_nodes_network_has_the_nodes_ports() {
        let spec = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]});
        let mut pod = Object::new(json!({"spec": spec})).unwrap();
        default_pod(&mut pod);
        assert_eq!(pod.int_at("/spec/containers/0/ports/0/hostPort"), Some(80));
        let mut template = json!({"spec": spec});
        default_template(&mut template);
        assert_eq!(
            template.pointer("/spec/containers/0/ports/0"),
            Some(&json!({"containerPort": 80, "protocol": "TCP"}))
        );
    }

    #[test]
    fn a_pod_gets_upstreams_defaults() {
        let mut pod = Object::new(json!({"spec": {"serviceAccount": "s", "containers": [{"name": "c", "image": "i:1",
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}], "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "m"}}, {"name": "c", "hostPath": {"path": "/x"}},
                {"name": "d", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}]}})).unwrap();
        default_pod(&mut pod);
        assert_eq!(
            pod.value()["spec"],
            json!({
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler",
                "enableServiceLinks": true, "serviceAccount": "s", "serviceAccountName": "s",
                "containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "m", "defaultMode": 420}}, {"name": "c", "hostPath": {"path": "/x", "type": ""}},
                    {"name": "d", "projected": {"defaultMode": 420, "sources": [{"downwardAPI": {"items": [{"path": "p", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}]}}]
            })
        );
    }

    #[test]
    fn limits_are_requested_in_pods_but_not_in_templates() {
        let containers =
            json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]);
        let mut pod = Object::new(json!({"spec": {"containers": containers}})).unwrap();
        default_pod(&mut pod);
        assert_eq!(pod.str_at("/spec/containers/0/resources/requests/cpu"), "1");
        let mut template = json!({"spec": {"containers": containers}});
        default_template(&mut template);
        assert!(template.pointer("/spec/containers/0/resources/requests").is_none());
    }
}
