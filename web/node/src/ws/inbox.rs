//! The messages of a socket as a stream of bytes, each behind its length, so that the source of every other transport
//! assembles them too.
//!
//! # Invariants
//!
//! * A message stays in the memory of the host until there is room for it here: the budget is charged first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use broadcaster::EndedFor;
use gossip::{
    DisconnectReason,
    wire::frame::{FRAME_HEADER_BYTES, encode_header},
};
use js_sys::Uint8Array;
use send_wrapper::SendWrapper;
use tokio::io::{AsyncRead, ReadBuf};

use super::socket::{Arrived, Socket};

/// The inbound half of a socket.
#[derive(Debug)]
pub(super) struct Inbox {
    socket: Socket,
    /// The message that is being read, and the bytes of its length and of itself that were.
    current: Option<(SendWrapper<Uint8Array>, usize)>,
}

impl Inbox {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, current: None }
    }
}

impl AsyncRead for Inbox {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, current } = self.get_mut();
        let before = into.filled().len();
        while into.remaining() > 0 {
            let (message, read) = match current {
                Some(current) => current,
                None => match socket.poll_next(context.waker()) {
                    Poll::Pending if into.filled().len() > before => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(_)) if into.filled().len() > before => {
                        return Poll::Ready(Ok(()));
                    }
                    polled => match ready!(polled) {
                        Ok(Arrived::Binary(bytes)) => current.insert((SendWrapper::new(bytes), 0)),
                        // The hello was the only text.
                        Ok(Arrived::Text(_)) => return broken(DisconnectReason::Protocol),
                        Err(DisconnectReason::RemoteClosed) => return Poll::Ready(Ok(())),
                        Err(reason) => return broken(reason),
                    },
                },
            };
            let length = message.length() as usize;
            if *read < FRAME_HEADER_BYTES {
                let header = encode_header(length);
                let rest = header.get(*read..).unwrap_or_default();
                let rest = rest.get(..into.remaining()).unwrap_or(rest);
                into.put_slice(rest);
                *read += rest.len();
            } else {
                let from = *read - FRAME_HEADER_BYTES;
                let count = (length - from).min(into.remaining());
                // Both are below the length of an array of JavaScript, which has 32 bits here.
                let part = message.subarray(from as u32, (from + count) as u32);
                part.copy_to(into.initialize_unfilled_to(count));
                into.advance(count);
                *read += count;
            }
            if *read >= FRAME_HEADER_BYTES + length {
                *current = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(reason: DisconnectReason) -> Poll<io::Result<()>> {
    Poll::Ready(Err(EndedFor(reason).into()))
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // The sink may still have something to send, and closes the socket.
        self.socket.deafen();
    }
}
