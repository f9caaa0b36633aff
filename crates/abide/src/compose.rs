//! The one place where rooms are put together.

use crate::cli::server::Cidr;
use crate::pki::Pki;
use crate::{kubeconfig, notify};
use anyhow::{Context, Result};
use apiserver::{ApiServer, Identity, NodeConnector, NodeService};
use network::host::ClusterAddresses;
use network::pods::RoutedPods;
use network::services::Services;
use runtime::images::Images;
use runtime::images::registries::Registries;
use runtime::{EmbeddedRuntime, ImageStore};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) image_store: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) cluster_cidr: Cidr,
    pub(crate) service_cidr: Cidr,
    pub(crate) cluster_domain: String,
    pub(crate) node_name: String,
    pub(crate) simulated_nodes: u32,
    pub(crate) images: Vec<PathBuf>,
    pub(crate) registries: Registries,
    pub(crate) cgroup_parent: String,
    pub(crate) resolv_conf: PathBuf,
}

impl Settings {
    /// The API server's own address among Services.
    fn api_address(&self) -> Ipv4Addr {
        self.service_cidr.at(1)
    }
    /// The cluster's DNS server.
    fn dns_address(&self) -> Ipv4Addr {
        self.service_cidr.at(10)
    }
    fn simulated(&self) -> bool {
        self.simulated_nodes > 0
    }
}

/// The way to the one node that is in this process.
#[derive(Debug, Default)]
struct OwnNode {
    name: String,
    router: OnceLock<axum::Router>,
}

impl NodeConnector for OwnNode {
    fn connect(&self, node_name: &str) -> Option<NodeService> {
        let router = self.router.get().filter(|_| node_name == self.name)?.clone();
        Some(NodeService::new(router.into_service()))
    }
}

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn serve(mut settings: Settings, began: Instant) -> Result<()> {
    let closing = CancellationToken::new();
    let (store, listener) = open_doors(&settings).await?;
    std::fs::write(settings.data_dir.join("server.pid"), std::process::id().to_string())
        .context("write server.pid")?;
    let pki = open_pki(&settings)?;

    let nodes = Arc::new(OwnNode { name: settings.node_name.clone(), router: OnceLock::new() });
    let config = apiserver::Config {
        store: Arc::new(store),
        service_cidr: (settings.service_cidr.address, settings.service_cidr.prefix),
        nodes: nodes.clone(),
    };
    let server = ApiServer::new(config, closing.clone()).await.context("start the API server")?;
    let tls = Arc::new(pki.server_config()?);
    let mut tasks = Vec::new();

    let client_for: controllers::Clients = {
        let server = server.clone();
        Arc::new(move |user| server.client_for(Identity::internal(user)))
    };
    let volume_root = settings.data_dir.join("volumes").display().to_string();
    let controllers = controllers::Config {
        client_for: client_for.clone(),
        ca_certificate: pki.ca_pem.clone(),
        clock: Arc::new(jiff::Timestamp::now),
        volume_root,
    };
    tasks.push(tokio::spawn(controllers::run(controllers, closing.clone())));
    if settings.simulated() {
        network::host::loopback_up().await.context("turn loopback on")?;
        let client = client_for("system:node:simulated");
        tasks.push(tokio::spawn(node::simulated::run(
            client,
            settings.simulated_nodes,
            apiserver::KUBERNETES_VERSION.to_owned(),
            closing.clone(),
        )));
        server.publish_itself(settings.api_address(), 443).await?;
    } else {
        tasks.extend(
            start_node(&mut settings, &server, &client_for, &nodes, tls.clone(), &closing).await?,
        );
    }
    // Clients are answered once everything is there; those that come earlier wait to be accepted.
    tasks.push(tokio::spawn(apiserver::listen(server.clone(), listener, tls, closing.clone())));
    let api = format!("https://{}", reachable(settings.listen));
    kubeconfig::write(&settings.kubeconfig, &api, &pki.ca_pem, &pki.admin)?;
    tracing::info!(
        "ready after {} ms: API {api}, state {}, pods {}, services {}",
        began.elapsed().as_millis(),
        settings.data_dir.display(),
        settings.cluster_cidr,
        settings.service_cidr
    );
    tracing::info!("export KUBECONFIG={}", settings.kubeconfig.display());
    notify::ready();

    wait_for_signal().await?;
    tracing::info!("shutting down; pods run on");
    closing.cancel();
    for task in tasks {
        task.await.context("a part of the server failed while it was shut down")?;
    }
    Ok(())
}

/// The store and the listener, in the order in which a refusal says most and leaves nothing behind: a second server on the
/// same data learns that, and one whose port is taken has made no folder.
async fn open_doors(settings: &Settings) -> Result<(store::Embedded, TcpListener)> {
    let exists = settings.data_dir.join("state").exists();
    let early = if exists { None } else { Some(listen(settings).await?) };
    let folder = settings.data_dir.join("state");
    make_private(&settings.data_dir).and_then(|()| make_private(&folder)).with_context(|| {
        format!("make {} (choose another folder with --data-dir)", settings.data_dir.display())
    })?;
    let store = store::Embedded::open(&folder, apiserver::indexer(), store::Options::default());
    let store = store.map_err(|error| match error {
        store::OpenError::Io(words) => anyhow::anyhow!(
            "{words} (nothing was changed; if the file is damaged, restore a backup with `abide restore`)"
        ),
        other => other.into(),
    })?;
    let listener = match early {
        Some(listener) => listener,
        None => listen(settings).await?,
    };
    Ok((store, listener))
}

