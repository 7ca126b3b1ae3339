//! The host's WebSocket, with its events on their way to whoever waits.
//!
//! # Invariants
//!
//! * A socket that is dropped is closed, and calls nobody any more.
//! * Messages that nobody reads are bounded ([`MAX_UNREAD_BYTES`], [`MAX_UNREAD`]): a socket beyond that is closed.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use gossip::DisconnectReason;
use js_sys::{Array, ArrayBuffer, Function, Reflect, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue, closure::Closure, prelude::wasm_bindgen};

/// Most bytes that wait to be read, in the memory of the host. Chosen: as many as a reader of `tandem.js` has, and two of
/// the largest messages.
const MAX_UNREAD_BYTES: usize = 16 * 1024 * 1024;
/// Most messages that wait to be read. Chosen: twice what a peer may send in a burst.
const MAX_UNREAD: usize = 65_536;
/// The state of a socket that can send.
const OPEN: u16 = 1;

#[wasm_bindgen]
extern "C" {
    type Host;

    #[wasm_bindgen(method, getter = readyState)]
    fn ready_state(this: &Host) -> u16;
    #[wasm_bindgen(method, getter = bufferedAmount)]
    fn buffered_amount(this: &Host) -> f64;
    #[wasm_bindgen(method, setter = binaryType)]
    fn set_binary_type(this: &Host, kind: &str);
    #[wasm_bindgen(method, setter = onmessage)]
    fn set_on_message(this: &Host, call: Option<&Function>);
    #[wasm_bindgen(method, setter = onerror)]
    fn set_on_error(this: &Host, call: Option<&Function>);
    #[wasm_bindgen(method, setter = onclose)]
    fn set_on_close(this: &Host, call: Option<&Function>);
    #[wasm_bindgen(method, catch)]
    fn send(this: &Host, bytes: &Uint8Array) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn close(this: &Host) -> Result<(), JsValue>;
}

thread_local! {
    /// Listens to what sockets say that are gone.
    static IGNORE: Closure<dyn Fn()> = Closure::new(|| {});
}

/// A message as the host gives it.
#[derive(Debug)]
pub(super) enum Arrived {
    /// Gossip.
    Binary(Uint8Array),
    /// The hello; nothing else is a text.
    Text(String),
}

#[derive(Debug, Default)]
struct State {
    arrived: RefCell<VecDeque<Arrived>>,
    unread_bytes: Cell<usize>,
    /// Set once nobody reads any more: messages are not kept from then on.
    is_deaf: Cell<bool>,
    /// Set once nothing more comes.
    ended: Cell<Option<DisconnectReason>>,
    reader: RefCell<Option<Waker>>,
    closer: RefCell<Option<Waker>>,
}

impl State {
    fn end(&self, reason: DisconnectReason) {
        if self.ended.get().is_none() {
            self.ended.set(Some(reason));
        }
        for waker in [&self.reader, &self.closer] {
            waker.borrow_mut().take().into_iter().for_each(Waker::wake);
        }
    }

    /// Keeps a message, unless too much is unread: then the peer is not read any more.
    fn take(&self, data: JsValue) {
        if self.is_deaf.get() || self.ended.get().is_some() {
            return;
        }
        let (arrived, bytes) = match data.dyn_into::<ArrayBuffer>() {
            Ok(buffer) => {
                let bytes = Uint8Array::new(&buffer);
                let length = bytes.length() as usize;
                (Arrived::Binary(bytes), length)
            }
            Err(other) => match other.as_string() {
                Some(text) => {
                    let length = text.len();
                    (Arrived::Text(text), length)
                }
                None => return self.end(DisconnectReason::Protocol),
            },
        };
        let unread = self.unread_bytes.get() + bytes;
        let mut queue = self.arrived.borrow_mut();
        // One message is taken whatever its length is: the host has it already.
        if !queue.is_empty() && (unread > MAX_UNREAD_BYTES || queue.len() >= MAX_UNREAD) {
            drop(queue);
            return self.end(DisconnectReason::Stalled);
        }
        queue.push_back(arrived);
        drop(queue);
        self.unread_bytes.set(unread);
        let reader = self.reader.borrow_mut().take();
        reader.into_iter().for_each(Waker::wake);
    }
}

/// The functions that the host calls; they live as long as the socket.
struct Calls {
    _message: Closure<dyn FnMut(JsValue)>,
    _error: Closure<dyn FnMut(JsValue)>,
    _close: Closure<dyn FnMut(JsValue)>,
}

