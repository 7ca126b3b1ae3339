//! The target of `tandem http`: a peer and a path, written as one word.

use gossip::NodeAddress;

/// A peer, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) peer: NodeAddress,
    /// Path and query. At least a slash.
    pub(crate) path: String,
}

/// A text that does not name a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not PEER/path: write host:port/path, a URL, or a multiaddr with /p2p/ID and the path behind it"
)]
pub(crate) struct TargetError {
    text: String,
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let error = || TargetError { text: text.chars().take(200).collect() };
        let at = if text.starts_with('/') {
            end_of_multiaddr(text).ok_or_else(error)?
        } else {
            let authority = text.find("://").map_or(0, |scheme| scheme + 3);
            let rest = text.get(authority..).unwrap_or_default();
            rest.find(['/', '?']).map_or(text.len(), |at| authority + at)
        };
        let (peer, path) = text.split_at_checked(at).ok_or_else(error)?;
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { peer: peer.parse().map_err(|_| error())?, path: format!("{slash}{path}") })
    }
}

/// Where the path begins: behind the peer ID, which is the second one if a circuit leads to the peer.
fn end_of_multiaddr(text: &str) -> Option<usize> {
    let end_of_id = |from: usize| {
        let id = from + text.get(from..)?.find("/p2p/")? + "/p2p/".len();
        Some(text.get(id..)?.find(['/', '?']).map_or(text.len(), |at| id + at))
    };
    let end = end_of_id(0)?;
    if text.get(end..)?.starts_with("/p2p-circuit/p2p/") { end_of_id(end) } else { Some(end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, peer: &str, path: &str) {
        let target: Target = text.parse().unwrap();
        assert_eq!((target.peer.to_string().as_str(), target.path.as_str()), (peer, path));
    }

    #[test]
    fn a_target_is_a_peer_and_a_path() {
        reads("127.0.0.1:4160", "127.0.0.1:4160", "/");
        reads("127.0.0.1:4160/status", "127.0.0.1:4160", "/status");
        reads("http://h:1/a/b?c=d#e", "h:1", "/a/b?c=d");
        reads("https://h/", "https://h", "/");
        reads("https://h?q", "https://h", "/?q");
        reads("[::1]:80/x", "[::1]:80", "/x");
        let peer =
            "/ip4/127.0.0.1/tcp/4190/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        reads(peer, peer, "/");
        reads(&format!("{peer}/v1/net/block/1?x"), peer, "/v1/net/block/1?x");
        // Issue 11, 6. Before, the relay was asked.
        let behind = format!("{peer}/p2p-circuit{}", &peer["/ip4/127.0.0.1/tcp/4190".len()..]);
        reads(&format!("{behind}/hello"), &behind, "/hello");
    }

    #[test]
    fn a_target_that_names_no_peer_is_refused() {
        for text in ["", "host/path", "/status", "/ip4/1.2.3.4/tcp/1/status", "ftp://h/x"] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }
}
