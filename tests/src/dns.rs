//! DNS servers in the process: one with records, perhaps signed, and one that answers with whatever bytes a test wants.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hickory_server::{
    Server,
    dnssec::NxProofKind,
    proto::{
        dnssec::{DnssecSigner, SigningKey, crypto::Ed25519SigningKey, rdata::DNSKEY},
        op::Message,
        rr::{
            Name, RData, Record,
            rdata::{CNAME, SOA, SRV, TXT},
        },
    },
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use runtime::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_util::sync::CancellationToken;

/// Serial number of a zone. The root is the zone, so that the server has an answer to every question.
const SERIAL: u32 = 1;

/// A server of a zone on loopback, over UDP and TCP.
pub struct DnsServer {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<InMemoryZoneHandler>,
    _server: Server<Catalog>,
}

impl DnsServer {
    /// Serves records on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If no port is free, or a record is refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the sockets.
    pub async fn start(records: Vec<Record>) -> Self {
        Self::serve(zone(records)).await
    }

    /// Serves signed records, and writes the key of the root into a file.
    ///
    /// # Panics
    ///
    /// If no port is free, a record is refused, or the file cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the sockets.
    pub async fn signed(records: Vec<Record>, anchor: &Path) -> Self {
        let mut zone = zone(records);
        let key = Ed25519SigningKey::generate_pkcs8().expect("a key can be made");
        let key = Ed25519SigningKey::from_pkcs8(&key).expect("the key is whole");
        let public = key.to_public_key().expect("a key has a public half");
        let dnskey = DNSKEY::from_key(&public);
        let line = format!(". 3600 IN DNSKEY {dnskey}\n");
        std::fs::write(anchor, line).expect("a file can be written");
        let day = Duration::from_secs(86_400);
        let signer = DnssecSigner::new(dnskey, Box::new(key), Name::root(), day);
        zone.add_zone_signing_key_mut(signer).expect("the key can be added");
        zone.secure_zone_mut().expect("the zone can be signed");
        Self::serve(zone).await
    }

    async fn serve(zone: InMemoryZoneHandler) -> Self {
        let zone = Arc::new(zone);
        let mut catalog = Catalog::new();
        catalog.upsert(Name::root().into(), vec![Arc::clone(&zone) as _]);
        let (tcp, udp) = sockets().await;
        let address = tcp.local_addr().expect("a bound socket has an address");
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 64);
        Self { address, zone, _server: server }
    }

    /// Forgets every record, and has these from now on.
    ///
    /// # Cancel safety
    ///
    /// Not safe: some of the records may be there.
    pub async fn replace(&self, records: Vec<Record>) {
        self.zone.records_mut().await.clear();
        for record in with_authority(records) {
            self.zone.upsert(record, SERIAL).await;
        }
    }
}

fn zone(records: Vec<Record>) -> InMemoryZoneHandler {
    let proof = Some(NxProofKind::Nsec);
    let mut zone =
        InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny, proof);
    for record in with_authority(records) {
        assert!(zone.upsert_mut(record.clone(), SERIAL), "{record} is refused");
    }
    zone
}

fn with_authority(mut records: Vec<Record>) -> Vec<Record> {
    let soa = SOA::new(name("ns"), name("admin"), SERIAL, 60, 60, 60, 60);
    records.push(Record::from_rdata(Name::root(), 60, RData::SOA(soa)));
    records
}

/// A TCP and a UDP socket on the same port.
async fn sockets() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = tcp.local_addr().expect("a bound socket has an address");
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (tcp, udp);
        }
    }
    panic!("no port is free for both");
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsServer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A server that makes its answers of the questions, byte by byte.
#[derive(Debug)]
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    _tasks: TaskSet,
}

type Script = Arc<dyn Fn(&Message) -> Option<Vec<u8>> + Send + Sync>;

impl Scripted {
    /// Answers on a free port of 127.0.0.1 as `script` says; `None` is no answer.
    ///
    /// # Panics
    ///
    /// If no port is free.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the sockets.
    pub async fn start(
        script: impl Fn(&Message) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (tcp, udp) = sockets().await;
        let address = tcp.local_addr().expect("a bound socket has an address");
        let script: Script = Arc::new(script);
        let tasks = TaskSet::new(&CancellationToken::new());
        let own = Arc::clone(&script);
        tasks.spawn("udp", |_| datagrams(udp, own));
        let connections = tasks.clone();
        tasks.spawn("tcp", |_| async move {
            while let Ok((mut socket, _)) = tcp.accept().await {
                let script = Arc::clone(&script);
                connections.spawn("connection", |_| async move {
                    let _ = stream(&mut socket, script).await;
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn datagrams(socket: UdpSocket, script: Script) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        if let Some(answer) = script(&question) {
            // An answer too long for a datagram is not sent.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn stream(socket: &mut tokio::net::TcpStream, script: Script) -> io::Result<()> {
    loop {
        let mut question = vec![0; socket.read_u16().await?.into()];
        socket.read_exact(&mut question).await?;
        let Ok(question) = Message::from_vec(&question) else { return Ok(()) };
        if let Some(answer) = script(&question) {
            socket.write_u16(u16::try_from(answer.len()).unwrap_or(u16::MAX)).await?;
            socket.write_all(&answer).await?;
        }
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("it is a name");
    name.set_fqdn(true);
    name
}

/// An SRV record of a service, which is good for so many seconds.
///
/// # Panics
///
/// If a name is none.
#[must_use]
pub fn srv(service: &str, ttl: u32, target: &str, port: u16) -> Record {
    Record::from_rdata(name(service), ttl, RData::SRV(SRV::new(1, 1, port, name(target))))
}

/// A TXT record, which is good for so many seconds.
///
/// # Panics
///
/// If the name is none.
#[must_use]
pub fn txt(owner: &str, ttl: u32, text: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::TXT(TXT::new(vec![text.to_owned()])))
}

/// An alias, which is good for so many seconds.
///
/// # Panics
///
/// If a name is none.
#[must_use]
pub fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}