/// A folder that root alone enters, unless it is there already: state holds Secrets, and volumes what programs keep.
fn make_private(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

async fn listen(settings: &Settings) -> Result<TcpListener> {
    TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "listen at {} (is another server running? choose another with --listen)",
            settings.listen
        )
    })
}

/// The address at which clients on this machine find a listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port())
    } else {
        listen
    }
}

fn open_pki(settings: &Settings) -> Result<Pki> {
    let domain = &settings.cluster_domain;
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(str::to_owned)
            .to_vec();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(settings.node_name.clone());
    let addresses =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), settings.listen.ip(), IpAddr::V4(settings.api_address())];
    Pki::open(&settings.data_dir.join("pki"), &names, &addresses)
}

type Task = tokio::task::JoinHandle<()>;

/// Network, names, containers and the agent.
async fn start_node(
    settings: &mut Settings,
    server: &ApiServer,
    client_for: &controllers::Clients,
    nodes: &Arc<OwnNode>,
    tls: Arc<rustls::ServerConfig>,
    closing: &CancellationToken,
) -> Result<Vec<Task>> {
    let cluster = ClusterAddresses {
        pods: (settings.cluster_cidr.address, settings.cluster_cidr.prefix),
        services: (settings.service_cidr.address, settings.service_cidr.prefix),
    };
    network::host::set_up(cluster, &[settings.api_address(), settings.dns_address()])
        .await
        .context("prepare the node's network")?;
    let inside = TcpListener::bind((settings.api_address(), 443))
        .await
        .context("listen at the API's address in the cluster")?;
    let listening = tokio::spawn(apiserver::listen(server.clone(), inside, tls, closing.clone()));
    server.publish_itself(settings.api_address(), 443).await?;

    let dns = network::dns::Dns::new(&settings.cluster_domain, &settings.resolv_conf);
    network::dns::serve(dns.clone(), (settings.dns_address(), 53).into(), closing.clone())
        .await
        .context("serve the cluster's names")?;
    point_to_images(settings)?;
    let images = Images::open(&settings.image_store)
        .with_context(|| format!("open the image store {}", settings.image_store.display()))?
        .with_registries(std::mem::take(&mut settings.registries));
    for archive in &settings.images {
        images
            .import(archive, None)
            .await
            .with_context(|| format!("import image {}", archive.display()))?;
    }
    let images = Arc::new(images);
    let runtime = EmbeddedRuntime::new(runtime::embedded::Config {
        state_dir: settings.data_dir.join("run"),
        images: images.clone(),
        cgroup_parent: settings.cgroup_parent.clone(),
        shim: runtime::embedded::Shim {
            executable: std::env::current_exe().context("find the program's own file")?,
            arguments: vec!["shim".into()],
        },
        ephemeral: false,
    })?;
    // One node has a /24 of the cluster's range (or all of it, if that is smaller).
    let pod_range = (settings.cluster_cidr.address, settings.cluster_cidr.prefix.max(24));
    let pods = RoutedPods::new(pod_range, &settings.data_dir.join("addresses")).await?;
    let agent = node::Agent::new(node::AgentConfig {
        node_name: settings.node_name.clone(),
        node_ip: settings.api_address(),
        pod_cidr: format!("{}/{}", pod_range.0, pod_range.1),
        cluster_dns: settings.dns_address(),
        cluster_domain: settings.cluster_domain.clone(),
        resolv_conf: settings.resolv_conf.clone(),
        data_dir: settings.data_dir.clone(),
        kubernetes_version: apiserver::KUBERNETES_VERSION.to_owned(),
        client: client_for(&format!("system:node:{}", settings.node_name)),
        runtime: Arc::new(runtime),
        images,
        network: Arc::new(pods),
        services: Arc::new(Services::new(cluster)),
        dns,
    });
    if nodes.router.set(node::kubelet_api::router(&agent)).is_err() {
        tracing::debug!("the node's routes are set already");
    }
    Ok(vec![listening, tokio::spawn(agent.run(closing.clone()))])
}

/// `DATA_DIR/images` leads to the image store, wherever it is, so that `abide image` needs to know the one folder only.
fn point_to_images(settings: &Settings) -> Result<()> {
    let place = settings.data_dir.join("images");
    if place == settings.image_store {
        return Ok(());
    }
    if place.is_symlink() {
        std::fs::remove_file(&place).with_context(|| format!("remove {}", place.display()))?;
    }
    if place.exists() {
        // It was used before, and is another store.
        return Ok(());
    }
    std::os::unix::fs::symlink(&settings.image_store, &place)
        .with_context(|| format!("make {} lead to the image store", place.display()))
}

async fn wait_for_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
