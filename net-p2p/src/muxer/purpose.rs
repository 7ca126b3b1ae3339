//! The purpose of a stream, as its protocol negotiation shows it.

use crate::backlog::delimited;

/// The purpose of a stream, as far as this node's part of the protocol negotiation shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// No protocol was named yet.
    Unknown,
    /// GossipSub was named; whether both ends agree is open.
    TopicsNamed,
    /// The stream carries RPCs of GossipSub.
    Topics,
    /// The stream is for something else.
    Other,
}

/// The message of a protocol negotiation at the front of `bytes`, and the rest. Source: multistream-select 1.0, a
/// varint of the length and a line.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, body) = delimited(bytes)?;
    let (line, rest) = (body.get(..length)?, body.get(length..)?);
    let is_line = line.ends_with(b"\n") && (line.starts_with(b"/") || line == b"na\n");
    is_line.then_some((line, rest))
}

impl Purpose {
    /// The purpose after `bytes` were written as well.
    pub(super) fn after(self, mut bytes: &[u8]) -> Self {
        match self {
            Self::Topics | Self::Other => self,
            // RPCs begin with a tag, never with a slash.
            Self::TopicsNamed if line(bytes).is_none() => Self::Topics,
            Self::TopicsNamed => self,
            Self::Unknown => {
                while let Some((line, rest)) = line(bytes) {
                    if line.starts_with(b"/meshsub/") {
                        return Self::TopicsNamed;
                    }
                    if !line.starts_with(b"/multistream/") && line != b"na\n" {
                        return Self::Other;
                    }
                    bytes = rest;
                }
                if bytes.is_empty() { self } else { Self::Other }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::rpc;

    fn lines(lines: &[&str]) -> Vec<u8> {
        let each =
            lines.iter().map(|line| [&[line.len() as u8 + 1], line.as_bytes(), b"\n"].concat());
        each.collect::<Vec<_>>().concat()
    }

    #[test]
    fn the_stream_of_gossipsub_is_known_by_its_negotiation() {
        let header = "/multistream/1.0.0";
        let message = rpc::request(&[rpc::message("t", b"/meshsub/1.1.0\n")]);
        let named = Purpose::Unknown.after(&lines(&[header, "/meshsub/1.3.0"]));
        assert_eq!(named, Purpose::TopicsNamed);
        assert_eq!(named.after(&lines(&["/meshsub/1.2.0"])), named, "the first one was refused");
        assert_eq!(named.after(&message), Purpose::Topics);
        // The other end names protocols as well, and refuses unknown ones.
        let answered = Purpose::Unknown.after(&lines(&[header])).after(&lines(&["na"]));
        assert_eq!(answered, Purpose::Unknown);
        assert_eq!(answered.after(&lines(&["/meshsub/1.1.0"])), Purpose::TopicsNamed);
        // Identify names every protocol in its answer.
        let identify = Purpose::Unknown.after(&lines(&[header, "/ipfs/id/1.0.0"]));
        assert_eq!(identify.after(&lines(&["/meshsub/1.1.0"])), Purpose::Other);
        assert_eq!(Purpose::Unknown.after(&message), Purpose::Other);
    }
}
