//! Starting containers: images, configuration, limits.

use super::*;

impl Worker {
    /// Starts one try of a container. What keeps it from starting becomes an obstacle, with an event.
    pub(super) async fn start(&mut self, name: &str, attempt: u32) {
        let Some(container) = self.container(name) else { return };
        // After a reboot or a lost sandbox the number of tries goes on from what was reported.
        let reported = self
            .pod
            .status
            .iter()
            .flat_map(|status| {
                status
                    .container_statuses
                    .iter()
                    .flatten()
                    .chain(status.init_container_statuses.iter().flatten())
            })
            .find(|status| status.name == name);
        let attempt = match reported {
            Some(status) if attempt == 0 && status.container_id.is_some() => {
                u32::try_from(status.restart_count).unwrap_or(0) + 1
            }
            _ => attempt,
        };
        let image_id = match self.image(&container).await {
            Ok(id) => id,
            Err(obstacle) => return drop(self.obstacles.insert(name.to_owned(), obstacle)),
        };
        let config = match self.container_config(&container, attempt, image_id).await {
            Ok(config) => config,
            Err(why) => {
                return self.hinder(
                    name,
                    "CreateContainerConfigError",
                    &why,
                    "Failed",
                    &format!("Error: {why}"),
                );
            }
        };
        let runtime = self.shared.config.runtime.clone();
        let id = match runtime.create_container(&self.reference.id, &config).await {
            Ok(id) => id,
            Err(RuntimeError::Config(why)) => {
                return self.hinder(
                    name,
                    "CreateContainerConfigError",
                    &why,
                    "Failed",
                    &format!("Error: {why}"),
                );
            }
            Err(error) => {
                return self.hinder(
                    name,
                    "CreateContainerError",
                    &error.to_string(),
                    "Failed",
                    &format!("Error: {error}"),
                );
            }
        };
        self.obstacles.remove(name);
        self.tell(Some(name), "Normal", "Created", &format!("Created container: {name}"));
        if attempt > 0 {
            self.back_offs.step(name, Timestamp::now());
        }
        match runtime.start_container(&self.reference.id, &id).await {
            Ok(()) => {
                self.tell(Some(name), "Normal", "Started", &format!("Started container {name}"));
                self.post_start(&container, &id).await;
            }
            Err(error) => self.tell(
                Some(name),
                "Warning",
                "Failed",
                &format!("Error: failed to start container {name:?}: {error}"),
            ),
        }
        self.forget_old_tries(name, attempt).await;
    }

    /// The last try's predecessor is kept for `logs --previous`; older ones go.
    pub(super) async fn forget_old_tries(&self, name: &str, attempt: u32) {
        let Some(sandbox) = self.sandbox().await else { return };
        for old in sandbox
            .containers
            .iter()
            .filter(|container| container.name == name && container.attempt + 1 < attempt)
        {
            if let Err(error) =
                self.shared.config.runtime.remove_container(&self.reference.id, &old.id).await
            {
                tracing::debug!(%error, "an old container could not be removed");
            }
        }
    }

    pub(super) fn hinder(
        &mut self,
        name: &str,
        reason: &str,
        why: &str,
        event: &str,
        message: &str,
    ) {
        self.tell(Some(name), "Warning", event, message);
        let until = Timestamp::now().checked_add(RETRY).unwrap_or_default();
        self.obstacles.insert(
            name.to_owned(),
            Obstacle { reason: reason.to_owned(), message: why.to_owned(), until },
        );
    }

    /// The image's id; an imported image counts as the newest there is.
    pub(super) async fn image(&mut self, container: &Container) -> Result<String, Obstacle> {
        let (name, image) = (container.name.clone(), container.image.clone().unwrap_or_default());
        let soon = |reason: &str, message: String, wait: Duration| Obstacle {
            reason: reason.to_owned(),
            message,
            until: Timestamp::now().checked_add(wait).unwrap_or_default(),
        };
        match self.shared.config.images.resolve(&image).await {
            Ok(Some(found)) => {
                self.tell(
                    Some(&name),
                    "Normal",
                    "Pulled",
                    &format!("Container image {image:?} already present on machine"),
                );
                self.pull_waits.remove(&name);
                return self.may_run(container, &found).map(|()| found.id);
            }
            Ok(None) => {}
            Err(error) => {
                let message = format!("Failed to apply default image tag {image:?}: {error}");
                self.tell(Some(&name), "Warning", "InspectFailed", &message);
                return Err(soon("InvalidImageName", message, LONGEST_PULL_WAIT));
            }
        }
        if container.image_pull_policy.as_deref() == Some("Never") {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            self.tell(Some(&name), "Warning", "ErrImageNeverPull", &message);
            return Err(soon("ErrImageNeverPull", message, Duration::from_secs(10)));
        }
        let waited =
            self.obstacles.get(&name).is_some_and(|obstacle| obstacle.reason == "ErrImagePull");
        if waited {
            // Between two tries the pod says that it backs off.
            let wait = self.pull_waits.get(&name).copied().unwrap_or(Duration::from_secs(10));
            let message = format!("Back-off pulling image {image:?}");
            self.tell(Some(&name), "Normal", "BackOff", &message);
            self.tell(Some(&name), "Warning", "Failed", "Error: ImagePullBackOff");
            return Err(soon("ImagePullBackOff", message, wait));
        }
        self.tell(Some(&name), "Normal", "Pulling", &format!("Pulling image {image:?}"));
        match self.shared.config.images.pull(&image).await {
            Ok(found) => Ok(found.id),
            Err(error) => {
                self.tell(
                    Some(&name),
                    "Warning",
                    "Failed",
                    &format!("Failed to pull image {image:?}: {error}"),
                );
                self.tell(Some(&name), "Warning", "Failed", "Error: ErrImagePull");
                let wait = self
                    .pull_waits
                    .get(&name)
                    .map_or(Duration::from_secs(10), |wait| (*wait * 2).min(LONGEST_PULL_WAIT));
                self.pull_waits.insert(name, wait);
                Err(soon("ErrImagePull", error.to_string(), Duration::from_millis(500)))
            }
        }
    }

