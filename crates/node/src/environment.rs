//! What a container finds: environment variables, /etc/hosts, /etc/resolv.conf.

use crate::agent::Shared;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret,
};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::PoisonError;

/// The variables of a container, later ones over earlier ones. An error is a `CreateContainerConfigError`.
pub(crate) async fn variables(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    ip: Ipv4Addr,
) -> Result<Vec<(String, String)>, String> {
    let mut found: BTreeMap<String, String> = service_variables(shared, pod);
    let hostname =
        pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).unwrap_or_else(|| pod.name_any());
    found.insert("HOSTNAME".to_owned(), hostname);
    let mut order: Vec<String> = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let data =
                config_map(shared, pod, &reference.name, reference.optional == Some(true)).await?;
            found.extend(data.into_iter().map(|(key, value)| {
                (format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned())
            }));
        }
        if let Some(reference) = &source.secret_ref {
            let data =
                secret(shared, pod, &reference.name, reference.optional == Some(true)).await?;
            found.extend(data.into_iter().map(|(key, value)| {
                (format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned())
            }));
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match from_source(shared, pod, container, source, ip).await? {
                Some(value) => value,
                None => continue,
            },
            None => expand(variable.value.as_deref().unwrap_or_default(), &found),
        };
        order.push(variable.name.clone());
        found.insert(variable.name.clone(), value);
    }
    Ok(found.into_iter().collect())
}

/// `$(NAME)` becomes the variable's value; `$$` is a dollar; what is unknown stays.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

fn service_variables(shared: &Shared, pod: &Pod) -> BTreeMap<String, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut found = BTreeMap::new();
    for ((home, name), service) in
        shared.services.read().unwrap_or_else(PoisonError::into_inner).iter()
    {
        let is_api = home == "default" && name == "kubernetes";
        if !(is_api || links && *home == namespace) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| *ip != "None" && !ip.is_empty())
        else {
            continue;
        };
        let ports = spec.ports.clone().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        found.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        found.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for (index, port) in ports.iter().enumerate() {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                found.insert(
                    format!("{prefix}_SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")),
                    port.port.to_string(),
                );
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let (lower, url) = (
                protocol.to_lowercase(),
                format!("{}://{ip}:{}", protocol.to_lowercase(), port.port),
            );
            if index == 0 {
                found.insert(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{}_{protocol}", port.port);
            found.insert(base.clone(), url);
            found.insert(format!("{base}_PROTO"), lower);
            found.insert(format!("{base}_PORT"), port.port.to_string());
            found.insert(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    found
}

async fn from_source(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    ip: Ipv4Addr,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_value(shared, pod, field, Some(ip)).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, Some(container), resource).map(Some);
    }
    let (data, name, key, optional, what) = if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        (
            config_map(shared, pod, &reference.name, optional).await?,
            &reference.name,
            &reference.key,
            optional,
            "ConfigMap",
        )
    } else if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        (
            secret(shared, pod, &reference.name, optional).await?,
            &reference.name,
            &reference.key,
            optional,
            "Secret",
        )
    } else {
        return Ok(None);
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(format!(
            "couldn't find key {key} in {what} {}/{name}",
            pod.namespace().unwrap_or_default()
        )),
    }
}

