//! A request of a peer, for `serve.js`.

use std::{cell::RefCell, rc::Rc};

use gossip::http::{Caller, HttpBody, HttpRequest};
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt;
use js_sys::{Array, Uint8Array};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use crate::{code::Code, libp2p::with_causes, shown};

/// The body of a request, which the exchange drops at its end wherever JavaScript keeps the request.
#[derive(Clone, Debug)]
pub(super) struct SharedBody(Rc<RefCell<State>>);

/// The rest of a body.
#[derive(Debug)]
enum State {
    /// Some of it; nothing while a piece of it is read.
    Left(Option<HttpBody>),
    /// Nothing: all of it was read.
    Read,
    /// It is given up.
    GivenUp,
}

impl SharedBody {
    /// Gives the rest of the body up.
    pub(super) fn give_up(&self) {
        let mut state = self.0.borrow_mut();
        if matches!(*state, State::Left(_)) {
            *state = State::GivenUp;
        }
    }

    fn take(&self) -> Result<Option<HttpBody>, JsValue> {
        match &mut *self.0.borrow_mut() {
            State::Left(body) => Ok(body.take()),
            State::Read => Ok(None),
            State::GivenUp => Err(Code::Closed.because("the exchange has ended")),
        }
    }

    /// Puts the body back that a piece was read of, or says that all of it was read.
    fn put(&self, body: Option<HttpBody>) {
        let mut state = self.0.borrow_mut();
        if matches!(*state, State::Left(_)) {
            *state = body.map_or(State::Read, |body| State::Left(Some(body)));
        }
    }
}

/// A request of a peer.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawServed {
    parts: Parts,
    body: SharedBody,
}

impl RawServed {
    /// The request, and its body, which it shares.
    pub(super) fn new(request: HttpRequest) -> (Self, SharedBody) {
        let (parts, body) = request.into_parts();
        let state = match body.is_end_stream() {
            true => State::Read,
            false => State::Left(Some(body)),
        };
        let body = SharedBody(Rc::new(RefCell::new(state)));
        (Self { parts, body: body.clone() }, body)
    }

    fn caller(&self) -> Option<&Caller> {
        self.parts.extensions.get()
    }
}

#[wasm_bindgen]
#[expect(clippy::missing_errors_doc, reason = "for `serve.js`; the codes are in `tandem.d.ts`")]
impl RawServed {
    /// The method, as it was sent.
    #[wasm_bindgen(getter)]
    pub fn method(&self) -> String {
        self.parts.method.to_string()
    }

    /// Path and query.
    #[wasm_bindgen(getter)]
    pub fn path(&self) -> String {
        self.parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
    }

    /// Pairs of texts.
    #[wasm_bindgen(getter)]
    pub fn headers(&self) -> Array {
        shown::headers(&self.parts.headers)
    }

    /// The identity of the peer.
    #[wasm_bindgen(getter = peerId)]
    pub fn peer_id(&self) -> Option<String> {
        self.caller()?.identity.map(|identity| identity.to_string())
    }

    /// The multiaddr that it is connected from.
    #[wasm_bindgen(getter)]
    pub fn address(&self) -> Option<String> {
        self.caller().map(|caller| caller.address.to_string())
    }

    /// True if a body follows.
    #[wasm_bindgen(getter = hasBody)]
    pub fn has_body(&self) -> bool {
        matches!(*self.body.0.borrow(), State::Left(_))
    }

    /// The next bytes of the body; undefined at its end.
    pub async fn pull(&self) -> Result<Option<Uint8Array>, JsValue> {
        let Some(mut body) = self.body.take()? else { return Ok(None) };
        loop {
            match body.frame().await {
                None => {
                    self.body.put(None);
                    return Ok(None);
                }
                Some(Err(error)) => return Err(Code::Http.because(with_causes(&*error))),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref().filter(|bytes| !bytes.is_empty()) {
                        let bytes = Uint8Array::from(&**bytes);
                        self.body.put(Some(body));
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// Gives the rest of the body up.
    pub fn discard(&self) {
        self.body.give_up();
    }
}
