//! The service behind every contender, and the checks of its responses.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use bytes::Bytes;
use gossip::http::{BoxError, HttpClient};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty};

use super::{Plan, Reuse};
use crate::error::Failure;

/// The body of `/hello`.
const HELLO: &str = "hello";

/// Serves `/hello`, `/body` with `bytes` bytes that are built once, and `/sink`, which reads the request's
/// body.
pub(crate) fn router(bytes: usize) -> Router {
    let sink = |body: Bytes| std::future::ready(body.len().to_string());
    Router::new()
        .route("/hello", get(|| std::future::ready(HELLO)))
        .route("/body", get(|State(body): State<Bytes>| std::future::ready(body)))
        .route("/sink", post(sink))
        .with_state(Bytes::from(vec![7; bytes]))
}

/// A request, and the response it must get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    path: &'static str,
    bytes: usize,
    pub(super) reuse: Reuse,
}

impl Wanted {
    /// A request for `/hello` on a kept connection.
    pub(crate) const HELLO: Self = Self { path: "/hello", bytes: HELLO.len(), reuse: Reuse::Kept };

    /// The request that the callers of a measurement send.
    pub(super) fn new(plan: Plan) -> Self {
        let path = if plan.bytes == HELLO.len() { "/hello" } else { "/body" };
        Self { path, bytes: plan.bytes, reuse: plan.reuse }
    }

    /// Builds the next request. With `Connection: close` it is the last one of its connection or stream.
    pub(super) fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = http::Uri::from_static(self.path);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("bench"));
        // A node would add it, and its requests would be longer than those of the bare contender.
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench"));
        if self.reuse == Reuse::Fresh {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        request
    }

    /// Sends the request to a node, and checks the response.
    ///
    /// # Errors
    ///
    /// When there is no response, or not the right one.
    pub(crate) async fn ask(self, client: &HttpClient) -> Result<(), Failure> {
        self.check(client.send(self.request()).await?).await
    }

    /// Reads a response to its end, and checks it.
    ///
    /// # Errors
    ///
    /// When it is not the right response, or ends early.
    pub(super) async fn check<B>(&self, response: Response<B>) -> Result<(), Failure>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
    {
        let (head, mut body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("the status is {}", head.status).into());
        }
        let mut got = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Into::<BoxError>::into)?;
            got += frame.data_ref().map_or(0, Bytes::len);
        }
        if got != self.bytes {
            return Err(format!("the body has {got} bytes in place of {}", self.bytes).into());
        }
        Ok(())
    }
}
