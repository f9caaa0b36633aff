//! Kinds over the store: keys, the index beside each object, and the one way to change an object.

use api::kind::{Kind, Scope};
use api::{ApiError, Object};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Change, Entry, Expect, Indexer, Store, StoreError, Written};

/// What is kept parsed beside each object's bytes.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) labels: BTreeMap<String, String>,
    /// Values of the kind's selectable fields, and `metadata.name` and `metadata.namespace`.
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Index {
    pub(crate) fn of(entry: &Entry) -> &Index {
        static EMPTY: Index = Index { labels: BTreeMap::new(), fields: Vec::new() };
        entry.index.downcast_ref().unwrap_or(&EMPTY)
    }
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }
}

/// Makes the index of an object from its key and bytes.
pub fn indexer() -> Indexer {
    Arc::new(|key, bytes| {
        let index = kind_of_key(key)
            .and_then(|kind| Some((kind, Object::new(serde_json::from_slice(bytes).ok()?).ok()?)))
            .map(|(kind, object)| index(kind, &object));
        Arc::new(index.unwrap_or_default())
    })
}

fn index(kind: &Kind, object: &Object) -> Index {
    let labels = object.metadata().get("labels").and_then(Value::as_object);
    let labels = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    let mut fields: Vec<(&'static str, String)> =
        kind.selectable_fields.iter().map(|field| (field.name, (field.value)(object))).collect();
    fields.push(("metadata.name", object.name().to_owned()));
    fields.push(("metadata.namespace", object.namespace().to_owned()));
    Index { labels, fields }
}

fn kind_of_key(key: &str) -> Option<&'static Kind> {
    let mut parts = key.split('/').skip(1);
    let (group, plural) = (parts.next()?, parts.next()?);
    let group = if group == "core" { "" } else { group };
    api::kinds::KINDS
        .iter()
        .copied()
        .find(|kind| kind.names.group == group && kind.names.plural == plural)
}

/// Where the objects of a kind stand: of one namespace, or of all if it is empty.
pub(crate) fn prefix(kind: &Kind, namespace: &str) -> String {
    let group = if kind.names.group.is_empty() { "core" } else { kind.names.group };
    if namespace.is_empty() {
        format!("/{group}/{}/", kind.names.plural)
    } else {
        format!("/{group}/{}/{namespace}/", kind.names.plural)
    }
}

/// Where an object stands.
pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    let namespace = if kind.scope == Scope::Cluster { "" } else { namespace };
    format!("{}{name}", prefix(kind, namespace))
}

/// An object as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    pub(crate) object: Object,
}

/// What a change came to.
#[derive(Debug)]
pub(crate) enum Updated {
    /// The object as it is now (written, or unchanged).
    Now(Entry),
    /// The change took away the last thing that kept a dying object: it is gone; its last state.
    Gone(Entry),
}

impl Updated {
    pub(crate) fn entry(&self) -> &Entry {
        match self {
            Updated::Now(entry) | Updated::Gone(entry) => entry,
        }
    }
}

/// How often a change is tried again when somebody else was faster.
const RETRIES: usize = 20;

/// Kinds over the store.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) store: Arc<dyn Store>,
}

impl Registry {
    pub(crate) fn new(store: Arc<dyn Store>) -> Registry {
        Registry { store }
    }

