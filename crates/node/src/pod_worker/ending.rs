//! How a pod ends: hooks, signals, and nothing left.

use super::*;

impl Worker {
    /// Stops what runs: the containers together, then the sidecars, each after its hook, all within the grace period.
    pub(super) async fn stop_all(
        &mut self,
        sandbox: Option<&SandboxStatus>,
        grace: Duration,
    ) -> Result<(), String> {
        self.end_probes();
        let deadline = tokio::time::Instant::now() + grace;
        let running: Vec<(String, String)> = sandbox
            .into_iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|container| matches!(container.state, ContainerState::Running { .. }))
            .map(|container| (container.id.clone(), container.name.clone()))
            .collect();
        let is_init = |name: &str| {
            self.spec().init_containers.iter().flatten().any(|container| container.name == name)
        };
        let (sidecars, main): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(_, name)| is_init(name));
        futures::future::try_join_all(
            main.iter().map(|(id, name)| self.stop_one(id, name, deadline)),
        )
        .await?;
        for (id, name) in sidecars.iter().rev() {
            self.stop_one(id, name, deadline).await?;
        }
        Ok(())
    }

    pub(super) async fn stop_one(
        &self,
        id: &str,
        name: &str,
        deadline: tokio::time::Instant,
    ) -> Result<(), String> {
        self.tell(Some(name), "Normal", "Killing", &format!("Stopping container {name}"));
        if let Some(container) = self.container(name)
            && let Some(hook) =
                container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
            && let Ok(Err(why)) =
                tokio::time::timeout_at(deadline, self.hook(hook, &container, id)).await
        {
            self.tell(
                Some(name),
                "Warning",
                "FailedPreStopHook",
                &format!("PreStopHook failed: {why}"),
            );
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.shared
            .config
            .runtime
            .stop_container(&self.reference.id, id, left)
            .await
            .map_err(|error| error.to_string())
    }

    /// The pod is being deleted: everything ends, then the object goes. A shorter grace period that comes meanwhile
    /// hurries it.
    pub(super) async fn terminate(mut self, pods: &mut watch::Receiver<Option<Arc<Pod>>>) {
        loop {
            let sandbox = self.sandbox().await;
            let grace = self.grace();
            let hurried = async {
                loop {
                    if pods.changed().await.is_err() {
                        return;
                    }
                    let now = pods.borrow_and_update().clone();
                    if now.is_none_or(|pod| {
                        pod.metadata.deletion_grace_period_seconds.is_some_and(|seconds| {
                            Duration::from_secs(seconds.unsigned_abs()) < grace
                        })
                    }) {
                        return;
                    }
                }
            };
            let stopped = tokio::select! {
                stopped = self.stop_all(sandbox.as_ref(), grace) => stopped,
                () = hurried => Ok(()),
            };
            match stopped {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(
                        name = self.reference.name,
                        error,
                        "a pod could not be stopped and is tried again"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let last = self.sandbox().await;
        if let Err(error) = self.report(last.as_ref()).await {
            tracing::debug!(
                name = self.reference.name,
                error,
                "the last status of a pod could not be written"
            );
        }
        let (shared, reference) = (self.shared.clone(), self.reference.clone());
        self.bury().await;
        let api: Api<Pod> = Api::namespaced(shared.config.client.clone(), &reference.namespace);
        let only_this = Preconditions { uid: Some(reference.id.clone()), resource_version: None };
        let options = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only_this),
            ..DeleteParams::default()
        };
        loop {
            match api.delete(&reference.name, &options).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(error) => {
                    tracing::warn!(name = reference.name, %error, "a pod that has ended could not be deleted and is tried again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// The object is gone, or about to: nothing of the pod may stay.
    pub(super) async fn bury(mut self) {
        self.end_probes();
        if let Some(ip) = self.ip.filter(|_| !self.host_network()) {
            self.shared.config.dns.set_pod(ip, None);
        }
        remove_everything(&self.shared, &self.reference).await;
    }
}

/// Removes sandbox, address and files; surely: it is tried until it is done.
pub(crate) async fn remove_everything(shared: &Arc<Shared>, pod: &PodRef) {
    loop {
        let removed = async {
            shared
                .config
                .runtime
                .remove_pod_sandbox(&pod.id)
                .await
                .map_err(|error| error.to_string())?;
            shared.config.network.del(pod).await.map_err(|error| error.to_string())
        };
        match removed.await {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(
                    namespace = pod.namespace,
                    name = pod.name,
                    error,
                    "a pod could not be removed and is tried again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    volumes::remove(shared, &pod.id);
    crate::kubelet_api::remove_logs(&shared.config.data_dir, pod);
}
