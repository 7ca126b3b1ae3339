//! A server, and a way to it.

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

/// Most bytes of an answer that is read whole.
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;

/// How much later than its deadline a thing may happen on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

/// What a case has.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) reach: Reach,
    pub(crate) client: HttpClient,
}

impl Scene {
    /// A server, and a way to it.
    pub(crate) async fn on(way: Route) -> Self {
        let server = Server::start().await;
        let reach = server.reach(way).await;
        let client = reach.client();
        Self { server, reach, client }
    }

    /// What the handlers noticed.
    pub(crate) fn seen(&self) -> &Seen {
        self.server.seen()
    }

    /// Sends a request that must be answered.
    pub(crate) async fn ask(&self, request: Request<HttpBody>) -> HttpResponse {
        answered(&self.client, request).await
    }

    /// Asks for a path that must be answered with 200, and returns the text.
    pub(crate) async fn text(&self, path: &str) -> String {
        let response = self.ask(get(path)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        text_of(response).await
    }
}

/// Sends a request that must be answered.
pub(crate) async fn answered(client: &HttpClient, request: Request<HttpBody>) -> HttpResponse {
    let what = format!("{} {} is answered", request.method(), request.uri());
    soon(&what, client.send(request)).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// The whole body of a response, as text.
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
