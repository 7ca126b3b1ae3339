//! Calls applications over HTTP, as another node does.

use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use tandem::{
    NodeBuilder, Running,
    gossip::{
        NetworkId,
        http::{BoxError, HttpBody, Timeout, read_all},
    },
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A node that only calls others, and waits for them.
pub(crate) struct Client {
    runtime: Runtime,
    node: Running,
}

impl Client {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let builder = NodeBuilder::new(NetworkId::new("any").unwrap()).outward();
        let node = runtime.block_on(builder.start(&CancellationToken::new())).unwrap();
        Self { runtime, node }
    }

    /// Makes one request. The answer may have any status.
    pub(crate) fn send(
        &self,
        method: Method,
        address: &str,
        path: &str,
        body: &str,
    ) -> Result<(StatusCode, String), BoxError> {
        let client = self.node.node().http_client(&address.parse()?)?;
        let json = "application/json";
        let request = Request::builder().method(method).uri(path).header("content-type", json);
        let request = request.extension(Timeout(Duration::from_secs(10)));
        let request = request.body(HttpBody::full(body.to_owned()))?;
        self.runtime.block_on(async {
            let answer = client.send(request).await?;
            let status = answer.status();
            let body = read_all(answer.into_body(), 1 << 20).await?;
            Ok((status, String::from_utf8(body.to_vec())?))
        })
    }

    /// The body of a page; `None` if it cannot be had at present.
    pub(crate) fn get(&self, address: &str, path: &str) -> Option<String> {
        let answer = self.send(Method::GET, address, path, "").ok();
        answer.filter(|(status, _)| status.is_success()).map(|(_, body)| body)
    }
}
