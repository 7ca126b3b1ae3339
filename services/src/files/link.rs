//! The name of a file together with the peers that have it.

use std::{fmt, str::FromStr};

use gossip::{AddressError, NodeAddress};

use super::{FileId, FileIdError};

/// Longest list of peers. Chosen: a link that is typed or mailed has few.
const MAX_PEERS: usize = 16;

/// A file, and where it may be got: `tandem:ID@ADDRESS,ADDRESS`. Its form is a word for every shell.
///
/// The addresses are proposals: what comes from them is verified by the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLink {
    /// The file.
    pub id: FileId,
    /// Peers that have it. None in a bare ID, which is read as a link too.
    pub peers: Vec<NodeAddress>,
}

/// The reason for which a text is no link to a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileLinkError {
    /// The name is none.
    #[error(transparent)]
    Id(#[from] FileIdError),
    /// A peer is none.
    #[error("{address:?} in the link is no address of a peer")]
    Address {
        /// The address as given.
        address: String,
        /// The fault of it.
        source: AddressError,
    },
    /// The peers are too many, or none follows the name.
    #[error("a link has 1 to {MAX_PEERS} addresses behind its @")]
    Peers,
}

impl FromStr for FileLink {
    type Err = FileLinkError;

    fn from_str(text: &str) -> Result<Self, FileLinkError> {
        let Some(link) = text.strip_prefix("tandem:") else {
            return Ok(Self { id: text.parse()?, peers: Vec::new() });
        };
        let (id, addresses) = link.split_once('@').ok_or(FileLinkError::Peers)?;
        let id = id.parse()?;
        if addresses.is_empty() || addresses.split(',').count() > MAX_PEERS {
            return Err(FileLinkError::Peers);
        }
        let peers = addresses.split(',').map(|address| {
            let wrong = |source| FileLinkError::Address { address: address.to_owned(), source };
            address.parse().map_err(wrong)
        });
        Ok(Self { id, peers: peers.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for FileLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.peers.is_empty() {
            return write!(f, "{}", self.id);
        }
        write!(f, "tandem:{}", self.id)?;
        for (index, peer) in self.peers.iter().enumerate() {
            write!(f, "{}{peer}", if index == 0 { '@' } else { ',' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let id = FileId::of(b"a file");
        for peers in [
            "",
            "127.0.0.1:4160",
            "relay.example.org:4160,/ip4/127.0.0.1/tcp/4190/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
        ] {
            let text =
                if peers.is_empty() { id.to_string() } else { format!("tandem:{id}@{peers}") };
            let link: FileLink = text.parse().unwrap();
            assert_eq!((link.id, link.to_string()), (id, text));
            assert_eq!(link.peers.len(), peers.split(',').filter(|peer| !peer.is_empty()).count());
        }
    }

    #[test]
    fn a_text_that_is_no_link_says_why() {
        let id = FileId::of(b"a file");
        for (text, told) in [
            ("tandem:12@127.0.0.1:1".to_owned(), "64"),
            (format!("tandem:{id}"), "a link has 1 to 16 addresses"),
            (format!("tandem:{id}@"), "a link has 1 to 16 addresses"),
            (format!("tandem:{id}@{}", ["a:1"; 17].join(",")), "a link has 1 to 16 addresses"),
            (format!("tandem:{id}@a:1,,b:2"), "\"\" in the link is no address of a peer"),
        ] {
            let error = text.parse::<FileLink>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