/// A field of the pod, as the downward API gives it.
pub(crate) fn field_value(
    shared: &Shared,
    pod: &Pod,
    field: &ObjectFieldSelector,
    ip: Option<Ipv4Addr>,
) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let map = |map: Option<&BTreeMap<String, String>>| {
        map.into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    if let Some((which, key)) =
        field.field_path.strip_suffix("']").and_then(|path| path.split_once("['"))
    {
        let source =
            if which == "metadata.labels" { &metadata.labels } else { &metadata.annotations };
        return Ok(source.as_ref().and_then(|source| source.get(key)).cloned().unwrap_or_default());
    }
    Ok(match field.field_path.as_str() {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => map(metadata.labels.as_ref()),
        "metadata.annotations" => map(metadata.annotations.as_ref()),
        "spec.nodeName" => shared.config.node_name.clone(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.podIP" | "status.podIPs" => ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => shared.config.node_ip.to_string(),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// An amount of a container's resources, as the downward API gives it.
pub(crate) fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    resource: &ResourceFieldSelector,
) -> Result<String, String> {
    let named = resource.container_name.as_ref().and_then(|name| {
        pod.spec.as_ref()?.containers.iter().find(|container| container.name == *name)
    });
    let resources = named.or(container).and_then(|container| container.resources.as_ref());
    let (which, name) = resource
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", resource.resource))?;
    let amounts = resources.and_then(|resources| {
        if which == "limits" { resources.limits.as_ref() } else { resources.requests.as_ref() }
    });
    let parse = |text: &str| api::quantity::Quantity::parse(text);
    let amount = match amounts.and_then(|amounts| amounts.get(name)) {
        Some(amount) => parse(&amount.0)?,
        None => return Ok("0".to_owned()),
    };
    let divisor = resource.divisor.as_ref().map_or(
        Ok(api::quantity::Quantity::from_units(1)),
        |divisor| {
            if divisor.0 == "0" { parse("1") } else { parse(&divisor.0) }
        },
    )?;
    let (amount, divisor) = (amount.milli_value(), divisor.milli_value().max(1));
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

/// The content of a ConfigMap; an absent one is empty if that is allowed.
pub(crate) async fn config_map(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let api: Api<ConfigMap> =
        Api::namespaced(shared.config.client.clone(), &pod.namespace().unwrap_or_default());
    match api.get_opt(name).await.map_err(|error| error.to_string())? {
        Some(map) => {
            let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            Ok(text
                .chain(map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0)))
                .collect())
        }
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("configmap {name:?} not found")),
    }
}

/// The content of a Secret; an absent one is empty if that is allowed.
pub(crate) async fn secret(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let api: Api<Secret> =
        Api::namespaced(shared.config.client.clone(), &pod.namespace().unwrap_or_default());
    match api.get_opt(name).await.map_err(|error| error.to_string())? {
        Some(secret) => {
            Ok(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())
        }
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("secret {name:?} not found")),
    }
}

/// `/etc/hosts`.
pub(crate) fn hosts(shared: &Shared, pod: &Pod, ip: Ipv4Addr) -> String {
    let spec = pod.spec.as_ref();
    let host = spec.and_then(|spec| spec.hostname.clone()).unwrap_or_else(|| pod.name_any());
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    match spec.and_then(|spec| spec.subdomain.as_deref()).filter(|subdomain| !subdomain.is_empty())
    {
        Some(subdomain) => {
            text += &format!(
                "{ip}\t{host}.{subdomain}.{}.svc.{}\t{host}\n",
                pod.namespace().unwrap_or_default(),
                shared.config.cluster_domain
            )
        }
        None => text += &format!("{ip}\t{host}\n"),
    }
    for alias in spec.into_iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        text +=
            &format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
    }
    text
}

/// `/etc/resolv.conf`.
pub(crate) fn resolv_conf(shared: &Shared, pod: &Pod) -> String {
    let config = &shared.config;
    let spec = pod.spec.as_ref();
    let host = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let words = |key: &str| -> Vec<String> {
        host.lines()
            .filter_map(|line| line.strip_prefix(key))
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let on_host = spec.and_then(|spec| spec.host_network) == Some(true);
    let cluster = policy == "ClusterFirstWithHostNet" || policy == "ClusterFirst" && !on_host;
    let (mut servers, mut search, mut options) = if policy == "None" {
        (Vec::new(), Vec::new(), Vec::new())
    } else if cluster {
        let domain = &config.cluster_domain;
        let mut search = vec![
            format!("{}.svc.{domain}", pod.namespace().unwrap_or_default()),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        search.extend(words("search "));
        (vec![config.cluster_dns.to_string()], search, vec!["ndots:5".to_owned()])
    } else {
        (words("nameserver "), words("search "), words("options "))
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        servers.extend(own.nameservers.iter().flatten().cloned());
        search.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            options.retain(|existing| existing.split(':').next() != Some(&name));
            options.push(
                option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")),
            );
        }
    }
    let mut text = String::new();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    servers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_in_values_are_expanded_and_escaped() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$(A)y $(B) $$(A) $", &known), "x1y $(B) $(A) $");
    }
}
