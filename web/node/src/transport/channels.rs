//! A connection of JavaScript with data channels.
//!
//! ```text
//!   net-p2p ──▶ JsTransport ──▶ dialChannels(multiaddr, events) ─▶ { certificate, open, send, buffered, closeChannel, close }
//!           ◀── RawChannelEvents ◀── accepted(), opened(id), message(id, bytes), drained(id), closed(id), ended(error)
//! ```
//!
//! # Invariants
//!
//! * A message is passed on as it comes, so that it is kept where its bytes have a bound.
//! * A connection that is dropped is closed.

use std::io;

use js_sys::{Function, Object, Uint8Array};
use net_p2p::{ChannelEvents, DialledChannels, PeerChannels};
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use super::{
    call::{call, failed, method, property},
    close,
    connection::bytes_of,
};

/// Bytes of a hash by SHA-256.
const HASH_BYTES: usize = 32;

/// Takes what happens on the channels of a connection.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawChannelEvents(ChannelEvents);

impl RawChannelEvents {
    pub(super) const fn new(events: ChannelEvents) -> Self {
        Self(events)
    }
}

#[wasm_bindgen]
impl RawChannelEvents {
    /// The number of a channel that the peer has opened; undefined if it is one too many.
    #[must_use]
    pub fn accepted(&self) -> Option<u16> {
        self.0.accepted()
    }

    /// Messages can be sent on a channel.
    pub fn opened(&self, channel: u16) {
        self.0.opened(channel);
    }

    /// A message of the peer. One that is not of bytes, which a peer may send too, is left out.
    pub fn message(&self, channel: u16, message: JsValue) {
        if let Ok(bytes) = bytes_of(message) {
            self.0.message(channel, bytes.to_vec());
        }
    }

    /// There may be room on a channel.
    pub fn drained(&self, channel: u16) {
        self.0.drained(channel);
    }

    /// A channel is closed.
    pub fn closed(&self, channel: u16) {
        self.0.closed(channel);
    }

    /// The connection has ended.
    pub fn ended(&self, why: &JsValue) {
        self.0.ended(failed(why));
    }
}

/// The channels.
#[derive(Debug)]
struct Channels(SendWrapper<Parts>);

#[derive(Debug)]
struct Parts {
    object: Object,
    open: Function,
    send: Function,
    buffered: Function,
    close_channel: Function,
}

/// Takes an object with the methods of a connection, and the hash of its certificate. It is closed if it has them not.
pub(super) fn dialled(object: Object) -> io::Result<DialledChannels> {
    let certificate = bytes_of(property(&object, "certificate")).map(|hash| hash.to_vec());
    let certificate = certificate.ok().and_then(|hash| <[u8; HASH_BYTES]>::try_from(hash).ok());
    let channels = of(object)?;
    // The channels are closed with it.
    let certificate = certificate.ok_or_else(lacking)?;
    Ok(DialledChannels { channels, certificate })
}

/// Takes an object with the methods of a connection, which is closed if it has them not.
pub(super) fn of(object: Object) -> io::Result<Box<dyn PeerChannels>> {
    let methods = ["open", "send", "buffered", "closeChannel"].map(|name| method(&object, name));
    let [Some(open), Some(send), Some(buffered), Some(close_channel)] = methods else {
        close(&object);
        return Err(lacking());
    };
    let parts = Parts { object, open, send, buffered, close_channel };
    Ok(Box::new(Channels(SendWrapper::new(parts))))
}

fn lacking() -> io::Error {
    io::Error::other(
        "a connection of the transport lacks a method for channels, or its certificate's hash",
    )
}

impl Parts {
    fn call(&self, function: &Function, given: &[JsValue]) -> io::Result<JsValue> {
        call(&self.object, function, given)
    }
}

impl PeerChannels for Channels {
    fn open(&mut self, channel: u16) -> io::Result<()> {
        self.0.call(&self.0.open, &[channel.into()]).map(drop)
    }

    fn send(&mut self, channel: u16, message: &[u8]) -> io::Result<()> {
        let message = Uint8Array::from(message).into();
        self.0.call(&self.0.send, &[channel.into(), message]).map(drop)
    }

    fn buffered(&mut self, channel: u16) -> usize {
        let said = self.0.call(&self.0.buffered, &[channel.into()]);
        // A float becomes the nearest integer that there is; what is no number counts as nothing.
        said.ok().and_then(|said| said.as_f64()).unwrap_or_default() as usize
    }

    fn close(&mut self, channel: u16) {
        // A channel that cannot be closed is given up with its connection.
        let _ = self.0.call(&self.0.close_channel, &[channel.into()]);
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        close(&self.object);
    }
}