struct Inner {
    host: Host,
    state: Rc<State>,
    _calls: Calls,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.host.set_on_message(None);
        self.host.set_on_close(None);
        // A socket that is closed before it was opened tells an error, which `ws` throws if nobody listens.
        IGNORE.with(|ignore| self.host.set_on_error(Some(ignore.as_ref().unchecked_ref())));
        // The only error is that of a code that is none, and there is no code.
        let _ = self.host.close();
    }
}

/// A socket of the host. Clones share it; the last one that is dropped closes it.
#[derive(Clone)]
pub(super) struct Socket(SendWrapper<Rc<Inner>>);

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.0.state.ended.get()).finish()
    }
}

impl Socket {
    /// Begins to connect.
    pub(super) fn open(
        constructor: &Function,
        url: &str,
        sub_protocol: &str,
    ) -> Result<Self, JsValue> {
        let arguments = Array::of2(&url.into(), &Array::of1(&sub_protocol.into()));
        let host: Host = Reflect::construct(constructor, &arguments)?.unchecked_into();
        host.set_binary_type("arraybuffer");
        let state = Rc::<State>::default();
        let [heard, failed, closed] = [(); 3].map(|()| Rc::clone(&state));
        let calls = Calls {
            _message: Closure::new(move |event: JsValue| {
                heard.take(Reflect::get(&event, &"data".into()).unwrap_or_default());
            }),
            // A browser does not tell why, so that pages cannot look around in a network.
            _error: Closure::new(move |_| failed.end(DisconnectReason::Transport)),
            _close: Closure::new(move |event: JsValue| {
                let clean = Reflect::get(&event, &"wasClean".into()).unwrap_or_default();
                closed.end(match clean.is_truthy() {
                    true => DisconnectReason::RemoteClosed,
                    false => DisconnectReason::Transport,
                });
            }),
        };
        host.set_on_message(Some(calls._message.as_ref().unchecked_ref()));
        host.set_on_error(Some(calls._error.as_ref().unchecked_ref()));
        host.set_on_close(Some(calls._close.as_ref().unchecked_ref()));
        Ok(Self(SendWrapper::new(Rc::new(Inner { host, state, _calls: calls }))))
    }

    /// Polls for the next message. What came before the end is read before it.
    pub(super) fn poll_next(&self, waker: &Waker) -> Poll<Result<Arrived, DisconnectReason>> {
        let state = &self.0.state;
        if let Some(arrived) = state.arrived.borrow_mut().pop_front() {
            let bytes = match &arrived {
                Arrived::Binary(bytes) => bytes.length() as usize,
                Arrived::Text(text) => text.len(),
            };
            state.unread_bytes.set(state.unread_bytes.get().saturating_sub(bytes));
            return Poll::Ready(Ok(arrived));
        }
        if let Some(reason) = state.ended.get() {
            return Poll::Ready(Err(reason));
        }
        *state.reader.borrow_mut() = Some(waker.clone());
        Poll::Pending
    }

    /// Waits for the next message.
    ///
    /// # Cancel safety
    ///
    /// Safe: a message that nobody waits for is kept.
    pub(super) async fn next(&self) -> Result<Arrived, DisconnectReason> {
        poll_fn(|context| self.poll_next(context.waker())).await
    }

    /// Waits until the socket has ended, in whatever way.
    ///
    /// # Cancel safety
    ///
    /// Safe: an end stays.
    pub(super) async fn ended(&self) {
        poll_fn(|context| {
            if self.0.state.ended.get().is_some() {
                return Poll::Ready(());
            }
            *self.0.state.closer.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The number of bytes that the host has taken and not sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        // A float becomes the nearest integer that there is.
        self.0.host.buffered_amount() as usize
    }

    /// The reason for which nothing can be sent; `None` while the host can.
    pub(super) fn shut(&self) -> Option<DisconnectReason> {
        let is_closing = || self.0.host.ready_state() != OPEN;
        self.0.state.ended.get().or_else(|| is_closing().then_some(DisconnectReason::Transport))
    }

    /// Hands a message to the host, which keeps a copy.
    pub(super) fn send(&self, message: &[u8]) -> Result<(), JsValue> {
        self.0.host.send(&Uint8Array::from(message))
    }

    /// Begins the closing handshake, behind everything that was sent.
    pub(super) fn close(&self) {
        // The only error is that of a code that is none, and there is no code.
        let _ = self.0.host.close();
    }

    /// Keeps no message from now on. The socket goes on, for those that are still to be sent.
    pub(super) fn deafen(&self) {
        self.0.state.is_deaf.set(true);
        self.0.state.arrived.borrow_mut().clear();
        self.0.state.unread_bytes.set(0);
    }
}
