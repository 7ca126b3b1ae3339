//! A server, and a route to it.

use std::time::Duration;

use gossip::http::{HttpBody, HttpClient, HttpResponse, read_all};
use http::{Request, StatusCode};
use testkit::{
    http::{
        route::{Reach, Route},
        server::Server,
        service::Seen,
    },
    wait::soon,
};

/// Longest answer that is read whole, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;

/// Longest delay after a deadline on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

/// The parts of a case.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) reach: Reach,
    pub(crate) client: HttpClient,
}

impl Scene {
    /// Starts a server, and sets up a route to it.
    pub(crate) async fn on(way: Route) -> Self {
        let server = Server::start().await;
        let reach = server.reach(way).await;
        let client = reach.client();
        Self { server, reach, client }
    }

    /// The events of the server's handlers.
    pub(crate) fn seen(&self) -> &Seen {
        self.server.seen()
    }

    /// Sends a request, and panics if it fails.
    pub(crate) async fn ask(&self, request: Request<HttpBody>) -> HttpResponse {
        answered(&self.client, request).await
    }

    /// Requests a path, and returns the text of the answer, which must be a 200.
    pub(crate) async fn text(&self, path: &str) -> String {
        let response = self.ask(get(path)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        text_of(response).await
    }
}

/// Sends a request, and panics if it fails.
pub(crate) async fn answered(client: &HttpClient, request: Request<HttpBody>) -> HttpResponse {
    let what = format!("{} {} is answered", request.method(), request.uri());
    soon(&what, client.send(request)).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// Reads the whole body of a response as text.
pub(crate) async fn text_of(response: HttpResponse) -> String {
    let body = soon("a body comes", read_all(response.into_body(), MAX_BODY)).await;
    String::from_utf8(body.expect("the body is whole").to_vec()).expect("it is text")
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<HttpBody> {
    Request::get(path).body(HttpBody::empty()).expect("it is a path")
}

/// A request with a body.
pub(crate) fn post<B>(path: &str, body: B) -> Request<HttpBody>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<gossip::http::BoxError>,
{
    Request::post(path).body(HttpBody::new(body)).expect("it is a path")
}
