//! What a pod needs before its containers start: volumes, a sandbox, an address, its own files in /etc.

use super::*;

impl Worker {
    /// Volumes, sandbox, address. An error is how long to wait.
    pub(super) async fn ready_to_start(
        &mut self,
        sandbox: &mut Option<SandboxStatus>,
    ) -> Result<(), Duration> {
        if self.places.is_none() {
            let moment = match sandbox {
                Some(_) => volumes::Moment::Later,
                None => volumes::Moment::Start,
            };
            match volumes::prepare(&self.shared, &self.pod, self.ip, moment).await {
                Ok(places) => self.places = Some(places),
                Err(why) => {
                    self.tell(None, "Warning", "FailedMount", &why);
                    return Err(RETRY);
                }
            }
        }
        if sandbox.as_ref().is_none_or(|sandbox| !sandbox.ready) || self.ip.is_none() {
            match self.make_sandbox(sandbox.as_ref()).await {
                Ok(made) => *sandbox = Some(made),
                Err(why) => {
                    self.tell(
                        None,
                        "Warning",
                        "FailedCreatePodSandBox",
                        &format!("Failed to create pod sandbox: {why}"),
                    );
                    return Err(RETRY);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn make_sandbox(
        &mut self,
        before: Option<&SandboxStatus>,
    ) -> Result<SandboxStatus, String> {
        let config = &self.shared.config;
        if before.is_some_and(|sandbox| !sandbox.ready) {
            // Its supervisor is dead (or the machine was started anew): what it had is made anew, the tries are counted on.
            return self.remake_sandbox().await;
        }
        let hostname = if self.host_network() {
            host_name()
        } else {
            self.spec().hostname.clone().unwrap_or_else(|| self.reference.name.clone())
        };
        let labels = BTreeMap::from([
            ("namespace".to_owned(), self.reference.namespace.clone()),
            ("name".to_owned(), self.reference.name.clone()),
        ]);
        let wanted = SandboxConfig {
            id: self.reference.id.clone(),
            hostname: hostname.chars().take(63).collect(),
            host_network: self.host_network(),
            labels,
            resources: Resources::default(),
        };
        let made =
            config.runtime.run_pod_sandbox(&wanted).await.map_err(|error| error.to_string())?;
        self.ip = Some(match &made.network_namespace {
            Some(namespace) => {
                let ip = config
                    .network
                    .add(&self.reference, namespace)
                    .await
                    .map_err(|error| error.to_string())?
                    .ip;
                config.dns.set_pod(ip, Some(&self.reference.namespace));
                ip
            }
            None => config.node_ip,
        });
        self.write_etc()?;
        Ok(made)
    }

    /// A new sandbox in the place of a dead one. The number of tries is what the status said.
    pub(super) async fn remake_sandbox(&mut self) -> Result<SandboxStatus, String> {
        self.end_probes();
        self.shared
            .config
            .runtime
            .remove_pod_sandbox(&self.reference.id)
            .await
            .map_err(|error| error.to_string())?;
        self.shared.config.network.del(&self.reference).await.map_err(|error| error.to_string())?;
        self.ip = None;
        Box::pin(self.make_sandbox(None)).await
    }

    pub(super) fn etc(&self, name: &str) -> PathBuf {
        volumes::pod_folder(&self.shared, &self.reference.id).join(name)
    }

    pub(super) fn write_etc(&self) -> Result<(), String> {
        let Some(ip) = self.ip else { return Ok(()) };
        let folder = volumes::pod_folder(&self.shared, &self.reference.id);
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text)
                .map_err(|error| format!("write {name}: {error}"))
        };
        std::fs::create_dir_all(folder.join("messages"))
            .map_err(|error| format!("make the pod's folder: {error}"))?;
        write("hosts", environment::hosts(&self.shared, &self.pod, ip))?;
        write("resolv.conf", environment::resolv_conf(&self.shared, &self.pod))
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
