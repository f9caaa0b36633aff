//! EndpointSlice.

use super::endpoints::address_error;
use super::parts::{
    AGE, ALL, NAME, PREPARE_PLAIN, column, default_at, each, fine_update, list, text,
};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, Validate};
use crate::object::Object;
use serde_json::{Value, json};

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        short: &[],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::discovery::v1::EndpointSlice>,
    default,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update,
        update_status: fine_update,
    },
    columns: &[
        NAME,
        column("AddressType", 0, |object, _| json!(object.str_at("/addressType"))),
        column("Ports", 0, ports),
        column("Endpoints", 0, endpoints),
        AGE,
    ],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    schema: |generator| {
        drop(generator.subschema_for::<k8s_openapi::api::discovery::v1::EndpointSlice>())
    },
};

/// As upstream: `MaxEndpoints`, `maxAddresses` in `pkg/apis/discovery/validation`.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

fn default(object: &mut Object) {
    for port in each(object.value_mut(), "ports") {
        default_at(port, "name", json!(""));
        default_at(port, "protocol", json!("TCP"));
    }
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = object.str_at("/addressType");
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let path = FieldPath::new("addressType");
    if kind.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path, kind, &kinds));
    }
    validate_endpoints(object, kind, &mut errors);
    validate_ports(object, &mut errors);
    errors
}

fn validate_endpoints(object: &Object, kind: &str, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("endpoints");
    let endpoints = object.list_at("/endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let addresses = list(endpoint, "addresses");
        let at = path.child("addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&at, "must contain at least 1 address"));
        } else if addresses.len() > MAX_ADDRESSES {
            errors.push(FieldError::too_many(&at, addresses.len(), MAX_ADDRESSES));
        }
        for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            let at = at.index(index);
            match kind {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    errors.push(FieldError::invalid(&at, address, "must be an IPv4 address"))
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    errors.push(FieldError::invalid(&at, address, "must be an IPv6 address"))
                }
                "IPv4" | "IPv6" => errors.extend(address_error(address, &at)),
                "FQDN" => errors.extend(
                    crate::metadata::dns_subdomain(address)
                        .iter()
                        .map(|error| FieldError::invalid(&at, address, error)),
                ),
                _ => {}
            }
        }
        let hostname = text(endpoint, "hostname");
        if !hostname.is_empty() {
            errors.extend(
                crate::metadata::dns_label(hostname)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("hostname"), hostname, error)),
            );
        }
    }
}

fn validate_ports(object: &Object, errors: &mut Vec<FieldError>) {
    let mut names = Vec::new();
    for (index, port) in object.list_at("/ports").iter().enumerate() {
        let path = FieldPath::new("ports").index(index);
        let (name, protocol) = (text(port, "name"), text(port, "protocol"));
        if !name.is_empty() {
            errors.extend(
                crate::metadata::dns_label(name)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("name"), name, error)),
            );
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        names.push(name);
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&protocol) {
            errors.push(FieldError::not_supported(&path.child("protocol"), protocol, &protocols));
        }
        if let Some(number) = port["port"].as_i64().filter(|number| !(1..=65535).contains(number)) {
            errors.push(FieldError::invalid(
                &path.child("port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    if new.str_at("/addressType") != old.str_at("/addressType") {
        errors.push(FieldError::invalid(
            &FieldPath::new("addressType"),
            new.str_at("/addressType"),
            "field is immutable",
        ));
    }
    errors
}

fn few(all: Vec<String>) -> Value {
    match all.len() {
        0 => json!("<unset>"),
        1..=3 => json!(all.join(",")),
        more => json!(format!("{} + {} more...", all[..3].join(","), more - 3)),
    }
}

fn ports(object: &Object, _: jiff::Timestamp) -> Value {
    let shown = |port: &Value| match port["port"].as_i64() {
        Some(number) => number.to_string(),
        None if !text(port, "name").is_empty() => text(port, "name").to_owned(),
        None => "*".to_owned(),
    };
    few(object.list_at("/ports").iter().map(shown).collect())
}

fn endpoints(object: &Object, _: jiff::Timestamp) -> Value {
    few(object
        .list_at("/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_addresses_of_its_type() {
        let refused = |kind: &str, endpoint: Value| {
            let mut object = Object::new(
                json!({"addressType": kind, "endpoints": [endpoint], "ports": [{"port": 80}]}),
            )
            .unwrap();
            default(&mut object);
            validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(refused("IPv4", json!({"addresses": ["10.0.0.1"], "hostname": "web-0"})), "");
        assert_eq!(refused("", json!({"addresses": ["10.0.0.1"]})), "addressType: Required value");
        assert_eq!(
            refused("IPv4", json!({"addresses": []})),
            "endpoints[0].addresses: Required value: must contain at least 1 address"
        );
        assert_eq!(
            refused("IPv4", json!({"addresses": ["::1"]})),
            "endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address"
        );
    }

    #[test]
    fn a_port_without_a_number_is_any() {
        let object = Object::new(json!({"ports": [{"port": 80}, {"name": ""}]})).unwrap();
        assert_eq!(ports(&object, jiff::Timestamp::UNIX_EPOCH), json!("80,*"));
    }
}
