//! What is wrong with a pod or a template. As upstream: `pkg/apis/core/validation/validation.go`.

mod container;
mod scheduling;
mod update;
mod volumes;

pub(in super::super) use scheduling::validate_node_selector;
pub(super) use update::update;
pub(in super::super) use volumes::validate_host_path;

use super::super::parts::{list, text};
use crate::field_path::{FieldError, FieldPath};
use crate::metadata;
use crate::object::Object;
use serde_json::Value;

/// The largest number of an identity or of seconds.
const INT32_MAX: i64 = i32::MAX as i64;

/// Of a new pod.
pub(super) fn create(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let spec = object.at("/spec").unwrap_or(&Value::Null);
    let mut errors = validate_spec(spec, &path, &[]);
    // Templates may have such images, for who fills them in later.
    for field in ["containers", "initContainers"] {
        for (index, container) in list(spec, field).iter().enumerate() {
            let image = text(container, "image");
            if image != image.trim() {
                errors.push(FieldError::invalid(
                    &path.child(field).index(index).child("image"),
                    image,
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        ));
    }
    errors
}

/// Of a template. `claims` are volumes that its pods will have besides those in the template.
pub(in super::super) fn validate_template(
    template: &Value,
    path: &FieldPath,
    claims: &[&str],
) -> Vec<FieldError> {
    validate_spec(template.get("spec").unwrap_or(&Value::Null), &path.child("spec"), claims)
}

fn validate_spec(spec: &Value, path: &FieldPath, claims: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut volumes = volumes::validate(spec, path, &mut errors);
    volumes.extend(claims);
    container::validate_all(spec, path, &volumes, &mut errors);
    supported(spec, "restartPolicy", &["Always", "Never", "OnFailure"], path, &mut errors);
    supported(
        spec,
        "dnsPolicy",
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        path,
        &mut errors,
    );
    validate_dns(spec, path, &mut errors);
    validate_names(spec, path, &mut errors);
    validate_identity(
        spec.get("securityContext").unwrap_or(&Value::Null),
        &path.child("securityContext"),
        &mut errors,
    );
    not_negative(spec, "terminationGracePeriodSeconds", path, &mut errors);
    within(spec, "activeDeadlineSeconds", 1, INT32_MAX, path, &mut errors);
    scheduling::validate(spec, path, &mut errors);
    errors
}

fn validate_names(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 5] = [
        ("hostname", metadata::dns_label),
        ("subdomain", metadata::dns_label),
        ("serviceAccountName", metadata::dns_subdomain),
        ("nodeName", metadata::dns_subdomain),
        ("priorityClassName", metadata::dns_subdomain),
    ];
    for (field, rule) in rules {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.extend(
                rule(name).iter().map(|error| FieldError::invalid(&path.child(field), name, error)),
            );
        }
    }
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        let ip = text(alias, "ip");
        if ip.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                &path.child("ip"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
        for name in list(alias, "hostnames").iter().filter_map(Value::as_str) {
            errors.extend(
                metadata::dns_subdomain(name)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("hostnames"), name, error)),
            );
        }
    }
}

fn validate_dns(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let config = spec.get("dnsConfig").unwrap_or(&Value::Null);
    let path = path.child("dnsConfig");
    let servers = list(config, "nameservers");
    if servers.is_empty() && text(spec, "dnsPolicy") == "None" {
        errors.push(FieldError::required(
            &path.child("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ));
    }
    if servers.len() > 3 {
        errors.push(FieldError::invalid(
            &path.child("nameservers"),
            servers,
            "must not have more than 3 nameservers",
        ));
    }
    for (index, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        if server.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                &path.child("nameservers").index(index),
                server,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
    let searches = list(config, "searches");
    if searches.len() > 32 {
        errors.push(FieldError::invalid(
            &path.child("searches"),
            searches,
            "must not have more than 32 search paths",
        ));
    }
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(
                &path.child("options").index(index),
                "must not be empty",
            ));
        }
    }
}

/// Users and groups of a pod or a container.
fn validate_identity(context: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        within(context, field, 0, INT32_MAX, path, errors);
    }
    for (index, group) in
        list(context, "supplementalGroups").iter().filter_map(Value::as_i64).enumerate()
    {
        if !(0..=INT32_MAX).contains(&group) {
            errors.push(FieldError::invalid(
                &path.child("supplementalGroups").index(index),
                group,
                &range_words(0, INT32_MAX),
            ));
        }
    }
}

/// A value that must be one of a few.
fn supported(
    value: &Value,
    field: &str,
    choices: &[&str],
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let given = text(value, field);
    if !choices.contains(&given) {
        errors.push(if given.is_empty() {
            FieldError::required(&path.child(field), "")
        } else {
            FieldError::not_supported(&path.child(field), given, choices)
        });
    }
}

