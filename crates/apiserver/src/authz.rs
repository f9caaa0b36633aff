//! Who may do what. One function, so that rules can take its place.

use crate::Identity;
use crate::request_info::{RequestInfo, ResourceRequest};
use api::ApiError;

/// What anybody may read.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Refuses what `identity` may not do.
pub(crate) fn authorize(
    identity: &Identity,
    info: &RequestInfo,
    method: &http::Method,
) -> Result<(), ApiError> {
    let trusted = ["system:masters", "system:control-plane"];
    if identity.groups.iter().any(|group| trusted.contains(&group.as_str())) {
        return Ok(());
    }
    match info {
        RequestInfo::Path(path)
            if PUBLIC
                .iter()
                .any(|public| path == public || path.starts_with(&format!("{public}/"))) =>
        {
            Ok(())
        }
        RequestInfo::Path(path) => {
            let mut error = ApiError::forbidden("", "", "", "");
            error.message = format!(
                "forbidden: User {:?} cannot {} path {path:?}",
                identity.user,
                method.as_str().to_lowercase()
            );
            Err(error)
        }
        RequestInfo::Resource(request) => Err(ApiError::forbidden(
            &request.group,
            &request.resource,
            &request.name,
            &sentence(&identity.user, request),
        )),
    }
}

fn sentence(user: &str, request: &ResourceRequest) -> String {
    let resource = if request.subresource.is_empty() {
        request.resource.clone()
    } else {
        format!("{}/{}", request.resource, request.subresource)
    };
    let place = if request.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", request.namespace)
    };
    format!(
        "User {user:?} cannot {} resource {resource:?} in API group {:?} {place}",
        request.verb, request.group
    )
}
