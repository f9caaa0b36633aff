//! The three patches (JSON patch, merge patch, strategic merge patch), and server-side apply.

pub mod apply;
pub mod merge_keys;
pub mod strategic;

use crate::status_error::ApiError;
use serde_json::Value;

/// `Content-Type`s of patches that are understood.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Whether a `Content-Type` says that the body is a configuration to apply.
pub fn is_apply(media_type: &str) -> bool {
    media_type.split(';').next().unwrap_or_default().trim() == "application/apply-patch+yaml"
}

/// Which kind of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' own: lists are merged by the keys that their elements' type names.
    Strategic,
}

impl PatchType {
    /// By `Content-Type`, parameters aside.
    pub fn of(media_type: &str) -> Result<PatchType, ApiError> {
        match media_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
            _ => Err(ApiError::unsupported_media_type(&MEDIA_TYPES)),
        }
    }
}

/// Applies a patch. `definition` is the OpenAPI name of the object's type, e.g. `io.k8s.api.core.v1.Pod`.
pub fn apply(
    kind: PatchType,
    definition: &str,
    current: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let mut result = current.clone();
    match kind {
        PatchType::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut result, &patch).map_err(|error| {
                ApiError::unprocessable(format!(
                    "the server rejected our request due to an error in our request: {error}"
                ))
            })?;
        }
        PatchType::Merge => {
            if !patch.is_object() {
                return Err(ApiError::bad_request(
                    "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
                ));
            }
            json_patch::merge(&mut result, patch);
        }
        PatchType::Strategic => strategic::apply(definition, &mut result, patch)?,
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_json_patch_whose_test_fails_changes_nothing() {
        let patch = json!([{"op": "test", "path": "/a", "value": 2}, {"op": "replace", "path": "/a", "value": 3}]);
        assert_eq!(apply(PatchType::Json, "", &json!({"a": 1}), &patch).unwrap_err().code, 422);
    }

    #[test]
    fn a_merge_patch_removes_with_null() {
        assert_eq!(
            apply(
                PatchType::Merge,
                "",
                &json!({"a": 1, "b": {"c": 1}}),
                &json!({"a": null, "b": {"d": 2}})
            )
            .unwrap(),
            json!({"b": {"c": 1, "d": 2}})
        );
    }
}
