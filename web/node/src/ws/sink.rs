//! The outbound half of a socket.
//!
//! # Invariants
//!
//! * The host holds at most [`UNSENT_BYTES`] and one message: a WebSocket takes everything at once, and says by
//!   `bufferedAmount` what it has not sent, so a write waits for that.

use std::{io, time::Duration};

use broadcaster::{EndedFor, Frame, FrameSink};
use gossip::DisconnectReason;
use runtime::time;

use super::socket::Socket;

/// Bytes that the host may hold before the next message is given to it. Chosen: what a host sends in a few milliseconds, so
/// that a vote does not wait behind megabytes.
const UNSENT_BYTES: usize = 128 * 1024;
/// Time between two looks at what the host holds, at first and at most. Chosen: the shortest timeout of a browser.
const LOOKS: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(64)];
/// Longest wait for the peer's end after everything was sent. Chosen: several round trips.
const LINGER: Duration = Duration::from_secs(1);

/// Writes to a socket.
#[derive(Debug)]
pub(super) struct Sink {
    socket: Socket,
}

impl Sink {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// Waits until the host holds little.
    async fn room(&self, bytes: usize) -> io::Result<()> {
        let [mut look, longest] = LOOKS;
        loop {
            if let Some(reason) = self.socket.shut() {
                return Err(EndedFor(reason).into());
            }
            let unsent = self.socket.unsent_bytes();
            if unsent == 0 || unsent + bytes <= UNSENT_BYTES {
                return Ok(());
            }
            time::sleep(look).await;
            look = (2 * look).min(longest);
        }
    }
}

impl FrameSink for Sink {
    async fn write_batch(&mut self, batch: &[Frame]) -> io::Result<()> {
        for frame in batch {
            let wire = frame.wire();
            self.room(wire.len()).await?;
            let sent = self.socket.send(wire);
            sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
        }
        Ok(())
    }

    async fn close(&mut self, reason: DisconnectReason) {
        if matches!(reason, DisconnectReason::Duplicate) {
            // A socket that is closing hears nothing any more, and the peer may still be sending.
            let _ = time::timeout(LINGER, self.socket.ended()).await;
        }
        self.socket.close();
    }
}
