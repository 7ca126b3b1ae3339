//! Sessions recorded between live nodes, for replay.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use gossip::Tag;
use serde::Deserialize;

/// A message as a node sent it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Line of the message in the session, counted from 1.
    pub line: usize,
    /// Time at which it was sent, in milliseconds since the start of the session.
    pub at_ms: f64,
    /// Its tag.
    pub tag: Tag,
    /// Its payload.
    pub payload: Bytes,
}

/// The messages that the dialling node of a session sent.
#[derive(Clone, Debug)]
pub struct Session {
    /// The upgrade request of the session, byte for byte.
    pub request: String,
    /// Every message of the dialling node, in order.
    pub sent: Vec<Recorded>,
    /// SHA-256 of each vote in msgpack, by line, in hex.
    pub votes: HashMap<usize, String>,
}

/// A vote of a recorded session.
#[derive(Clone, Debug)]
pub struct RecordedVote {
    /// The tag it was sent with: AV, or VP if it is packed against earlier ones of its direction.
    pub tag: Tag,
    /// The payload as it was sent.
    pub payload: Bytes,
    /// SHA-256 of the vote in msgpack, in hex.
    pub plain_sha256: String,
    /// SHA-256 of the vote packed by itself, in hex.
    pub packed_sha256: String,
}

#[derive(Deserialize)]
struct Line {
    t: f64,
    dir: String,
    tag: Option<String>,
    payload: Option<String>,
}

#[derive(Deserialize)]
struct VoteLine {
    line: usize,
    dir: String,
    stateless_sha256: String,
    msgpack_sha256: String,
}

/// The votes of session `session-<name>`: those of the dialling node, and those of the listening one, each in order.
///
/// # Errors
///
/// When a file is missing or malformed.
pub fn votes(name: &str) -> io::Result<[Vec<RecordedVote>; 2]> {
    let all: Vec<Line> = lines(&format!("session-{name}.jsonl.gz"))?;
    let mut votes = [Vec::new(), Vec::new()];
    for vote in lines::<VoteLine>(&format!("session-{name}.votes.jsonl.gz"))? {
        let line = all.get(vote.line.wrapping_sub(1)).ok_or(io::ErrorKind::InvalidData)?;
        let (tag, payload) =
            line.tag.as_ref().zip(line.payload.as_ref()).ok_or(io::ErrorKind::InvalidData)?;
        let recorded = RecordedVote {
            tag: tag.parse().map_err(io::Error::other)?,
            payload: hex::decode(payload).map_err(io::Error::other)?.into(),
            plain_sha256: vote.msgpack_sha256,
            packed_sha256: vote.stateless_sha256,
        };
        votes[usize::from(vote.dir != DIALLING)].push(recorded);
    }
    Ok(votes)
}

/// The direction of what the dialling node sent.
const DIALLING: &str = "dial->listen";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/corpus")
}

fn lines<T: for<'de> Deserialize<'de>>(file: &str) -> io::Result<Vec<T>> {
    let file = BufReader::new(GzDecoder::new(File::open(folder().join(file))?));
    file.lines().map(|line| serde_json::from_str(&line?).map_err(io::Error::other)).collect()
}

impl Session {
    /// Reads the recorded session `session-<name>`.
    ///
    /// # Errors
    ///
    /// When a file is missing or malformed.
    pub fn read(name: &str) -> io::Result<Self> {
        let request =
            std::fs::read_to_string(folder().join(format!("upgrade-request-{name}.txt")))?;
        let mut sent = Vec::new();
        let all: Vec<Line> = lines(&format!("session-{name}.jsonl.gz"))?;
        for (index, line) in all.into_iter().enumerate() {
            let (Some(tag), Some(payload)) = (line.tag, line.payload) else { continue };
            if line.dir == DIALLING {
                let tag = tag.parse().map_err(io::Error::other)?;
                let payload = hex::decode(payload).map_err(io::Error::other)?.into();
                sent.push(Recorded { line: index + 1, at_ms: line.t, tag, payload });
            }
        }
        let votes: Vec<VoteLine> = lines(&format!("session-{name}.votes.jsonl.gz"))?;
        let hash = |vote: VoteLine| (vote.line, vote.msgpack_sha256);
        Ok(Self { request, sent, votes: votes.into_iter().map(hash).collect() })
    }
}