    /// Reads an object; 404 if there is none.
    pub(crate) async fn read(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Stored, ApiError> {
        let entry = self.entry(kind, namespace, name).await?;
        Ok(Stored { object: parse(&entry)?, entry })
    }

    /// Reads an object's bytes; 404 if there is none.
    pub(crate) async fn entry(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Entry, ApiError> {
        let found = self.store.get(&key(kind, namespace, name)).await.map_err(store_error)?;
        found.ok_or_else(|| ApiError::not_found(kind.names.group, kind.names.plural, name))
    }

    /// Reads an object; 404 if there is none.
    pub(crate) async fn object(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Object, ApiError> {
        Ok(self.read(kind, namespace, name).await?.object)
    }

    /// Writes a new object; 409 if there is one.
    pub(crate) async fn create(&self, kind: &Kind, object: Object) -> Result<Entry, ApiError> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        match self
            .store
            .write(
                &key(kind, &namespace, &name),
                Change::Put(encode(kind, "ADDED", object)),
                Expect::Absent,
            )
            .await
        {
            Err(StoreError::Conflict(_)) => {
                Err(ApiError::already_exists(kind.names.group, kind.names.plural, &name))
            }
            other => other.map_err(store_error),
        }
    }

    /// Changes an object. `change` makes the new object from the stored one (and checks it); when somebody else was
    /// faster it is asked again with the newer one. A change that changes nothing makes no revision.
    pub(crate) async fn update(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        dry_run: bool,
        change: impl Fn(&Object) -> Result<Object, ApiError>,
    ) -> Result<Updated, ApiError> {
        for _ in 0..RETRIES {
            let old = self.read(kind, namespace, name).await?;
            let mut new = change(&old.object)?;
            let asked = new.resource_version().to_owned();
            if !asked.is_empty() && asked != old.object.resource_version() {
                return Err(modified(kind, name));
            }
            new.set(
                "/metadata/resourceVersion",
                Value::String(old.object.resource_version().to_owned()),
            );
            let is_over = new.is_terminating() && !is_held(&new);
            if new == old.object && !is_over {
                return Ok(Updated::Now(old.entry));
            }
            if dry_run {
                return Ok(Updated::Now(Entry {
                    bytes: serde_json::to_vec(new.value()).map_err(ApiError::internal)?.into(),
                    ..old.entry
                }));
            }
            let change = if is_over {
                Change::Delete(encode(kind, "DELETED", new))
            } else {
                Change::Put(encode(kind, "MODIFIED", new))
            };
            match self.store.write(&old.entry.key, change, Expect::At(old.entry.revision)).await {
                Ok(entry) => {
                    return Ok(if is_over { Updated::Gone(entry) } else { Updated::Now(entry) });
                }
                Err(StoreError::Conflict(_)) if !asked.is_empty() => {
                    return Err(modified(kind, name));
                }
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Err(modified(kind, name))
    }
}

/// Whether something keeps a dying object: a finalizer (of the spec, for namespaces), or a node that still runs it.
pub(crate) fn is_held(object: &Object) -> bool {
    !object.finalizers().is_empty()
        || !object.list_at("/spec/finalizers").is_empty()
        || object.int_at("/metadata/deletionGracePeriodSeconds").is_some_and(|seconds| seconds > 0)
}

pub(crate) fn modified(kind: &Kind, name: &str) -> ApiError {
    ApiError::conflict(
        kind.names.group,
        kind.names.plural,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

pub(crate) fn parse(entry: &Entry) -> Result<Object, ApiError> {
    let value = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    Object::new(value).map_err(|_| ApiError::internal("a stored object is no JSON object"))
}

/// What is stored of an object: its bytes, with the revision that the write gets in them, and its index.
/// `word` is what watchers are told of the write: `ADDED`.
pub(crate) fn encode(kind: &Kind, word: &'static str, mut object: Object) -> store::Encode {
    let index = Arc::new(index(kind, &object));
    Box::new(move |revision| {
        object.set("/metadata/resourceVersion", Value::String(revision.to_string()));
        let bytes = serde_json::to_vec(object.value()).unwrap_or_default();
        let encoded = frame(word, &bytes);
        let end = encoded.len() - FRAME_END.len();
        Written { bytes: encoded.slice(end - bytes.len()..end), index, encoded }
    })
}

const FRAME_END: &[u8] = b"}\n";

/// An event as one line of a watch.
pub(crate) fn frame(word: &str, object: &[u8]) -> Bytes {
    let parts = [b"{\"type\":\"", word.as_bytes(), b"\",\"object\":", object, FRAME_END];
    parts.concat().into()
}

/// The store's refusals, as the API tells them.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, newest } => {
            ApiError::timeout(format!("Too large resource version: {asked}, current: {newest}"))
        }
        StoreError::NotDurable(_) => ApiError { code: 507, ..ApiError::internal(error) },
        StoreError::Closed => ApiError::unavailable("the server is shutting down"),
        StoreError::Conflict(_) => ApiError::internal(error),
    }
}
