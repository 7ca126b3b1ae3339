//! Passes one request on, and its answer back.
//!
//! # Invariants
//!
//! * Headers that are about one connection stay on it. Source: RFC 9110, section 7.6.1.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use gossip::{
    BoxFuture,
    http::{HttpBody, HttpClient, HttpError, HttpRequest, HttpResponse},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tower::Service;

/// Headers about one connection, besides those that `Connection` names.
const OF_A_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Passes requests on to one peer.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    client: HttpClient,
}

impl Pass {
    pub(super) const fn new(client: HttpClient) -> Self {
        Self { client }
    }
}

impl Service<HttpRequest> for Pass {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: HttpRequest) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move {
            let wants_trailers = names(request.headers(), &header::TE, "trailers");
            strip(request.headers_mut());
            if wants_trailers {
                let trailers = HeaderValue::from_static("trailers");
                request.headers_mut().insert(header::TE, trailers);
            }
            // The peer is asked under its own name.
            request.headers_mut().remove(header::HOST);
            Ok(match client.send(request).await {
                Ok(mut response) => {
                    strip(response.headers_mut());
                    response
                }
                Err(error) => failed(&error),
            })
        })
    }
}

/// The words of a list in a header.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// `true` if a list in a header has a word.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|other| other.eq_ignore_ascii_case(word))
}

/// Takes out what is about one connection.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        words(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in OF_A_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The answer to a tool when the peer gives none.
fn failed(error: &HttpError) -> HttpResponse {
    let status = match error {
        HttpError::Deadline | HttpError::DeadlineUnsent => StatusCode::GATEWAY_TIMEOUT,
        HttpError::QueueTimeout { .. } | HttpError::QueueFull { .. } | HttpError::Stopped => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // The body is the tool's.
        HttpError::Invalid { .. } | HttpError::RequestBody { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    let mut response = Response::new(HttpBody::full(format!("{text}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use gossip::http::read_all;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn headers_about_a_connection_stay_on_it() {
        let seen = Arc::new(Mutex::new(HeaderMap::new()));
        let noted = Arc::clone(&seen);
        let client = HttpClient::new(tower::service_fn(move |request: HttpRequest| {
            *noted.lock().unwrap() = request.headers().clone();
            async {
                let response = Response::builder().header("keep-alive", "timeout=5");
                Ok(response.header("x-kept", "1").body(HttpBody::full("yes")).unwrap())
            }
        }));
        let request = Request::get("/a")
            .header("host", "localhost:8080")
            .header("connection", "close, TE, X-Private")
            .header("te", "gzip, trailers")
            .header("x-private", "1")
            .header("accept", "*/*")
            .body(HttpBody::empty());
        let response = Pass::new(client).oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.headers().len(), 1);
        assert_eq!(read_all(response.into_body(), 10).await.unwrap(), "yes");
        let mut seen: Vec<String> = seen.lock().unwrap().keys().map(ToString::to_string).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["accept", "te"]);
    }

    #[tokio::test]
    async fn a_peer_that_gives_no_answer_is_told_with_its_reason() {
        let client = HttpClient::new(tower::service_fn(|_: HttpRequest| async {
            Err(HttpError::Unreachable { source: "nobody there".into() })
        }));
        let request = Request::get("/a").body(HttpBody::empty()).unwrap();
        let response = Pass::new(client).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let text = read_all(response.into_body(), 100).await.unwrap();
        assert_eq!(text, "the peer cannot be reached: nobody there\n");
    }
}
