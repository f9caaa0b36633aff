//! Service. As upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

use super::parts::{
    AGE, ALL, NAME, child, column, default_at, drop_status, each, keep_status, list, or_none, text,
    update_status_only,
};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{
    FieldSupport, Kind, Names, Prepare, Scope, SelectableField, Subresource, Support, Validate,
};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short: &["svc"],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Service>,
    default,
    prepare: Prepare { create: drop_status, update, update_status: update_status_only },
    validate: Validate {
        name: crate::metadata::dns_1035_label,
        create: validate,
        update: validate_update,
        update_status: |_, _| Vec::new(),
    },
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
        SelectableField {
            name: "spec.clusterIP",
            value: |object| object.str_at("/spec/clusterIP").to_owned(),
        },
        SelectableField {
            name: "spec.type",
            value: |object| object.str_at("/spec/type").to_owned(),
        },
    ],
    fields: &[
        FieldSupport {
            path: "spec.sessionAffinityConfig",
            support: Support::StoredOnly,
            why: "connections are balanced one by one",
        },
        FieldSupport {
            path: "spec.allocateLoadBalancerNodePorts",
            support: Support::StoredOnly,
            why: "there is no load balancer, its node ports alone are served",
        },
        FieldSupport {
            path: "spec.healthCheckNodePort",
            support: Support::StoredOnly,
            why: "there is no load balancer",
        },
        FieldSupport {
            path: "spec.externalTrafficPolicy",
            support: Support::NoEffect,
            why: "every pod of one node is local",
        },
        FieldSupport {
            path: "spec.internalTrafficPolicy",
            support: Support::NoEffect,
            why: "every pod of one node is local",
        },
        FieldSupport {
            path: "spec.ports.appProtocol",
            support: Support::NoEffect,
            why: "connections are not looked into",
        },
        FieldSupport {
            path: "spec.loadBalancerIP",
            support: Support::StoredOnly,
            why: "there is no load balancer",
        },
        FieldSupport {
            path: "spec.loadBalancerClass",
            support: Support::StoredOnly,
            why: "there is no load balancer",
        },
        FieldSupport {
            path: "spec.loadBalancerSourceRanges",
            support: Support::StoredOnly,
            why: "there is no load balancer",
        },
        FieldSupport {
            path: "spec.externalIPs",
            support: Support::StoredOnly,
            why: "addresses outside the cluster are not taken over",
        },
        FieldSupport {
            path: "spec.trafficDistribution",
            support: Support::NoEffect,
            why: "one node has one zone",
        },
    ],
    definition: "io.k8s.api.core.v1.Service",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Service>()),
};

fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    default_at(spec, "type", json!("ClusterIP"));
    default_at(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        default_at(
            child(child(spec, "sessionAffinityConfig"), "clientIP"),
            "timeoutSeconds",
            json!(10_800),
        );
    }
    for port in each(spec, "ports") {
        default_at(port, "protocol", json!("TCP"));
        if [json!(0), json!("")].contains(&port["targetPort"]) {
            port["targetPort"] = Value::Null;
        }
        let number = port["port"].clone();
        default_at(port, "targetPort", number);
    }
    let kind = text(spec, "type").to_owned();
    if kind != "ExternalName" {
        default_at(spec, "internalTrafficPolicy", json!("Cluster"));
        default_at(spec, "ipFamilies", json!(["IPv4"]));
        default_at(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    if external_kind(&kind) || !list(spec, "externalIPs").is_empty() {
        default_at(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        default_at(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    default_at(child(object.value_mut(), "status"), "loadBalancer", json!({}));
}

/// Whether Services of this type are reached from outside.
fn external_kind(kind: &str) -> bool {
    ["NodePort", "LoadBalancer"].contains(&kind)
}

fn update(new: &mut Object, old: &Object) {
    keep_status(new, old);
    keep_allocated(new, old);
    drop_what_another_type_had(new, old);
}

/// What the server handed out stays when the client does not mention it.
fn keep_allocated(new: &mut Object, old: &Object) {
    if new.str_at("/spec/type") != "ExternalName" && old.str_at("/spec/type") != "ExternalName" {
        for pointer in ["/spec/clusterIP", "/spec/clusterIPs"] {
            if let (None, Some(value)) = (new.at(pointer), old.at(pointer)) {
                new.set(pointer, value.clone());
            }
        }
    }
    if external_kind(new.str_at("/spec/type")) && external_kind(old.str_at("/spec/type")) {
        for port in each(child(new.value_mut(), "spec"), "ports") {
            let same = old
                .list_at("/spec/ports")
                .iter()
                .find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
            if let Some(number) = same.and_then(|old| old.get("nodePort")) {
                default_at(port, "nodePort", number.clone());
            }
        }
    }
}

/// A client that changes the type and leaves the rest as it was means: without it.
/// As upstream: `dropTypeDependentFields` in `pkg/registry/core/service/strategy.go`.
fn drop_what_another_type_had(new: &mut Object, old: &Object) {
    let (kind, before) = (new.str_at("/spec/type").to_owned(), old.str_at("/spec/type"));
    let mut dropped: Vec<&str> = Vec::new();
    if kind == "ExternalName" && before != "ExternalName" {
        dropped.extend([
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ]);
    }
    if external_kind(before) && !external_kind(&kind) {
        dropped.extend(["healthCheckNodePort", "externalTrafficPolicy"]);
        for port in each(child(new.value_mut(), "spec"), "ports") {
            let same = old.list_at("/spec/ports").iter().any(|old| {
                old.get("nodePort").is_some() && old.get("nodePort") == port.get("nodePort")
            });
            if let Some(fields) = port.as_object_mut().filter(|_| same) {
                fields.remove("nodePort");
            }
        }
    }
    if before == "LoadBalancer" && kind != "LoadBalancer" {
        dropped.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    for field in dropped {
        let pointer = format!("/spec/{field}");
        if new.at(&pointer) == old.at(&pointer) {
            new.remove(&pointer);
        }
    }
}

/// As upstream: `getServiceExternalIP`.
fn external(object: &Object) -> Value {
    let mut found: Vec<&str> = Vec::new();
    match object.str_at("/spec/type") {
        "ExternalName" => return or_none(object.str_at("/spec/externalName")),
        "LoadBalancer" => {
            let ingress = object.list_at("/status/loadBalancer/ingress").iter();
            found.extend(ingress.map(|ingress| {
                if text(ingress, "ip").is_empty() {
                    text(ingress, "hostname")
                } else {
                    text(ingress, "ip")
                }
            }));
            found.extend(object.list_at("/spec/externalIPs").iter().filter_map(Value::as_str));
            if found.is_empty() {
                return json!("<pending>");
            }
        }
        _ => found.extend(object.list_at("/spec/externalIPs").iter().filter_map(Value::as_str)),
    }
    or_none(&found.join(","))
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
    let shown: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
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
        if !["", "None"].contains(&object.str_at("/spec/clusterIP")) {
            errors.push(FieldError::forbidden(
                &spec.child("clusterIPs").index(0),
                "may not be set for ExternalName services",
            ));
        }
        let name = object.str_at("/spec/externalName");
        if name.is_empty() {
            errors.push(FieldError::required(&spec.child("externalName"), ""));
        }
        errors.extend(
            crate::metadata::dns_subdomain(name.trim_end_matches('.'))
                .iter()
                .map(|error| FieldError::invalid(&spec.child("externalName"), name, error)),
        );
    } else if object.list_at("/spec/ports").is_empty() && !headless {
        errors.push(FieldError::required(&spec.child("ports"), ""));
    }
    if kind == "ClusterIP"
        && object.at("/spec/externalTrafficPolicy").is_some()
        && object.list_at("/spec/externalIPs").is_empty()
    {
        errors.push(FieldError::invalid(
            &spec.child("externalTrafficPolicy"),
            object.str_at("/spec/externalTrafficPolicy"),
            "may only be set for externally-accessible services",
        ));
    }
    if headless && kind != "ClusterIP" {
        errors.push(FieldError::invalid(
            &spec.child("clusterIPs").index(0),
            "None",
            &format!("may not be set to 'None' for {kind} services"),
        ));
    }
    errors.extend(crate::metadata::validate_labels(
        object.at("/spec/selector"),
        &spec.child("selector"),
    ));
    errors.extend(validate_ports(
        object.value().get("spec").unwrap_or(&Value::Null),
        &spec.child("ports"),
    ));
    let affinities = ["ClientIP", "None"];
    if !affinities.contains(&object.str_at("/spec/sessionAffinity")) {
        errors.push(FieldError::not_supported(
            &spec.child("sessionAffinity"),
            object.str_at("/spec/sessionAffinity"),
            &affinities,
        ));
    }
    let config = spec.child("sessionAffinityConfig");
    let seconds = object.int_at("/spec/sessionAffinityConfig/clientIP/timeoutSeconds");
    if object.str_at("/spec/sessionAffinity") == "None"
        && object.at("/spec/sessionAffinityConfig").is_some()
    {
        errors
            .push(FieldError::forbidden(&config, "must not be set when session affinity is None"));
    } else if let Some(seconds) = seconds.filter(|seconds| !(1..=86_400).contains(seconds)) {
        errors.push(FieldError::invalid(
            &config.child("clientIP").child("timeoutSeconds"),
            seconds,
            "must be greater than 0 and less than 86400",
        ));
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
            errors.extend(
                crate::metadata::dns_label(name)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("name"), name, error)),
            );
            if names.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            names.push(name);
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            errors.push(FieldError::invalid(
                &path.child("port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(port, "protocol")) {
            errors.push(FieldError::not_supported(
                &path.child("protocol"),
                text(port, "protocol"),
                &protocols,
            ));
        }
        if port["nodePort"].as_i64().unwrap_or(0) != 0 && text(spec, "type") == "ClusterIP" {
            errors.push(FieldError::forbidden(
                &path.child("nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
        if let Some(name) = port["targetPort"].as_str() {
            errors.extend(
                super::pod::port_name(name)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("targetPort"), name, error)),
            );
        }
        if let Some(target) =
            port["targetPort"].as_i64().filter(|target| !(1..=65535).contains(target))
        {
            errors.push(FieldError::invalid(
                &path.child("targetPort"),
                target,
                "must be between 1 and 65535, inclusive",
            ));
        }
        if numbers.contains(&(number, text(port, "protocol"))) {
            errors.push(FieldError::duplicate(
                &path,
                json!({"port": number, "protocol": text(port, "protocol")}),
            ));
        }
        numbers.push((number, text(port, "protocol")));
    }
    errors
}

fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    let (before, after) = (old.str_at("/spec/clusterIP"), new.str_at("/spec/clusterIP"));
    if !before.is_empty()
        && before != after
        && new.str_at("/spec/type") != "ExternalName"
        && old.str_at("/spec/type") != "ExternalName"
    {
        errors.push(FieldError::invalid(
            &FieldPath::new("spec").child("clusterIPs").index(0),
            json!([after]),
            "may not change once set",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Object {
        let mut object = Object::new(json!({"metadata": {"name": "nginx"}, "spec": spec})).unwrap();
        default(&mut object);
        object
    }

    fn refused(spec: Value) -> String {
        said(&validate(&service(spec)))
    }

    fn said(errors: &[FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_service_gets_upstreams_defaults() {
        assert_eq!(
            service(json!({"ports": [{"port": 80}]})).value()["spec"],
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]
            })
        );
        let affine = service(json!({"type": "NodePort", "sessionAffinity": "ClientIP"}));
        assert_eq!(
            (
                affine.int_at("/spec/sessionAffinityConfig/clientIP/timeoutSeconds"),
                affine.str_at("/spec/externalTrafficPolicy")
            ),
            (Some(10_800), "Cluster")
        );
    }

    #[test]
    fn bad_services_are_refused_in_upstreams_words() {
        for (spec, words) in [
            (json!({"clusterIP": "None"}), ""),
            (json!({}), "spec.ports: Required value"),
            (
                json!({"type": "Mine", "ports": [{"port": 80}]}),
                "spec.type: Unsupported value: \"Mine\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            (
                json!({"ports": [{"port": 80}, {"port": 81}]}),
                "spec.ports[0].name: Required value; spec.ports[1].name: Required value",
            ),
            (
                json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}),
                "spec.ports[1].name: Duplicate value: \"a\"",
            ),
            (
                json!({"ports": [{"port": 0}]}),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ),
            (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        ] {
            let words_given = refused(spec.clone());
            assert!(
                if words.is_empty() {
                    words_given.is_empty()
                } else {
                    words_given.starts_with(words)
                },
                "{spec}: {words_given}"
            );
        }
    }

    #[test]
    fn an_address_stays_also_when_it_is_not_mentioned() {
        let old = service(
            json!({"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "ports": [{"port": 80}]}),
        );
        let mut new = service(json!({"ports": [{"port": 81}]}));
        update(&mut new, &old);
        assert_eq!(
            (new.str_at("/spec/clusterIP"), said(&validate_update(&new, &old))),
            ("10.96.0.20", String::new())
        );
        new.set("/spec/clusterIP", json!("None"));
        assert_eq!(
            said(&validate_update(&new, &old)),
            "spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"
        );
    }

    #[test]
    fn node_ports_go_with_the_type_that_needed_them() {
        let old = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
        let mut silent = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        update(&mut silent, &old);
        assert_eq!(silent.int_at("/spec/ports/0/nodePort"), Some(30001));
        let mut inside = old.clone();
        inside.set("/spec/type", json!("ClusterIP"));
        update(&mut inside, &old);
        assert_eq!(
            (inside.at("/spec/ports/0/nodePort"), inside.at("/spec/externalTrafficPolicy")),
            (None, None)
        );
        assert_eq!(said(&validate(&inside)), "");
    }

    /// B6.
    #[test]
    fn tables_show_headless_and_waiting_services() {
        let cell = |spec: Value, name: &str| {
            let column = KIND.columns.iter().find(|column| column.name == name).unwrap();
            (column.cell)(&service(spec), jiff::Timestamp::UNIX_EPOCH)
        };
        assert_eq!(cell(json!({"clusterIP": "None"}), "Cluster-IP"), json!("None"));
        assert_eq!(cell(json!({"type": "LoadBalancer"}), "External-IP"), json!("<pending>"));
        assert_eq!(
            cell(
                json!({"ports": [{"port": 80, "nodePort": 30001}, {"port": 53, "protocol": "UDP"}]}),
                "Port(s)"
            ),
            json!("80:30001/TCP,53/UDP")
        );
        assert_eq!(cell(json!({"selector": {"app": "web"}}), "Selector"), json!("app=web"));
    }
}
