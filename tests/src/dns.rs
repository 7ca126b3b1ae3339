//! A DNS server in the process, with the records that a test wants.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_server::{
    Server,
    proto::rr::{
        Name, RData, Record,
        rdata::{SOA, SRV, TXT},
    },
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use tokio::net::{TcpListener, UdpSocket};

/// Serial number of the zone, which is the root, so that the server has an answer to every question.
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
        let mut zone: InMemoryZoneHandler =
            InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny, None);
        for record in with_authority(records) {
            assert!(zone.upsert_mut(record.clone(), SERIAL), "{record} is refused");
        }
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

fn with_authority(mut records: Vec<Record>) -> Vec<Record> {
    let soa = SOA::new(name("ns"), name("admin"), SERIAL, 60, 60, 60, 60);
    records.push(Record::from_rdata(Name::root(), 60, RData::SOA(soa)));
    records
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsServer").field("address", &self.address).finish_non_exhaustive()
    }
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

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("it is a name");
    name.set_fqdn(true);
    name
}

/// An SRV record of a service.
///
/// # Panics
///
/// If a name is none.
#[must_use]
pub fn srv(service: &str, target: &str, port: u16) -> Record {
    Record::from_rdata(name(service), 60, RData::SRV(SRV::new(0, 0, port, name(target))))
}

/// A TXT record.
///
/// # Panics
///
/// If the name is none.
#[must_use]
pub fn txt(owner: &str, text: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::TXT(TXT::new(vec![text.to_owned()])))
}
