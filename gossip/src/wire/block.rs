//! UE and TS for blocks: asking a node for one block, and what it answers.
//!
//! # Invariants
//!
//! * A request for any round fits the bound of the UE tag.
//! * The text of a [`BlockRequestError`] is part of the protocol: it is what the asking node is sent.
//! * A missing block is answered with the latest round. Without it a node asks again at once, hundreds
//!   of times over. Source: wire facts 4.3.

use bytes::Bytes;

use super::{
    hello::printable,
    topics::{Topics, TopicsError},
    varint,
};

/// Keys and values of the protocol. Source: wire facts 4.3.
const DATA_TYPE: &str = "requestDataType";
const BLOCK_AND_CERT: &str = "blockAndCert";
const ROUND: &str = "roundKey";
const BLOCK: &str = "blockData";
const CERT: &str = "certData";
const ERROR: &str = "Error";
const LATEST: &str = "latest";
const NOT_AVAILABLE: &str = "requested block is not available";

/// Longest error text kept of an answer, in bytes. Chosen: twice the longest that is known.
const MAX_TEXT_BYTES: usize = 128;

/// Asks for the block of a round and its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// The round.
    pub round: u64,
}

/// Why a block request is refused. The texts are those of existing nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockRequestError {
    /// The payload is not a list of topics.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// It does not say which round.
    #[error("can't find the round number")]
    NoRound,
    /// It does not say what is wanted of the round.
    #[error("can't find the data-type")]
    NoDataType,
    /// The round is not a number.
    #[error("unable to parse round number")]
    BadRound,
    /// Something else than the block and its certificate is wanted.
    #[error("requested data type is unsupported")]
    DataType,
}

impl BlockRequest {
    /// The topics of the request, to which the nonce is still to be added.
    #[must_use]
    pub fn topics(self) -> Topics {
        Topics::new()
            .with(DATA_TYPE, BLOCK_AND_CERT)
            .with(ROUND, varint::padded(self.round).to_vec())
    }

    /// Reads a request from its payload.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in the order in which existing nodes look.
    pub fn parse(payload: &Bytes) -> Result<Self, BlockRequestError> {
        let topics = Topics::decode(payload)?;
        let round = topics.get(ROUND).ok_or(BlockRequestError::NoRound)?;
        let wanted = topics.get(DATA_TYPE).ok_or(BlockRequestError::NoDataType)?;
        let (round, _) = varint::get(round).ok_or(BlockRequestError::BadRound)?;
        if wanted != BLOCK_AND_CERT {
            return Err(BlockRequestError::DataType);
        }
        Ok(Self { round })
    }
}

/// The answer with a block and its certificate, both as they are stored.
#[must_use]
pub fn found(block: impl Into<Bytes>, cert: impl Into<Bytes>) -> Topics {
    Topics::new().with(BLOCK, block).with(CERT, cert)
}

/// The answer for a block that this node does not have; `latest` is the newest round it knows, or 0.
#[must_use]
pub fn unavailable(latest: u64) -> Topics {
    Topics::new().with(ERROR, NOT_AVAILABLE).with(LATEST, latest.to_be_bytes().to_vec())
}

/// The answer to a request that cannot be served.
#[must_use]
pub fn refusal(error: &BlockRequestError) -> Topics {
    Topics::new().with(ERROR, error.to_string())
}

/// The answer of a node to a block request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockAnswer {
    /// The block and its certificate, not looked into.
    Block {
        /// The block.
        block: Bytes,
        /// Its certificate.
        cert: Bytes,
    },
    /// The node does not have the block.
    Unavailable {
        /// The newest round it has, when it says so.
        latest: Option<u64>,
    },
    /// The node refused.
    Failed {
        /// Its words, made printable and cut to a bounded length.
        text: String,
    },
}

/// An answer with neither a block nor an error in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer to a block request has neither a block with its certificate nor an error")]
pub struct BlockAnswerError;

impl BlockAnswer {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// [`BlockAnswerError`] when it holds neither a block with its certificate nor an error.
    pub fn decode(topics: &Topics) -> Result<Self, BlockAnswerError> {
        if let (Some(block), Some(cert)) = (topics.get(BLOCK), topics.get(CERT)) {
            return Ok(Self::Block { block: block.clone(), cert: cert.clone() });
        }
        let text = topics.get(ERROR).ok_or(BlockAnswerError)?;
        let latest = topics.get(LATEST).and_then(|data| data.as_ref().try_into().ok());
        let latest = latest.map(u64::from_be_bytes);
        if latest.is_some() || text == NOT_AVAILABLE {
            return Ok(Self::Unavailable { latest });
        }
        let text = text.get(..MAX_TEXT_BYTES).unwrap_or(text);
        Ok(Self::Failed { text: printable(text) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{profile::NetworkProfile, tag::Tag, wire::request::seal};

    #[test]
    fn a_request_for_any_round_fits_the_bound_of_its_tag() {
        let bound = NetworkProfile::ALGORAND.tags.rule(Tag::UE).unwrap().max_payload;
        for number in [0, 1, u64::MAX] {
            let payload = seal(&BlockRequest { round: number }.topics(), number);
            assert_eq!(payload.len(), bound);
        }
    }

    #[test]
    fn every_answer_is_read_as_what_it_was_made_from() {
        let (block, cert) = (Bytes::from_static(b"block"), Bytes::from_static(b"cert"));
        let cases = [
            (found("block", "cert"), BlockAnswer::Block { block, cert }),
            (unavailable(0), BlockAnswer::Unavailable { latest: Some(0) }),
            (unavailable(u64::MAX), BlockAnswer::Unavailable { latest: Some(u64::MAX) }),
            (
                Topics::new().with(ERROR, NOT_AVAILABLE).with(LATEST, "four"),
                BlockAnswer::Unavailable { latest: None },
            ),
            (
                refusal(&BlockRequestError::DataType),
                BlockAnswer::Failed { text: "requested data type is unsupported".into() },
            ),
        ];
        for (topics, expected) in cases {
            assert_eq!(BlockAnswer::decode(&topics), Ok(expected));
        }
        assert_eq!(BlockAnswer::decode(&Topics::new().with(BLOCK, "b")), Err(BlockAnswerError));
    }

    #[test]
    fn a_long_error_text_is_cut_and_made_printable() {
        let topics = Topics::new().with(ERROR, vec![0x07; 5000]);
        let Ok(BlockAnswer::Failed { text }) = BlockAnswer::decode(&topics) else {
            panic!("not a failure")
        };
        assert_eq!(text, "\u{25af}".repeat(MAX_TEXT_BYTES));
    }

    proptest! {
        #[test]
        fn every_request_survives(round: u64, nonce: u64) {
            let request = BlockRequest { round };
            prop_assert_eq!(BlockRequest::parse(&seal(&request.topics(), nonce)), Ok(request));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let payload = Bytes::from(bytes);
            let _: Result<_, _> = BlockRequest::parse(&payload);
            if let Ok(topics) = Topics::decode(&payload) {
                let _: Result<_, _> = BlockAnswer::decode(&topics);
            }
        }
    }
}
