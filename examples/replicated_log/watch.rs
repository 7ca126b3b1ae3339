//! Follows a log from outside of the group.

use std::time::Duration;

use tandem::{
    NodeBuilder, Running,
    gossip::{
        Inbound, NodeAddress, Verdict,
        http::{BoxError, HttpBody, Timeout, read_all},
    },
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::group::NEWS;

/// Longest time without a question. Chosen: news may be lost with the member that told them.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Longest answer with lines, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Prints lines with their positions, each once and in order, until Ctrl-C.
pub(crate) async fn watch(builder: NodeBuilder, members: Vec<NodeAddress>) -> Result<(), BoxError> {
    let (heard, mut news) = watch::channel(());
    let builder = builder.peers(members.clone()).handler(NEWS, move |_count: Inbound| {
        heard.send_replace(());
        async { Verdict::Ignore }
    });
    let node = builder.start(&CancellationToken::new()).await?;
    println!("ready");
    let mut next = 1;
    loop {
        for member in &members {
            // A member that is away is asked again later, and the others have the same lines.
            for line in lines(&node, member, next).await.unwrap_or_default() {
                println!("{next} {}", line.escape_debug());
                next += 1;
            }
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = news.changed() => {}
            () = sleep(ASK_EVERY) => {}
        }
    }
    let _ = node.stop(Duration::from_secs(5)).await;
    Ok(())
}

async fn lines(node: &Running, member: &NodeAddress, from: usize) -> Result<Vec<String>, BoxError> {
    let request =
        axum::http::Request::get(format!("/log?from={from}")).extension(Timeout(ASK_EVERY));
    let client = node.node().http_client(member)?;
    let answer = client.send(request.body(HttpBody::empty())?).await?;
    Ok(serde_json::from_slice(&read_all(answer.into_body(), MAX_ANSWER).await?)?)
}
