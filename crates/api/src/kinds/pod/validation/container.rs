//! What is wrong with the containers of a pod.

use super::super::super::config_map::key_errors;
use super::super::super::parts::{list, text};
use super::volumes::validate_mounts;
use super::{not_negative, port_name, supported, validate_identity, validate_port, within};
use crate::field_path::{FieldError, FieldPath};
use crate::metadata;
use crate::quantity::Quantity;
use serde_json::{Value, json};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// What a variable may say of its pod.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Errors of all containers. `volumes` are the names of what may be mounted.
pub(super) fn validate_all(
    spec: &Value,
    path: &FieldPath,
    volumes: &[&str],
    errors: &mut Vec<FieldError>,
) {
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    let mut names = Vec::new();
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(index);
            validate_name(container, &mut names, &path.child("name"), errors);
            validate(container, &path, volumes, errors);
            let restart = text(container, "restartPolicy");
            let restarts = ["Always", "Never", "OnFailure"];
            if !restart.is_empty() && !restarts.contains(&restart) {
                errors.push(FieldError::not_supported(
                    &path.child("restartPolicy"),
                    restart,
                    &restarts,
                ));
            }
            let stays = field == "containers" || restart == "Always";
            validate_actions(container, &path, stays, grace, errors);
        }
    }
}

fn validate_name<'a>(
    container: &'a Value,
    names: &mut Vec<&'a str>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    errors.extend(
        metadata::dns_label(name).iter().map(|error| FieldError::invalid(path, name, error)),
    );
    if names.contains(&name) {
        errors.push(FieldError::duplicate(path, name));
    }
    names.push(name);
}

fn validate(container: &Value, path: &FieldPath, volumes: &[&str], errors: &mut Vec<FieldError>) {
    if text(container, "image").is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    }
    supported(
        container,
        "terminationMessagePolicy",
        &["FallbackToLogsOnError", "File"],
        path,
        errors,
    );
    supported(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    validate_ports(container, path, errors);
    validate_env(container, path, errors);
    validate_env_from(container, path, errors);
    validate_mounts(container, path, volumes, errors);
    validate_resources(
        container.get("resources").unwrap_or(&Value::Null),
        &path.child("resources"),
        errors,
    );
    if let Some(context) = container.get("securityContext") {
        let path = path.child("securityContext");
        validate_identity(context, &path, errors);
        if context["allowPrivilegeEscalation"] == false && context["privileged"] == true {
            errors.push(FieldError::invalid(
                &path,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
    }
}

fn validate_ports(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut names = Vec::new();
    for (index, port) in list(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.extend(
                port_name(name)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("name"), name, error)),
            );
            if names.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            names.push(name);
        }
        if port["containerPort"].as_i64().unwrap_or(0) == 0 {
            errors.push(FieldError::required(&path.child("containerPort"), ""));
        } else {
            within(port, "containerPort", 1, 65535, &path, errors);
        }
        if port["hostPort"].as_i64().unwrap_or(0) != 0 {
            within(port, "hostPort", 1, 65535, &path, errors);
        }
        supported(port, "protocol", &PROTOCOLS, &path, errors);
    }
}

/// What is wrong with the name of an environment variable.
fn env_name(name: &str) -> Option<&'static str> {
    let legal = !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    (!legal).then_some("a valid environment variable name must consist only of printable ASCII characters other than '='")
}

fn validate_env(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if let Some(words) = env_name(name) {
            errors.push(FieldError::invalid(&path.child("name"), name, words));
        }
        if let Some(source) = variable.get("valueFrom") {
            validate_env_source(variable, source, &path.child("valueFrom"), errors);
        }
    }
}

