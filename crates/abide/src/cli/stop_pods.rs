//! `abide stop-pods`: ends what outlives a server, before the program is removed for good.

use anyhow::{Context, Result};
use runtime::{ContainerRuntime, ContainerState, EmbeddedRuntime, SandboxStatus};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server's data directory.
    #[arg(long, env = "ABIDE_DATA_DIR", default_value = "/var/lib/abide")]
    data_dir: PathBuf,
    /// How long a container may take to end before it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace_period: u64,
    /// The cgroup under which pods live.
    #[arg(long, value_name = "PATH", default_value = "abide/pods", hide = true)]
    cgroup_parent: String,
}

impl Arguments {
    /// Stops every pod. State and volumes stay: a server that is started again starts the pods again.
    pub(crate) fn run(self) -> Result<ExitCode> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.stop())
    }

    async fn stop(self) -> Result<ExitCode> {
        let data_dir = std::path::absolute(&self.data_dir)?;
        if !data_dir.join("run").is_dir() {
            return Ok(super::print(&format!("there are no pods in {}\n", data_dir.display())));
        }
        // Held until the end: a server that ran would start every pod again.
        let _store = store::Embedded::open(
            &data_dir.join("state"),
            apiserver::indexer(),
            store::Options::default(),
        )
        .context("stop the server first")?;
        let images = runtime::images::Images::open(&data_dir.join("images"))
            .context("open the image store")?;
        let runtime = EmbeddedRuntime::new(runtime::embedded::Config {
            state_dir: data_dir.join("run"),
            images: Arc::new(images),
            cgroup_parent: self.cgroup_parent,
            shim: runtime::embedded::Shim::default(),
            ephemeral: false,
        })?;
        let pods = runtime.list().await?;
        let grace = std::time::Duration::from_secs(self.grace_period);
        futures::future::try_join_all(pods.iter().map(|pod| stop(&runtime, pod, grace))).await?;
        network::services::remove().await.context("remove the Services' rules")?;
        Ok(super::print(&format!("{} pods stopped\n", pods.len())))
    }
}

/// Asks a pod's containers to end, all at once, and removes what is left.
async fn stop(
    runtime: &EmbeddedRuntime,
    pod: &SandboxStatus,
    grace: std::time::Duration,
) -> Result<()> {
    let id = &pod.config.id;
    let running = pod
        .containers
        .iter()
        .filter(|container| matches!(container.state, ContainerState::Running { .. }));
    let stopping = running.map(|container| runtime.stop_container(id, &container.id, grace));
    futures::future::try_join_all(stopping).await.with_context(|| format!("stop pod {id}"))?;
    runtime.remove_pod_sandbox(id).await.with_context(|| format!("remove pod {id}"))
}
