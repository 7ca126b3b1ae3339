//! The purpose of a stream, as its protocol negotiation shows it.
//!
//! Only bytes that this node writes are looked at: they come from the library's own negotiation, so a peer cannot put
//! a name into them that this node does not speak. The end that opened the stream names protocols until the other one
//! repeats a name; the other one answers `na` to a name that it does not know, and with a list to `ls`.
//!
//! # Invariants
//!
//! * However the bytes of its writes are split, a stream is found to be GossipSub's before its first RPC is
//!   written, or before anything is read that the peer says on it.
//! * A stream with another purpose never counts as GossipSub's, whatever is written on it.
//! * At most [`MAX_MESSAGE_BYTES`] are kept, and only while the negotiation lasts.

use crate::backlog::delimited;

/// Largest message of a negotiation, in bytes. Source: multistream-select 0.14, `length_delimited.rs`.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Prefixes of GossipSub's protocols. Source: gossipsub 0.50, `protocol.rs`; the configuration adds Floodsub
/// (`pubsub.rs`).
const TOPICS: [&[u8]; 2] = [b"/meshsub/", b"/floodsub/"];

/// The purpose of a stream, as far as this node's part of the protocol negotiation shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// No protocol was named yet, and this part of a message was written.
    Unknown(Vec<u8>),
    /// GossipSub was named; whether both ends agree is open. This part of a message was written.
    TopicsNamed(Vec<u8>),
    /// The stream carries RPCs of GossipSub.
    Topics,
    /// The stream is for something else.
    Other,
}

/// A message of a negotiation, without its length.
enum Message<'a> {
    /// A name, with its line feed.
    Name(&'a [u8]),
    /// A header, a refusal or a list.
    NoName,
}

impl<'a> Message<'a> {
    /// Source: multistream-select 1.0.
    fn of(body: &'a [u8]) -> Option<Self> {
        let (b'\n', text) = body.split_last()? else { return None };
        match text {
            _ if text.starts_with(b"/multistream/") => Some(Self::NoName),
            // A list begins with the length of its first name, which is a slash for one of 46 bytes.
            _ if text.contains(&b'\n') || text.is_empty() => Some(Self::NoName),
            [b'/', ..] => Some(Self::Name(body)),
            b"na" | b"ls" => Some(Self::NoName),
            _ => None,
        }
    }
}

/// The first message in `bytes` and the rest, or `None` if it is not complete.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = delimited(bytes)?;
    rest.split_at_checked(length)
}

/// Returns `true` if `bytes` begin like a name or a refusal, not like an RPC: the tag of an RPC is neither a slash nor
/// an `n`.
fn continues_negotiation(bytes: &[u8]) -> bool {
    matches!(delimited(bytes), Some((_, [b'/' | b'n', ..])))
}

impl Default for Purpose {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Purpose {
    /// Returns `true` if `bytes`, which are to be written next, belong to RPCs of GossipSub. They are all that the writer
    /// has: a message is never handed over in parts, although only a part of it may be taken.
    pub(super) fn is_rpc(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Topics => true,
            Self::TopicsNamed(begun) => begun.is_empty() && !continues_negotiation(bytes),
            Self::Unknown(_) | Self::Other => false,
        }
    }

    /// Returns `true` if GossipSub was named, and no RPC was written yet.
    pub(super) const fn is_named(&self) -> bool {
        matches!(self, Self::TopicsNamed(_))
    }

    /// Notes that a part of an RPC was written.
    pub(super) fn wrote_rpc(&mut self) {
        *self = Self::Topics;
    }

    /// Notes that `bytes`, which belong to no RPC, were written.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        let (Self::Unknown(begun) | Self::TopicsNamed(begun)) = self else { return };
        begun.extend_from_slice(bytes);
        let begun = std::mem::take(begun);
        let mut rest = begun.as_slice();
        while let Some((body, behind)) = split(rest) {
            match Message::of(body) {
                Some(Message::Name(name)) if TOPICS.iter().any(|topic| name.starts_with(topic)) => {
                    *self = Self::TopicsNamed(Vec::new());
                }
                // GossipSub names several protocols, one after the other.
                Some(Message::Name(_)) if self.is_named() => {}
                Some(Message::Name(_)) | None => return *self = Self::Other,
                Some(Message::NoName) => {}
            }
            rest = behind;
        }
        match self {
            Self::Unknown(_) | Self::TopicsNamed(_) if rest.len() > MAX_MESSAGE_BYTES => {
                *self = Self::Other;
            }
            Self::Unknown(begun) | Self::TopicsNamed(begun) => *begun = rest.to_vec(),
            Self::Topics | Self::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::tests::rpc;

    const HEADER: &str = "/multistream/1.0.0";

    fn message(body: &[u8]) -> Vec<u8> {
        // As in a field of an RPC, behind its tag.
        rpc::field(1, body)[1..].to_vec()
    }

    fn lines(lines: &[&str]) -> Vec<u8> {
        lines.iter().flat_map(|line| message(&[line.as_bytes(), b"\n"].concat())).collect()
    }

    /// The answer to `ls`.
    fn list(names: &[&str]) -> Vec<u8> {
        message(&[lines(names), b"\n".to_vec()].concat())
    }

    /// Writes each of `writes` in parts of random sizes, as a full window may split it, and says for each write
    /// whether it counted as an RPC.
    fn write(purpose: &mut Purpose, writes: &[Vec<u8>], random: &mut StdRng) -> Vec<bool> {
        let each = |write: &Vec<u8>| {
            let (mut rest, is_rpc) = (write.as_slice(), purpose.is_rpc(write));
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(random.random_range(1..=rest.len()));
                assert_eq!(purpose.is_rpc(rest), is_rpc, "within a write");
                if is_rpc {
                    purpose.wrote_rpc()
                } else {
                    purpose.wrote(part)
                }
                rest = behind;
            }
            is_rpc
        };
        writes.iter().map(each).collect()
    }

