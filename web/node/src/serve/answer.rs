//! An answer of JavaScript, as the server sends it.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::stream;
use gossip::http::{BoxError, HttpBody, HttpResponse};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use js_sys::{Array, Function, Uint8Array};
use runtime::time;
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::Exchange;
use crate::transport::call as js;

/// JavaScript did not go on with the body of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the body of the answer stood still")]
struct StoodStill;

/// The answer that `serve.js` gave: a status, pairs of headers, and a body, null or an object with a function `next`.
pub(super) fn response(
    given: &JsValue,
    mut exchange: Exchange,
    time: Duration,
) -> Result<HttpResponse, BoxError> {
    let status = js::property(given, "status").as_f64().unwrap_or_default();
    let mut response = HttpResponse::new(HttpBody::empty());
    *response.status_mut() = StatusCode::from_u16(status as u16)?;
    for header in Array::from(&js::property(given, "headers")).iter() {
        let header = Array::from(&header);
        let [name, value] = [0, 1].map(|at| header.get(at).as_string().unwrap_or_default());
        let name = HeaderName::from_bytes(name.as_bytes())?;
        // `Headers` has texts of bytes.
        let value: Vec<u8> = value.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect();
        response.headers_mut().append(name, HeaderValue::from_bytes(&value)?);
    }
    let body = js::property(given, "body");
    match js::method(&body, "next") {
        Some(next) => *response.body_mut() = streamed(Pieces { next, exchange, time }),
        None => exchange.end(),
    }
    Ok(response)
}

/// The pieces of an answer's body.
struct Pieces {
    next: Function,
    exchange: Exchange,
    time: Duration,
}

fn streamed(pieces: Pieces) -> HttpBody {
    let pieces = stream::try_unfold(pieces, |mut pieces| async {
        let piece = pieces.pull().await?;
        Ok::<_, BoxError>(piece.map(|piece| (Frame::data(piece), pieces)))
    });
    HttpBody::new(StreamBody::new(SendWrapper::new(pieces)))
}

impl Pieces {
    /// Asks JavaScript for the next piece; `None` at the end.
    async fn pull(&mut self) -> Result<Option<Bytes>, BoxError> {
        let asked = js::call(&JsValue::UNDEFINED, &self.next, &[])?;
        let given = time::timeout(self.time, JsFuture::from(js::promise_of(&asked))).await;
        let given = given.map_err(|_elapsed| StoodStill)?;
        let given = given.map_err(|thrown| js::failed(&thrown))?;
        if given.is_undefined() {
            self.exchange.end();
            return Ok(None);
        }
        let piece: Uint8Array =
            given.dyn_into().map_err(|_| io::Error::other("the body of an answer is bytes"))?;
        Ok(Some(piece.to_vec().into()))
    }
}
