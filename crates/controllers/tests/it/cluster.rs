//! An API server, every controller and a fake node.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::{FakeNode, TestServer, clock, eventually};

/// A cluster for one story.
pub(crate) struct Cluster {
    /// Ends with the story.
    _server: TestServer,
    pub(crate) node: FakeNode,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        testkit::log();
        let server = TestServer::start().await;
        let clock = clock();
        let api = server.api.clone();
        let config = controllers::Config {
            client_for: Arc::new(move |user| api.client_for(apiserver::Identity::internal(user))),
            ca_certificate: "a certificate".to_owned(),
            clock: clock.clone(),
            volume_root: "/volumes".to_owned(),
        };
        tokio::spawn(controllers::run(config, server.closing()));
        let client = server.client("a user");
        let node = FakeNode::start(server.client("system:node:fake"), clock).await;
        Cluster { _server: server, node, client }
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) fn sets(&self) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes the set `web` of so many replicas, changed by `change`.
    pub(crate) async fn web(&self, replicas: i64, change: Value) {
        let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
            "replicas": replicas, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "v1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        merge(&mut set, change);
        let set: StatefulSet = serde_json::from_value(set).unwrap();
        self.sets().create(&PostParams::default(), &set).await.unwrap();
    }

    pub(crate) async fn change(&self, change: Value) {
        self.sets().patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// The pods in the order of their names, as `name image phase`.
    pub(crate) async fn overview(&self) -> Vec<String> {
        let pods = self.pods().list(&ListParams::default()).await.unwrap();
        pods.iter()
            .map(|pod| {
                let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
                let ready = pod
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten())
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                let state = match (&pod.metadata.deletion_timestamp, ready) {
                    (Some(_), _) => "dying",
                    (None, true) => "ready",
                    (None, false) => "pending",
                };
                format!("{} {image} {state}", pod.name_any())
            })
            .collect()
    }

    /// Waits until the pods are these.
    pub(crate) async fn until(&self, expected: &[&str]) {
        eventually(&format!("the pods {expected:?}"), || async {
            (self.overview().await == expected).then_some(())
        })
        .await;
    }

    /// Waits until the set's status says this.
    pub(crate) async fn until_status(&self, pointer: &str, expected: Value) {
        eventually(&format!("{pointer} = {expected}"), || async {
            let set = serde_json::to_value(self.sets().get("web").await.unwrap()).unwrap();
            (set["status"].pointer(pointer) == Some(&expected)).then_some(())
        })
        .await;
    }
}

pub(crate) fn merge(into: &mut Value, change: Value) {
    match change {
        Value::Object(fields) => {
            for (key, value) in fields {
                merge(&mut into[&key], value);
            }
        }
        other => *into = other,
    }
}