    #[track_caller]
    fn check(writes: &[Vec<u8>], rpcs: &[bool], end: impl Fn(&Purpose) -> bool) {
        for seed in 0..200 {
            let mut purpose = Purpose::default();
            let found = write(&mut purpose, writes, &mut StdRng::seed_from_u64(seed));
            assert_eq!(found, rpcs, "seed {seed}");
            assert!(end(&purpose), "seed {seed}: {purpose:?}");
        }
    }

    fn publication() -> Vec<u8> {
        rpc::request(&[rpc::message("t", b"\x0f/meshsub/1.1.0\n")])
    }

    // Issue 8, 22. Before, a part of a message made the stream one for something else.
    #[test]
    fn the_stream_of_gossipsub_is_known_by_its_negotiation_however_its_bytes_are_split() {
        let is_topics = |purpose: &Purpose| *purpose == Purpose::Topics;
        let first = lines(&[HEADER, "/meshsub/1.3.0"]);
        check(&[first.clone(), publication()], &[false, true], is_topics);
        let refused = lines(&["/meshsub/1.2.0"]);
        check(&[first.clone(), refused, publication()], &[false, false, true], is_topics);
        let floods = lines(&["/floodsub/1.0.0"]);
        check(
            &[first, floods, publication(), publication()],
            &[false, false, true, true],
            is_topics,
        );
    }

    // Issue 8, 22. Before, a list, Floodsub, and a part of a message made the stream one for something else, and
    // what the peer said on it was heard.
    #[test]
    fn the_stream_of_a_peer_is_known_whatever_the_peer_says_before_it_names_the_protocol() {
        let all = ["/ipfs/id/1.0.0", "/meshsub/1.3.0", "/floodsub/1.0.0"];
        let long = format!("/{}", "x".repeat(45));
        let answers = [
            lines(&["na"]),
            list(&all),
            list(&[]),
            list(&[&long, "/meshsub/1.1.0"]),
            list(&vec!["/a/name/of/no/great/length"; 500]),
        ];
        for named in ["/meshsub/1.0.0", "/meshsub/1.3.0", "/floodsub/1.0.0"] {
            for answer in &answers {
                let writes = [lines(&[HEADER]), answer.clone(), answer.clone(), lines(&[named])];
                check(&writes, &[false; 4], Purpose::is_named);
            }
        }
    }

    #[test]
    fn a_stream_for_something_else_is_never_taken_for_gossipsub() {
        let is_other = |purpose: &Purpose| *purpose == Purpose::Other;
        // Identify names every protocol in its answer, and an application may write anything.
        let bodies = [lines(&["/meshsub/1.1.0"]), publication(), vec![0xff; 1_000]];
        for body in bodies {
            let writes = [lines(&[HEADER, "/ipfs/id/1.0.0"]), body.clone(), body];
            check(&writes, &[false; 3], is_other);
        }
        check(&[publication()], &[false], is_other);
        check(&[vec![0xff; 40_000]], &[false], is_other);
        check(&[message(&[b'/'; 20_000])], &[false], is_other);
    }

    #[test]
    fn the_memory_of_a_negotiation_is_bounded() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..2_000 {
            let mut purpose = Purpose::default();
            for _ in 0..random.random_range(1..40) {
                let bytes: Vec<u8> =
                    (0..random.random_range(0..4_000)).map(|_| random.random()).collect();
                purpose.wrote(&bytes);
                if let Purpose::Unknown(begun) | Purpose::TopicsNamed(begun) = &purpose {
                    assert!(begun.len() <= MAX_MESSAGE_BYTES, "{}", begun.len());
                }
            }
        }
    }
}
