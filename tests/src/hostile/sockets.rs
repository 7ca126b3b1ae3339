//! One address with sockets that say nothing, half of a handshake, or one without an end, a byte at a time. Issue 9, 5;
//! issue 8, 27; issue 10, "Shown by".

use std::{future::pending, io, net::Ipv4Addr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time,
};

use super::{Tally, Target, line::Carrier};
use crate::websocket::connect_from;

const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 9, 2, 1);

/// After an end, before the next beginning.
const BREATH: Duration = Duration::from_millis(200);

/// Between two bytes of a slow one.
const DRIP: Duration = Duration::from_secs(1);

/// The bytes that the sockets send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Nothing,
    /// The beginning of what an honest one would say.
    Half,
    /// The same, and then a byte each second.
    Slow,
}

impl Opening {
    const fn bytes(self, carrier: Carrier) -> &'static [u8] {
        match (self, carrier) {
            (Self::Nothing, _) => b"",
            (Self::Half | Self::Slow, Carrier::WebSocket) => b"GET / HTTP/1.1\r\nHost: ",
            (Self::Half | Self::Slow, Carrier::Libp2p) => b"\x13/multistream/1.0.0\n",
        }
    }
}

/// Keeps `sockets` open, half of them on each port.
pub(super) async fn run(sockets: u16, opening: Opening, target: &Target, tally: &Tally) {
    let hold = |number: u16| async move {
        let carrier = if number.is_multiple_of(2) { Carrier::WebSocket } else { Carrier::Libp2p };
        loop {
            if hold(carrier, opening, target, tally).await.is_err() {
                tally.refused();
            }
            time::sleep(BREATH).await;
        }
    };
    let mut all: FuturesUnordered<_> = (0..sockets).map(hold).collect();
    while all.next().await.is_some() {}
}

async fn hold(
    carrier: Carrier,
    opening: Opening,
    target: &Target,
    tally: &Tally,
) -> io::Result<()> {
    let to = match carrier {
        Carrier::WebSocket => target.ws,
        Carrier::Libp2p => target.p2p_socket()?,
    };
    let mut socket = connect_from(SOURCE, to).await?;
    tally.opened();
    socket.write_all(opening.bytes(carrier)).await?;
    let (mut read, mut write) = socket.split();
    let drip = async {
        if opening == Opening::Slow {
            let mut ticks = time::interval(DRIP);
            while write.write_all(b"x").await.is_ok() {
                ticks.tick().await;
            }
        }
        pending().await
    };
    let ends = async {
        let mut heard = [0; 1024];
        // Until the node ends it, in whatever way.
        while matches!(read.read(&mut heard).await, Ok(1..)) {}
    };
    tokio::select! {
        never = drip => never,
        () = ends => tally.cut(),
    }
    Ok(())
}
