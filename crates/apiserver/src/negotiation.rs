//! In which form the answer is wanted.

use api::ApiError;
use api::table::IncludeObject;
use http::HeaderMap;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects themselves.
    Object,
    /// A table for people.
    Table(IncludeObject),
    /// Metadata alone.
    Metadata,
}

/// Reads `Accept`; the first form that can be given is given.
pub(crate) fn form(headers: &HeaderMap, include_object: &str) -> Result<Form, ApiError> {
    let accept =
        headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    for option in accept.split(',') {
        let mut words = option.split(';').map(str::trim);
        let media = words.next().unwrap_or_default();
        if !["application/json", "*/*", "application/*"].contains(&media) {
            continue;
        }
        let parameters: Vec<&str> = words.collect();
        let requested = parameters.iter().find_map(|word| word.strip_prefix("as="));
        let known_group =
            parameters.iter().all(|word| !word.starts_with("g=") || *word == "g=meta.k8s.io");
        let known_version =
            parameters.iter().all(|word| !word.starts_with("v=") || *word == "v=v1");
        match requested {
            None => return Ok(Form::Object),
            Some("Table") if known_group && known_version => {
                return Ok(Form::Table(match include_object {
                    "None" => IncludeObject::None,
                    "Object" => IncludeObject::Object,
                    _ => IncludeObject::Metadata,
                }));
            }
            Some("PartialObjectMetadata" | "PartialObjectMetadataList")
                if known_group && known_version =>
            {
                return Ok(Form::Metadata);
            }
            Some(_) => {}
        }
    }
    if accept.trim().is_empty() {
        return Ok(Form::Object);
    }
    Err(ApiError::not_acceptable(&["application/json"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, accept.parse().unwrap());
        form(&headers, "").map_err(|error| error.code)
    }

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        let table = Form::Table(IncludeObject::Metadata);
        assert_eq!(
            of(
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            Ok(table)
        );
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Object));
        assert_eq!(
            of("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
            Ok(Form::Metadata)
        );
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Err(406));
    }
}
