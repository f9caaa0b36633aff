//! What a name means. Pure. As upstream: the specification of DNS-based service discovery 1.1.0.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What is known of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Known {
    cluster_ip: Option<Ipv4Addr>,
    external_name: Option<String>,
    /// Host name (of a pod, or made from the address) and address.
    endpoints: Vec<(String, Ipv4Addr)>,
    /// Name, protocol, number (of the Service, or of headless endpoints).
    ports: Vec<(String, String, u16)>,
}

/// Names of all Services.
#[derive(Debug, Clone, Default)]
pub struct Records {
    domain: String,
    services: BTreeMap<(String, String), Known>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An address.
    A,
    /// A service with port and target.
    Srv,
    /// Text.
    Txt,
    /// A name of an address.
    Ptr,
    /// Anything else: the name may exist, but has none of it.
    Other,
}

/// What a question is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses.
    Addresses(Vec<Ipv4Addr>),
    /// Ports and targets, with the targets' addresses.
    Services(Vec<(u16, String, Ipv4Addr)>),
    /// Another name.
    Alias(String),
    /// Names.
    Names(Vec<String>),
    /// Text.
    Text(String),
    /// The name exists, but has nothing of that kind.
    NoData,
    /// There is no such name.
    NoName,
    /// Not a name of the cluster: ask elsewhere.
    Elsewhere,
}

impl Records {
    /// Names under a domain, e.g. `cluster.local`.
    pub fn new(domain: &str) -> Records {
        Records { domain: domain.trim_matches('.').to_ascii_lowercase(), services: BTreeMap::new() }
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Takes what is now true of a Service; `None` when it is gone.
    pub fn update(
        &mut self,
        key: (String, String),
        service: Option<&Service>,
        slices: &[EndpointSlice],
    ) {
        match service.and_then(|service| known(service, slices)) {
            Some(known) => drop(self.services.insert(key, known)),
            None => drop(self.services.remove(&key)),
        }
    }

    /// Answers a question. `name` without its last dot, in any case.
    pub fn answer(&self, name: &str, kind: Kind) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
            return self.reverse(reversed, kind);
        }
        if name == self.domain {
            return Answer::NoData;
        }
        let Some(rest) = name.strip_suffix(&format!(".{}", self.domain)) else {
            return Answer::Elsewhere;
        };
        let labels: Vec<&str> = rest.split('.').collect();
        match labels[..] {
            ["dns-version"] if kind == Kind::Txt => Answer::Text("1.1.0".to_owned()),
            ["dns-version"] | ["svc"] => Answer::NoData,
            [namespace, "svc"] if self.services.keys().any(|(known, _)| known == namespace) => {
                Answer::NoData
            }
            [service, namespace, "svc"] => self
                .find(namespace, service)
                .map_or(Answer::NoName, |known| of_service(known, kind)),
            [port, protocol, service, namespace, "svc"] => {
                self.find(namespace, service).map_or(Answer::NoName, |known| {
                    of_port(
                        known,
                        port,
                        protocol,
                        kind,
                        &format!("{service}.{namespace}.svc.{}", self.domain),
                    )
                })
            }
            [host, service, namespace, "svc"] => self
                .find(namespace, service)
                .map_or(Answer::NoName, |known| of_host(known, host, kind)),
            _ => Answer::NoName,
        }
    }

    fn find(&self, namespace: &str, service: &str) -> Option<&Known> {
        self.services.get(&(namespace.to_owned(), service.to_owned()))
    }

    fn reverse(&self, reversed: &str, kind: Kind) -> Answer {
        let parts: Vec<&str> = reversed.split('.').rev().collect();
        let Ok(address) = parts.join(".").parse::<Ipv4Addr>() else { return Answer::Elsewhere };
        let mut names = Vec::new();
        for ((namespace, service), known) in &self.services {
            let base = format!("{service}.{namespace}.svc.{}", self.domain);
            if known.cluster_ip == Some(address) {
                names.push(base);
            } else {
                names.extend(
                    known
                        .endpoints
                        .iter()
                        .filter(|(host, ip)| *ip == address && *host != dashed(address))
                        .map(|(host, _)| format!("{host}.{base}")),
                );
            }
        }
        match (names.is_empty(), kind) {
            (true, _) => Answer::Elsewhere,
            (false, Kind::Ptr) => Answer::Names(names),
            (false, _) => Answer::NoData,
        }
    }
}

/// The name of an endpoint that has none.
fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn known(service: &Service, slices: &[EndpointSlice]) -> Option<Known> {
    let spec = service.spec.as_ref()?;
    let external_name =
        spec.external_name.clone().filter(|_| spec.type_.as_deref() == Some("ExternalName"));
    let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    let headless = cluster_ip.is_none() && external_name.is_none();
    let mut known = Known { cluster_ip, external_name, ..Known::default() };
    for slice in slices {
        for endpoint in slice.endpoints.iter().flatten() {
            // Unknown counts as ready, as upstream.
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            for address in
                endpoint.addresses.iter().filter_map(|address| address.parse::<Ipv4Addr>().ok())
            {
                let host = endpoint
                    .hostname
                    .clone()
                    .map_or_else(|| dashed(address), |host| host.to_ascii_lowercase());
                known.endpoints.push((host, address));
            }
        }
        if headless {
            for port in slice.ports.iter().flatten() {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
                let number = port.port.and_then(|number| u16::try_from(number).ok());
                let row =
                    number.map(|number| (port.name.clone().unwrap_or_default(), protocol, number));
                if let Some(row) = row.filter(|row| !known.ports.contains(row)) {
                    known.ports.push(row);
                }
            }
        }
    }
    if !headless {
        known.ports = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some((
                    port.name.clone().unwrap_or_default(),
                    port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                    u16::try_from(port.port).ok()?,
                ))
            })
            .collect();
    }
    known.endpoints.sort();
    known.endpoints.dedup();
    Some(known)
}

