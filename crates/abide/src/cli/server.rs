//! `abide server`: control plane and node agent in one process.

use super::pulling::Registries;
use crate::compose::{self, Settings};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `abide server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where state, images, volumes and logs live.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/abide")]
    data_dir: PathBuf,
    /// Where the API is served (TLS).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where the admin kubeconfig is written (mode 0600); DATA_DIR/kubeconfig if not given.
    #[arg(long, value_name = "FILE")]
    write_kubeconfig: Option<PathBuf>,
    /// Addresses of pods.
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    cluster_cidr: Cidr,
    /// Addresses of Services.
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16")]
    service_cidr: Cidr,
    /// The domain of cluster names.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Name of this machine's node; its host name if not given.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Nodes whose pods become Ready without a container (scale tests), instead of the real one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    simulated_nodes: u32,
    /// The image store, if it is not DATA_DIR/images.
    #[arg(long, value_name = "DIR")]
    image_store: Option<PathBuf>,
    /// Image archives that are loaded at start.
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    registries: Registries,
    /// The cgroup under which pods live.
    #[arg(long, value_name = "PATH", default_value = "abide/pods", hide = true)]
    cgroup_parent: String,
    /// Where names outside the cluster are resolved.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// How the log is written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    /// First address.
    pub(crate) address: Ipv4Addr,
    /// How many leading bits are fixed.
    pub(crate) prefix: u8,
}

impl Cidr {
    /// The address `offset` after the first.
    pub(crate) fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address).wrapping_add(offset))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a range of IPv4 addresses such as 10.42.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(8..=24).contains(&prefix) {
            return Err(format!("{text:?}: the prefix length must be between 8 and 24"));
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Cidr { address: Ipv4Addr::from(u32::from(address) & mask), prefix })
    }
}

impl Arguments {
    /// Serves until SIGINT or SIGTERM.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let began = std::time::Instant::now();
        // Whoever started us may have held signals back; ours, and those of the pods, are not.
        nix::sys::signal::SigSet::empty().thread_set_mask().context("take every signal")?;
        if self.simulated_nodes == 0 {
            crate::check::machine()?;
        }
        start_logging(self.log_format);
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider is already installed");
        }
        let settings = self.settings()?;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
            .enable_all()
            .build()
            .context("start the runtime")?
            .block_on(compose::serve(settings, began))?;
        Ok(ExitCode::SUCCESS)
    }

    fn settings(self) -> Result<Settings> {
        let data_dir = std::path::absolute(&self.data_dir)?;
        Ok(Settings {
            kubeconfig: self.write_kubeconfig.unwrap_or_else(|| data_dir.join("kubeconfig")),
            image_store: self.image_store.unwrap_or_else(|| data_dir.join("images")),
            listen: self.listen,
            cluster_cidr: self.cluster_cidr,
            service_cidr: self.service_cidr,
            cluster_domain: self.cluster_domain,
            node_name: self.node_name.map_or_else(host_name, Ok)?,
            simulated_nodes: self.simulated_nodes,
            images: self.images,
            registries: self.registries.absolute()?.for_a_server(&data_dir),
            cgroup_parent: self.cgroup_parent,
            resolv_conf: self.resolv_conf,
            data_dir,
        })
    }
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("ask for the host name")?;
    Ok(name.to_string_lossy().to_ascii_lowercase())
}

fn start_logging(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("ABIDE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,libcontainer=warn,hickory_server=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init()
        }
        LogFormat::Json => builder.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_starts_at_its_first_address() {
        let cidr: Cidr = "10.43.7.9/16".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.43.0.0/16");
        assert_eq!(cidr.at(10), Ipv4Addr::new(10, 43, 0, 10));
    }

    #[test]
    fn a_bad_range_is_refused_in_words() {
        for text in ["", "10.43.0.0", "10.43.0.0/33", "x/16", "10.0.0.0/4"] {
            assert!(text.parse::<Cidr>().unwrap_err().contains(&format!("{text:?}")));
        }
    }
}
