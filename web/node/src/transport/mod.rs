//! A transport that JavaScript gives: any object with `dial` and `listen` carries libp2p.
//!
//! ```text
//!   net-p2p ──▶ JsTransport ──▶ dial(multiaddr)    ─▶ { read, write, shutdown, close }
//!                          └──▶ listen(multiaddr)  ─▶ { addresses, accepted, close } ─▶ { connection, local, remote }
//! ```
//!
//! # Invariants
//!
//! * Nothing that the object does panics or hangs the node: what it throws, and what is of another type than agreed, ends
//!   the connection or the listener with an error.
//! * The object is asked for more only when there is room: one piece of a connection is read ahead, and one is written at a
//!   time.
//! * Every connection and every listener is closed once, also those that came too late.

mod call;
mod connection;
mod listener;

use std::{fmt, io};

use futures::{FutureExt, future::BoxFuture};
use js_sys::{Object, Promise};
use net_p2p::{ByteListener, ByteStream, ByteTransport, Multiaddr};
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

use self::{
    call::{call, failed, method, promise_of, promised},
    connection::Connection,
};

/// The object of JavaScript.
pub(crate) struct JsTransport(SendWrapper<Object>);

impl fmt::Debug for JsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsTransport")
    }
}

impl JsTransport {
    /// Takes an object that can dial, listen, or both.
    pub(crate) fn new(given: &JsValue) -> Result<Self, &'static str> {
        let object: &Object = given.dyn_ref().ok_or("a transport is an object")?;
        if method(object, "dial").is_none() && method(object, "listen").is_none() {
            return Err("a transport has a method dial, listen, or both");
        }
        Ok(Self(SendWrapper::new(object.clone())))
    }

    /// Calls a method with an address, and waits for the object that its promise brings. `close` is called on one that
    /// comes when nobody waits any more.
    fn ask(
        &self,
        name: &'static str,
        address: &Multiaddr,
    ) -> impl Future<Output = io::Result<Object>> + use<> {
        let asked = match method(&self.0, name) {
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the transport has no method {name}"),
            )),
            Some(ask) => call(&self.0, &ask, &[address.to_string().into()]),
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
        let Some(carries) = method(&self.0, "carries") else { return true };
        call(&self.0, &carries, &[address.to_string().into()]).is_ok_and(|said| said.is_truthy())
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteStream>> {
        let dialled = self.ask("dial", &address);
        let connected = async move {
            let connection = Connection::new(dialled.await?)?;
            Ok(Box::new(connection) as ByteStream)
        };
        SendWrapper::new(connected).boxed()
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, io::Result<ByteListener>> {
        let listening = self.ask("listen", &address);
        SendWrapper::new(async move { listener::of(listening.await?) }).boxed()
    }
}