fn validate_env_source(
    variable: &Value,
    source: &Value,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let given: Vec<(&String, &Value)> = source.as_object().into_iter().flatten().collect();
    if given.is_empty() {
        errors.push(FieldError::invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"));
    } else if !text(variable, "value").is_empty() {
        errors.push(FieldError::invalid(
            path,
            "",
            "may not be specified when `value` is not empty",
        ));
    } else if given.len() > 1 {
        errors.push(FieldError::invalid(
            path,
            "",
            "may not have more than one field specified at a time",
        ));
    }
    for (kind, reference) in given {
        let path = path.child(kind);
        match kind.as_str() {
            "fieldRef" => validate_env_field(reference, &path.child("fieldPath"), errors),
            "resourceFieldRef" if text(reference, "resource").is_empty() => {
                errors.push(FieldError::required(&path.child("resource"), ""))
            }
            "configMapKeyRef" | "secretKeyRef" => {
                if text(reference, "name").is_empty() {
                    errors.push(FieldError::required(&path.child("name"), ""));
                }
                let key = text(reference, "key");
                if key.is_empty() {
                    errors.push(FieldError::required(&path.child("key"), ""));
                } else {
                    errors.extend(
                        key_errors(key)
                            .into_iter()
                            .map(|error| FieldError::invalid(&path.child("key"), key, error)),
                    );
                }
            }
            _ => {}
        }
    }
}

fn validate_env_field(reference: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let field = text(reference, "fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let subscript = ["metadata.labels", "metadata.annotations"]
        .into_iter()
        .find_map(|map| field.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']"));
    match subscript {
        Some(key) => errors.extend(
            metadata::qualified_name(&key.to_lowercase())
                .iter()
                .map(|error| FieldError::invalid(path, key, error)),
        ),
        None if ENV_FIELDS.contains(&field) => {}
        None => errors.push(FieldError::invalid(
            path,
            field,
            &format!("error converting fieldPath: field label not supported: {field}"),
        )),
    }
}

fn validate_env_from(container: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.extend(
                env_name(prefix)
                    .map(|words| FieldError::invalid(&path.child("prefix"), prefix, words)),
            );
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|kind| source.get(*kind).is_some())
            .collect();
        match given[..] {
            [] => errors.push(FieldError::invalid(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            [_] => {}
            _ => errors.push(FieldError::invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
        for kind in given {
            if source[kind]["name"].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(&path.child(kind).child("name"), ""));
            }
        }
    }
}

fn validate_resources(resources: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let amount = |which: &str, name: &str| {
        resources.get(which)?.get(name)?.as_str().and_then(|text| Quantity::parse(text).ok())
    };
    for which in ["limits", "requests"] {
        for (name, _) in resources.get(which).and_then(Value::as_object).into_iter().flatten() {
            let at = path.child(which).key(name);
            validate_resource_name(name, &at, errors);
            let value = amount(which, name).unwrap_or(Quantity::ZERO);
            if value < Quantity::ZERO {
                errors.push(FieldError::invalid(
                    &at,
                    value.to_string(),
                    "must be greater than or equal to 0",
                ));
            }
            let Some(limit) = amount("limits", name).filter(|_| which == "requests") else {
                continue;
            };
            let shared = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
            if !shared && value != limit {
                errors.push(FieldError::invalid(
                    &path.child(which),
                    value.to_string(),
                    &format!("must be equal to {name} limit of {limit}"),
                ));
            } else if value > limit {
                errors.push(FieldError::invalid(
                    &path.child(which),
                    value.to_string(),
                    &format!("must be less than or equal to {name} limit of {limit}"),
                ));
            }
        }
    }
}

fn validate_resource_name(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    errors.extend(
        metadata::qualified_name(name).iter().map(|error| FieldError::invalid(path, name, error)),
    );
    let standard =
        ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.push(FieldError::invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        ));
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
}

/// Probes and lifecycle hooks, which only containers have that stay.
fn validate_actions(
    container: &Value,
    path: &FieldPath,
    stays: bool,
    grace: Option<i64>,
    errors: &mut Vec<FieldError>,
) {
    let words = "may not be set for init containers without restartPolicy=Always";
    for field in ["lifecycle"].into_iter().chain(PROBES) {
        if container.get(field).is_some() && !stays {
            errors.push(FieldError::forbidden(&path.child(field), words));
        }
    }
    if !stays {
        return;
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.pointer(&format!("/lifecycle/{hook}")) {
            validate_handler(
                handler,
                &path.child("lifecycle").child(hook),
                &["exec", "httpGet", "tcpSocket", "sleep"],
                grace,
                errors,
            );
        }
    }
    for name in PROBES {
        if let Some(probe) = container.get(name) {
            let path = path.child(name);
            validate_handler(probe, &path, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
            validate_probe_numbers(probe, &path, name, errors);
        }
    }
}

fn validate_handler(
    handler: &Value,
    path: &FieldPath,
    kinds: &[&str],
    grace: Option<i64>,
    errors: &mut Vec<FieldError>,
) {
    let given: Vec<(&str, &Value)> =
        kinds.iter().filter_map(|kind| Some((*kind, handler.get(*kind)?))).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for (kind, _) in given.iter().skip(1) {
        errors.push(FieldError::forbidden(
            &path.child(kind),
            "may not specify more than 1 handler type",
        ));
    }
    let Some((kind, action)) = given.first() else { return };
    let path = path.child(kind);
    match *kind {
        "exec" if list(action, "command").is_empty() => {
            errors.push(FieldError::required(&path.child("command"), ""))
        }
        "httpGet" => {
            if text(action, "path").is_empty() {
                errors.push(FieldError::required(&path.child("path"), ""));
            }
            validate_port(&action["port"], &path.child("port"), errors);
            supported(action, "scheme", &["HTTP", "HTTPS"], &path, errors);
        }
        "tcpSocket" => validate_port(&action["port"], &path.child("port"), errors),
        "grpc" => within(action, "port", 1, 65535, &path, errors),
        "sleep" => {
            let seconds = action["seconds"].as_i64().unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                errors.push(FieldError::invalid(
                    &path,
                    json!(seconds),
                    &format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    ),
                ));
            }
        }
        _ => {}
    }
}

/// Errors of the seconds and thresholds of a probe.
fn validate_probe_numbers(
    probe: &Value,
    path: &FieldPath,
    name: &str,
    errors: &mut Vec<FieldError>,
) {
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        not_negative(probe, field, path, errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if name == "readinessProbe" {
        errors.extend(grace.map(|seconds| {
            FieldError::invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must not be set for readinessProbes",
            )
        }));
        return;
    }
    if let Some(seconds) = grace.filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(
            &path.child("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        ));
    }
    if let Some(threshold) =
        probe.get("successThreshold").and_then(Value::as_i64).filter(|threshold| *threshold != 1)
    {
        errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}
