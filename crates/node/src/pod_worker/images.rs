//! The image of a container: present, or pulled with the pod's credentials.

use super::*;
use k8s_openapi::api::core::v1::{LocalObjectReference, Secret, ServiceAccount};
use planner::pod::images::{LONGEST_WAIT, Presence, Step, pulled_words, step, wait};
use runtime::images::registries::Keyring;
use std::time::Instant;

/// Kept with a container: exactly which image it was made from.
const IMAGE_LABEL: &str = "image";
/// How soon after a failed pull the pod says that it backs off.
const SOON: Duration = Duration::from_millis(500);

/// The labels of a container that is made from an image.
pub(super) fn labels(container: &Container, image: &Image) -> BTreeMap<String, String> {
    let name = container.image.as_deref().unwrap_or_default();
    BTreeMap::from([(IMAGE_LABEL.to_owned(), image.exact_name(name).to_owned())])
}

/// Exactly which image a container was made from.
pub(super) fn exact_name(container: &runtime::ContainerStatus) -> String {
    container.labels.get(IMAGE_LABEL).unwrap_or(&container.image_id).clone()
}

fn obstacle(reason: &str, message: String, wait: Duration) -> Obstacle {
    let until = Timestamp::now().checked_add(wait).unwrap_or_default();
    Obstacle { reason: reason.to_owned(), message, until }
}

impl Worker {
    /// The container's image, if it is present or can be pulled.
    pub(super) async fn image(&mut self, container: &Container) -> Result<Image, Obstacle> {
        let (name, image) = (container.name.clone(), container.image.clone().unwrap_or_default());
        let found = match self.shared.config.images.resolve(&image).await {
            Ok(found) => found,
            Err(error) => {
                let message = format!("Failed to apply default image tag {image:?}: {error}");
                self.tell(Some(&name), "Warning", "InspectFailed", &message);
                return Err(obstacle("InvalidImageName", message, LONGEST_WAIT));
            }
        };
        let presence = match &found {
            None => Presence::Absent,
            Some(found) if found.was_pulled_as(&image) => Presence::Pulled,
            Some(_) => Presence::Brought,
        };
        match (step(container.image_pull_policy.as_deref(), presence), found) {
            (Step::Use, Some(found)) => {
                let message = format!("Container image {image:?} already present on machine");
                self.tell(Some(&name), "Normal", "Pulled", &message);
                self.forget_pulls(&name);
                self.may_run(container, &found).map(|()| found)
            }
            (Step::Use | Step::Pull, _) => {
                let pulled = self.pull(&name, &image).await?;
                self.may_run(container, &pulled).map(|()| pulled)
            }
            (Step::Refuse, _) => {
                let message =
                    format!("Container image {image:?} is not present with pull policy of Never");
                self.tell(Some(&name), "Warning", "ErrImageNeverPull", &message);
                Err(obstacle("ErrImageNeverPull", message, Duration::from_secs(10)))
            }
        }
    }

    fn forget_pulls(&mut self, name: &str) {
        self.pull_waits.remove(name);
        self.pull_errors.remove(name);
    }

    /// One try, or the rest after one that failed: between two tries the pod says that it backs off.
    async fn pull(&mut self, name: &str, image: &str) -> Result<Image, Obstacle> {
        let failed =
            self.obstacles.get(name).is_some_and(|obstacle| obstacle.reason == "ErrImagePull");
        if failed {
            let rest = self.pull_waits.get(name).copied().unwrap_or(wait(None));
            let message = format!("Back-off pulling image {image:?}");
            self.tell(Some(name), "Normal", "BackOff", &message);
            self.tell(Some(name), "Warning", "Failed", "Error: ImagePullBackOff");
            let why = self.pull_errors.get(name).map_or("", String::as_str);
            return Err(obstacle(
                "ImagePullBackOff",
                format!("{message}: ErrImagePull: {why}"),
                rest,
            ));
        }
        let began = Instant::now();
        let keyring = self.keyring().await;
        self.tell(Some(name), "Normal", "Pulling", &format!("Pulling image {image:?}"));
        let asked = Instant::now();
        let images = self.shared.config.images.clone();
        let error = tokio::select! {
            pulled = images.pull(image, &keyring) => match pulled {
                Ok(pulled) => {
                    let words = pulled_words(image, asked.elapsed(), began.elapsed(), pulled.size_bytes);
                    self.tell(Some(name), "Normal", "Pulled", &words);
                    self.forget_pulls(name);
                    return Ok(pulled);
                }
                Err(error) => error,
            },
            () = unwanted(self.wanted.clone()) => {
                return Err(obstacle("ContainerCreating", String::new(), Duration::ZERO));
            }
        };
        let message = format!("Failed to pull image {image:?}: {error}");
        self.tell(Some(name), "Warning", "Failed", &message);
        self.tell(Some(name), "Warning", "Failed", "Error: ErrImagePull");
        let rest = wait(self.pull_waits.get(name).copied());
        self.pull_waits.insert(name.to_owned(), rest);
        self.pull_errors.insert(name.to_owned(), error.to_string());
        Err(obstacle("ErrImagePull", error.to_string(), SOON))
    }

