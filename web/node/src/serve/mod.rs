//! HTTP that JavaScript serves to peers, over streams of libp2p.
//!
//! ```text
//!   stream ─▶ HttpServer (permits, heads, deadlines) ─▶ Protection ─▶ serve.js ─▶ the application's handler
//!                                                                        │ RawServed: the request, its body
//!      ◀── pieces of the answer ◀────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * The server and its protection are those of the native node, so bounds and refusals are the same.
//! * Every wait for JavaScript has a deadline.
//! * JavaScript is told when the client is gone before the whole answer was written.

mod answer;
mod request;

use std::time::Duration;

use gossip::http::{BoxError, HttpRequest, HttpResponse, HttpService};
use js_sys::Function;
use net_http::{HttpServer, Incident, Protection, ServeLimits, ServeMetrics};
use send_wrapper::SendWrapper;
use tower::service_fn;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

pub use request::RawServed;

use crate::{shown, transport::call as js};

/// The part of `Node.start`'s options that is about serving.
#[derive(Debug)]
pub(crate) struct ServeOptions {
    /// Gets a `RawServed`, and returns the promise of an answer and a function that gives it up.
    pub(crate) on_request: Function,
    /// Longest wait for the head of an answer, and for each piece of its body.
    pub(crate) answer_time: Duration,
    /// Longest body of a request, in bytes.
    pub(crate) body_bytes: usize,
}

impl ServeOptions {
    /// The server.
    pub(crate) fn server(self) -> HttpServer {
        let Self { on_request, answer_time, body_bytes } = self;
        let on_request = SendWrapper::new(on_request);
        let service = service_fn(move |request: HttpRequest| {
            SendWrapper::new(serve((*on_request).clone(), request, answer_time))
        });
        let protection =
            Protection::default().with_head_time(answer_time).with_body_bytes(body_bytes);
        HttpServer::new(protection.around(HttpService::new(service)), ServeLimits::default())
    }
}

/// Has JavaScript answer a request.
async fn serve(
    on_request: Function,
    request: HttpRequest,
    answer_time: Duration,
) -> Result<HttpResponse, BoxError> {
    let (served, body) = RawServed::new(request);
    let begun = on_request.call1(&JsValue::UNDEFINED, &served.into());
    let begun = begun.map_err(|thrown| js::failed(&thrown))?;
    let exchange = Exchange { cancel: js::method(&begun, "cancel"), body };
    let given = JsFuture::from(js::promise_of(&js::property(&begun, "answer"))).await;
    let given = given.map_err(|thrown| js::failed(&thrown))?;
    answer::response(&given, exchange, answer_time)
}

/// An exchange; when it is dropped before its end, JavaScript is told.
#[derive(Debug)]
struct Exchange {
    /// Taken at the end.
    cancel: Option<Function>,
    body: request::SharedBody,
}

impl Exchange {
    /// Records that JavaScript gave the whole answer.
    fn end(&mut self) {
        self.cancel = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.body.give_up();
        if let Some(cancel) = self.cancel.take() {
            // Nothing is left that an error could end.
            let _ = cancel.call0(&JsValue::UNDEFINED);
        }
    }
}

/// The counters of a server, as `Served` in `tandem.d.ts`.
pub(crate) fn counts(metrics: &ServeMetrics) -> JsValue {
    let incidents = js_sys::Object::new();
    for incident in Incident::ALL {
        let count = shown::number(metrics.count(incident));
        // A new object takes any property.
        let _ = js_sys::Reflect::set(&incidents, &incident.label().into(), &count);
    }
    shown::object([
        ("requests", shown::number(metrics.requests())),
        ("incidents", incidents.unchecked_into()),
    ])
}
