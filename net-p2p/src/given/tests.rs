//! A transport that does as it is told, and what libp2p gets to see of it.

use std::sync::Mutex;

use futures::{FutureExt, StreamExt, future, stream};
use libp2p::{Transport, core::transport::DialOpts};
use mesh::LearntHosts;
use runtime::time::{self, Instant};

use super::*;
use crate::{dial_hosts::DialHosts, given::stream::Event};
use libp2p::core::{
    Endpoint,
    transport::{ListenerId, PortUse, TransportError, TransportEvent},
};

type Listens = Box<dyn FnOnce() -> BoxFuture<'static, io::Result<ByteListener>> + Send>;

/// Dials nobody; listens as it is told, once, on TCP addresses.
struct Scripted(Mutex<Option<Listens>>);

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl ByteTransport for Scripted {
    fn carries(&self, address: &Multiaddr) -> bool {
        address.to_string().contains("/tcp/")
    }

    fn dial(&self, _: Multiaddr) -> BoxFuture<'static, io::Result<ByteStream>> {
        Box::pin(future::pending())
    }

    fn listen(&self, _: Multiaddr) -> BoxFuture<'static, io::Result<ByteListener>> {
        (self.0.lock().unwrap().take().unwrap())()
    }
}

fn given(
    hosts: LearntHosts,
    listens: impl FnOnce() -> BoxFuture<'static, io::Result<ByteListener>> + Send + 'static,
) -> Given {
    let scripted = Scripted(Mutex::new(Some(Box::new(listens))));
    Given::new(vec![Arc::new(scripted)], DialHosts::new(hosts))
}

fn dialling(hosts: LearntHosts) -> Given {
    given(hosts, || Box::pin(future::pending()))
}

const OPTIONS: DialOpts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };

async fn next(given: &mut Given) -> Event {
    future::poll_fn(|context| std::pin::Pin::new(&mut *given).poll(context)).await
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_never_answered_fails_in_time_for_the_handshake() {
    let mut given = dialling(LearntHosts::Any);
    let began = Instant::now();
    let dial = given.dial(address("/ip4/127.0.0.1/tcp/1"), OPTIONS).unwrap();
    assert_eq!(dial.await.err().unwrap().kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed().as_secs(), 8);
}

#[tokio::test]
async fn an_address_that_no_transport_carries_is_left_to_others() {
    let mut given = dialling(LearntHosts::Any);
    let other = address("/ip4/127.0.0.1/udp/1");
    for refused in [
        given.dial(other.clone(), OPTIONS).err().unwrap(),
        given.listen_on(ListenerId::next(), other.clone()).unwrap_err(),
    ] {
        assert!(matches!(refused, TransportError::MultiaddrNotSupported(said) if said == other));
    }
}

// Threats and goals, row 25: what a peer tells leads into no private network.
#[tokio::test]
async fn a_learnt_address_of_a_private_network_is_not_dialled() {
    let mut given = dialling(LearntHosts::Public);
    let refused = given.dial(address("/ip4/192.168.0.1/tcp/1/ws"), OPTIONS).err().unwrap();
    let TransportError::Other(said) = refused else { panic!("it is not carried") };
    assert_eq!(said.to_string(), "the address leads to no host of the public Internet");
    for dialled in ["/ip4/1.1.1.1/tcp/1", "/dns4/h.example/tcp/443/wss"] {
        assert!(given.dial(address(dialled), OPTIONS).is_ok(), "{dialled}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_open_says_why() {
    let refuses = || future::ready(Err(io::Error::other("port 7 is taken"))).boxed();
    let is_nowhere = || {
        let accepted = stream::pending().boxed();
        future::ready(Ok(ByteListener { addresses: Vec::new(), accepted })).boxed()
    };
    for (mut given, expected) in [
        (given(LearntHosts::Any, refuses), "port 7 is taken"),
        (given(LearntHosts::Any, is_nowhere), "the transport listens on no address"),
        (dialling(LearntHosts::Any), "the transport did not listen in time"),
    ] {
        let id = ListenerId::next();
        given.listen_on(id, address("/ip4/127.0.0.1/tcp/7")).unwrap();
        let event = time::timeout(std::time::Duration::from_secs(9), next(&mut given)).await;
        let Ok(TransportEvent::ListenerClosed { listener_id, reason: Err(error) }) = event else {
            panic!("{expected}: another event, or none");
        };
        assert_eq!((listener_id, error.to_string().as_str()), (id, expected));
        assert!(!given.remove_listener(ListenerId::next()));
    }
}

#[tokio::test]
async fn a_listener_goes_on_after_an_error_and_tells_its_end_once() {
    let here = address("/ip4/127.0.0.1/tcp/7");
    let told = here.clone();
    let mut given = given(LearntHosts::Any, move || {
        let accepted = Accepted {
            stream: Box::new(tokio::io::duplex(1).0),
            local: told.clone(),
            from: address("/ip4/127.0.0.1/tcp/8"),
        };
        let events = [Err(io::Error::other("once")), Ok(accepted)];
        let accepted = stream::iter(events).boxed();
        future::ready(Ok(ByteListener { addresses: vec![told], accepted })).boxed()
    });
    given.listen_on(ListenerId::next(), here.clone()).unwrap();
    assert!(matches!(next(&mut given).await,
        TransportEvent::NewAddress { listen_addr, .. } if listen_addr == here));
    assert!(matches!(next(&mut given).await, TransportEvent::ListenerError { .. }));
    assert!(matches!(next(&mut given).await,
        TransportEvent::Incoming { local_addr, .. } if local_addr == here));
    assert!(matches!(
        next(&mut given).await,
        TransportEvent::ListenerClosed { reason: Ok(()), .. }
    ));
    assert!(next(&mut given).now_or_never().is_none());
}
