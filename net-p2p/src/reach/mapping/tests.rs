//! Routers that are not what they should be, over sockets of the loopback interface.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::sync::Arc;

use libp2p::Multiaddr;
use runtime::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    sync::mpsc,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

async fn socket() -> (Arc<UdpSocket>, SocketAddrV4) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(at) = socket.local_addr().unwrap() else { panic!("no IPv4") };
    (Arc::new(socket), at)
}

/// A node that listens on one port.
struct Scene {
    tasks: TaskSet,
    observed: Observed,
    metrics: P2pMetrics,
    shown: MappedPorts,
}

impl Scene {
    fn new(places: Places) -> Self {
        let (bound, metrics) = (Bound::default(), P2pMetrics::default());
        let shown = MappedPorts::default();
        bound.set_for_test(["/ip4/127.0.0.1/tcp/4190"]);
        let observed = Observed::new(bound.clone());
        let tasks = TaskSet::new(&CancellationToken::new());
        let mapper = PortMapper {
            by: Environment::system(),
            bound,
            observed: observed.clone(),
            metrics: metrics.clone(),
            teller: Teller::of(shown.clone()),
        };
        tasks.spawn("port mapping", |cancel| mapper.run_with(places, cancel));
        Self { tasks, observed, metrics, shown }
    }

    fn is_proposed(&self, address: &str) -> bool {
        self.observed.candidates().contains(&address.parse::<Multiaddr>().unwrap())
    }

    async fn until(&self, state: impl Fn(&Self) -> bool) {
        let reached = async {
            while !state(self) {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(PATIENCE, reached).await.unwrap();
    }
}

/// Answers requests of NAT-PMP: it has `host` on its other side, and maps to the port 777 for `lease` seconds. Returns its
/// place, and the leases that it is asked for.
async fn natpmp(host: [u8; 4], lease: u32, tasks: &TaskSet) -> (SocketAddrV4, mpsc::Receiver<u32>) {
    let (socket, at) = socket().await;
    let (asked, leases) = mpsc::channel(64);
    tasks.spawn("router", |_cancel| async move {
        let mut request = [0; 64];
        loop {
            let (length, from) = socket.recv_from(&mut request).await.unwrap();
            let mut answer = vec![0, 128 | request[1], 0, 0, 0, 0, 0, 1];
            if length == 2 {
                answer.extend_from_slice(&host);
            } else {
                let wanted = u32::from_be_bytes(request[8..12].try_into().unwrap());
                asked.try_send(wanted).unwrap();
                answer.extend_from_slice(&request[4..6]);
                answer.extend_from_slice(&777_u16.to_be_bytes());
                answer.extend_from_slice(&lease.min(wanted).to_be_bytes());
            }
            // The first two datagrams are answers to nothing.
            socket.send_to(&[0xff; 1_000], from).await.unwrap();
            socket.send_to(&[], from).await.unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (at, leases)
}

#[tokio::test]
async fn a_mapped_port_is_proposed_and_renewed_in_time_and_given_back_at_the_end() {
    let router = TaskSet::new(&CancellationToken::new());
    let (at, mut leases) = natpmp([192, 0, 2, 1], 4, &router).await;
    let (_silent, upnp) = socket().await;
    let scene = Scene::new(Places { natpmp: Some(at), upnp });
    let asked = u32::try_from(LEASE.as_secs()).unwrap();
    assert_eq!(leases.recv().await, Some(asked));
    scene.until(|scene| scene.is_proposed("/ip4/192.0.2.1/tcp/777")).await;
    let began = Instant::now();
    assert_eq!(leases.recv().await, Some(asked));
    assert!(began.elapsed() < Duration::from_secs(4), "before the lease is over");
    assert!(scene.is_proposed("/ip4/192.0.2.1/tcp/777"));
    assert_eq!(scene.metrics.levels().of(P2pLevel::PortsMapped), 1);
    assert_eq!(scene.metrics.count(P2pEvent::PortMapped), 1, "a renewal is no new port");
    let [shown] = scene.shown.now().try_into().unwrap();
    let MappedPort { carrier, inside, outside, protocol, gateway, until } = shown;
    assert_eq!((carrier, protocol), (Carrier::Tcp, MappingProtocol::NatPmp));
    assert_eq!(inside.to_string(), "127.0.0.1:4190");
    assert_eq!(outside.to_string(), "192.0.2.1:777");
    assert_eq!(gateway, *at.ip());
    assert!(until <= std::time::Instant::now() + Duration::from_secs(4), "the lease is 4 s");
    assert_eq!(scene.tasks.stop(PATIENCE).await, runtime::Shutdown::Clean);
    assert_eq!(leases.recv().await, Some(0));
    assert_eq!(scene.metrics.levels().of(P2pLevel::PortsMapped), 0);
    assert!(scene.shown.now().is_empty());
}

#[tokio::test]
async fn a_router_that_names_a_host_of_this_machine_is_not_believed() {
    let router = TaskSet::new(&CancellationToken::new());
    let (at, mut leases) = natpmp([127, 0, 0, 1], 1_200, &router).await;
    let (_silent, upnp) = socket().await;
    let scene = Scene::new(Places { natpmp: Some(at), upnp });
    scene.until(|scene| scene.metrics.count(P2pEvent::PortNotMapped) == 1).await;
    assert!(leases.try_recv().is_err(), "no port is asked for");
    assert!(!scene.is_proposed("/ip4/127.0.0.1/tcp/777"));
    assert_eq!(scene.tasks.stop(PATIENCE).await, runtime::Shutdown::Clean);
}

/// Answers searches of UPnP with the place of a description, which is served as `body` for ever.
async fn upnp(body: &'static [u8], tasks: &TaskSet) -> SocketAddrV4 {
    let (socket, at) = socket().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    tasks.spawn("router", |_cancel| async move {
        let mut question = [0; 1_500];
        loop {
            let (_, from) = socket.recv_from(&mut question).await.unwrap();
            socket.send_to(&[0xff; 1_400], from).await.unwrap();
            let elsewhere = b"HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.1/\r\n\r\n";
            socket.send_to(elsewhere, from).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{place}/\r\n\r\n");
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    });
    tasks.spawn("descriptions", |_cancel| async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_000];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            // Ends when the node has had enough.
            while !body.is_empty() && stream.write_all(body).await.is_ok() {}
            if body.is_empty() {
                time::sleep(PATIENCE).await;
            }
        }
    });
    at
}

#[track_caller]
fn is_over_soon(began: Instant) {
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_description_without_end_is_cut_and_a_silent_one_is_given_up() {
    for body in [[b'x'; 1_000].as_slice(), &[]] {
        let router = TaskSet::new(&CancellationToken::new());
        let (group, began) = (upnp(body, &router).await, Instant::now());
        let found = Upnp::search(group, &Environment::system()).await;
        match (found, body) {
            (Err(MappingError::Silent), []) | (Err(MappingError::Malformed), [_, ..]) => {}
            (other, _) => panic!("{other:?}"),
        }
        is_over_soon(began);
    }
}