fn not_negative(value: &Value, field: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.get(field).and_then(Value::as_i64).filter(|number| *number < 0) {
        errors.push(FieldError::invalid(
            &path.child(field),
            number,
            "must be greater than or equal to 0",
        ));
    }
}

fn within(
    value: &Value,
    field: &str,
    low: i64,
    high: i64,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if let Some(number) =
        value.get(field).and_then(Value::as_i64).filter(|number| !(low..=high).contains(number))
    {
        errors.push(FieldError::invalid(&path.child(field), number, &range_words(low, high)));
    }
}

fn range_words(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A port by number, or by the name of a container's port.
fn validate_port(port: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (port.as_i64(), port.as_str()) {
        (Some(number), _) if !(1..=65535).contains(&number) => {
            errors.push(FieldError::invalid(path, number, &range_words(1, 65535)))
        }
        (_, Some(name)) => errors
            .extend(port_name(name).iter().map(|error| FieldError::invalid(path, name, error))),
        _ => {}
    }
}

/// What is wrong with the name of a port. As upstream: `IsValidPortName`.
pub(in super::super) fn port_name(name: &str) -> Vec<&'static str> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push("must be no more than 15 characters long");
    }
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(spec: Value) -> String {
        let mut object = Object::new(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        (super::super::KIND.default)(&mut object);
        create(&object).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// A pod of one container with these fields.
    fn container(fields: Value) -> Value {
        let mut container = json!({"name": "a", "image": "i"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        json!({"containers": [container]})
    }

    #[test]
    fn bad_pods_are_refused_in_upstreams_words() {
        for (spec, words) in [
            (container(json!({})), ""),
            (json!({}), "spec.containers: Required value"),
            (json!({"containers": [{"name": "a"}]}), "spec.containers[0].image: Required value"),
            (
                json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
                "spec.containers[1].name: Duplicate value: \"a\"",
            ),
            (
                json!({"containers": [{"name": "a", "image": " i"}]}),
                "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
            ),
            (
                container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                container(json!({"resources": {"limits": {"ram": "1"}, "requests": {"ram": "1"}}})),
                "spec.containers[0].resources.limits[ram]: Invalid value: \"ram\": must be a standard resource type or fully qualified; \
                 spec.containers[0].resources.limits[ram]: Invalid value: \"ram\": must be a standard resource for containers; \
                 spec.containers[0].resources.requests[ram]: Invalid value: \"ram\": must be a standard resource type or fully qualified; \
                 spec.containers[0].resources.requests[ram]: Invalid value: \"ram\": must be a standard resource for containers",
            ),
            (
                container(json!({"env": [{"name": "A=B"}]})),
                "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
            (
                container(json!({"ports": [{"containerPort": 70000}]})),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                container(json!({"livenessProbe": {}})),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                container(
                    json!({"livenessProbe": {"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}, "successThreshold": 2}}),
                ),
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type; \
                 spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (
                container(json!({"readinessProbe": {"httpGet": {"port": 0}}})),
                "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                container(json!({"securityContext": {"runAsUser": -1}})),
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
        ] {
            assert_eq!(refused(spec.clone()), words, "{spec}");
        }
    }

    #[test]
    fn volumes_have_a_name_and_one_source() {
        let with = |volume: Value| {
            let mut spec = container(json!({}));
            spec["volumes"] = json!([volume]);
            refused(spec)
        };
        assert_eq!(with(json!({"name": "v"})), "");
        assert_eq!(
            with(json!({"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}})),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"
        );
        assert_eq!(
            with(json!({"name": "v", "persistentVolumeClaim": {"claimName": ""}})),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value"
        );
        assert_eq!(
            with(
                json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "../x"}]}})
            ),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"
        );
        assert_eq!(
            with(json!({"name": "v", "configMap": {"name": "m", "defaultMode": 512}})),
            "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"
        );
    }

    #[test]
    fn init_containers_have_probes_only_when_they_stay() {
        let mut spec = container(json!({}));
        spec["initContainers"] =
            json!([{"name": "i", "image": "i", "readinessProbe": {"exec": {"command": ["true"]}}}]);
        assert_eq!(
            refused(spec.clone()),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
        );
        spec["initContainers"][0]["restartPolicy"] = json!("Always");
        assert_eq!(refused(spec), "");
    }

    #[test]
    fn node_affinity_is_made_of_terms() {
        let mut spec = container(json!({}));
        spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}});
        let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        assert_eq!(
            refused(spec.clone()),
            format!("{path}: Required value: must have at least one node selector term")
        );
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
            json!([{"matchExpressions": [{"key": "a", "operator": "Is"}]}]);
        assert_eq!(
            refused(spec),
            format!(
                "{path}[0].matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"
            )
        );
    }
}
