//! A router, registered once and called over both transports.

use std::time::Duration;

use axum::{Router, routing::get};
use tandem::{
    NodeBuilder,
    gossip::{NetworkId, http::Caller, http::read_all},
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = CancellationToken::new();
    let network = NetworkId::new("example")?;
    let hello = |caller: Caller| async move { format!("hello over {}", caller.transport.label()) };
    let router = Router::new().route("/hello", get(hello));
    let server = NodeBuilder::new(network.clone()).http(router).start(&root).await?;
    let client = NodeBuilder::new(network).outward().start(&root).await?;
    for address in server.node().addresses() {
        let answer = client.node().http_client(&address)?.get("/hello").await?;
        let text = read_all(answer.into_body(), 1024).await?;
        println!("{address} says {}", String::from_utf8_lossy(&text));
    }
    let _ = client.stop(Duration::from_secs(1)).await;
    let _ = server.stop(Duration::from_secs(1)).await;
    Ok(())
}