    /// `runAsNonRoot`.
    pub(super) fn may_run(
        &self,
        container: &Container,
        image: &runtime::Image,
    ) -> Result<(), Obstacle> {
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
            return Err(Obstacle {
                reason: "CreateContainerConfigError".to_owned(),
                message,
                until: Timestamp::now().checked_add(RETRY * 10).unwrap_or_default(),
            });
        }
        Ok(())
    }

    pub(super) async fn container_config(
        &self,
        container: &Container,
        attempt: u32,
        image_id: String,
    ) -> Result<ContainerConfig, String> {
        let ip = self.ip.ok_or("the pod has no address yet")?;
        let env = environment::variables(&self.shared, &self.pod, container, ip).await?;
        let known: BTreeMap<String, String> = env.iter().cloned().collect();
        let expanded = |words: &Option<Vec<String>>| {
            words.iter().flatten().map(|word| environment::expand(word, &known)).collect()
        };
        let mut mounts = volumes::mounts(
            container,
            self.places.as_ref().ok_or("the pod's volumes are not ready")?,
        )?;
        let message_path = container
            .termination_message_path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/dev/termination-log".to_owned());
        let message_file = self.message_file(&container.name, attempt);
        std::fs::write(&message_file, "")
            .map_err(|error| format!("make {}: {error}", message_file.display()))?;
        if let Err(error) = std::fs::set_permissions(
            &message_file,
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        ) {
            tracing::debug!(%error, "a termination message can be written by root alone");
        }
        let taken = |path: &str| {
            container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path)
        };
        for (name, path) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
            let the_hosts_own = self.host_network() && name == "hosts";
            if !taken(path) && !the_hosts_own {
                mounts.push(Mount {
                    host_path: self.etc(name),
                    container_path: path.into(),
                    readonly: false,
                });
            }
        }
        mounts.push(Mount {
            host_path: message_file,
            container_path: message_path.into(),
            readonly: false,
        });
        Ok(ContainerConfig {
            name: container.name.clone(),
            attempt,
            image_id,
            command: expanded(&container.command),
            args: expanded(&container.args),
            env,
            working_dir: container.working_dir.clone(),
            mounts,
            resources: resources(container),
            security: self.security(container),
            tty: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            log_path: self.log_path(&container.name, attempt),
            labels: BTreeMap::new(),
        })
    }

    pub(super) fn security(&self, container: &Container) -> Security {
        let own = container.security_context.clone().unwrap_or_default();
        let pods = self.spec().security_context.clone().unwrap_or_default();
        let mut groups: Vec<i64> = pods.supplemental_groups.unwrap_or_default();
        groups.extend(pods.fs_group);
        let capabilities = own.capabilities.unwrap_or_default();
        Security {
            run_as_user: own.run_as_user.or(pods.run_as_user),
            run_as_group: own.run_as_group.or(pods.run_as_group),
            supplemental_groups: groups,
            privileged: own.privileged == Some(true),
            readonly_rootfs: own.read_only_root_filesystem == Some(true),
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
        }
    }
}

/// A container's limits as the kernel takes them. As upstream: `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`.
fn resources(container: &Container) -> Resources {
    let amount = |which: Option<
        &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
                  name: &str| {
        which
            .and_then(|amounts| amounts.get(name))
            .and_then(|amount| api::quantity::Quantity::parse(&amount.0).ok())
    };
    let resources = container.resources.clone().unwrap_or_default();
    let cpu_limit = amount(resources.limits.as_ref(), "cpu");
    let cpu_request = amount(resources.requests.as_ref(), "cpu").or(cpu_limit);
    let period = 100_000;
    Resources {
        cpu_shares: Some(cpu_request.map_or(2, |cpu| {
            (u64::try_from(cpu.milli_value()).unwrap_or(0) * 1024 / 1000).clamp(2, 262_144)
        })),
        cpu_quota: cpu_limit.map(|cpu| (cpu.milli_value() * 100).max(1000)),
        cpu_period: cpu_limit.map(|_| period),
        memory_limit_bytes: amount(resources.limits.as_ref(), "memory")
            .map(api::quantity::Quantity::value),
        pids_limit: None,
    }
}