    /// What the pod's `imagePullSecrets` (or those of its ServiceAccount, if it has none itself) hold. One that cannot be had is
    /// told, and the pull tried without.
    async fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        let mut missing = Vec::new();
        for LocalObjectReference { name } in self.pull_secrets().await {
            match self.pull_secret(&name).await {
                Ok(found) => keyring.extend(found),
                Err(why) => {
                    let (namespace, pod) = (&self.reference.namespace, &self.reference.name);
                    tracing::debug!(
                        namespace,
                        name = pod,
                        secret = name,
                        why,
                        "no credentials from a secret"
                    );
                    missing.push(name);
                }
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.tell(None, "Warning", "FailedToRetrieveImagePullSecret", &message);
        }
        keyring
    }

    async fn pull_secrets(&self) -> Vec<LocalObjectReference> {
        let own = self.spec().image_pull_secrets.clone().unwrap_or_default();
        if !own.is_empty() {
            return own;
        }
        // As upstream's admission plugin ServiceAccount, only later: what the account says when the image is pulled counts.
        let account = self.spec().service_account_name.as_deref().unwrap_or_default();
        let account = if account.is_empty() { "default" } else { account };
        let api: Api<ServiceAccount> =
            Api::namespaced(self.shared.config.client.clone(), &self.reference.namespace);
        match api.get_opt(account).await {
            Ok(account) => account.and_then(|a| a.image_pull_secrets).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, account, "a service account could not be read");
                Vec::new()
            }
        }
    }

    async fn pull_secret(&self, name: &str) -> Result<Keyring, String> {
        let api: Api<Secret> =
            Api::namespaced(self.shared.config.client.clone(), &self.reference.namespace);
        let secret = api.get(name).await.map_err(|error| error.to_string())?;
        let data = secret.data.unwrap_or_default();
        let value = |key: &str| {
            data.get(key).map(|value| value.0.as_slice()).ok_or(format!("it has no {key}"))
        };
        match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => {
                Keyring::from_docker_config(value(".dockerconfigjson")?)
            }
            Some("kubernetes.io/dockercfg") => Keyring::from_dockercfg(value(".dockercfg")?),
            other => Err(format!("it is of type {}", other.unwrap_or("Opaque"))),
        }
    }

    /// `runAsNonRoot`.
    fn may_run(&self, container: &Container, image: &Image) -> Result<(), Obstacle> {
        let (own, pods) =
            (container.security_context.as_ref(), self.spec().security_context.as_ref());
        let non_root = own
            .and_then(|context| context.run_as_non_root)
            .or(pods.and_then(|context| context.run_as_non_root))
            == Some(true);
        let user = own
            .and_then(|context| context.run_as_user)
            .or(pods.and_then(|context| context.run_as_user));
        let root = user.map_or_else(
            || ["", "0", "root"].contains(&image.user.split(':').next().unwrap_or_default()),
            |uid| uid == 0,
        );
        if non_root && root {
            let message = "container has runAsNonRoot and image will run as root".to_owned();
            return Err(obstacle("CreateContainerConfigError", message, RETRY * 10));
        }
        Ok(())
    }
}

/// Waits until the pod is to end, or the node no longer cares.
async fn unwanted(mut pods: watch::Receiver<Option<Arc<Pod>>>) {
    let ends = |pod: &Option<Arc<Pod>>| {
        pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    };
    // An error says that nobody tells about the pod any more.
    drop(pods.wait_for(ends).await);
}
