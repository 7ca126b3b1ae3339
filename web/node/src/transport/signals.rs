//! The signals of a meeting, for JavaScript.
//!
//! ```text
//!   net-p2p ──▶ JsTransport ──▶ meetChannels(role, signals, events) ─▶ { open, send, buffered, closeChannel, close }
//!           ◀── RawSignals ◀── send(kind, data)
//!               RawSignals ──▶ next() ─▶ { kind, data }
//! ```

use std::rc::Rc;

use js_sys::{Error, Object, Promise, Reflect};
use net_p2p::{MeetingRole, Signal, SignalReceiver, SignalSender, Signals};
use tokio::sync::Mutex;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::future_to_promise;

/// The name of a role for JavaScript.
pub(super) const fn name_of(role: MeetingRole) -> &'static str {
    match role {
        MeetingRole::Offers => "offers",
        MeetingRole::Answers => "answers",
    }
}

/// Sends and receives the signals of one meeting.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawSignals {
    sender: SignalSender,
    /// Shared with the promises of the next signals, which come in the order in which they were asked for.
    receiver: Rc<Mutex<SignalReceiver>>,
}

impl RawSignals {
    pub(super) fn new(Signals { sender, receiver }: Signals) -> Self {
        Self { sender, receiver: Rc::new(Mutex::new(receiver)) }
    }
}

#[wasm_bindgen]
impl RawSignals {
    /// Sends a signal without waiting: an `offer` or an `answer` first, then each `candidate`.
    ///
    /// # Errors
    ///
    /// The kind is another one, too many were sent, or the meeting is over.
    pub fn send(&self, kind: &str, data: String) -> Result<(), Error> {
        let signal = match kind {
            "offer" => Signal::Offer(data),
            "answer" => Signal::Answer(data),
            "candidate" => Signal::Candidate(data),
            _ => return Err(Error::new("a signal is an offer, an answer or a candidate")),
        };
        self.sender.send(signal).map_err(|error| Error::new(&error.to_string()))
    }

    /// A promise of the next signal of the peer; of undefined when no more will come.
    pub fn next(&self) -> Promise {
        let receiver = Rc::clone(&self.receiver);
        future_to_promise(async move {
            let signal = receiver.lock().await.next().await;
            let (kind, data) = match signal {
                None => return Ok(JsValue::UNDEFINED),
                Some(Signal::Offer(data)) => ("offer", data),
                Some(Signal::Answer(data)) => ("answer", data),
                Some(Signal::Candidate(data)) => ("candidate", data),
            };
            let given = Object::new();
            Reflect::set(&given, &"kind".into(), &kind.into())?;
            Reflect::set(&given, &"data".into(), &data.into())?;
            Ok(given.into())
        })
    }
}
