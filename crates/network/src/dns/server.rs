//! Serves [`Records`] over UDP and TCP; other names are asked of the host's own servers.

use super::records::{Answer, Kind, Records};
use crate::NetworkError;
use crate::host::failed;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long an answer may be kept, in seconds. Absence is kept no longer.
const TTL: u32 = 5;
/// How long the host's servers may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many questions are worked on at once; more are dropped and asked again by their asker.
const AT_ONCE: usize = 1024;
/// The largest answer over UDP.
const MAX_UDP: usize = 1232;

/// The names of the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dns {
    records: Arc<RwLock<Records>>,
    /// The namespaces of pods, by address.
    pods: Arc<RwLock<BTreeMap<IpAddr, String>>>,
    resolv_conf: PathBuf,
}

impl Dns {
    /// Names under `domain`; other names are asked of the servers in `resolv_conf`.
    pub fn new(domain: &str, resolv_conf: &Path) -> Dns {
        Dns {
            records: Arc::new(RwLock::new(Records::new(domain))),
            pods: Arc::default(),
            resolv_conf: resolv_conf.to_path_buf(),
        }
    }

    /// Says in which namespace the pod at an address is, or that there is none any more.
    pub fn set_pod(&self, address: Ipv4Addr, namespace: Option<&str>) {
        let mut pods = self.pods.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match namespace {
            Some(namespace) => drop(pods.insert(IpAddr::V4(address), namespace.to_owned())),
            None => drop(pods.remove(&IpAddr::V4(address))),
        }
    }

    /// What the asker's own search list would have found: some resolvers do not search for names with a dot in them.
    fn search(&self, name: &str, kind: Kind, asker: IpAddr) -> Option<Answer> {
        let namespace = self
            .pods
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(&asker)
            .cloned()?;
        let (name, domain) = (name.trim_end_matches('.'), self.domain());
        let lists = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}")];
        let found = lists.iter().map(|suffix| self.answer(&format!("{name}.{suffix}"), kind));
        found.into_iter().find(|answer| !matches!(answer, Answer::NoName | Answer::Elsewhere))
    }

    /// Takes what is now true of a Service; `None` when it is gone. Seen by the very next question.
    pub fn update(
        &self,
        key: (String, String),
        service: Option<&Service>,
        slices: &[EndpointSlice],
    ) {
        self.records
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .update(key, service, slices);
    }

    fn answer(&self, name: &str, kind: Kind) -> Answer {
        self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner).answer(name, kind)
    }

    fn domain(&self) -> String {
        self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner).domain().to_owned()
    }

    /// The bytes that answer a question; `None` for what is no question.
    async fn reply(&self, question: &[u8], asker: IpAddr, over_tcp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.authoritative = true;
        let Some(query) = request.queries.first() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return response.to_vec().ok();
        };
        response.add_query(query.clone());
        let kind = match query.query_type() {
            RecordType::A | RecordType::ANY => Kind::A,
            RecordType::SRV => Kind::Srv,
            RecordType::TXT => Kind::Txt,
            RecordType::PTR => Kind::Ptr,
            _ => Kind::Other,
        };
        let name = query.name().to_ascii();
        let answer = match self.answer(&name, kind) {
            Answer::Elsewhere => self.search(&name, kind, asker).unwrap_or(Answer::Elsewhere),
            known => known,
        };
        match answer {
            Answer::Elsewhere => match self.ask_elsewhere(question, over_tcp).await {
                Some(bytes) => return Some(bytes),
                None => {
                    response.metadata.authoritative = false;
                    response.metadata.response_code = ResponseCode::ServFail;
                }
            },
            answer => fill(&mut response, query.name(), answer, &self.domain()),
        }
        let bytes = response.to_vec().ok()?;
        if !over_tcp && bytes.len() > MAX_UDP {
            let mut short = response.truncate();
            short.metadata.truncation = true;
            return short.to_vec().ok();
        }
        Some(bytes)
    }

    async fn ask_elsewhere(&self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let text = tokio::fs::read_to_string(&self.resolv_conf).await.ok()?;
        for server in text
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver"))
            .filter_map(|ip| ip.trim().parse::<IpAddr>().ok())
            .take(3)
        {
            let asked = async {
                if over_tcp {
                    ask_tcp(server, question).await
                } else {
                    ask_udp(server, question).await
                }
            };
            if let Ok(Ok(bytes)) = tokio::time::timeout(PATIENCE, asked).await {
                return Some(bytes);
            }
        }
        None
    }
}

