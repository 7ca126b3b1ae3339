//! One HTTP exchange with a peer, over streams of libp2p.
//!
//! # Invariants
//!
//! * A piece of the body is read from the stream when JavaScript asks for it, and not before.
//! * An exchange that is cancelled, or freed, resets its stream.

use std::cell::RefCell;

use bytes::Bytes;
use gossip::{
    GossipNode, NodeAddress,
    http::{HttpBody, HttpClient, HttpError, HttpResponse},
};
use http::Request;
use http_body_util::BodyExt;
use js_sys::{Array, Uint8Array};
use net_p2p::P2pNetwork;
use tokio_util::sync::{CancellationToken, DropGuard};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use super::with_causes;
use crate::{code::Code, shown};

#[wasm_bindgen]
extern "C" {
    /// A request, made whole by `http.js`.
    pub type RawRequest;

    #[wasm_bindgen(method, getter)]
    fn method(this: &RawRequest) -> String;
    /// Path and query.
    #[wasm_bindgen(method, getter)]
    fn path(this: &RawRequest) -> String;
    /// Pairs of texts.
    #[wasm_bindgen(method, getter)]
    fn headers(this: &RawRequest) -> Array;
    #[wasm_bindgen(method, getter)]
    fn body(this: &RawRequest) -> Uint8Array;
}

/// An exchange, from its request to the last byte of its answer.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawExchange {
    client: HttpClient,
    request: RefCell<Option<Request<HttpBody>>>,
    answer: RefCell<Option<HttpBody>>,
    cancelled: CancellationToken,
    _ends: DropGuard,
}

impl RawExchange {
    /// Prepares a request to the peer of an address; `/p2p/ID` names one that is connected.
    pub(crate) fn new(
        network: &P2pNetwork,
        address: &str,
        given: &RawRequest,
    ) -> Result<Self, JsValue> {
        let address = NodeAddress::Multiaddr(address.to_owned());
        let client = network.http_client(&address).map_err(|error| Code::Address.because(error))?;
        let mut request = Request::builder().method(&*given.method()).uri(given.path());
        for header in given.headers().iter() {
            let header = Array::from(&header);
            let text = |at| header.get(at).as_string().unwrap_or_default();
            request = request.header(text(0), text(1));
        }
        let request = request.body(HttpBody::full(Bytes::from(given.body().to_vec())));
        let request = request.map_err(|error| Code::Http.because(error))?;
        let cancelled = CancellationToken::new();
        Ok(Self {
            client,
            request: RefCell::new(Some(request)),
            answer: RefCell::new(None),
            _ends: cancelled.clone().drop_guard(),
            cancelled,
        })
    }

    fn cancelled() -> JsValue {
        Code::Closed.because("the exchange was cancelled")
    }
}

#[wasm_bindgen]
#[expect(clippy::missing_errors_doc, reason = "for `tandem.js`; the codes are in `tandem.d.ts`")]
impl RawExchange {
    /// Sends the request, and resolves with the status and the headers of the answer.
    pub async fn send(&self) -> Result<JsValue, JsValue> {
        let request = self.request.take().ok_or_else(Self::cancelled)?;
        let sent = self.cancelled.run_until_cancelled(self.client.send(request)).await;
        let answer = sent.ok_or_else(Self::cancelled)?.map_err(|error| failed(&error))?;
        let head = head(&answer);
        *self.answer.borrow_mut() = Some(answer.into_body());
        Ok(head)
    }

    /// The next bytes of the answer; undefined at its end.
    pub async fn pull(&self) -> Result<Option<Uint8Array>, JsValue> {
        let Some(mut answer) = self.answer.take() else { return Ok(None) };
        loop {
            let frame = self.cancelled.run_until_cancelled(answer.frame()).await;
            match frame.ok_or_else(Self::cancelled)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Code::Http.because(error)),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref().filter(|bytes| !bytes.is_empty()) {
                        let bytes = Uint8Array::from(&**bytes);
                        *self.answer.borrow_mut() = Some(answer);
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// Gives the exchange up.
    pub fn cancel(&self) {
        self.cancelled.cancel();
        self.answer.take();
    }
}

fn head(answer: &HttpResponse) -> JsValue {
    let headers = shown::headers(answer.headers());
    shown::object([("status", answer.status().as_u16().into()), ("headers", headers.into())])
}

fn failed(error: &HttpError) -> JsValue {
    let code = match error {
        HttpError::Unreachable { .. } => Code::Unreachable,
        HttpError::QueueTimeout { .. } | HttpError::Deadline | HttpError::DeadlineUnsent => {
            Code::Timeout
        }
        HttpError::QueueFull { .. } => Code::Full,
        HttpError::Stopped => Code::Closed,
        _ => Code::Http,
    };
    code.because(with_causes(error))
}
