//! GET of a collection: stored bytes, one after the other.

use super::{Call, now};
use crate::negotiation::Form;
use crate::registry::{Index, parse, prefix, store_error};
use api::selector::{field::FieldSelector, label::LabelSelector};
use api::{ApiError, Object, table};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use store::{Entry, Listing, Page};

/// Which objects are meant.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(super) fn of(call: &Call<'_>) -> Result<Selection, ApiError> {
        let labels =
            LabelSelector::parse(call.query.get("labelSelector")).map_err(ApiError::bad_request)?;
        let mut fields =
            FieldSelector::parse(call.query.get("fieldSelector")).map_err(ApiError::bad_request)?;
        // A watch or list of one name in the path's place, as `kubectl get pod x -w` asks.
        if !call.info.name.is_empty() {
            fields.requirements.push(("metadata.name".to_owned(), true, call.info.name.clone()));
        }
        for (field, _, _) in &fields.requirements {
            let known = ["metadata.name", "metadata.namespace"].contains(&field.as_str())
                || call.kind.selectable_fields.iter().any(|f| f.name == field);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(Selection { labels, fields })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.requirements.is_empty()
    }

    pub(super) fn matches(&self, entry: &Entry) -> bool {
        if self.is_everything() {
            return true;
        }
        let index = Index::of(entry);
        self.labels.matches(&index.labels) && self.fields.matches(|field| index.field(field))
    }
}

/// Lists a collection.
pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let selection = Selection::of(call)?;
    let (entries, metadata) = page(call, &selection).await?;
    match call.form {
        Form::Object => crate::serve::json(200, concatenate(call, &metadata, &entries)),
        Form::Table(include) => {
            let objects: Vec<Object> = entries.iter().map(parse).collect::<Result<_, _>>()?;
            call.show_value(200, &table::render(call.kind, &objects, metadata, include, now()))
        }
        Form::Metadata => {
            let items: Vec<Value> = entries
                .iter()
                .map(|entry| parse(entry).map(|object| table::partial_metadata(&object)))
                .collect::<Result<_, _>>()?;
            call.show_value(200, &json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items}))
        }
    }
}

/// One page of what is selected, and the list's metadata.
async fn page(call: &Call<'_>, selection: &Selection) -> Result<(Vec<Entry>, Value), ApiError> {
    let limit: usize = match call.query.get("limit") {
        "" => 0,
        text => text.parse().map_err(|_| {
            ApiError::bad_request(format!("limit: Invalid value: {text:?}: must be a number"))
        })?,
    };
    let mut from = match call.query.get("continue") {
        "" => Page { at: exact_revision(call)?, ..Page::default() },
        token => read_token(token)?,
    };
    let prefix = prefix(call.kind, &call.info.namespace);
    let store = &call.server.inner.registry.store;
    if selection.is_everything() {
        from.limit = limit;
        let listing = store.list(&prefix, from).await.map_err(store_error)?;
        let metadata = list_metadata(&listing, listing.remaining > 0, Some(listing.remaining));
        return Ok((listing.entries, metadata));
    }
    let mut listing = store.list(&prefix, from).await.map_err(store_error)?;
    listing.entries.retain(|entry| selection.matches(entry));
    let more = limit > 0 && listing.entries.len() > limit;
    if more {
        listing.entries.truncate(limit);
    }
    let metadata = list_metadata(&listing, more, None);
    Ok((listing.entries, metadata))
}

/// `resourceVersionMatch=Exact` asks for the past; everything else is answered with the newest state, which is never
/// older than what was asked for.
fn exact_revision(call: &Call<'_>) -> Result<Option<u64>, ApiError> {
    if call.query.get("resourceVersionMatch") != "Exact" {
        return Ok(None);
    }
    let text = call.query.get("resourceVersion");
    text.parse().map(Some).map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: resourceVersionMatch Exact needs a resource version"
        ))
    })
}

fn list_metadata(listing: &Listing, more: bool, remaining: Option<usize>) -> Value {
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if let (true, Some(last)) = (more, listing.entries.last()) {
        metadata["continue"] = json!(
            URL_SAFE_NO_PAD
                .encode(json!({"rv": listing.revision, "after": last.key.as_ref()}).to_string())
        );
        if let Some(remaining) = remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    metadata
}

fn read_token(token: &str) -> Result<Page, ApiError> {
    let bad = || {
        ApiError::bad_request("continue key is not valid: the token was not made by this server")
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let (Some(revision), Some(after)) = (token["rv"].as_u64(), token["after"].as_str()) else {
        return Err(bad());
    };
    Ok(Page { limit: 0, after: Some(after.into()), at: Some(revision) })
}

fn concatenate(call: &Call<'_>, metadata: &Value, entries: &[Entry]) -> Bytes {
    let names = &call.kind.names;
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        names.kind,
        names.api_version()
    );
    let size = entries.iter().map(|entry| entry.bytes.len() + 1).sum::<usize>() + head.len() + 2;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(head.as_bytes());
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(&entry.bytes);
    }
    bytes.extend_from_slice(b"]}");
    bytes.into()
}
