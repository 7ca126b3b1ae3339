//! Checks of the names of applications' protocols.
//!
//! # Invariants
//!
//! * No application can use a name of the node's own protocols, even if the node does not use it now: peers
//!   would get answers in another protocol.

use std::collections::BTreeSet;

use gossip::{Durations, LimitError, NetworkProfile};

use super::OwnProtocol;

/// Longest name of a protocol, in bytes. Chosen: far below the limit of multistream-select, because identify
/// sends every name to every peer.
const MAX_NAME_BYTES: usize = 128;

/// Prefixes of libp2p's own protocols in this build: identify and ping, GossipSub, and the layers of a
/// connection.
/// Source: libp2p specifications.
const LIBP2P: [&str; 7] =
    ["/ipfs/id/", "/ipfs/ping/", "/meshsub/", "/floodsub/", "/multistream/", "/noise", "/yamux/"];

/// The reason why an application's protocol cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The name is not valid.
    #[error(
        "{name:?} is no name of a protocol: write a slash and up to 127 printable ASCII characters, for example /my-chain/sync/1"
    )]
    Malformed {
        /// The name as given, shortened to a bounded length.
        name: String,
    },
    /// The name belongs to a protocol of the node itself.
    #[error("{name} is a protocol of the node itself: choose another name")]
    Taken {
        /// The name as given.
        name: String,
    },
    /// Two acceptors were given for one protocol, and only one of them could be called.
    #[error("there are two acceptors for {name}: put them into one")]
    Twice {
        /// The name as given.
        name: String,
    },
    /// A limit on the protocol's streams is out of its range.
    #[error("the streams of {name} cannot be limited so")]
    Limit {
        /// The name as given.
        name: String,
        /// The error of the limit.
        source: LimitError,
    },
}

/// Checks that a network with this profile can accept every one of these protocols.
pub(crate) fn check(
    profile: &NetworkProfile,
    protocols: &[OwnProtocol],
) -> Result<(), ProtocolError> {
    let mut seen = BTreeSet::new();
    for OwnProtocol { name, limits, .. } in protocols {
        let well_formed = (2..=MAX_NAME_BYTES).contains(&name.len())
            && name.starts_with('/')
            && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !well_formed {
            return Err(ProtocolError::Malformed { name: name.chars().take(200).collect() });
        }
        let name = name.clone();
        if is_own(profile, &name) {
            return Err(ProtocolError::Taken { name });
        }
        limits.check().map_err(|source| ProtocolError::Limit { name: name.clone(), source })?;
        if !seen.insert(name.clone()) {
            return Err(ProtocolError::Twice { name });
        }
    }
    Ok(())
}

fn is_own(profile: &NetworkProfile, name: &str) -> bool {
    let NetworkProfile { stream_protocol, legacy_stream_protocol, bulk_stream_protocol, .. } =
        profile;
    let optional = [*legacy_stream_protocol, *bulk_stream_protocol];
    let own = [*stream_protocol, profile.http_protocol];
    own.contains(&name)
        || optional.contains(&Some(name))
        || LIBP2P.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AcceptLimits, PeerStream};

    fn protocol(name: &str) -> OwnProtocol {
        OwnProtocol::new(name, AcceptLimits::default(), |_: PeerStream| async {})
    }

    fn checked(names: &[&str]) -> Result<(), ProtocolError> {
        let protocols: Vec<OwnProtocol> = names.iter().map(|name| protocol(name)).collect();
        check(&NetworkProfile::TANDEM, &protocols)
    }

    #[test]
    fn a_name_is_a_slash_and_printable_characters() {
        let longest = format!("/{}", "x".repeat(MAX_NAME_BYTES - 1));
        assert_eq!(checked(&["/a", "/my-chain/sync/1", &longest]), Ok(()));
        for bad in ["", "/", "sync", "/a b", "/a\n", "/é", &format!("{longest}x")] {
            let refused = checked(&["/good", bad]).unwrap_err();
            assert_eq!(refused, ProtocolError::Malformed { name: bad.to_owned() });
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let refused = checked(&["/a", "/b", "/a"]).unwrap_err();
        assert_eq!(refused.to_string(), "there are two acceptors for /a: put them into one");
    }

    #[test]
    fn a_limit_that_cannot_be_waited_for_is_refused() {
        for time in [std::time::Duration::ZERO, std::time::Duration::MAX] {
            let limits = AcceptLimits::default().with_time(time);
            let protocol = OwnProtocol::new("/a", limits, |_: PeerStream| async {});
            let refused = check(&NetworkProfile::TANDEM, &[protocol]).unwrap_err();
            let ProtocolError::Limit { name, source } = refused else { panic!("{refused}") };
            assert_eq!((name.as_str(), source.setting), ("/a", "AcceptLimits::time"));
        }
    }
}
