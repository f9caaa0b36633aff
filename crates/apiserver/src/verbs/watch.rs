//! Watches: encoded once, sent to many.

use super::list::Selection;
use super::{Call, now};
use crate::negotiation::Form;
use crate::registry::{frame, parse, prefix, store_error};
use api::{ApiError, Kind, Object, table};
use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::Response;
use serde_json::{Value, json};
use std::time::Duration;
use store::{Entry, Event, EventKind, Page, Revision, Seen, StoreError};

/// How long a watch lives whose client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// How one watch wants its events.
#[derive(Clone)]
struct Style {
    kind: &'static Kind,
    selection: Selection,
    form: Form,
    bookmarks: bool,
    /// The end of the initial events is to be marked.
    mark_initial: bool,
}

/// Streams what happens to a collection.
pub(super) async fn watch(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if call.server.inner.closing.is_cancelled() {
        // A watch that ends at once would be taken up again at once.
        return Err(ApiError::unavailable("the server is shutting down"));
    }
    let style = Style {
        kind: call.kind,
        selection: Selection::of(call)?,
        form: call.form,
        bookmarks: call.query.is_true("allowWatchBookmarks"),
        mark_initial: call.query.is_true("sendInitialEvents"),
    };
    let (initial, after) = start(call, &style).await?;
    let store = &call.server.inner.registry.store;
    let events = store.watch(&prefix(call.kind, &call.info.namespace), Some(after));
    let lines = stream::iter(initial).chain(follow(style, events));
    let timeout = match call.query.get("timeoutSeconds") {
        "" | "0" => DEFAULT_TIMEOUT,
        text => Duration::from_secs(text.parse().map_err(|_| {
            ApiError::bad_request(format!("timeoutSeconds: Invalid value: {text:?}"))
        })?),
    };
    let closing = call.server.inner.closing.clone();
    let end = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = tokio::time::sleep(timeout) => {}
        }
    };
    let body = Body::from_stream(
        lines.take_until(Box::pin(end)).map(Ok::<Bytes, std::convert::Infallible>),
    );
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Lines that tell the state so far, if it was asked for, and the revision after which the watch goes on.
async fn start(call: &Call<'_>, style: &Style) -> Result<(Vec<Bytes>, Revision), ApiError> {
    let asked = call.query.get("resourceVersion");
    if !(asked.is_empty() || asked == "0" || style.mark_initial) {
        let revision = asked.parse().map_err(|_| {
            ApiError::bad_request(format!("resourceVersion: Invalid value: {asked:?}"))
        })?;
        return Ok((Vec::new(), revision));
    }
    let listing = call
        .server
        .inner
        .registry
        .store
        .list(&prefix(call.kind, &call.info.namespace), Page::default())
        .await
        .map_err(store_error)?;
    let mut lines: Vec<Bytes> = listing
        .entries
        .iter()
        .filter(|entry| style.selection.matches(entry))
        .filter_map(|entry| line(style, "ADDED", entry))
        .collect();
    if style.mark_initial && style.bookmarks {
        lines.push(bookmark(style, listing.revision, true));
    }
    Ok((lines, listing.revision))
}

fn follow(
    style: Style,
    events: BoxStream<'static, Result<Seen, StoreError>>,
) -> impl futures::Stream<Item = Bytes> {
    let mut caught_up = false;
    events.filter_map(move |seen| {
        let line = match seen {
            Ok(Seen::Event(event)) => told(&style, &event),
            Ok(Seen::Progress(revision)) => {
                // The first progress only says that the replay is over.
                let first = !std::mem::replace(&mut caught_up, true);
                (style.bookmarks && !first).then(|| bookmark(&style, revision, false))
            }
            Err(error) => Some(frame("ERROR", store_error(error).status().to_string().as_bytes())),
        };
        std::future::ready(line)
    })
}

/// What a watcher is told of an event: by selector, an object may come into sight or out of it.
fn told(style: &Style, event: &Event) -> Option<Bytes> {
    let before = event.previous.as_ref().is_some_and(|entry| style.selection.matches(entry));
    let after = event.kind == EventKind::Put && style.selection.matches(&event.entry);
    let word = match (before, after) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    // The usual watcher sees every object whole: its line was made with the object.
    if style.form == Form::Object && style.selection.is_everything() {
        return Some(event.encoded.clone());
    }
    if word == "DELETED" && event.kind == EventKind::Put {
        // Out of sight: the last state that was in sight, at the revision at which it left.
        let previous = event.previous.as_ref()?;
        let mut object = parse(previous).ok()?;
        object.set("/metadata/resourceVersion", json!(event.entry.revision.to_string()));
        return shown(style, word, &object);
    }
    line(style, word, &event.entry)
}

fn line(style: &Style, word: &str, entry: &Entry) -> Option<Bytes> {
    match style.form {
        Form::Object => Some(frame(word, &entry.bytes)),
        Form::Table(_) | Form::Metadata => shown(style, word, &parse(entry).ok()?),
    }
}

fn shown(style: &Style, word: &str, object: &Object) -> Option<Bytes> {
    let value: Value = match style.form {
        Form::Object => object.value().clone(),
        Form::Metadata => table::partial_metadata(object),
        Form::Table(include) => table::render(
            style.kind,
            std::slice::from_ref(object),
            json!({"resourceVersion": object.resource_version()}),
            include,
            now(),
        ),
    };
    Some(frame(word, value.to_string().as_bytes()))
}

fn bookmark(style: &Style, revision: Revision, initial_end: bool) -> Bytes {
    let names = &style.kind.names;
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = match style.form {
        Form::Object => {
            json!({"kind": names.kind, "apiVersion": names.api_version(), "metadata": metadata})
        }
        Form::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        Form::Table(_) => {
            json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null, "rows": []})
        }
    };
    frame("BOOKMARK", object.to_string().as_bytes())
}
