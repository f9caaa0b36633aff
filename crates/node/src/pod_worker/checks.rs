//! Probes and hooks of containers that run.

use super::*;

impl Worker {
    /// Probes follow containers: new ones are probed, ended ones no longer.
    pub(super) fn follow_containers(&mut self, sandbox: Option<&SandboxStatus>) {
        let running: Vec<(String, String)> = sandbox
            .into_iter()
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|container| matches!(container.state, ContainerState::Running { .. }))
            .map(|container| (container.id.clone(), container.name.clone()))
            .collect();
        let ended: Vec<String> = self
            .probes
            .keys()
            .filter(|id| running.iter().all(|(running, _)| running != *id))
            .cloned()
            .collect();
        for id in ended {
            self.probes.remove(&id).into_iter().flatten().for_each(|task| task.abort());
            self.probed.remove(&id);
        }
        for (id, name) in running {
            if self.probes.contains_key(&id) {
                continue;
            }
            let Some(container) = self.container(&name) else { continue };
            self.probes.insert(id.clone(), Vec::new());
            let adopted = self.probed.get(&id).cloned();
            let fresh = Probed {
                started: container.startup_probe.is_none(),
                ready: container.readiness_probe.is_none(),
            };
            let started = adopted.as_ref().unwrap_or(&fresh).started;
            self.probed.entry(id.clone()).or_insert(fresh);
            if started {
                self.probe(&id, &container, &[Which::Readiness, Which::Liveness]);
            } else {
                self.probe(&id, &container, &[Which::Startup]);
            }
        }
    }

    pub(super) fn probe(&mut self, id: &str, container: &Container, which: &[Which]) {
        let Some(ip) = self.ip else { return };
        for which in which {
            let probe = match which {
                Which::Startup => &container.startup_probe,
                Which::Readiness => &container.readiness_probe,
                Which::Liveness => &container.liveness_probe,
            };
            let Some(probe) = probe.clone().filter(|probe| probe.grpc.is_none()) else { continue };
            let place =
                Place { sandbox: self.reference.id.clone(), container_id: id.to_owned(), ip };
            let task = tokio::spawn(probes::run(
                self.shared.clone(),
                *which,
                probe,
                container.clone(),
                place,
                self.reports.clone(),
            ));
            self.probes.entry(id.to_owned()).or_default().push(task);
        }
    }

    pub(super) fn end_probes(&mut self) {
        std::mem::take(&mut self.probes).into_values().flatten().for_each(|task| task.abort());
        self.probed.clear();
    }

    /// Takes in what a probe found.
    pub(super) async fn hear(&mut self, report: Report) {
        let Some(sandbox) = self.sandbox().await else { return };
        let Some(name) = sandbox
            .containers
            .iter()
            .find(|container| container.id == report.container_id)
            .map(|container| container.name.clone())
        else {
            return;
        };
        let Some(container) = self.container(&name) else { return };
        let word = match report.which {
            Which::Startup => "Startup",
            Which::Readiness => "Readiness",
            Which::Liveness => "Liveness",
        };
        match (report.which, report.finding) {
            (_, Finding::Failed(why)) => self.tell(
                Some(&name),
                "Warning",
                "Unhealthy",
                &format!("{word} probe failed: {why}"),
            ),
            (Which::Startup, Finding::Now(true)) => {
                if let Some(probed) = self.probed.get_mut(&report.container_id) {
                    probed.started = true;
                }
                self.probes
                    .insert(report.container_id.clone(), Vec::new())
                    .into_iter()
                    .flatten()
                    .for_each(|task| task.abort());
                self.probe(&report.container_id, &container, &[Which::Readiness, Which::Liveness]);
            }
            (Which::Readiness, Finding::Now(now)) => {
                if let Some(probed) = self.probed.get_mut(&report.container_id) {
                    probed.ready = now;
                }
            }
            (Which::Liveness, Finding::Now(true)) => {}
            (Which::Startup | Which::Liveness, Finding::Now(false)) => {
                let words = word.to_lowercase();
                self.tell(
                    Some(&name),
                    "Normal",
                    "Killing",
                    &format!("Container {name} failed {words} probe, will be restarted"),
                );
                if let Err(error) = self
                    .shared
                    .config
                    .runtime
                    .stop_container(&self.reference.id, &report.container_id, self.grace())
                    .await
                {
                    tracing::warn!(name = self.reference.name, %error, "a container that failed its probe could not be stopped");
                }
            }
        }
    }

    pub(super) async fn post_start(&self, container: &Container, id: &str) {
        let Some(hook) =
            container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return;
        };
        if let Err(why) = self.hook(hook, container, id).await {
            self.tell(
                Some(&container.name),
                "Warning",
                "FailedPostStartHook",
                &format!("PostStartHook failed: {why}"),
            );
            if let Err(error) = self
                .shared
                .config
                .runtime
                .stop_container(&self.reference.id, id, self.grace())
                .await
            {
                tracing::warn!(%error, "a container whose hook failed could not be stopped");
            }
        }
    }

    pub(super) async fn hook(
        &self,
        hook: &LifecycleHandler,
        container: &Container,
        id: &str,
    ) -> Result<(), String> {
        let place = Place {
            sandbox: self.reference.id.clone(),
            container_id: id.to_owned(),
            ip: self.ip.unwrap_or(Ipv4Addr::LOCALHOST),
        };
        if let Some(exec) = &hook.exec {
            return probes::run_command(
                &self.shared,
                &place,
                exec.command.clone().unwrap_or_default(),
            )
            .await;
        }
        if let Some(get) = &hook.http_get {
            let port = probes::port(&get.port, container)?;
            return probes::http_get(
                &get.host.clone().unwrap_or_else(|| place.ip.to_string()),
                port,
                get.path.as_deref().unwrap_or("/"),
                "",
            )
            .await;
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)))
                .await;
        }
        Ok(())
    }
}