fn of_service(known: &Known, kind: Kind) -> Answer {
    if let Some(name) = &known.external_name {
        return Answer::Alias(name.clone());
    }
    match (kind, known.cluster_ip) {
        (Kind::A, Some(address)) => Answer::Addresses(vec![address]),
        (_, None) if known.endpoints.is_empty() => Answer::NoName,
        (Kind::A, None) => {
            let mut addresses: Vec<Ipv4Addr> =
                known.endpoints.iter().map(|(_, address)| *address).collect();
            addresses.sort();
            addresses.dedup();
            Answer::Addresses(addresses)
        }
        _ => Answer::NoData,
    }
}

fn of_port(known: &Known, port: &str, protocol: &str, kind: Kind, base: &str) -> Answer {
    let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
        return Answer::NoName;
    };
    // Only named ports have a service record.
    let Some((_, _, number)) = known
        .ports
        .iter()
        .find(|(name, kind, _)| name == port && kind == protocol && !name.is_empty())
    else {
        return Answer::NoName;
    };
    if kind != Kind::Srv {
        return Answer::NoData;
    }
    match known.cluster_ip {
        Some(address) => Answer::Services(vec![(*number, base.to_owned(), address)]),
        None => Answer::Services(
            known
                .endpoints
                .iter()
                .map(|(host, address)| (*number, format!("{host}.{base}"), *address))
                .collect(),
        ),
    }
}

fn of_host(known: &Known, host: &str, kind: Kind) -> Answer {
    if known.cluster_ip.is_some() {
        return Answer::NoName;
    }
    let addresses: Vec<Ipv4Addr> = known
        .endpoints
        .iter()
        .filter(|(name, _)| name == host)
        .map(|(_, address)| *address)
        .collect();
    match (addresses.is_empty(), kind) {
        (true, _) => Answer::NoName,
        (false, Kind::A) => Answer::Addresses(addresses),
        (false, _) => Answer::NoData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Records {
        let mut records = Records::new("cluster.local");
        let headless: Service = serde_json::from_value(json!({"metadata": {}, "spec": {"clusterIP": "None", "ports": [{"name": "web", "port": 80}]}})).unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "ports": [{"name": "web", "port": 80, "protocol": "TCP"}], "endpoints": [
            {"addresses": ["10.42.0.2"], "hostname": "web-0", "conditions": {"ready": true}}, {"addresses": ["10.42.0.3"], "hostname": "web-1", "conditions": {"ready": true}},
            {"addresses": ["10.42.0.4"], "hostname": "web-2", "conditions": {"ready": false}}]})).unwrap();
        records.update(("default".into(), "nginx".into()), Some(&headless), &[slice]);
        let plain: Service = serde_json::from_value(json!({"metadata": {}, "spec": {"clusterIP": "10.43.0.20", "ports": [{"name": "sql", "port": 5432}]}})).unwrap();
        records.update(("default".into(), "db".into()), Some(&plain), &[]);
        let external: Service = serde_json::from_value(json!({"metadata": {}, "spec": {"type": "ExternalName", "externalName": "example.com"}})).unwrap();
        records.update(("default".into(), "out".into()), Some(&external), &[]);
        records
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, 0, last)
    }

    /// B1, T121, T122.
    #[test]
    fn names_mean_what_the_specification_says() {
        let records = records();
        let a = |name: &str| records.answer(name, Kind::A);
        assert_eq!(a("nginx.default.svc.cluster.local."), Answer::Addresses(vec![ip(2), ip(3)]));
        assert_eq!(a("WEB-1.nginx.Default.svc.cluster.local"), Answer::Addresses(vec![ip(3)]));
        assert_eq!(a("web-2.nginx.default.svc.cluster.local"), Answer::NoName);
        assert_eq!(
            a("db.default.svc.cluster.local"),
            Answer::Addresses(vec![Ipv4Addr::new(10, 43, 0, 20)])
        );
        assert_eq!(a("out.default.svc.cluster.local"), Answer::Alias("example.com".into()));
        assert_eq!(a("none.default.svc.cluster.local"), Answer::NoName);
        assert_eq!(a("example.com"), Answer::Elsewhere);
        assert_eq!(records.answer("nginx.default.svc.cluster.local", Kind::Other), Answer::NoData);
        let base = "nginx.default.svc.cluster.local";
        assert_eq!(
            records.answer(&format!("_web._tcp.{base}"), Kind::Srv),
            Answer::Services(vec![
                (80, format!("web-0.{base}"), ip(2)),
                (80, format!("web-1.{base}"), ip(3))
            ])
        );
        assert_eq!(
            records.answer("3.0.42.10.in-addr.arpa", Kind::Ptr),
            Answer::Names(vec![format!("web-1.{base}")])
        );
        assert_eq!(
            records.answer("dns-version.cluster.local", Kind::Txt),
            Answer::Text("1.1.0".into())
        );
    }
}
