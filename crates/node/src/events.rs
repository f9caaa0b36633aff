//! Tells users what happens to their pods.

use api::kinds::event::{Telling, new_event};
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

/// How many events may wait to be written; more are dropped: an event is a courtesy.
const QUEUE: usize = 1000;

/// Writes events one after the other, never in anybody's way.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    component: &'static str,
    host: String,
}

impl Recorder {
    pub(crate) fn new(client: Client, component: &'static str, host: &str) -> Recorder {
        let (queue, mut waiting) = mpsc::channel::<Event>(QUEUE);
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                write(&client, event).await;
            }
        });
        Recorder { queue, component, host: host.to_owned() }
    }

    /// Tells something about a pod, or about one of its containers.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: &str,
        reason: &str,
        message: &str,
    ) {
        let metadata = &pod.metadata;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
        };
        let telling =
            Telling { kind, reason, message, component: self.component, host: &self.host };
        if self.queue.try_send(new_event(&about, telling, jiff::Timestamp::now())).is_err() {
            tracing::debug!(reason, message, "an event is dropped: too many wait to be written");
        }
    }
}

async fn write(client: &Client, event: Event) {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let name = event.metadata.name.clone().unwrap_or_default();
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
