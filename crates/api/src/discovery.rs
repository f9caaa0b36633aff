//! Discovery: what is served, from the kinds' own descriptions.

use crate::kind::{Kind, Scope, Subresource};
use serde_json::{Value, json};

/// The path segment of a subresource.
pub fn subresource_name(subresource: &Subresource) -> &'static str {
    match subresource {
        Subresource::Status => "status",
        Subresource::Scale { .. } => "scale",
        Subresource::Binding => "binding",
        Subresource::Eviction => "eviction",
        Subresource::Log => "log",
        Subresource::Exec => "exec",
        Subresource::Attach => "attach",
        Subresource::PortForward => "portforward",
        Subresource::Finalize => "finalize",
    }
}

/// Group, version and kind of what a subresource takes and gives, and its verbs.
fn subresource_kind(
    kind: &Kind,
    subresource: &Subresource,
) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
    let (group, version, name) = (kind.names.group, kind.names.version, kind.names.kind);
    match subresource {
        Subresource::Status => (group, version, name, &["get", "patch", "update"]),
        Subresource::Scale { .. } => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        Subresource::Binding => ("", "v1", "Binding", &["create"]),
        Subresource::Eviction => ("policy", "v1", "Eviction", &["create"]),
        Subresource::Log => (group, version, name, &["get"]),
        Subresource::Exec => (group, version, "PodExecOptions", &["create", "get"]),
        Subresource::Attach => (group, version, "PodAttachOptions", &["create", "get"]),
        Subresource::PortForward => (group, version, "PodPortForwardOptions", &["create", "get"]),
        Subresource::Finalize => (group, version, name, &["update"]),
    }
}

/// `/api`.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub fn groups(kinds: &[&Kind]) -> Value {
    let groups: Vec<Value> = group_versions(kinds)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, version)| {
            let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
            json!({"name": group, "versions": [version], "preferredVersion": version})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn group(kinds: &[&Kind], name: &str) -> Option<Value> {
    let mut group =
        groups(kinds)["groups"].as_array()?.iter().find(|group| group["name"] == name)?.clone();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// Every group and version, each once, in the order of the kinds.
pub fn group_versions(kinds: &[&Kind]) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for kind in kinds {
        let pair = (kind.names.group, kind.names.version);
        if !found.contains(&pair) {
            found.push(pair);
        }
    }
    found
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn resources(kinds: &[&Kind], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in
        kinds.iter().filter(|kind| kind.names.group == group && kind.names.version == version)
    {
        let names = &kind.names;
        let namespaced = kind.scope == Scope::Namespaced;
        let mut resource = json!({"name": names.plural, "singularName": names.singular, "namespaced": namespaced, "kind": names.kind, "verbs": kind.verbs});
        if !names.short.is_empty() {
            resource["shortNames"] = json!(names.short);
        }
        if !names.categories.is_empty() {
            resource["categories"] = json!(names.categories);
        }
        resources.push(resource);
        for subresource in kind.subresources {
            let (sub_group, sub_version, sub_kind, verbs) = subresource_kind(kind, subresource);
            let mut entry = json!({"name": format!("{}/{}", names.plural, subresource_name(subresource)), "singularName": "",
                "namespaced": namespaced, "kind": sub_kind, "verbs": verbs});
            if (sub_group, sub_version) != (group, version) {
                entry["group"] = json!(sub_group);
                entry["version"] = json!(sub_version);
            }
            resources.push(entry);
        }
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

/// Aggregated discovery (`apidiscovery.k8s.io/v2`) of the core group, or of all others.
pub fn aggregated(kinds: &[&Kind], core: bool) -> Value {
    let items: Vec<Value> = group_versions(kinds)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let resources: Vec<Value> = kinds.iter().filter(|kind| kind.names.group == group && kind.names.version == version).map(|kind| aggregated_resource(kind)).collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": [{"version": version, "resources": resources, "freshness": "Current"}]})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let names = &kind.names;
    let scope = match kind.scope {
        Scope::Namespaced => "Namespaced",
        Scope::Cluster => "Cluster",
    };
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, sub_kind, verbs) = subresource_kind(kind, subresource);
            json!({"subresource": subresource_name(subresource), "responseKind": {"group": group, "version": version, "kind": sub_kind}, "verbs": verbs})
        })
        .collect();
    let mut resource = json!({"resource": names.plural, "responseKind": {"group": names.group, "version": names.version, "kind": names.kind},
        "scope": scope, "singularResource": names.singular, "verbs": kind.verbs});
    for (key, value) in [("shortNames", names.short), ("categories", names.categories)] {
        if !value.is_empty() {
            resource[key] = json!(value);
        }
    }
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}
