//! Asks one source for one block.
//!
//! # Invariants
//!
//! * An answer counts only if it is a block of the round that was asked for.
//! * A block that came in keeps nothing else of what came with it alive.
//! * An exchange ends within its deadline, body and all, and holds at most one body of bounded length.

use std::{fmt, sync::Arc, time::Duration};

use gossip::{
    GossipNode, LinkId, NetworkId, Request, RequestError,
    http::{BodyError, HttpClient, HttpError, HttpResponse, read_all},
    wire::block::{BlockAnswer, BlockAnswerError, BlockRequest},
};
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use tokio::time;

use crate::blocks::{
    http::X_LATEST_ROUND,
    round,
    stored::{self, BlockError, MAX_BODY_BYTES, StoredBlock},
};

/// Longest text of a number in a header, in bytes: what 64 bits need.
const MAX_NUMBER_BYTES: usize = 20;

/// A source of blocks.
#[derive(Clone)]
pub struct Source {
    name: Arc<str>,
    way: Channel,
}

#[derive(Clone)]
enum Channel {
    Http { client: HttpClient, genesis: NetworkId },
    Gossip { node: Arc<dyn GossipNode>, peer: LinkId },
}

/// Why a source gave no block, and did not say that it has none.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It did not answer in time.
    #[error("no answer within {within:?}")]
    TimedOut {
        /// The time that was waited.
        within: Duration,
    },
    /// There was no response.
    #[error("no response")]
    Http {
        /// Why not.
        source: Arc<HttpError>,
    },
    /// The status of the response is none that a block service gives.
    #[error("the response has the status {status}")]
    Status {
        /// The status.
        status: StatusCode,
    },
    /// The response is not of the type of a block.
    #[error("the response is not of the content type of a block")]
    ContentType,
    /// The body was not read to its end.
    #[error("the body was not read to its end")]
    Body {
        /// Why not.
        source: Arc<BodyError>,
    },
    /// The source sent something else than the block that was asked for.
    #[error("what came is not the block")]
    Block {
        /// The fault.
        source: BlockError,
    },
    /// The request could not be sent, or was not answered.
    #[error("no answer")]
    Request {
        /// Why not.
        source: RequestError,
    },
    /// The answer has neither a block nor an error in it.
    #[error("not an answer")]
    Answer {
        /// The fault.
        source: BlockAnswerError,
    },
    /// The source refused.
    #[error("refused: {text}")]
    Refused {
        /// Its error.
        text: String,
    },
    /// It was busy each time it was asked.
    #[error("busy each time it was asked")]
    Busy,
}

/// The answer of a source about a round.
#[derive(Debug)]
pub(super) enum Said {
    /// Its block.
    Block(StoredBlock),
    /// There is none.
    NoBlock {
        /// The newest round the source claims to have.
        latest: Option<u64>,
    },
    /// It has no time now.
    Busy {
        /// Time until it wants to be asked again, if it said.
        after: Option<Duration>,
    },
}

impl Source {
    /// A server of blocks of the network `genesis`. `name` is for reports.
    pub fn http(name: impl Into<Arc<str>>, client: HttpClient, genesis: NetworkId) -> Self {
        Self { name: name.into(), way: Channel::Http { client, genesis } }
    }

    /// A connected peer, asked by messages. `name` is for reports.
    pub fn gossip(name: impl Into<Arc<str>>, node: Arc<dyn GossipNode>, peer: LinkId) -> Self {
        Self { name: name.into(), way: Channel::Gossip { node, peer } }
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for the block of a round.
    pub(super) async fn ask(&self, round: u64, within: Duration) -> Result<Said, Failure> {
        let asked = async {
            let said = match &self.way {
                Channel::Http { client, genesis } => over_http(client, genesis, round).await,
                Channel::Gossip { node, peer } => over_gossip(&**node, *peer, round).await,
            }?;
            let Said::Block(block) = said else { return Ok(said) };
            block.check(round).map_err(|source| Failure::Block { source })?;
            Ok(Said::Block(block.detached()))
        };
        time::timeout(within, asked).await.unwrap_or(Err(Failure::TimedOut { within }))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

async fn over_gossip(node: &dyn GossipNode, peer: LinkId, round: u64) -> Result<Said, Failure> {
    let request = Request { topics: BlockRequest { round }.topics() };
    let response = match node.request(peer, request).await {
        Ok(response) => response,
        Err(RequestError::Full { .. }) => return Ok(Said::Busy { after: None }),
        Err(source) => return Err(Failure::Request { source }),
    };
    let answer = BlockAnswer::decode(&response.topics);
    match answer.map_err(|source| Failure::Answer { source })? {
        BlockAnswer::Block { block, cert } => Ok(Said::Block(StoredBlock { block, cert })),
        BlockAnswer::Unavailable { latest } => Ok(Said::NoBlock { latest }),
        BlockAnswer::Failed { text } => Err(Failure::Refused { text }),
    }
}

async fn over_http(client: &HttpClient, genesis: &NetworkId, round: u64) -> Result<Said, Failure> {
    let response = client.get(&round::path(genesis, round)).await;
    let response = response.map_err(|source| Failure::Http { source: source.into() })?;
    let (status, headers) = (response.status(), response.headers());
    match status {
        StatusCode::OK => body(response).await,
        StatusCode::NOT_FOUND => Ok(Said::NoBlock { latest: number(headers, &X_LATEST_ROUND) }),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let after = number(headers, &RETRY_AFTER).map(Duration::from_secs);
            Ok(Said::Busy { after })
        }
        // It sends us elsewhere because it does not have it; a client has one address to go to.
        status if status.is_redirection() => Ok(Said::NoBlock { latest: None }),
        status => Err(Failure::Status { status }),
    }
}

async fn body(response: HttpResponse) -> Result<Said, Failure> {
    let mut types = response.headers().get_all(CONTENT_TYPE).iter();
    let known = |name: &str| [stored::CONTENT_TYPE, stored::LEGACY_CONTENT_TYPE].contains(&name);
    let right = types.next().and_then(|name| name.to_str().ok()).is_some_and(known);
    if !right || types.next().is_some() {
        return Err(Failure::ContentType);
    }
    let body = read_all(response.into_body(), MAX_BODY_BYTES).await;
    let body = body.map_err(|source| Failure::Body { source: source.into() })?;
    let block = StoredBlock::from_body(&body);
    block.map(Said::Block).map_err(|source| Failure::Block { source })
}

/// A number in a header; anything else counts as if it were not there.
fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?;
    let digits = text.len() <= MAX_NUMBER_BYTES && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
