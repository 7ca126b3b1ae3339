//! In place of `route` where every transport is the embedder's: it decides which addresses it carries.

use std::iter::Peekable;

use libp2p::{Multiaddr, multiaddr::Protocol};

/// End of the message of every address error.
pub(crate) const WHAT_IS_DIALLED: &str =
    "write an address that a transport of this node carries, then /p2p/ID";

/// End of the message of every error about an address to listen on.
pub(crate) const WHAT_IS_LISTENED_ON: &str =
    "write an address that a transport of this node listens on, without /p2p/ID";

/// The end of a connection that an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Dialler,
    Listener,
}

/// The parts of an address before the peer ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route;

impl Route {
    /// Takes every part before a peer ID or a circuit; `None` if there is none.
    pub(crate) fn take<'a>(
        parts: &mut Peekable<impl Iterator<Item = Protocol<'a>>>,
        _: End,
    ) -> Option<Self> {
        let is_of_way =
            |part: &Protocol<'_>| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit);
        parts.next_if(is_of_way)?;
        while parts.next_if(is_of_way).is_some() {}
        Some(Self)
    }

    /// The route of an address, whether or not a peer ID follows; `None` if there is none.
    pub(crate) fn of(address: &Multiaddr, end: End) -> Option<Self> {
        let mut parts = address.iter().peekable();
        let route = Self::take(&mut parts, end)?;
        parts.all(|part| matches!(part, Protocol::P2p(_))).then_some(route)
    }
}
