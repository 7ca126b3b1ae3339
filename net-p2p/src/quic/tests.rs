//! Streams of QUIC between two ends on this machine.

use std::{future::poll_fn, time::Duration};

use bytes::{Buf as _, Bytes};
use quinn::{RecvStream, TransportConfig, VarInt};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time;

use super::*;
use crate::{lent, tests::host::backlog};

/// Bytes in which a stream shows its protocol, with some more.
const BEGINNING: usize = 600;

/// A stream from one end to another, and the connections that it needs.
struct Scene {
    stream: QuicStream,
    shared: Arc<Shared>,
    receive: RecvStream,
    _kept: (Endpoint, Connection, Endpoint, Connection),
}

impl Scene {
    /// A stream that has shown its protocol, of which the far end takes `window` bytes before they are read.
    async fn new(window: u32) -> Self {
        let configs = Configs::new(&Keypair::generate_ed25519(), &backlog()).unwrap();
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(window));
        let mut server = configs.server;
        server.transport_config(Arc::new(transport));
        let far = Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
        let near = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let address = far.local_addr().unwrap();
        let dial = near.connect_with(configs.client, address, "127.0.0.1").unwrap();
        let accept = async { far.accept().await.unwrap().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let dialled = dialled.unwrap();
        let shared = Arc::new(Shared::new(Arc::from([])));
        let opened = dialled.open_bi().await.unwrap();
        let mut stream = QuicStream::new(Arc::clone(&shared), opened);
        let begin = poll_fn(|context| stream.poll_write(context, &[b'/'; BEGINNING]));
        assert_eq!(begin.await.unwrap(), BEGINNING);
        let (_, mut receive) = accepted.accept_bi().await.unwrap();
        receive.read_exact(&mut [0; BEGINNING]).await.unwrap();
        Self { stream, shared, receive, _kept: (near, dialled, far, accepted) }
    }
}

/// Writes all of `parts`, lent a batch at a time, and finishes the stream.
async fn write(stream: &mut QuicStream, parts: &[Bytes]) {
    for batch in parts.chunks(200) {
        let mut left = batch.to_vec();
        while !left.is_empty() {
            let write = |context: &mut Context<'_>| {
                lent::lend(&left, |parts| stream.poll_write_parts(context, parts))
            };
            let mut taken = poll_fn(write).await.unwrap();
            left.retain_mut(|part| {
                let whole = part.len().min(taken);
                taken -= whole;
                part.advance(whole);
                !part.is_empty()
            });
        }
    }
    stream.finish();
}

// Issue 11, "Shown by": what is lent is kept, not copied.
#[tokio::test]
async fn lent_bytes_are_taken_in_one_write_and_kept_until_they_are_acknowledged() {
    let mut scene = Scene::new(256 * 1024).await;
    let parts: Vec<_> = (0..60).map(|number| Bytes::from(vec![number; 1_000])).collect();
    let write = |context: &mut Context<'_>| {
        lent::lend(&parts, |parts| scene.stream.poll_write_parts(context, parts))
    };
    let taken = poll_fn(write).await.unwrap();
    assert_eq!(taken, 60_000);
    assert!(parts.iter().all(|part| !part.is_unique()), "the stream keeps them");
    let mut read = vec![0; taken];
    scene.receive.read_exact(&mut read).await.unwrap();
    assert!(read == parts.concat());
    assert_eq!(scene.shared.written.load(Ordering::Relaxed), (BEGINNING + taken) as u64);
    let acknowledged = async {
        while !parts.iter().all(Bytes::is_unique) {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(Duration::from_secs(30), acknowledged).await.unwrap();
}

// Otherwise a peer whose window lets a byte pass at a time would have the node keep a piece for each.
#[tokio::test]
async fn bytes_behind_a_part_that_was_taken_are_copied() {
    let mut scene = Scene::new(10_000).await;
    let lent = [Bytes::from(vec![7; 30_000])];
    let mut context = Context::from_waker(Waker::noop());
    let mut write = |stream: &mut QuicStream, parts: &[Bytes]| {
        lent::lend(parts, |parts| stream.poll_write_parts(&mut context, parts))
    };
    assert!(matches!(write(&mut scene.stream, &lent), Poll::Ready(Ok(1..=10_000))));
    let others: Vec<_> = (0..40).map(|number| [Bytes::from(vec![number; 1_000])]).collect();
    let began = Instant::now();
    let (mut written, mut kept, mut room) = (0, 0, [0; 5_000]);
    for other in &others {
        while write(&mut scene.stream, other).is_pending() {
            // Nothing may be there to read until the stream has heard of its larger window.
            let read = scene.receive.read(&mut room);
            let _ = time::timeout(Duration::from_millis(20), read).await;
            assert!(began.elapsed() < Duration::from_secs(30), "after {written} bytes");
        }
        // The rest of one that was taken in part is of no interest.
        written += 1_000;
        assert!(written > 15_000 || other[0].is_unique(), "after {written} bytes");
        kept += usize::from(!other[0].is_unique());
    }
    assert!(kept > 0, "later ones are kept again");
}

#[tokio::test]
async fn bytes_arrive_in_order_however_narrow_the_window() {
    for window in [700, 20_000, 100_000] {
        let mut scene = Scene::new(window).await;
        let mut random = StdRng::seed_from_u64(window.into());
        let parts: Vec<Bytes> = (0..1_000)
            .map(|_| {
                let largest = [5, 300, 5_000][random.random_range(0..3)];
                let len = random.random_range(0..largest);
                (0..len).map(|_| random.random::<u8>()).collect()
            })
            .collect();
        let (read, ()) =
            tokio::join!(scene.receive.read_to_end(1 << 24), write(&mut scene.stream, &parts));
        assert!(read.unwrap() == parts.concat(), "window {window}");
        assert!(scene.shared.was_blocked.load(Ordering::Relaxed), "window {window}");
    }
}
