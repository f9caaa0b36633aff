//! What the node itself needs: loopback, forwarding, the cluster's own addresses.

use crate::NetworkError;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder, new_connection};
use std::net::{IpAddr, Ipv4Addr};

/// Addresses of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct ClusterAddresses {
    /// Range of pods.
    pub pods: (Ipv4Addr, u8),
    /// Range of Services.
    pub services: (Ipv4Addr, u8),
}

pub(crate) fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> NetworkError {
    NetworkError::Other(format!("{what}: {error}"))
}

/// A connection to the kernel's network configuration, in the current network namespace.
pub(crate) fn connect() -> Result<Handle, NetworkError> {
    let (connection, handle, _) =
        new_connection().map_err(|error| failed("open a netlink connection", error))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The index of an interface.
pub(crate) async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, NetworkError> {
    use futures::TryStreamExt;
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => {
            Ok(None)
        }
        Err(error) => Err(failed(format!("look for interface {name}"), error)),
    }
}

/// Whether an answer only says that it was so already.
pub(crate) fn unless_exists(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::EEXIST => {
            Ok(())
        }
        other => other,
    }
}

/// Turns loopback on, which a new network namespace has off.
pub async fn loopback_up() -> Result<(), NetworkError> {
    loopback_up_with(&connect()?).await.map(drop)
}

async fn loopback_up_with(handle: &Handle) -> Result<u32, NetworkError> {
    let loopback = index(handle, "lo")
        .await?
        .ok_or_else(|| NetworkError::Other("there is no interface lo".to_owned()))?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(loopback).up().build())
        .execute()
        .await
        .map_err(|error| failed("set lo up", error))?;
    Ok(loopback)
}

/// Prepares the node: loopback up with the addresses of the cluster's own Services (`own`), a route for Service
/// addresses so that connections from the node itself are balanced, too, and forwarding. Idempotent.
pub async fn set_up(cluster: ClusterAddresses, own: &[Ipv4Addr]) -> Result<(), NetworkError> {
    let handle = connect()?;
    let loopback = loopback_up_with(&handle).await?;
    for address in own {
        let added = handle.address().add(loopback, IpAddr::V4(*address), 32).execute().await;
        unless_exists(added)
            .map_err(|error| failed(format!("add address {address} to lo"), error))?;
    }
    let (base, prefix) = cluster.services;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(base, prefix)
        .output_interface(loopback)
        .build();
    unless_exists(handle.route().add(route).execute().await)
        .map_err(|error| failed(format!("add a route for {base}/{prefix}"), error))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        .map_err(|error| failed("turn on net.ipv4.ip_forward", error))
}
