//! Endpoints.

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
        group: "",
        version: "v1",
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short: &["ep"],
        categories: &[],
    },
    scope: Scope::Namespaced,
    subresources: &[],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::core::v1::Endpoints>,
    default,
    prepare: PREPARE_PLAIN,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create: validate,
        update: |new, _| validate(new),
        update_status: fine_update,
    },
    columns: &[NAME, column("Endpoints", 0, |object, _| addresses(object)), AGE],
    selectable_fields: &[],
    fields: &[],
    definition: "io.k8s.api.core.v1.Endpoints",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::core::v1::Endpoints>()),
};

fn default(object: &mut Object) {
    for subset in each(object.value_mut(), "subsets") {
        for port in each(subset, "ports") {
            default_at(port, "protocol", json!("TCP"));
        }
    }
}

fn validate(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, subset) in object.list_at("/subsets").iter().enumerate() {
        let path = FieldPath::new("subsets").index(index);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            errors.push(FieldError::required(
                &path,
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (index, address) in list(subset, field).iter().enumerate() {
                errors.extend(address_error(
                    text(address, "ip"),
                    &path.child(field).index(index).child("ip"),
                ));
            }
        }
        let ports = list(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            errors.extend(validate_port(port, ports.len() > 1, &path.child("ports").index(index)));
        }
    }
    errors
}

/// An address that is none, or one that can never be another pod's.
pub(super) fn address_error(ip: &str, path: &FieldPath) -> Option<FieldError> {
    use std::net::IpAddr;
    let Ok(address) = ip.parse::<IpAddr>() else {
        return Some(FieldError::invalid(
            path,
            ip,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    };
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let words = if address.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if address.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if address.is_multicast() {
        "may not be in the multicast range (224.0.0.0/4, ff00::/10)"
    } else {
        return None;
    };
    Some(FieldError::invalid(path, ip, words))
}

fn validate_port(port: &Value, needs_name: bool, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (name, protocol) = (text(port, "name"), text(port, "protocol"));
    if needs_name && name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else if !name.is_empty() {
        errors.extend(
            crate::metadata::dns_label(name)
                .iter()
                .map(|error| FieldError::invalid(&path.child("name"), name, error)),
        );
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
    if !protocols.contains(&protocol) {
        errors.push(FieldError::not_supported(&path.child("protocol"), protocol, &protocols));
    }
    errors
}

/// At most three, as upstream: `formatEndpoints`.
fn addresses(object: &Object) -> Value {
    let mut found = Vec::new();
    for subset in object.list_at("/subsets") {
        let ports = list(subset, "ports");
        for address in list(subset, "addresses") {
            if ports.is_empty() {
                found.push(text(address, "ip").to_owned());
            }
            found.extend(
                ports.iter().map(|port| format!("{}:{}", text(address, "ip"), port["port"])),
            );
        }
    }
    match found.len() {
        0 => json!("<none>"),
        1..=3 => json!(found.join(",")),
        more => json!(format!("{} + {} more...", found[..3].join(","), more - 3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_with_ports() {
        let refused = |subset: Value| {
            let mut object = Object::new(json!({"subsets": [subset]})).unwrap();
            default(&mut object);
            validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            refused(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]})),
            ""
        );
        assert_eq!(
            refused(json!({"ports": [{"port": 80}]})),
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"
        );
        assert_eq!(
            refused(json!({"addresses": [{"ip": "127.0.0.1"}]})),
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
        );
    }

    #[test]
    fn more_than_three_endpoints_are_counted() {
        let object = Object::new(json!({"subsets": [{"addresses": [{"ip": "a"}, {"ip": "b"}], "ports": [{"port": 1}, {"port": 2}]}]})).unwrap();
        assert_eq!(addresses(&object), json!("a:1,a:2,b:1 + 1 more..."));
        assert_eq!(addresses(&Object::new(json!({})).unwrap()), json!("<none>"));
    }
}
