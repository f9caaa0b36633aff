//! What a request asks for, read from its path. As upstream: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use http::{Method, Uri};
use std::collections::HashMap;

/// A request for resources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourceRequest {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    /// Empty: of the cluster, or of all namespaces.
    pub(crate) namespace: String,
    /// Empty: the collection.
    pub(crate) name: String,
    pub(crate) subresource: String,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestInfo {
    Resource(ResourceRequest),
    /// Discovery, OpenAPI, version, health …
    Path(String),
}

/// A query's parameters; the last of a name counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Query {
        let mut parameters: HashMap<String, Vec<String>> = HashMap::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters
                .entry(percent_decode(key, true))
                .or_default()
                .push(percent_decode(value, true));
        }
        Query(parameters)
    }
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|values| values.last()).map_or("", String::as_str)
    }
    pub(crate) fn is_true(&self, key: &str) -> bool {
        self.0
            .get(key)
            .and_then(|values| values.last())
            .is_some_and(|value| value == "true" || value == "1" || value.is_empty())
    }
}

impl Query {
    /// A parameter that is true or false, if it is there. As upstream: whatever is not false is true.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.0.get(key)?.last()?;
        Some(!["false", "0"].contains(&value.to_lowercase().as_str()))
    }
}

/// Undoes percent-encoding; what is not valid UTF-8 afterwards becomes the replacement character.
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| bytes.get(index).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', _, _) if plus_is_space => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl RequestInfo {
    pub(crate) fn of(method: &Method, uri: &Uri, query: &Query) -> RequestInfo {
        let segments: Vec<String> = uri
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode(part, false))
            .collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match &parts[..] {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return RequestInfo::Path(format!("/{}", parts.join("/"))),
        };
        let (namespace, rest) = match rest {
            // Below a namespace stand resources; `namespaces/x/status` and `/finalize` are of the namespace itself.
            ["namespaces", namespace, resource, ..]
                if !["status", "finalize"].contains(resource) =>
            {
                (*namespace, &rest[2..])
            }
            _ => ("", rest),
        };
        let resource = rest.first().copied().unwrap_or_default();
        let name = rest.get(1).copied().unwrap_or_default();
        let subresource = rest.get(2..).unwrap_or_default().join("/");
        let verb = match (method.as_str(), name.is_empty()) {
            ("GET" | "HEAD", true) if query.is_true("watch") => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "",
        };
        RequestInfo::Resource(ResourceRequest {
            verb,
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> ResourceRequest {
        let uri: Uri = uri.parse().unwrap();
        match RequestInfo::of(&method.parse().unwrap(), &uri, &Query::of(&uri)) {
            RequestInfo::Resource(request) => request,
            RequestInfo::Path(path) => panic!("{path}"),
        }
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let scale = read("PATCH", "/apis/apps/v1/namespaces/default/statefulsets/web/scale");
        assert_eq!(
            (
                scale.verb,
                scale.group.as_str(),
                scale.namespace.as_str(),
                scale.name.as_str(),
                scale.subresource.as_str()
            ),
            ("patch", "apps", "default", "web", "scale")
        );
        assert_eq!(read("GET", "/api/v1/pods?watch=1").verb, "watch");
        assert_eq!(read("DELETE", "/api/v1/namespaces/a/pods").verb, "deletecollection");
        let namespace = read("GET", "/api/v1/namespaces/a");
        assert_eq!(
            (namespace.resource.as_str(), namespace.namespace.as_str(), namespace.name.as_str()),
            ("namespaces", "", "a")
        );
        assert_eq!(read("PUT", "/api/v1/namespaces/a/finalize").subresource, "finalize");
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::of(&"/x?labelSelector=app%3Dweb%2Ca+b&watch=true".parse().unwrap());
        assert_eq!(query.get("labelSelector"), "app=web,a b");
        assert!(query.is_true("watch"));
        assert_eq!(percent_decode("%zz%4", false), "%zz%4");
    }
}
