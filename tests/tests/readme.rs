//! The README shows code that compiles and runs.

use std::sync::Arc;

use gossip::{Admission, GossipNode, Inbound, NetworkId, Outbound, Tag, Verdict};
use tandem::{Mode, NodeBuilder};
use tokio_util::sync::CancellationToken;

/// What a consensus engine does with a vote.
fn judge(vote: &[u8]) -> Verdict {
    if vote.is_empty() { Verdict::Ignore } else { Verdict::Relay }
}

/// The lines of the README's program, and what they need around them.
async fn readme(root: CancellationToken) -> Result<(), Box<dyn std::error::Error>> {
    // README begins
    let node = NodeBuilder::new(NetworkId::new("my-network")?)
        .mode(Mode::Hybrid)
        .peer("127.0.0.1:4160".parse()?)
        .handler(Tag::AV, |vote: Inbound| async move { judge(&vote.body) })
        .start(&root)
        .await?;
    let gossip: Arc<dyn GossipNode> = node.node();
    assert_eq!(gossip.broadcast(Outbound::new(Tag::AV, "a vote"))?, Admission::Queued);
    // README ends
    Ok(())
}

#[tokio::test]
async fn the_program_of_the_readme_runs() {
    let root = CancellationToken::new();
    readme(root).await.unwrap();
}

#[test]
fn the_program_of_the_readme_is_this_one() {
    let source = include_str!("readme.rs");
    let shown = include_str!("../../README.md");
    let (_, shown) = shown.split_once("```rust\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let (_, own) = source.split_once("// README begins\n").unwrap();
    let (own, _) = own.split_once("    // README ends").unwrap();
    let own: String = own.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let shown: String = shown.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    assert_eq!(own, shown);
}
