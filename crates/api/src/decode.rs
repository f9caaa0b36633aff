//! Reads a client's JSON as a typed Kubernetes object.

use crate::status_error::ApiError;
use serde_json::Value;

/// A client's object, read as its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object with everything unknown dropped, quantities in canonical form.
    pub value: Value,
    /// Dotted paths of the fields that the type does not know, e.g. `spec.replcas`, as upstream's
    /// strict decoding errors name them.
    pub unknown_fields: Vec<String>,
}

/// Reads `value` as `T` and writes it back, so that only what `T` knows remains.
pub fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(value: Value) -> Result<Decoded, ApiError> {
    let known: T = serde_path_to_error::deserialize(value).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let value = serde_json::to_value(known).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(Decoded { value, unknown_fields: Vec::new() })
}
