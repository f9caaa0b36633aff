//! As whom a request manages the fields that it writes, and what a client may say about that.

use crate::Identity;
use crate::request_info::Query;
use api::{ApiError, FieldError, FieldPath};
use http::HeaderMap;

/// The longest name of a manager, in bytes. As upstream: FieldManagerMaxLength.
const NAME_MAX: usize = 128;

/// As whom somebody writes.
#[derive(Debug, Clone)]
pub(crate) struct FieldManager {
    pub(crate) name: String,
    /// Parts of the control plane make most of the objects there are; nobody asks who manages them, until somebody
    /// applies one.
    pub(crate) is_inside: bool,
}

impl FieldManager {
    /// By `fieldManager`, else by the first word of `User-Agent`, else, inside the process, by the user's name.
    pub(crate) fn of(identity: &Identity, query: &Query, headers: &HeaderMap) -> FieldManager {
        let is_inside = identity.groups.iter().any(|group| group == "system:control-plane");
        let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        let name = match (query.get("fieldManager"), agent) {
            ("", _) if is_inside => identity.user.rsplit(':').next().unwrap_or_default().to_owned(),
            ("", agent) => first_word(agent.unwrap_or_default()),
            (name, _) => name.to_owned(),
        };
        FieldManager { name, is_inside }
    }
}

/// As upstream: prefixFromUserAgent.
fn first_word(agent: &str) -> String {
    let word = agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for character in word.chars().filter(|character| !character.is_control()) {
        if name.len() + character.len_utf8() > NAME_MAX {
            break;
        }
        name.push(character);
    }
    name
}

/// Refuses what a client may not say of a write. `options` is e.g. `PatchOptions`. As upstream:
/// `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.
pub(crate) fn check_options(options: &str, query: &Query, is_apply: bool) -> Result<(), ApiError> {
    let (path, name) = (FieldPath::new("fieldManager"), query.get("fieldManager"));
    let mut errors = Vec::new();
    if is_apply && name.is_empty() {
        errors.push(FieldError::required(&path, "is required for apply patch"));
    }
    if options == "PatchOptions" && !is_apply && query.flag("force").is_some() {
        let path = FieldPath::new("force");
        errors.push(FieldError::forbidden(&path, "may not be specified for non-apply patch"));
    }
    if name.len() > NAME_MAX {
        errors.push(FieldError::too_long(&path, NAME_MAX));
    }
    for (position, character) in name.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {position})", character as u32);
        errors.push(FieldError::invalid(&path, name, &why));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid("meta.k8s.io", options, "", &errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(identity: &Identity, uri: &str, agent: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(agent) = agent {
            headers.insert(http::header::USER_AGENT, agent.parse().unwrap());
        }
        FieldManager::of(identity, &Query::of(&uri.parse().unwrap()), &headers).name
    }

    #[test]
    fn a_manager_is_named_by_the_client_its_program_or_its_user() {
        let kubectl = Some("kubectl/v1.37.0 (linux/amd64) kubernetes/abc");
        let anybody = Identity::anonymous();
        assert_eq!(name(&anybody, "/a?fieldManager=helm", kubectl), "helm");
        assert_eq!(name(&anybody, "/a", kubectl), "kubectl");
        assert_eq!(name(&anybody, "/a", None), "");
        assert_eq!(name(&anybody, "/a", Some(&"x".repeat(200))).len(), 128);
        let inside = Identity::internal("system:serviceaccount:kube-system:statefulset-controller");
        assert_eq!(name(&inside, "/a", None), "statefulset-controller");
    }

    #[test]
    fn a_name_is_short_and_can_be_printed() {
        let check = |uri: &str, is_apply: bool| {
            check_options("PatchOptions", &Query::of(&uri.parse().unwrap()), is_apply)
                .map_err(|error| error.message)
        };
        assert_eq!(
            check("/a", true).unwrap_err(),
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        );
        assert_eq!(
            check("/a?force=true", false).unwrap_err(),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
        );
        assert!(
            check("/a?fieldManager=a%07b", true)
                .unwrap_err()
                .contains("invalid character U+0007 (at position 1)")
        );
        assert!(check(&format!("/a?fieldManager={}", "x".repeat(129)), false).is_err());
        assert_eq!(check("/a?fieldManager=helm&force=true", true), Ok(()));
    }
}
