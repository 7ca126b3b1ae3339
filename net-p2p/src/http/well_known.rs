//! The document that names the HTTP services of a node, served on libp2p streams only.
//!
//! # Invariants
//!
//! * On streams the path belongs to this document. On the TCP port it belongs to the node's service. Source:
//!   wire facts 9.1.

use std::convert::Infallible;

use gossip::{
    NetworkProfile,
    http::{Caller, HttpResponse},
};
use http::{HeaderValue, Method, StatusCode, header};
use net_http::{
    reply,
    serve::{Action, ConnectionHook, RequestHead},
};

/// The path of the document. Source: wire facts 9.1.
const PATH: &str = "/.well-known/libp2p/protocols";

/// Answers requests for the document, and passes all others on.
#[derive(Debug)]
pub(super) struct ProtocolsDocument(String);

impl ProtocolsDocument {
    /// The document of a node with one service, that of `profile`.
    pub(super) fn new(profile: &NetworkProfile) -> Self {
        Self(format!("{{\"{}\":{{\"path\":\"/\"}}}}", profile.http_service))
    }

    fn answer(&self, method: &Method) -> HttpResponse {
        if *method != Method::GET && *method != Method::HEAD {
            let allow = [(header::ALLOW, HeaderValue::from_static("GET, HEAD"))];
            return reply::text(StatusCode::METHOD_NOT_ALLOWED, "", &allow);
        }
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        reply::text(StatusCode::OK, &self.0, &json)
    }
}

impl ConnectionHook for ProtocolsDocument {
    type Upgrade = Infallible;

    fn refusal(&self, _caller: &Caller) -> Option<HttpResponse> {
        None
    }

    fn route(&self, request: &RequestHead<'_>) -> Action<Infallible> {
        match request.uri.path() == PATH {
            true => Action::Answer(self.answer(request.method)),
            false => Action::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use gossip::{Transport, http::read_all};
    use http::{HeaderMap, Uri};
    use net_http::serve::Pipelined;

    use super::*;

    fn ask(method: &Method, path: &'static str) -> Option<HttpResponse> {
        let document = ProtocolsDocument::new(&NetworkProfile::TANDEM);
        let (uri, headers) = (Uri::from_static(path), HeaderMap::new());
        let (uri, headers, pipelined) = (&uri, &headers, Pipelined::Nothing);
        let (transport, address) = (Transport::Libp2p, "here".into());
        let caller = &Caller { identity: None, transport, address, ip: None };
        match document.route(&RequestHead { method, uri, headers, caller, pipelined }) {
            Action::Answer(response) => Some(response),
            Action::Pass => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_document_names_the_service_of_the_network() {
        let response = ask(&Method::GET, PATH).unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = block_on(read_all(response.into_body(), 1_000)).unwrap();
        assert_eq!(body, r#"{"/tandem-http/1.0.0":{"path":"/"}}"#);
    }

    #[test]
    fn the_document_is_read_only_and_under_one_path() {
        let post = ask(&Method::POST, PATH).unwrap();
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(ask(&Method::GET, "/.well-known").is_none());
    }
}
