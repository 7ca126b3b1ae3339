//! Answers block requests of a node that keeps no blocks.

use gossip::{
    BoxFuture, Handler, Inbound, Verdict,
    wire::block::{self, BlockRequest},
};

/// The newest round such a node knows of.
const LATEST: u64 = 0;

/// Tells whoever asks for a block that there is none here, in a way that ends the asking.
///
/// An error without the latest round would make existing nodes repeat the request a thousand times.
/// Source: wire facts 4.3 and 16.4.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlocks;

impl Handler for NoBlocks {
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        let topics = match BlockRequest::parse(&message.body) {
            Ok(_) => block::unavailable(LATEST),
            Err(error) => block::refusal(&error),
        };
        Box::pin(std::future::ready(Verdict::Respond(topics)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use gossip::{
        Tag, Transport,
        wire::{
            block::{BlockAnswer, BlockAnswerError},
            request,
        },
    };

    use super::*;

    async fn answer(body: Bytes) -> Result<BlockAnswer, BlockAnswerError> {
        let (tag, from, transport) = (Tag::UE, None, Transport::Memory);
        let message = Inbound { tag, body, from, transport, received: Instant::now() };
        let Verdict::Respond(topics) = NoBlocks.handle(message).await else {
            panic!("a request is always answered");
        };
        BlockAnswer::decode(&topics)
    }

    #[tokio::test]
    async fn whoever_asks_for_a_block_is_told_that_there_is_none() {
        let body = request::seal(&BlockRequest { round: 7 }.topics(), 1);
        assert_eq!(answer(body).await, Ok(BlockAnswer::Unavailable { latest: Some(0) }));
        let refused = answer(Bytes::from_static(b"\x00")).await;
        assert!(matches!(refused, Ok(BlockAnswer::Failed { .. })), "{refused:?}");
    }
}
