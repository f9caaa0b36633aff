//! What every cluster has from its first moment.

use crate::ApiServer;
use api::ApiError;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes the namespaces that are missing.
pub(crate) async fn namespaces(server: &ApiServer) -> Result<(), ApiError> {
    for name in NAMESPACES {
        create(
            server,
            ("", "v1", "namespaces"),
            "",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await?;
    }
    Ok(())
}

/// Makes the Service `kubernetes` and its endpoints.
pub(crate) async fn kubernetes_service(
    server: &ApiServer,
    address: Ipv4Addr,
    port: u16,
) -> Result<(), ApiError> {
    let ip = server.inner.addresses.first().to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "https", "port": 443, "targetPort": port}]}});
    create(server, ("", "v1", "services"), "default", service).await?;
    let address = address.to_string();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    create(server, ("discovery.k8s.io", "v1", "endpointslices"), "default", slice).await?;
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    create(server, ("", "v1", "endpoints"), "default", endpoints).await
}

async fn create(
    server: &ApiServer,
    (group, version, plural): (&str, &str, &str),
    namespace: &str,
    object: Value,
) -> Result<(), ApiError> {
    let kind = server.kind(group, version, plural).ok_or_else(ApiError::unknown_path)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if server.inner.registry.entry(kind, namespace, &name).await.is_ok() {
        return Ok(());
    }
    match crate::verbs::create::create_value(server, kind, namespace, object).await {
        Err(error) if error.reason != "AlreadyExists" => Err(error),
        _ => Ok(()),
    }
}
