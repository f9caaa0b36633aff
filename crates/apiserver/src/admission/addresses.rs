//! Addresses and node ports of Services: handed out once, recovered from what is stored.

use crate::registry::{Registry, parse, prefix, store_error};
use api::field_path::{FieldError, FieldPath};
use api::{ApiError, Object};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};
use store::Page;

const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// The first addresses are for who asks for them: 1 is the API server, 10 the cluster's DNS.
const RESERVED: u32 = 16;

#[derive(Debug, Default)]
struct Used {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

/// Which addresses are in use.
#[derive(Debug)]
pub(crate) struct ServiceAddresses {
    base: u32,
    size: u32,
    used: Mutex<Used>,
}

impl ServiceAddresses {
    /// Starts from the Services that there are.
    pub(crate) async fn recover(
        registry: &Registry,
        (base, length): (Ipv4Addr, u8),
    ) -> Result<ServiceAddresses, ApiError> {
        let size = 1u32.checked_shl(u32::from(32u8.saturating_sub(length))).unwrap_or(u32::MAX);
        let addresses = ServiceAddresses { base: u32::from(base), size, used: Mutex::default() };
        let listing = registry
            .store
            .list(&prefix(&api::kinds::service::KIND, ""), Page::default())
            .await
            .map_err(store_error)?;
        for entry in &listing.entries {
            let object = parse(entry)?;
            let mut used = addresses.used();
            used.addresses.extend(address(&object));
            used.ports.extend(ports(&object));
        }
        Ok(addresses)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The address of the Service `kubernetes`.
    pub(crate) fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(1))
    }

    /// Gives a Service the address and the node ports that it needs. `old` is the stored one, on update.
    pub(crate) fn admit(&self, service: &mut Object, old: Option<&Object>) -> Result<(), ApiError> {
        if service.str_at("/spec/type") == "ExternalName" {
            return Ok(());
        }
        let path = FieldPath::new("spec").child("clusterIPs");
        let given = service.str_at("/spec/clusterIP").to_owned();
        let kept =
            old.is_some_and(|old| old.str_at("/spec/clusterIP") == given && !given.is_empty());
        if given.is_empty() {
            let free = self.take_free().ok_or_else(|| {
                ApiError::internal("failed to allocate a serviceIP: range is full")
            })?;
            service.set("/spec/clusterIP", json!(free.to_string()));
        } else if given != "None" && !kept {
            let refuse = |why: &str| {
                ApiError::invalid(
                    "",
                    "Service",
                    service.name(),
                    &[FieldError::invalid(&path, json!([given]), why)],
                )
            };
            let Ok(wanted) = given.parse::<Ipv4Addr>() else {
                return Err(refuse(
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ));
            };
            let offset = u32::from(wanted).wrapping_sub(self.base);
            if offset == 0 || offset >= self.size {
                return Err(refuse(
                    "failed to allocate IP: the provided network does not match the current range",
                ));
            }
            if !self.used().addresses.insert(wanted) {
                return Err(refuse(&format!(
                    "failed to allocate IP {wanted}: provided IP is already allocated"
                )));
            }
        }
        let ip = service.str_at("/spec/clusterIP").to_owned();
        service.set("/spec/clusterIPs", json!([ip]));
        self.admit_node_ports(service, old)
    }

    fn admit_node_ports(&self, service: &mut Object, old: Option<&Object>) -> Result<(), ApiError> {
        if !["NodePort", "LoadBalancer"].contains(&service.str_at("/spec/type")) {
            return Ok(());
        }
        let before: Vec<u16> = old.map(|old| ports(old).collect()).unwrap_or_default();
        for index in 0..service.list_at("/spec/ports").len() {
            let given = service.list_at("/spec/ports")[index]["nodePort"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0);
            let mut used = self.used();
            let port = match given {
                Some(port) if before.contains(&port) => port,
                Some(port) => {
                    let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
                    let refuse = |why: &str| {
                        Err(ApiError::invalid(
                            "",
                            "Service",
                            service.name(),
                            &[FieldError::invalid(&path, port, why)],
                        ))
                    };
                    if !NODE_PORTS.contains(&port) {
                        return refuse(
                            "provided port is not in the valid range. The range of valid ports is 30000-32767",
                        );
                    }
                    if !used.ports.insert(port) {
                        return refuse("provided port is already allocated");
                    }
                    port
                }
                None => {
                    let free =
                        NODE_PORTS.into_iter().find(|port| !used.ports.contains(port)).ok_or_else(
                            || ApiError::internal("failed to allocate a nodePort: range is full"),
                        )?;
                    used.ports.insert(free);
                    free
                }
            };
            drop(used);
            if let Some(entry) = service.value_mut().pointer_mut(&format!("/spec/ports/{index}")) {
                entry["nodePort"] = json!(port);
            }
        }
        Ok(())
    }

    fn take_free(&self) -> Option<Ipv4Addr> {
        let mut used = self.used();
        let free = (RESERVED.min(self.size / 2)..self.size.saturating_sub(1))
            .map(|offset| Ipv4Addr::from(self.base.wrapping_add(offset)))
            .find(|ip| !used.addresses.contains(ip))?;
        used.addresses.insert(free);
        Some(free)
    }

    /// Takes back what a Service had.
    pub(crate) fn release(&self, service: &Object) {
        let mut used = self.used();
        if let Some(address) = address(service) {
            used.addresses.remove(&address);
        }
        for port in ports(service) {
            used.ports.remove(&port);
        }
    }
}

fn address(service: &Object) -> Option<Ipv4Addr> {
    service.str_at("/spec/clusterIP").parse().ok()
}

fn ports(service: &Object) -> impl Iterator<Item = u16> {
    service
        .list_at("/spec/ports")
        .iter()
        .filter_map(|port| u16::try_from(port["nodePort"].as_u64()?).ok())
        .filter(|port| *port > 0)
}
