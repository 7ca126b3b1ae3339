//! Counts Yamux frames between the library and the socket.
//!
//! # Invariants
//!
//! * A frame counts from its header on, because the library allocates memory for all of it then.
//! * A complete frame is assigned to its stream. If there is none, or the frame ends it, the library drops the
//!   frame, so its bytes are given back.
//! * Written bytes count until the last byte of their frame is in the buffers of the socket.
//! * The bytes counted for the connection itself are given back when the meter is dropped.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};

use crate::backlog::{ConnectionBacklog, FRAME_BYTES};

/// Length of a frame header, in bytes. Source: Yamux, "Framing".
const HEADER_BYTES: usize = 12;

/// The type of a frame that has a body. Source: Yamux, "Type field".
const DATA: u8 = 0;

/// Flags of the first frame of a stream, and of one that ends it at once. Source: Yamux, "Flag field".
const SYN: u8 = 1;
const RST: u8 = 8;

/// Longest body that the library allocates, in bytes. Source: yamux 0.14, `frame/io.rs`.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Memory of a frame, in bytes.
const fn cost(body_bytes: usize) -> usize {
    body_bytes + FRAME_BYTES
}

/// A data frame with a body.
#[derive(Clone, Copy, Debug)]
struct Data {
    stream: u32,
    flags: u8,
    body_bytes: usize,
}

/// The event at a position in the bytes of one direction.
#[derive(Clone, Copy, Debug)]
enum Step {
    Header(Data),
    Whole(Data),
}

/// Parser for the frames in one direction.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    frame: Option<(Data, usize)>,
}

impl Frames {
    /// Consumes bytes up to the next event.
    fn advance(&mut self, bytes: &mut &[u8]) -> Option<Step> {
        if let Some((data, left)) = &mut self.frame {
            let piece = bytes.len().min(*left);
            *bytes = bytes.get(piece..).unwrap_or_default();
            *left -= piece;
            let data = *data;
            return (*left == 0).then(|| {
                self.frame = None;
                Step::Whole(data)
            });
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if let Some(place) = self.header.get_mut(self.header_bytes) {
                *place = byte;
            }
            self.header_bytes += 1;
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                let [_, kind, _, flags, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
                let length = u32::from_be_bytes([l0, l1, l2, l3]);
                if kind == DATA && length > 0 {
                    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
                    let body_bytes = length as usize;
                    let data = Data { stream, flags, body_bytes };
                    self.frame = Some((data, body_bytes));
                    return Some(Step::Header(data));
                }
            }
        }
        None
    }
}

/// The byte stream of one connection, which counts frames.
#[derive(Debug)]
pub(super) struct Meter<S> {
    socket: S,
    connection: ConnectionBacklog,
    read: Frames,
    written: Frames,
    /// Bytes counted for the frame that is arriving.
    coming: usize,
}

impl<S> Meter<S> {
    /// Counts the bytes of `socket` in the account `connection`.
    pub(super) fn new(socket: S, connection: ConnectionBacklog) -> Self {
        let (read, written) = (Frames::default(), Frames::default());
        Self { socket, connection, read, written, coming: 0 }
    }

    fn has_read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.read.advance(&mut bytes) {
                Some(Step::Header(data)) => {
                    // A longer frame ends the connection.
                    self.coming = cost(data.body_bytes.min(MAX_BODY_BYTES));
                    self.connection.add(self.coming);
                    self.connection.settle();
                }
                Some(Step::Whole(data)) => {
                    let bytes = std::mem::take(&mut self.coming);
                    if data.flags & RST != 0 {
                        self.connection.take(bytes);
                    } else if data.flags & SYN != 0 {
                        self.connection.first(data.stream, bytes);
                    } else if !self.connection.assign(data.stream, bytes) {
                        self.connection.take(bytes);
                    }
                }
                None => {}
            }
        }
    }

    fn has_written(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(Step::Whole(data)) = self.written.advance(&mut bytes) {
                self.connection.sent(cost(data.body_bytes));
            }
        }
    }
}

impl<S> Drop for Meter<S> {
    fn drop(&mut self) {
        self.connection.take(self.coming);
        self.connection.close();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Meter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.socket).poll_read(context, into))?;
        self.has_read(into.get(..bytes).unwrap_or_default());
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Meter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        self.has_written(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backlog::Backlog, metrics::P2pMetrics};

    fn header(kind: u8, flags: u8, stream: u32, length: u32) -> Vec<u8> {
        let [stream, length] = [stream.to_be_bytes(), length.to_be_bytes()];
        [&[0, kind, 0, flags][..], &stream, &length].concat()
    }

    #[test]
    fn frames_are_found_however_their_bytes_are_split() {
        let bytes = [
            header(0, SYN, 1, 300),
            vec![9; 300],
            header(1, 0, 1, 4_000),
            header(0, 0, 3, 0),
            header(0, RST, 5, 2),
            vec![9; 2],
        ]
        .concat();
        for piece in [1, 5, 12, 13, 1_000] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for mut bytes in bytes.chunks(piece) {
                while !bytes.is_empty() {
                    match frames.advance(&mut bytes) {
                        Some(Step::Header(data)) => found.push((data.stream, 0)),
                        Some(Step::Whole(data)) => found.push((data.stream, data.body_bytes)),
                        None => {}
                    }
                }
            }
            assert_eq!(found, [(1, 0), (1, 300), (5, 0), (5, 2)]);
        }
    }

    #[test]
    fn a_frame_counts_from_its_header_until_it_is_dropped() {
        let backlog = Backlog::new(1 << 30, P2pMetrics::default());
        let mut meter = Meter::new((), backlog.open());
        meter.has_read(&header(0, 0, 7, 1_000));
        assert_eq!(backlog.held(), cost(1_000));
        meter.has_read(&[9; 999]);
        assert_eq!(backlog.held(), cost(1_000));
        meter.has_read(&[9]);
        assert_eq!(backlog.held(), 0, "there is no such stream");
        meter.has_read(&header(0, SYN, 9, u32::MAX));
        assert_eq!(backlog.held(), cost(MAX_BODY_BYTES), "the library takes no more");
        drop(meter);
        assert_eq!(backlog.held(), 0);
    }

    #[test]
    fn written_bytes_count_until_they_are_sent() {
        let backlog = Backlog::new(1 << 30, P2pMetrics::default());
        let connection = backlog.open();
        let mut meter = Meter::new((), connection.clone());
        connection.wrote(cost(500));
        connection.wrote(cost(20));
        meter.has_written(&header(0, 0, 7, 500));
        meter.has_written(&[9; 499]);
        assert_eq!(backlog.held(), cost(500) + cost(20));
        meter.has_written(&[9]);
        assert_eq!(backlog.held(), cost(20));
        drop(meter);
        assert_eq!(backlog.held(), 0);
        connection.sent(cost(20));
        assert_eq!(backlog.held(), 0, "nothing is given back twice");
    }
}
