//! Who answers for a Service. As upstream: `pkg/controller/util/endpoint`, `k8s.io/endpointslice`.

use api::selector::label::LabelSelector;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as EndpointsPort, EndpointSubset, Endpoints, ObjectReference,
    Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// The label that names a slice's Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Who made a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our name there.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Whether a Service's endpoints follow from a selector.
pub fn selects(service: &Service) -> Option<LabelSelector> {
    let selector =
        service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())?;
    (service.spec.as_ref()?.type_.as_deref() != Some("ExternalName"))
        .then(|| LabelSelector::of_map(selector))
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            containers
                .flat_map(|container| container.ports.iter().flatten())
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
        }
    }
}

fn endpoint(service: &Service, pod: &Pod) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    if ["Failed", "Succeeded"].contains(&status.phase.as_deref().unwrap_or_default()) {
        return None;
    }
    let publish =
        service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (is_true(pod, "Ready"), pod.metadata.deletion_timestamp.is_some());
    let spec = pod.spec.as_ref()?;
    let hostname = spec
        .hostname
        .clone()
        .filter(|_| spec.subdomain.is_some() && spec.subdomain == service.metadata.name);
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || serving && !terminating),
            serving: Some(publish || serving),
            terminating: Some(terminating),
        }),
        hostname,
        node_name: spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The slices that a Service should have: one per set of ports, named after the Service.
pub fn slices(service: &Service, pods: &[&Pod]) -> Vec<EndpointSlice> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let service_ports =
        service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
    let mut groups: BTreeMap<Vec<Option<i32>>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        if let Some(endpoint) = endpoint(service, pod) {
            let ports = service_ports.iter().map(|port| target_port(pod, port)).collect();
            groups.entry(ports).or_default().push(endpoint);
        }
    }
    if groups.is_empty() {
        groups.insert(
            service_ports
                .iter()
                .map(|port| match port.target_port {
                    Some(IntOrString::Int(number)) => Some(number),
                    _ => None,
                })
                .collect(),
            Vec::new(),
        );
    }
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    groups
        .into_iter()
        .enumerate()
        .map(|(index, (numbers, mut endpoints))| {
            endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
            let ports = service_ports.iter().zip(numbers).filter_map(|(port, number)| {
                let protocol = port.protocol.clone().or_else(|| Some("TCP".to_owned()));
                Some(EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(number?),
                    protocol,
                    app_protocol: port.app_protocol.clone(),
                })
            });
            EndpointSlice {
                metadata: ObjectMeta {
                    name: Some(if index == 0 {
                        format!("{name}-abide")
                    } else {
                        format!("{name}-abide-{index}")
                    }),
                    namespace: service.metadata.namespace.clone(),
                    labels: Some(labels.clone()),
                    owner_references: Some(vec![owner(service)]),
                    ..ObjectMeta::default()
                },
                address_type: "IPv4".to_owned(),
                ports: Some(ports.collect()),
                endpoints: Some(endpoints),
            }
        })
        .collect()
}

/// The older form of the same.
pub fn endpoints(service: &Service, slices: &[EndpointSlice]) -> Endpoints {
    let subsets: Vec<EndpointSubset> = slices
        .iter()
        .filter(|slice| slice.endpoints.iter().flatten().next().is_some())
        .map(|slice| {
            let of = |ready: bool| {
                let found: Vec<EndpointAddress> = slice
                    .endpoints
                    .iter()
                    .flatten()
                    .filter(|endpoint| {
                        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)
                            == Some(ready)
                    })
                    .flat_map(|endpoint| {
                        endpoint.addresses.iter().map(|ip| EndpointAddress {
                            ip: ip.clone(),
                            hostname: endpoint.hostname.clone(),
                            node_name: endpoint.node_name.clone(),
                            target_ref: endpoint.target_ref.clone(),
                        })
                    })
                    .collect();
                (!found.is_empty()).then_some(found)
            };
            let ports = slice.ports.iter().flatten().map(|port| EndpointsPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: port.port.unwrap_or(0),
                protocol: port.protocol.clone(),
                app_protocol: None,
            });
            EndpointSubset {
                addresses: of(true),
                not_ready_addresses: of(false),
                ports: Some(ports.collect()),
            }
        })
        .collect();
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: service.metadata.labels.clone(),
            owner_references: Some(vec![owner(service)]),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}
