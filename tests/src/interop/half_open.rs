//! Streams that a dialer opens, begins to negotiate on, and leaves.

use std::{
    future::{Future, poll_fn},
    io,
    net::Ipv4Addr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncWriteExt};
use libp2p::{
    core::{
        StreamMuxer,
        muxing::{StreamMuxerBox, SubstreamBox},
    },
    identity::Keypair,
};
use tokio::time::timeout;

use crate::libp2p::{PING, Sockets, dial, ping, poll_drive, select, split_address};

/// Streams to be opened.
const STREAMS: usize = 2_000;

/// Longest wait for one of them. Chosen: the peer is on this machine, and one that allows no more never answers.
const OPENING: Duration = Duration::from_millis(300);

/// Longest time until a ping is answered among them. Chosen: twice what libp2p gives a negotiation.
const ANSWERED: Duration = Duration::from_secs(20);

/// Longest wait for one ping. Chosen: the peer is on this machine.
const ANSWER: Duration = Duration::from_secs(1);

/// Pause between two pings.
const PAUSE: Duration = Duration::from_millis(100);

/// The streams that were opened, and what became of a ping among them.
#[derive(Clone, Copy, Debug)]
pub struct Among {
    /// Streams that the peer allowed.
    pub opened: usize,
    /// The pings it took until one was answered.
    pub pings: usize,
    /// The time that passed until then.
    pub after: Duration,
}

/// Opens 2,000 streams to a peer on one connection, goes on with none of them, and pings it there until it answers.
///
/// # Errors
///
/// When the connection fails, or no ping is answered within 20 s.
pub async fn ping_among_half_open(address: &str) -> io::Result<Among> {
    let (_, at) = split_address(address)?;
    let sockets = Sockets { source: Ipv4Addr::UNSPECIFIED };
    let key = Keypair::generate_ed25519();
    let (_, mut muxer) = dial(&key, at, (sockets, Arc::default())).await?;
    let mut left = Vec::new();
    while left.len() < STREAMS {
        let Ok(opened) = timeout(OPENING, open(&mut muxer)).await else { break };
        let mut stream = opened?;
        // A stream that was reset at once takes nothing.
        let _ = timeout(OPENING, during(&mut muxer, begin(&mut stream))).await;
        left.push(stream);
    }
    let (opened, began) = (left.len(), Instant::now());
    let mut pings = 0;
    while began.elapsed() < ANSWERED {
        pings += 1;
        let answered = async {
            // Yamux counts streams that were reset for as long as they are held.
            during(&mut muxer, forget_ended(&mut left)).await?;
            let mut stream = open(&mut muxer).await?;
            during(&mut muxer, async {
                select(&mut stream, PING).await?;
                ping(&mut stream, 1).await
            })
            .await?
        };
        if let Ok(Ok(())) = timeout(ANSWER, answered).await {
            return Ok(Among { opened, pings, after: began.elapsed() });
        }
        during(&mut muxer, tokio::time::sleep(PAUSE)).await?;
    }
    Err(io::Error::other(format!("{opened} opened, and none of {pings} pings was answered")))
}

/// Sends the first line of a negotiation.
async fn begin(stream: &mut SubstreamBox) -> io::Result<()> {
    stream.write_all(b"\x13/multistream/1.0.0\n").await?;
    stream.flush().await
}

/// Drops the streams that the peer has ended.
async fn forget_ended(streams: &mut Vec<SubstreamBox>) {
    poll_fn(|cx| {
        streams.retain_mut(|stream| {
            let mut answer = [0; 32];
            loop {
                match Pin::new(&mut *stream).poll_read(cx, &mut answer) {
                    Poll::Pending => break true,
                    Poll::Ready(Ok(read)) if read > 0 => {}
                    Poll::Ready(_) => break false,
                }
            }
        });
        Poll::Ready(())
    })
    .await;
}

async fn open(muxer: &mut StreamMuxerBox) -> io::Result<SubstreamBox> {
    poll_fn(|cx| {
        if poll_drive(muxer, cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut *muxer).poll_outbound(cx).map_err(io::Error::other)
    })
    .await
}

/// Drives the connection until `work` is done.
async fn during<T>(muxer: &mut StreamMuxerBox, work: impl Future<Output = T>) -> io::Result<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        poll_drive(muxer, cx).map(|()| Err(io::ErrorKind::ConnectionReset.into()))
    })
    .await
}
