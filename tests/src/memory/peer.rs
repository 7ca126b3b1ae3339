//! A scripted peer at the other end of an in-memory link.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use gossip::{
    Identity, Tag,
    wire::frame::{FRAME_HEADER_BYTES, encode_header, split},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::link::End;
use crate::harness::RawPeer;

/// A peer that sends frames over an in-memory link, and reads only when told to.
#[derive(Debug)]
pub struct MemoryPeer {
    end: End,
    buffer: BytesMut,
    identity: Identity,
}

impl MemoryPeer {
    /// Creates the peer at this end of a link, with this identity.
    #[must_use]
    pub fn new(end: End, identity: Identity) -> Self {
        Self { end, buffer: BytesMut::new(), identity }
    }

    /// The end of the link, for a test that reads or writes raw bytes.
    pub fn end(&mut self) -> &mut End {
        &mut self.end
    }

    fn decode(&mut self) -> Option<(Tag, Bytes)> {
        let header = *self.buffer.first_chunk::<FRAME_HEADER_BYTES>()?;
        let len = usize::try_from(u32::from_be_bytes(header)).ok()?;
        if self.buffer.len() < FRAME_HEADER_BYTES + len {
            return None;
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        split(&self.buffer.split_to(len).freeze())
    }
}

impl RawPeer for MemoryPeer {
    async fn send(&mut self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let message = [&encode_header(Tag::BYTES + payload.len()), &tag.0[..], payload].concat();
        self.end.writer.write_all(&message).await?;
        self.end.writer.flush().await
    }

    async fn recv(&mut self) -> Option<(Tag, Bytes)> {
        loop {
            if let Some(message) = self.decode() {
                return Some(message);
            }
            match self.end.reader.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn begin(&mut self, tag: Tag, len: usize) -> io::Result<()> {
        self.go_on(&[&encode_header(Tag::BYTES + len), &tag.0[..]].concat()).await
    }

    async fn go_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.end.writer.write_all(bytes).await?;
        self.end.writer.flush().await
    }

    async fn break_within(mut self, tag: Tag, payload: &[u8]) {
        // A failed write means that the link is broken, as the test wants.
        let _ = self.begin(tag, payload.len()).await;
        let _ = self.go_on(payload.get(..payload.len() / 2).unwrap_or(&[])).await;
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity)
    }
}
