//! Service. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

use super::parts::{AGE, ALL, NAME, child, column, default_at, drop_nothing, each, keep_status, list, or_none, text, update_status_only};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{FieldSupport, Kind, Names, Prepare, Scope, SelectableField, Subresource, Support, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names { group: "", version: "v1", kind: "Service", plural: "services", singular: "service", short: &["svc"], categories: &["all"] },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Service>,
    default,
    prepare: Prepare { create: drop_nothing, update, update_status: update_status_only },
    validate: Validate { name: crate::metadata::dns_1035_label, create: validate, update: validate_update, update_status: |_, _| Vec::new() },
    columns: &[
        NAME,
        column("Type", 0, |object, _| json!(object.str_at("/spec/type"))),
        column("Cluster-IP", 0, |object, _| or_none(object.str_at("/spec/clusterIP"))),
        column("External-IP", 0, |object, _| external(object)),
        column("Port(s)", 0, |object, _| ports(object)),
        AGE,
        column("Selector", 1, |object, _| selector(object)),
    ],
    selectable_fields: &[
        SelectableField { name: "spec.clusterIP", value: |object| object.str_at("/spec/clusterIP").to_owned() },
        SelectableField { name: "spec.type", value: |object| object.str_at("/spec/type").to_owned() },
    ],
    fields: &[
        FieldSupport { path: "spec.sessionAffinityConfig", support: Support::StoredOnly, why: "connections are balanced one by one" },
        FieldSupport { path: "spec.loadBalancerIP", support: Support::StoredOnly, why: "there is no load balancer" },
        FieldSupport { path: "spec.loadBalancerClass", support: Support::StoredOnly, why: "there is no load balancer" },
        FieldSupport { path: "spec.loadBalancerSourceRanges", support: Support::StoredOnly, why: "there is no load balancer" },
        FieldSupport { path: "spec.externalIPs", support: Support::StoredOnly, why: "addresses outside the cluster are not taken over" },
        FieldSupport { path: "spec.trafficDistribution", support: Support::NoEffect, why: "one node has one zone" },
    ],
    definition: "io.k8s.api.core.v1.Service",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Service>()),
};

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "type", json!("ClusterIP"));
    default_at(spec, "sessionAffinity", json!("None"));
    for port in each(spec, "ports") {
        default_at(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        default_at(port, "targetPort", number);
    }
    if spec["type"] != "ExternalName" {
        default_at(spec, "internalTrafficPolicy", json!("Cluster"));
        default_at(spec, "ipFamilies", json!(["IPv4"]));
        default_at(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    default_at(child(object.value_mut(), "status"), "loadBalancer", json!({}));
}

fn update(new: &mut Object, old: &Object) {
    keep_status(new, old);
    // What the server handed out stays when the client does not mention it.
    let released = new.str_at("/spec/type") == "ExternalName";
    for field in ["clusterIP", "clusterIPs"] {
        let pointer = format!("/spec/{field}");
        if let (None, Some(value), false) = (new.at(&pointer), old.at(&pointer), released) {
            new.set(&pointer, value.clone());
        }
    }
    let before = old.list_at("/spec/ports").to_vec();
    for port in each(child(new.value_mut(), "spec"), "ports") {
        let same = before.iter().find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
        if let Some(number) = same.and_then(|old| old.get("nodePort")) {
            default_at(port, "nodePort", number.clone());
        }
    }
}

fn external(object: &Object) -> Value {
    or_none(object.str_at("/spec/externalName"))
}

fn ports(object: &Object) -> Value {
    let shown: Vec<String> = object
        .list_at("/spec/ports")
        .iter()
        .map(|port| match port.get("nodePort").and_then(Value::as_i64) {
            Some(node) if node > 0 => format!("{}:{node}/{}", port["port"], text(port, "protocol")),
            _ => format!("{}/{}", port["port"], text(port, "protocol")),
        })
        .collect();
    or_none(&shown.join(","))
}

fn selector(object: &Object) -> Value {
    let labels = object.at("/spec/selector").and_then(Value::as_object);
    let shown: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(&shown.join(","))
}

fn validate(object: &Object) -> Vec<FieldError> {
    let spec = FieldPath::new("spec");
    let mut errors = Vec::new();
    let kind = object.str_at("/spec/type");
    let headless = object.str_at("/spec/clusterIP") == "None";
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&spec.child("type"), kind, &kinds));
    }
    if kind == "ExternalName" {
        let name = object.str_at("/spec/externalName");
        if name.is_empty() {
            errors.push(FieldError::required(&spec.child("externalName"), ""));
        }
        errors.extend(crate::metadata::dns_subdomain(name.trim_end_matches('.')).iter().map(|error| FieldError::invalid(&spec.child("externalName"), name, error)));
    } else if object.list_at("/spec/ports").is_empty() && !headless {
        errors.push(FieldError::required(&spec.child("ports"), ""));
    }
    if headless && kind != "ClusterIP" {
        errors.push(FieldError::invalid(&spec.child("clusterIPs").index(0), "None", &format!("may not be set to 'None' for {kind} services")));
    }
    errors.extend(crate::metadata::validate_labels(object.at("/spec/selector"), &spec.child("selector")));
    errors.extend(validate_ports(object.value().get("spec").unwrap_or(&Value::Null), &spec.child("ports")));
    let affinities = ["ClientIP", "None"];
    if !affinities.contains(&object.str_at("/spec/sessionAffinity")) {
        errors.push(FieldError::not_supported(&spec.child("sessionAffinity"), object.str_at("/spec/sessionAffinity"), &affinities));
    }
    errors
}

fn validate_ports(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ports = list(spec, "ports");
    let (mut names, mut numbers) = (Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !name.is_empty() {
            errors.extend(crate::metadata::dns_label(name).iter().map(|error| FieldError::invalid(&path.child("name"), name, error)));
            if names.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            names.push(name);
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            errors.push(FieldError::invalid(&path.child("port"), number, "must be between 1 and 65535, inclusive"));
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(port, "protocol")) {
            errors.push(FieldError::not_supported(&path.child("protocol"), text(port, "protocol"), &protocols));
        }
        if let Some(target) = port["targetPort"].as_i64().filter(|target| !(1..=65535).contains(target)) {
            errors.push(FieldError::invalid(&path.child("targetPort"), target, "must be between 1 and 65535, inclusive"));
        }
        if numbers.contains(&(number, text(port, "protocol"))) {
            errors.push(FieldError::duplicate(&path, port));
        }
        numbers.push((number, text(port, "protocol")));
    }
    errors
}

fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    let (before, after) = (old.str_at("/spec/clusterIP"), new.str_at("/spec/clusterIP"));
    if !before.is_empty() && before != after && new.str_at("/spec/type") != "ExternalName" && old.str_at("/spec/type") != "ExternalName" {
        errors.push(FieldError::invalid(&FieldPath::new("spec").child("clusterIPs").index(0), json!([after]), "may not change once set"));
    }
    errors
}
