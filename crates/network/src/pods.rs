//! Routed veths: one /32 per pod, a host route to its veth, 169.254.1.1 as every pod's gateway. No bridge.

use crate::host::{connect, failed, index, unless_exists};
use crate::{NetworkError, PodAddress, PodNetwork, PodRef};
use async_trait::async_trait;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder, new_connection};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// The next hop of every pod: the host's side of its own veth.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The pod's side of its veth.
const POD_INTERFACE: &str = "eth0";

/// How long a connection to a pod's own loopback may take.
const DIAL: std::time::Duration = std::time::Duration::from_secs(10);

/// Which address each pod has.
#[derive(Debug, Default)]
struct Leases {
    held: BTreeMap<String, Ipv4Addr>,
    /// Where the search for a free address goes on: an address that was given back is the last to be given again.
    next: u32,
}

/// Pods on routed veths.
#[derive(Debug)]
pub struct RoutedPods {
    range: (Ipv4Addr, u8),
    /// A file per pod, so that a new process knows what an earlier one gave.
    folder: PathBuf,
    handle: Handle,
    leases: Mutex<Leases>,
}

impl RoutedPods {
    /// Hands out addresses of `range` (of this node); what is held is kept in `folder`.
    pub async fn new(range: (Ipv4Addr, u8), folder: &Path) -> Result<RoutedPods, NetworkError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| failed(format!("make {}", folder.display()), error))?;
        let mut leases = Leases { held: BTreeMap::new(), next: 2 };
        for entry in std::fs::read_dir(folder)
            .map_err(|error| failed(format!("read {}", folder.display()), error))?
            .flatten()
        {
            let address = std::fs::read_to_string(entry.path())
                .ok()
                .and_then(|text| text.trim().parse::<Ipv4Addr>().ok());
            if let (Some(address), Ok(id)) = (address, entry.file_name().into_string()) {
                leases.next =
                    leases.next.max(u32::from(address).wrapping_sub(u32::from(range.0)) + 1);
                leases.held.insert(id, address);
            }
        }
        Ok(RoutedPods {
            range,
            folder: folder.to_path_buf(),
            handle: connect()?,
            leases: Mutex::new(leases),
        })
    }

    /// A pod's address, and whether it was given just now.
    async fn lease(&self, id: &str) -> Result<(Ipv4Addr, bool), NetworkError> {
        let mut leases = self.leases.lock().await;
        if let Some(address) = leases.held.get(id) {
            return Ok((*address, false));
        }
        let size = 1u32.checked_shl(u32::from(32 - self.range.1.min(32))).unwrap_or(u32::MAX);
        let usable = size.saturating_sub(3).max(1);
        let free = (0..usable)
            .map(|step| 2 + (leases.next.saturating_sub(2) + step) % usable)
            .find(|offset| {
                !leases
                    .held
                    .values()
                    .any(|held| u32::from(*held) == u32::from(self.range.0) + offset)
            })
            .ok_or_else(|| NetworkError::Exhausted(format!("{}/{}", self.range.0, self.range.1)))?;
        let address = Ipv4Addr::from(u32::from(self.range.0) + free);
        std::fs::write(self.folder.join(id), address.to_string())
            .map_err(|error| failed("remember an address", error))?;
        leases.next = free + 1;
        leases.held.insert(id.to_owned(), address);
        Ok((address, true))
    }

    /// Connects a pod; does what is not done yet if an earlier process died over it.
    async fn connect_pod(&self, address: Ipv4Addr, netns: &Path) -> Result<(), NetworkError> {
        let host_name = interface(address);
        let namespace = File::open(netns)
            .map_err(|error| failed(format!("open {}", netns.display()), error))?;
        let made = self.handle.link().add(veth(&host_name, &namespace)).execute().await;
        unless_exists(made)
            .map_err(|error| failed(format!("make interface {host_name}"), error))?;
        let host = index(&self.handle, &host_name)
            .await?
            .ok_or_else(|| NetworkError::Other(format!("interface {host_name} vanished")))?;
        self.handle
            .link()
            .set(LinkUnspec::new_with_index(host).up().build())
            .execute()
            .await
            .map_err(|error| failed(format!("set {host_name} up"), error))?;
        let gateway = self.handle.address().add(host, IpAddr::V4(GATEWAY), 32).execute().await;
        unless_exists(gateway).map_err(|error| failed("add the gateway's address", error))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(host)
            .scope(RouteScope::Link)
            .build();
        unless_exists(self.handle.route().add(route).execute().await)
            .map_err(|error| failed(format!("add a route to {address}"), error))?;
        set_up_inside(namespace, address).await
    }
}

/// The host's side of a pod's veth.
fn interface(address: Ipv4Addr) -> String {
    format!("ab{:08x}", u32::from(address))
}

