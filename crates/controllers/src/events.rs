//! Tells users what controllers do, and forgets what was told long ago.

use api::kinds::event::{Telling, new_event};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many events may wait to be written; more are dropped: an event is a courtesy.
const QUEUE: usize = 4096;
/// How long events are kept. As upstream.
const KEPT: Duration = Duration::from_secs(3600);

/// Writes events one after the other, never in anybody's way.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    component: &'static str,
}

impl Recorder {
    pub(crate) fn new(client: Client, component: &'static str) -> Recorder {
        let (queue, mut waiting) = mpsc::channel::<Event>(QUEUE);
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                write(&client, event).await;
            }
        });
        Recorder { queue, component }
    }

    /// Tells something about an object.
    pub(crate) fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        kind: &str,
        reason: &str,
        message: &str,
    ) {
        let metadata = about.meta();
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: None,
        };
        let telling = Telling { kind, reason, message, component: self.component, host: "" };
        if self.queue.try_send(new_event(&about, telling, Timestamp::now())).is_err() {
            tracing::debug!(reason, message, "an event is dropped: too many wait to be written");
        }
    }
}

async fn write(client: &Client, event: Event) {
    let (namespace, name) = (event.namespace().unwrap_or_default(), event.name_any());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let result = match api.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => match api.get(&name).await {
            Ok(before) => {
                let change = json!({"count": before.count.unwrap_or(1) + 1, "lastTimestamp": event.last_timestamp});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await.map(drop)
            }
            Err(error) => Err(error),
        },
        other => other.map(drop),
    };
    if let Err(error) = result {
        tracing::debug!(namespace, name, %error, "an event could not be written");
    }
}

/// Deletes events older than an hour, every few minutes.
pub(crate) async fn forget_old(client: Client) {
    let api: Api<Event> = Api::all(client.clone());
    loop {
        tokio::time::sleep(KEPT / 12).await;
        let Ok(events) = api.list(&ListParams::default()).await else { continue };
        let oldest =
            Timestamp::now().as_second() - i64::try_from(KEPT.as_secs()).unwrap_or(i64::MAX);
        for event in events.items.iter().filter(|event| {
            event.last_timestamp.as_ref().is_some_and(|time| time.0.as_second() < oldest)
        }) {
            let own: Api<Event> =
                Api::namespaced(client.clone(), &event.namespace().unwrap_or_default());
            if let Err(error) = own.delete(&event.name_any(), &DeleteParams::default()).await {
                tracing::debug!(%error, "an old event could not be deleted");
            }
        }
    }
}
