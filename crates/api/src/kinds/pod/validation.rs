//! What is wrong with a pod or a template. As upstream: `pkg/apis/core/validation/validation.go`.

use super::super::parts::{list, text};
use crate::field_path::{FieldError, FieldPath};
use crate::metadata;
use crate::object::Object;
use crate::quantity::Quantity;
use serde_json::{Value, json};

/// Of a new pod.
pub(super) fn create(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let spec = object.at("/spec").unwrap_or(&Value::Null);
    let mut errors = validate_spec(spec, &path);
    let policies = ["Always", "OnFailure", "Never"];
    if !policies.contains(&text(spec, "restartPolicy")) {
        errors.push(FieldError::not_supported(&path.child("restartPolicy"), text(spec, "restartPolicy"), &policies));
    }
    errors
}

/// Of a template.
pub(in super::super) fn validate_template(template: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = metadata::validate_labels(template.pointer("/metadata/labels"), &path.child("labels"));
    errors.extend(validate_spec(template.get("spec").unwrap_or(&Value::Null), &path.child("spec")));
    errors
}

/// Of a changed pod: little may change.
pub(super) fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = create(new);
    let path = FieldPath::new("spec");
    if new.list_at("/spec/containers").len() != old.list_at("/spec/containers").len() {
        errors.push(FieldError::forbidden(&path.child("containers"), "pod updates may not add or remove containers"));
        return errors;
    }
    let fixed = |object: &Object| {
        let mut spec = object.at("/spec").cloned().unwrap_or_default();
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = json!("");
            }
        }
        if let Value::Object(fields) = &mut spec {
            for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
                fields.remove(field);
            }
        }
        spec
    };
    if fixed(new) != fixed(old) {
        errors.push(FieldError::forbidden(
            &path,
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
             `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    errors
}

fn validate_spec(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = validate_volumes(spec, path, &mut errors);
    let mut names = Vec::new();
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(index);
            let name = text(container, "name");
            if names.contains(&name) && !name.is_empty() {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            names.push(name);
            validate_container(container, &path, &volumes, field == "initContainers", &mut errors);
        }
    }
    for (field, supported) in [("dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"][..])] {
        if !supported.contains(&text(spec, field)) {
            errors.push(FieldError::not_supported(&path.child(field), text(spec, field), supported));
        }
    }
    for field in ["hostname", "subdomain"] {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.extend(metadata::dns_label(name).iter().map(|error| FieldError::invalid(&path.child(field), name, error)));
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        errors.push(FieldError::invalid(&path.child("terminationGracePeriodSeconds"), &spec["terminationGracePeriodSeconds"], "must be greater than or equal to 0"));
    }
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds < 1) {
        errors.push(FieldError::invalid(&path.child("activeDeadlineSeconds"), &spec["activeDeadlineSeconds"], "must be between 1 and 2147483647, inclusive"));
    }
    errors.extend(metadata::validate_labels(spec.get("nodeSelector"), &path.child("nodeSelector")));
    validate_tolerations(spec, path, &mut errors);
    errors
}

fn validate_tolerations(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.child("tolerations").index(index);
        let (operator, key, value) = (text(toleration, "operator"), text(toleration, "key"), text(toleration, "value"));
        match operator {
            "" | "Equal" if key.is_empty() => errors.push(FieldError::invalid(&path.child("operator"), operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")),
            "Exists" if !value.is_empty() => errors.push(FieldError::invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'")),
            "" | "Equal" | "Exists" => {}
            _ => errors.push(FieldError::not_supported(&path.child("operator"), operator, &["Equal", "Exists"])),
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        let effect = text(toleration, "effect");
        if !effect.is_empty() && !effects.contains(&effect) {
            errors.push(FieldError::not_supported(&path.child("effect"), effect, &effects));
        }
    }
}

/// Errors of the volumes; returns their names.
fn validate_volumes<'a>(spec: &'a Value, path: &FieldPath, errors: &mut Vec<FieldError>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            errors.extend(metadata::dns_label(name).iter().map(|error| FieldError::invalid(&path.child("name"), name, error)));
            if names.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        names.push(name);
        let sources = volume.as_object().map_or(0, |fields| fields.len().saturating_sub(usize::from(fields.contains_key("name"))));
        if sources > 1 {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
        }
        for (source, field) in [("persistentVolumeClaim", "claimName"), ("secret", "secretName"), ("configMap", "name"), ("hostPath", "path")] {
            if volume.get(source).is_some_and(|source| text(source, field).is_empty()) {
                errors.push(FieldError::required(&path.child(source).child(field), ""));
            }
        }
    }
    names
}

fn validate_container(container: &Value, path: &FieldPath, volumes: &[&str], is_init: bool, errors: &mut Vec<FieldError>) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        errors.extend(metadata::dns_label(name).iter().map(|error| FieldError::invalid(&path.child("name"), name, error)));
    }
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    } else if image != image.trim() {
        errors.push(FieldError::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    if !policies.contains(&text(container, "imagePullPolicy")) {
        errors.push(FieldError::not_supported(&path.child("imagePullPolicy"), text(container, "imagePullPolicy"), &policies));
    }
    validate_ports(container, path, errors);
    validate_env(container, path, errors);
    validate_mounts(container, path, volumes, errors);
    validate_resources(container.get("resources").unwrap_or(&Value::Null), &path.child("resources"), errors);
    let sidecar = is_init && text(container, "restartPolicy") == "Always";
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe) {
            if is_init && !sidecar {
                errors.push(FieldError::forbidden(&path.child(probe), "may not be set for init containers without restartPolicy=Always"));
            } else {
                validate_probe(value, &path.child(probe), probe, errors);
            }
        }
    }
}

fn validate_ports(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut names = Vec::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(index);
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if number == 0 {
            errors.push(FieldError::required(&path.child("containerPort"), ""));
        } else if !(1..=65535).contains(&number) {
            errors.push(FieldError::invalid(&path.child("containerPort"), number, "must be between 1 and 65535, inclusive"));
        }
        let name = text(port, "name");
        if !name.is_empty() {
            let legal = name.len() <= 15 && metadata::dns_label(name).is_empty() && name.bytes().any(|b| b.is_ascii_lowercase()) && !name.contains("--");
            if !legal {
                errors.push(FieldError::invalid(&path.child("name"), name, "must be no more than 15 characters of lower case alphanumerics and '-', with at least one letter"));
            }
            if names.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            names.push(name);
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(port, "protocol")) {
            errors.push(FieldError::not_supported(&path.child("protocol"), text(port, "protocol"), &protocols));
        }
    }
}

fn validate_env(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if name.contains('=') || !name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            errors.push(FieldError::invalid(&path.child("name"), name, "environment variable names must be printable ASCII characters except '='"));
        }
        if !text(variable, "value").is_empty() && variable.get("valueFrom").is_some() {
            errors.push(FieldError::invalid(&path.child("valueFrom"), "", "may not be specified when `value` is not empty"));
        }
    }
}

fn validate_mounts(container: &Value, path: &FieldPath, volumes: &[&str], errors: &mut Vec<FieldError>) {
    let mut paths = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !volumes.contains(&name) && !path.to_string().starts_with("spec.template") {
            errors.push(FieldError::not_found(&path.child("name"), name));
        }
        if target.is_empty() {
            errors.push(FieldError::required(&path.child("mountPath"), ""));
        } else if paths.contains(&target) {
            errors.push(FieldError::invalid(&path.child("mountPath"), target, "must be unique"));
        }
        paths.push(target);
        let sub = text(mount, "subPath");
        if sub.starts_with('/') {
            errors.push(FieldError::invalid(&path.child("subPath"), sub, "must be a relative path"));
        } else if sub.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&path.child("subPath"), sub, "must not contain '..'"));
        }
    }
}

fn validate_resources(resources: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let amount = |which: &str, name: &str| resources.get(which)?.get(name)?.as_str().and_then(|text| Quantity::parse(text).ok());
    for which in ["limits", "requests"] {
        for (name, _) in resources.get(which).and_then(Value::as_object).into_iter().flatten() {
            let value = amount(which, name).unwrap_or(Quantity::ZERO);
            if value < Quantity::ZERO {
                errors.push(FieldError::invalid(&path.child(which).key(name), value.to_string(), "must be greater than or equal to 0"));
            }
            if which == "requests" && amount("limits", name).is_some_and(|limit| value > limit) {
                errors.push(FieldError::invalid(&path.child("requests"), value.to_string(), &format!(
                    "must be less than or equal to {name} limit of {}", amount("limits", name).unwrap_or(Quantity::ZERO)
                )));
            }
        }
    }
}

fn validate_probe(probe: &Value, path: &FieldPath, name: &str, errors: &mut Vec<FieldError>) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"].iter().filter(|handler| probe.get(**handler).is_some()).count();
    match handlers {
        0 => errors.push(FieldError::required(path, "must specify a handler type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type")),
    }
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if probe[field].as_i64().is_some_and(|number| number < 0) {
            errors.push(FieldError::invalid(&path.child(field), &probe[field], "must be greater than or equal to 0"));
        }
    }
    if name != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|number| number != 1) {
        errors.push(FieldError::invalid(&path.child("successThreshold"), &probe["successThreshold"], "must be 1"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: Value) -> String {
        let mut object = Object::new(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        (super::super::KIND.default)(&mut object);
        create(&object).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn bad_pods_are_refused_in_upstreams_words() {
        assert_eq!(refused(json!({"containers": [{"name": "a", "image": "i"}]})), "");
        assert_eq!(refused(json!({})), "spec.containers: Required value");
        assert_eq!(refused(json!({"containers": [{"name": "a"}]})), "spec.containers[0].image: Required value");
        assert_eq!(refused(json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]})), "spec.containers[0].volumeMounts[0].name: Not found: \"v\"");
        assert_eq!(
            refused(json!({"containers": [{"name": "a", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
        );
        assert_eq!(refused(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]})), "spec.containers[1].name: Duplicate value: \"a\"");
    }
}