/// A pair of interfaces whose other side is born in the pod, as `eth0`: moved there later, it would cost the kernel a grace
/// period.
fn veth(host_name: &str, namespace: &File) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(POD_INTERFACE.to_owned()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut pair = LinkMessage::default();
    pair.attributes = vec![
        LinkAttribute::IfName(host_name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    pair
}

/// Connects to a port of the loopback of another network namespace: of 127.0.0.1, or else of ::1.
pub async fn dial_loopback(namespace: &Path, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let namespace = File::open(namespace)?;
    let (sender, dialled) = tokio::sync::oneshot::channel();
    // A socket belongs to the namespace in which it was made; its thread, which entered it, serves nothing else.
    std::thread::Builder::new().name("dial".to_owned()).spawn(move || {
        let connected = setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(std::io::Error::from)
            .and_then(|()| connect_loopback(port));
        // Whoever asked may have gone.
        let _gone = sender.send(connected);
    })?;
    let stream = dialled.await.map_err(std::io::Error::other)??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

fn connect_loopback(port: u16) -> std::io::Result<std::net::TcpStream> {
    use std::net::{Ipv6Addr, SocketAddr, TcpStream};
    let address = |ip: IpAddr| SocketAddr::new(ip, port);
    TcpStream::connect_timeout(&address(Ipv4Addr::LOCALHOST.into()), DIAL).or_else(|error| {
        // The first error says more: few programs listen on ::1 alone.
        TcpStream::connect_timeout(&address(Ipv6Addr::LOCALHOST.into()), DIAL).map_err(|_| error)
    })
}

/// A connection to another namespace's configuration: its socket is opened on a thread that entered it.
fn connect_inside(namespace: File) -> Result<(tokio::task::JoinHandle<()>, Handle), NetworkError> {
    let runtime = tokio::runtime::Handle::current();
    let opened = std::thread::spawn(move || {
        let _entered = runtime.enter();
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|error| failed("enter the pod's network namespace", error))?;
        let (connection, handle, _) = new_connection()
            .map_err(|error| failed("open a netlink connection in the pod", error))?;
        Ok((runtime.spawn(connection), handle))
    });
    opened
        .join()
        .map_err(|_| NetworkError::Other("the thread that enters a pod failed".to_owned()))?
}

async fn set_up_inside(namespace: File, address: Ipv4Addr) -> Result<(), NetworkError> {
    let (connection, handle) = connect_inside(namespace)?;
    let result = async {
        let loopback = index(&handle, "lo")
            .await?
            .ok_or_else(|| NetworkError::Other("the pod has no interface lo".to_owned()))?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(loopback).up().build())
            .execute()
            .await
            .map_err(|error| failed("set lo up in the pod", error))?;
        let eth0 = index(&handle, POD_INTERFACE)
            .await?
            .ok_or_else(|| NetworkError::Other(format!("the pod has no {POD_INTERFACE}")))?;
        unless_exists(handle.address().add(eth0, IpAddr::V4(address), 32).execute().await)
            .map_err(|error| failed("add the pod's address", error))?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(eth0).up().build())
            .execute()
            .await
            .map_err(|error| failed("set eth0 up", error))?;
        let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(GATEWAY, 32)
            .output_interface(eth0)
            .scope(RouteScope::Link)
            .build();
        unless_exists(handle.route().add(to_gateway).execute().await)
            .map_err(|error| failed("add the route to the gateway", error))?;
        let default =
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(eth0).build();
        unless_exists(handle.route().add(default).execute().await)
            .map_err(|error| failed("add the default route", error))
    }
    .await;
    connection.abort();
    result
}

#[async_trait]
impl PodNetwork for RoutedPods {
    async fn add(&self, pod: &PodRef, netns: &Path) -> Result<PodAddress, NetworkError> {
        let (ip, new) = self.lease(&pod.id).await?;
        if let Err(error) = self.connect_pod(ip, netns).await {
            // A pod of an earlier process may run: it keeps what it has.
            if new {
                self.del(pod).await?;
            }
            return Err(error);
        }
        Ok(PodAddress { ip })
    }

    async fn check(&self, pod: &PodRef, _netns: &Path) -> Result<PodAddress, NetworkError> {
        let held = self.leases.lock().await.held.get(&pod.id).copied();
        let ip = held.ok_or_else(|| {
            NetworkError::Other(format!("pod {}/{} has no address", pod.namespace, pod.name))
        })?;
        match index(&self.handle, &interface(ip)).await? {
            Some(_) => Ok(PodAddress { ip }),
            None => Err(NetworkError::Other(format!(
                "pod {}/{} lost its interface",
                pod.namespace, pod.name
            ))),
        }
    }

    async fn del(&self, pod: &PodRef) -> Result<(), NetworkError> {
        let Some(ip) = self.leases.lock().await.held.get(&pod.id).copied() else { return Ok(()) };
        if let Some(link) = index(&self.handle, &interface(ip)).await? {
            match self.handle.link().del(link).execute().await {
                Ok(()) => {}
                Err(rtnetlink::Error::NetlinkError(error))
                    if error.raw_code() == -nix::libc::ENODEV => {}
                Err(error) => {
                    return Err(failed(format!("remove interface {}", interface(ip)), error));
                }
            }
        }
        match std::fs::remove_file(self.folder.join(&pod.id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("forget an address", error));
            }
            _ => {}
        }
        self.leases.lock().await.held.remove(&pod.id);
        Ok(())
    }
}
