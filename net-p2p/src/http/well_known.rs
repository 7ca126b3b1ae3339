//! The document that says which HTTP services a peer has.

use gossip::{
    NetworkProfile, Transport,
    http::{Caller, HttpRequest, HttpResponse, HttpService},
};
use http::{HeaderValue, Method, StatusCode, header};
use net_http::reply;
use tower::{Service, ServiceExt};

/// Where peers look for it. Source: wire facts 9.1.
const PATH: &str = "/.well-known/libp2p/protocols";

/// Puts the document of `/.well-known/libp2p/protocols` in front of a service. It is shown on libp2p
/// streams only; on the TCP port the path is the service's. Source: wire facts 9.1.
#[must_use]
pub fn with_protocols_document(profile: &NetworkProfile, service: HttpService) -> HttpService {
    let document = format!("{{\"{}\":{{\"path\":\"/\"}}}}", profile.http_service);
    HttpService::new(tower::service_fn(move |request: HttpRequest| {
        let mut service = service.clone();
        let asked = is_for_document(&request).then(|| answer(request.method(), &document));
        async move {
            match asked {
                Some(response) => Ok(response),
                None => service.ready().await?.call(request).await,
            }
        }
    }))
}

fn is_for_document(request: &HttpRequest) -> bool {
    let caller = request.extensions().get::<Caller>();
    request.uri().path() == PATH
        && caller.is_some_and(|caller| caller.transport == Transport::Libp2p)
}

fn answer(method: &Method, document: &str) -> HttpResponse {
    if *method != Method::GET && *method != Method::HEAD {
        let allow = [(header::ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, "", &allow);
    }
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    reply::text(StatusCode::OK, document, &json)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use gossip::http::{HttpBody, read_all};

    use super::*;

    fn ask(method: Method, path: &str, transport: Transport) -> HttpResponse {
        let inner =
            |_request: HttpRequest| async { Ok::<_, std::convert::Infallible>(reply::not_found()) };
        let inner = HttpService::new(tower::service_fn(inner));
        let service = with_protocols_document(&NetworkProfile::TANDEM, inner);
        let caller = Caller { identity: None, transport, address: "here".into(), ip: None };
        let request = http::Request::builder().method(method).uri(path).extension(caller);
        block_on(service.oneshot(request.body(HttpBody::empty()).unwrap())).unwrap()
    }

    #[test]
    fn the_document_names_the_service_of_the_network() {
        let response = ask(Method::GET, "/.well-known/libp2p/protocols", Transport::Libp2p);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = block_on(read_all(response.into_body(), 1_000)).unwrap();
        assert_eq!(body, r#"{"/tandem-http/1.0.0":{"path":"/"}}"#);
    }

    #[test]
    fn it_is_read_only_and_on_streams_only() {
        let status = |method, path, transport| ask(method, path, transport).status();
        let (post, get) = (Method::POST, Method::GET);
        assert_eq!(status(post, PATH, Transport::Libp2p), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(get.clone(), PATH, Transport::WebSocket), StatusCode::NOT_FOUND);
        assert_eq!(status(get, "/.well-known", Transport::Libp2p), StatusCode::NOT_FOUND);
    }
}
