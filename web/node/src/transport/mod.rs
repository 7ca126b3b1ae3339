//! A transport that JavaScript gives: any object with `dial`, `listen`, `dialChannels` or `meetChannels` carries libp2p.
//!
//! ```text
//!   net-p2p ──▶ JsTransport ──▶ dial(multiaddr)    ─▶ { read, write, shutdown, close }
//!                          ├──▶ listen(multiaddr)  ─▶ { addresses, accepted, close } ─▶ { connection, local, remote }
//!                          ├──▶ dialChannels(multiaddr, events), for data channels (`channels.rs`)
//!                          └──▶ meetChannels(role, signals, events), for those to hosts that nobody can dial (`signals.rs`)
//! ```
//!
//! # Invariants
//!
//! * Nothing that the object does panics or hangs the node: what it throws, and what is of another type than agreed, ends
//!   the connection or the listener with an error.
//! * The object is asked for more only when there is room: one piece of a connection is read ahead, and one is written at a
//!   time.
//! * Every connection and every listener is closed once, also those that came too late.

pub(crate) mod call;
mod channels;
mod connection;
mod listener;
mod signals;

use std::{fmt, io, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use js_sys::{Object, Promise};
use net_p2p::{
    ByteListener, ByteStream, ByteTransport, ChannelEvents, ChannelTransport, DialledChannels,
    MeetingRole, Multiaddr, PeerChannels, SharedChannelTransport, SharedTransport, Signals,
};
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

use self::{
    call::{call, failed, method, promise_of, promised},
    connection::Connection,
};
pub use self::{channels::RawChannelEvents, signals::RawSignals};

/// The method of a transport whose connections have data channels.
const DIAL_CHANNELS: &str = "dialChannels";

/// The method of a transport that connects hosts which nobody can dial.
const MEET_CHANNELS: &str = "meetChannels";

/// A transport, as one of bytes, of channels, or both.
#[derive(Debug, Default)]
pub(crate) struct Transports {
    pub(crate) bytes: Option<SharedTransport>,
    pub(crate) channels: Option<SharedChannelTransport>,
}

impl Transports {
    /// Takes an object that can dial, listen, or both.
    pub(crate) fn of(given: &JsValue) -> Result<Self, &'static str> {
        let object: &Object = given.dyn_ref().ok_or("a transport is an object")?;
        let has = |names: &[&str]| names.iter().any(|name| method(object, name).is_some());
        let transport = Arc::new(JsTransport(SendWrapper::new(object.clone())));
        let bytes = has(&["dial", "listen"]).then(|| Arc::clone(&transport) as SharedTransport);
        let channels =
            has(&[DIAL_CHANNELS, MEET_CHANNELS]).then_some(transport as SharedChannelTransport);
        if bytes.is_none() && channels.is_none() {
            return Err("a transport has a method dial, listen, dialChannels or meetChannels");
        }
        Ok(Self { bytes, channels })
    }
}

/// The object of JavaScript.
struct JsTransport(SendWrapper<Object>);

impl fmt::Debug for JsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsTransport")
    }
}

impl JsTransport {
    /// Returns `true` if the object does not leave the address to others.
    fn is_for(&self, address: &Multiaddr) -> bool {
        let Some(carries) = method(&self.0, "carries") else { return true };
        call(&self.0, &carries, &[address.to_string().into()]).is_ok_and(|said| said.is_truthy())
    }

    /// Calls a method, and waits for the object that its promise brings. `close` is called on one that comes when nobody waits any more.
    fn ask(
        &self,
        name: &'static str,
        given: &[JsValue],
    ) -> impl Future<Output = io::Result<Object>> + use<> {
        let asked = match method(&self.0, name) {
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the transport has no method {name}"),
            )),
            Some(ask) => call(&self.0, &ask, given),
        };
        // Here, and not in the future, which may be dropped before its first step.
        let asked = asked.map(|said| Late(Some(promise_of(&said))));
        async move {
            let mut late = asked?;
            let Some(promise) = late.0.clone() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let brought = JsFuture::from(promise).await;
            late.0 = None;
            let object = brought.map_err(|thrown| failed(&thrown))?.dyn_into::<Object>();
            object.map_err(|_| io::Error::other(format!("{name} of the transport gave no object")))
        }
    }
}

thread_local! {
    /// Closes what came too late.
    static CLOSE: Closure<dyn FnMut(JsValue)> = Closure::new(|came: JsValue| {
        if let Ok(object) = came.dyn_into::<Object>() {
            close(&object);
        }
    });
    /// Takes note of a promise that was rejected too late.
    static IGNORE: Closure<dyn FnMut(JsValue)> = Closure::new(|_: JsValue| {});
}

/// A promise of something that is closed if it comes when nobody waits.
struct Late(Option<Promise>);

impl Drop for Late {
    fn drop(&mut self) {
        let Some(promise) = self.0.take() else { return };
        // The outcome of the calls is that nothing is left.
        let _ = CLOSE.with(|close| IGNORE.with(|ignore| promise.then2(close, ignore)));
    }
}

/// Closes a connection or a listener, whatever it throws.
fn close(object: &Object) {
    if let Some(end) = method(object, "close") {
        // A promise that is rejected needs somebody who takes note, as the future does.
        let _ = promised(object, &end, &[]);
    }
}

impl ByteTransport for JsTransport {
    fn carries(&self, address: &Multiaddr) -> bool {
        self.is_for(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteStream>> {
        let dialled = self.ask("dial", &[address.to_string().into()]);
        let connected = async move {
            let connection = Connection::new(dialled.await?)?;
            Ok(Box::new(connection) as ByteStream)
        };
        SendWrapper::new(connected).boxed()
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteListener>> {
        let listening = self.ask("listen", &[address.to_string().into()]);
        SendWrapper::new(async move { listener::of(listening.await?) }).boxed()
    }
}

impl ChannelTransport for JsTransport {
    fn carries(&self, address: &Multiaddr) -> bool {
        self.is_for(address)
    }

    fn dial(
        &self,
        address: Multiaddr,
        events: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<DialledChannels>> {
        let events = RawChannelEvents::new(events).into();
        let dialled = self.ask(DIAL_CHANNELS, &[address.to_string().into(), events]);
        SendWrapper::new(async move { channels::dialled(dialled.await?) }).boxed()
    }

    fn meets(&self) -> bool {
        method(&self.0, MEET_CHANNELS).is_some()
    }

    fn meet(
        &self,
        role: MeetingRole,
        signals: Signals,
        events: ChannelEvents,
    ) -> BoxFuture<'static, io::Result<Box<dyn PeerChannels>>> {
        let (signals, events) = (RawSignals::new(signals), RawChannelEvents::new(events));
        let given = [signals::name_of(role).into(), signals.into(), events.into()];
        let met = self.ask(MEET_CHANNELS, &given);
        SendWrapper::new(async move { channels::of(met.await?) }).boxed()
    }
}
