//! What a Service's address leads to. Pure.

use crate::host::ClusterAddresses;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// One port of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// ClusterIP.
    pub address: Ipv4Addr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The Service's port.
    pub port: u16,
    /// The same port on every address of the node, if any.
    pub node_port: Option<u16>,
    /// Who answers: sorted.
    pub endpoints: Vec<(Ipv4Addr, u16)>,
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The ports of a Service and who answers at them. Headless Services and ExternalNames have none.
pub fn targets(service: &Service, slices: &[EndpointSlice]) -> Vec<Target> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok())
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for port in spec.ports.iter().flatten() {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => "tcp",
            Some("UDP") => "udp",
            Some(_) => continue,
        };
        let name = port.name.as_deref().unwrap_or_default();
        let mut endpoints: BTreeSet<(Ipv4Addr, u16)> = BTreeSet::new();
        for slice in slices {
            let number = slice
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref().unwrap_or_default() == name)
                .and_then(|p| p.port)
                .and_then(|n| u16::try_from(n).ok());
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)) {
                endpoints.extend(
                    endpoint
                        .addresses
                        .iter()
                        .filter_map(|ip| ip.parse().ok())
                        .map(|ip: Ipv4Addr| (ip, number)),
                );
            }
        }
        let Ok(number) = u16::try_from(port.port) else { continue };
        let node_port =
            port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        found.push(Target {
            address,
            protocol,
            port: number,
            node_port,
            endpoints: endpoints.into_iter().collect(),
        });
    }
    found
}

/// The whole table, as `nft -f` reads it: replaces what was there.
pub fn ruleset<'a>(
    cluster: &ClusterAddresses,
    targets: impl Iterator<Item = &'a Target>,
) -> String {
    let (mut balanced, mut refused, mut hairpins) = (String::new(), String::new(), BTreeSet::new());
    for target in targets {
        let Target { address, protocol, port, node_port, endpoints } = target;
        // The API server and the cluster's DNS listen at their addresses themselves.
        if endpoints.iter().any(|(ip, number)| ip == address && number == port) {
            continue;
        }
        if endpoints.is_empty() {
            let _infallible =
                writeln!(refused, "    ip daddr {address} {protocol} dport {port} reject");
            continue;
        }
        let list: Vec<String> = endpoints
            .iter()
            .enumerate()
            .map(|(index, (ip, number))| format!("{index} : {ip} . {number}"))
            .collect();
        let choice = format!(
            "dnat ip to numgen random mod {} map {{ {} }}",
            endpoints.len(),
            list.join(", ")
        );
        let _infallible =
            writeln!(balanced, "    ip daddr {address} {protocol} dport {port} {choice}");
        if let Some(node_port) = node_port {
            let _infallible = writeln!(
                balanced,
                "    fib daddr type local {protocol} dport {node_port} {choice}"
            );
        }
        hairpins.extend(endpoints.iter().map(|(ip, _)| *ip));
    }
    let hairpin = if hairpins.is_empty() {
        String::new()
    } else {
        let pairs: Vec<String> = hairpins.iter().map(|ip| format!("{ip} . {ip}")).collect();
        format!("    ct status dnat ip saddr . ip daddr {{ {} }} masquerade\n", pairs.join(", "))
    };
    let (pods, services) = (cluster.pods, cluster.services);
    format!(
        "table ip abide\ndelete table ip abide\ntable ip abide {{\n  chain services {{\n{balanced}  }}\n\
         \x20 chain prerouting {{\n    type nat hook prerouting priority -100;\n    jump services\n  }}\n\
         \x20 chain output {{\n    type nat hook output priority -100;\n    jump services\n  }}\n\
         \x20 chain postrouting {{\n    type nat hook postrouting priority 100;\n{hairpin}\
         \x20   ip saddr {}/{} ip daddr != {}/{} oifname != \"lo\" masquerade\n  }}\n\
         \x20 chain refused {{\n{refused}  }}\n\
         \x20 chain filter_forward {{\n    type filter hook forward priority 0;\n    jump refused\n  }}\n\
         \x20 chain filter_output {{\n    type filter hook output priority 0;\n    jump refused\n  }}\n\
         \x20 chain filter_input {{\n    type filter hook input priority 0;\n    ip daddr {}/{} jump refused\n  }}\n}}\n",
        pods.0, pods.1, pods.0, pods.1, services.0, services.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    fn slice() -> EndpointSlice {
        serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "ports": [{"name": "web", "port": 8080}], "endpoints": [
            {"addresses": ["10.42.0.3"], "conditions": {"ready": true}}, {"addresses": ["10.42.0.2"]}, {"addresses": ["10.42.0.4"], "conditions": {"ready": false}}]})).unwrap()
    }

    #[test]
    fn an_address_leads_to_the_ready_endpoints() {
        let found = targets(
            &service(json!({"clusterIP": "10.43.0.20", "ports": [{"name": "web", "port": 80}]})),
            &[slice()],
        );
        assert_eq!(
            found,
            [Target {
                address: Ipv4Addr::new(10, 43, 0, 20),
                protocol: "tcp",
                port: 80,
                node_port: None,
                endpoints: vec![
                    (Ipv4Addr::new(10, 42, 0, 2), 8080),
                    (Ipv4Addr::new(10, 42, 0, 3), 8080)
                ]
            }]
        );
    }

    #[test]
    fn a_headless_service_has_no_address() {
        assert_eq!(
            targets(&service(json!({"clusterIP": "None", "ports": [{"port": 80}]})), &[slice()]),
            []
        );
    }

    #[test]
    fn a_service_without_endpoints_is_refused() {
        let found =
            targets(&service(json!({"clusterIP": "10.43.0.20", "ports": [{"port": 80}]})), &[]);
        let cluster = ClusterAddresses {
            pods: (Ipv4Addr::new(10, 42, 0, 0), 16),
            services: (Ipv4Addr::new(10, 43, 0, 0), 16),
        };
        assert!(
            ruleset(&cluster, found.iter()).contains("ip daddr 10.43.0.20 tcp dport 80 reject")
        );
    }
}