async fn ask_udp(server: IpAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect((server, 53)).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Somebody else's answer does not count.
        if buffer[..length].get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: IpAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((server, 53)).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn fill(response: &mut Message, name: &Name, answer: Answer, domain: &str) {
    let parsed = |text: &str| Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).ok();
    let mut add = |record: RData| {
        response.add_answer(Record::from_rdata(name.clone(), TTL, record));
    };
    match answer {
        Answer::Addresses(addresses) => {
            addresses.into_iter().for_each(|address| add(RData::A(A(address))))
        }
        Answer::Services(services) => {
            for (port, target, address) in services {
                let Some(target) = parsed(&target) else { continue };
                add_service(response, name, port, target, address);
            }
        }
        Answer::Alias(target) => {
            parsed(&target).into_iter().for_each(|target| add(RData::CNAME(CNAME(target))))
        }
        Answer::Names(names) => names
            .iter()
            .filter_map(|target| parsed(target))
            .for_each(|target| add(RData::PTR(PTR(target)))),
        Answer::Text(text) => add(RData::TXT(TXT::new(vec![text]))),
        Answer::NoData | Answer::NoName | Answer::Elsewhere => {
            if answer == Answer::NoName {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            if let (Some(zone), Some(primary), Some(mailbox)) = (
                parsed(domain),
                parsed(&format!("ns.dns.{domain}")),
                parsed(&format!("hostmaster.{domain}")),
            ) {
                let serial = 1;
                let soa = SOA::new(primary, mailbox, serial, 7200, 1800, 86_400, TTL);
                response.authorities.push(Record::from_rdata(zone, TTL, RData::SOA(soa)));
            }
        }
    }
}

fn add_service(response: &mut Message, name: &Name, port: u16, target: Name, address: Ipv4Addr) {
    response.add_answer(Record::from_rdata(
        name.clone(),
        TTL,
        RData::SRV(SRV::new(0, 100, port, target.clone())),
    ));
    response.additionals.push(Record::from_rdata(target, TTL, RData::A(A(address))));
}

/// Serves at `address`, UDP and TCP, until `closing` fires. Returns once both sockets are open.
pub async fn serve(
    dns: Dns,
    address: SocketAddr,
    closing: CancellationToken,
) -> Result<(), NetworkError> {
    let udp = Arc::new(
        UdpSocket::bind(address)
            .await
            .map_err(|error| failed(format!("listen at {address} (udp)"), error))?,
    );
    let tcp = TcpListener::bind(address)
        .await
        .map_err(|error| failed(format!("listen at {address} (tcp)"), error))?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let (over_udp, over_tcp) =
        ((dns.clone(), places.clone(), closing.clone()), (dns, places, closing));
    tokio::spawn(async move {
        let (dns, places, closing) = over_udp;
        closing.run_until_cancelled(serve_udp(dns, udp, places)).await;
    });
    tokio::spawn(async move {
        let (dns, places, closing) = over_tcp;
        closing.run_until_cancelled(serve_tcp(dns, tcp, places)).await;
    });
    Ok(())
}

async fn serve_udp(dns: Dns, socket: Arc<UdpSocket>, places: Arc<Semaphore>) {
    let mut buffer = vec![0; 4096];
    loop {
        // An error here is about an earlier answer that could not be delivered.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (dns, socket, question) = (dns.clone(), socket.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(bytes) = dns.reply(&question, peer.ip(), false).await
                && let Err(error) = socket.send_to(&bytes, peer).await
            {
                tracing::debug!(%error, %peer, "a name's answer could not be sent");
            }
            drop(place);
        });
    }
}

async fn serve_tcp(dns: Dns, listener: TcpListener, places: Arc<Semaphore>) {
    loop {
        let Ok((mut stream, peer)) = listener.accept().await else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let dns = dns.clone();
        tokio::spawn(async move {
            let talk = async {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; usize::from(length)];
                    stream.read_exact(&mut question).await?;
                    let Some(bytes) = dns.reply(&question, peer.ip(), true).await else { break };
                    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
                    stream.write_all(&length.to_be_bytes()).await?;
                    stream.write_all(&bytes).await?;
                }
                std::io::Result::Ok(())
            };
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(30), talk).await {
                tracing::debug!(%error, "a connection for names broke");
            }
            drop(place);
        });
    }
}
