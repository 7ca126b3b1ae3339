//! The framing of messages on a WebSocket: data frames carry message parts, control frames go to the port.
//!
//! ```text
//!   bytes ─▶ WsFraming ─┬─ data frame ─▶ part of a message, masked
//!                       └─ ping, close, violation ──▶ Port
//! ```
//!
//! # Invariants
//!
//! * A message longer than every bound is refused as soon as a header announces it.
//! * A message has at most 16,384 frames.

use std::sync::Arc;

use broadcaster::{Follows, Framing, Head, PartHead};
use bytes::Bytes;
use gossip::{DisconnectReason, MAX_MESSAGE_BYTES};
use net_tcp::frame::{Control, Data, OpCode};
use tokio::time::Instant;

use crate::{
    bucket::Bucket,
    frame::{
        self, CloseEcho, Header, MAX_CONTROL_BYTES, Part, Role, Violation, Within, apply_mask,
    },
    port::Port,
};

/// Largest number of frames per message. Chosen: ten times that of the largest message of an existing node,
/// which has 1,537 (wire facts 1.7).
pub(crate) const MAX_FRAGMENTS: u32 = 16_384;

/// Decoder for the frames of one connection.
#[derive(Debug)]
pub(crate) struct WsFraming {
    role: Role,
    port: Arc<Port>,
    /// Mask key of the data frame whose header was read last.
    mask: [u8; 4],
    /// The message whose last frame has not arrived yet.
    message: Option<Begun>,
    controls: Bucket,
}

/// The sum of the headers of an unfinished message.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    frames: u32,
    bytes: usize,
}

impl WsFraming {
    /// Decodes the frames of a connection that starts `now`; `role` is this node's end of it.
    pub(crate) fn new(role: Role, port: Arc<Port>, now: Instant) -> Self {
        Self { role, port, mask: [0; 4], message: None, controls: Bucket::new(now) }
    }

    /// Settles the close frame for `violation` and returns the reason for the end of the link.
    fn violated(&self, violation: Violation) -> DisconnectReason {
        self.port.close(violation.close_payload());
        match violation {
            Violation::TooBig => DisconnectReason::Oversized,
            _ => DisconnectReason::Protocol,
        }
    }

    fn control(
        &mut self,
        kind: Control,
        header: &Header,
        (bytes, heard): (&[u8], Instant),
    ) -> Result<Head, DisconnectReason> {
        // The header check has refused longer control frames, so this never truncates.
        let len = usize::try_from(header.len).unwrap_or(usize::MAX).min(MAX_CONTROL_BYTES);
        let end = header.size + len;
        let Some(masked) = bytes.get(header.size..end) else { return Ok(Head::Incomplete) };
        let mut payload = [0; MAX_CONTROL_BYTES];
        let (payload, _) = payload.split_at_mut(len);
        payload.copy_from_slice(masked);
        apply_mask(payload, header.mask, 0);
        if kind == Control::Close {
            return Err(match frame::read_close(payload) {
                Ok(CloseEcho(echo)) => {
                    self.port.close(echo);
                    DisconnectReason::RemoteClosed
                }
                Err(violation) => self.violated(violation),
            });
        }
        if !self.controls.take(heard) {
            return Err(DisconnectReason::Flood);
        }
        match kind {
            Control::Ping => self.port.pong(Bytes::copy_from_slice(payload)),
            Control::Pong => self.port.ponged(heard),
            _ => {}
        }
        Ok(Head::Own { bytes: end })
    }

    fn data(&mut self, kind: Data, header: &Header) -> Result<Head, DisconnectReason> {
        let Begun { frames, bytes: before } = self.message.unwrap_or_default();
        let payload = usize::try_from(header.len)
            .ok()
            .filter(|len| before.saturating_add(*len) <= MAX_MESSAGE_BYTES)
            .ok_or_else(|| self.violated(Violation::TooBig))?;
        if kind == Data::Text || frames == MAX_FRAGMENTS {
            return Err(DisconnectReason::Protocol);
        }
        let follows = match header.part {
            Part::Last => Follows::Nothing,
            Part::More => Follows::More,
        };
        let begun = Begun { frames: frames + 1, bytes: before + payload };
        self.message = (follows == Follows::More).then_some(begun);
        self.mask = header.mask;
        Ok(Head::Part(PartHead { header: header.size, payload, follows }))
    }
}

impl Framing for WsFraming {
    fn head(&mut self, bytes: &[u8], heard: Instant) -> Result<Head, DisconnectReason> {
        let within = if self.message.is_some() { Within::Message } else { Within::Nothing };
        let header = frame::read_header(bytes, self.role, within)
            .map_err(|violation| self.violated(violation))?;
        match header {
            None => Ok(Head::Incomplete),
            Some(header) => {
                self.port.heard();
                match header.opcode {
                    OpCode::Control(kind) => self.control(kind, &header, (bytes, heard)),
                    OpCode::Data(kind) => self.data(kind, &header),
                }
            }
        }
    }

    fn unmask(&self, bytes: &mut [u8], offset: usize) {
        apply_mask(bytes, self.mask, offset);
    }
}

#[cfg(test)]
mod tests;
