//! Scripted peers that send and read votes in a form of their choice.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use gossip::{
    NetworkId, NetworkProfile, Tag,
    wire::{
        features::{Features, VoteCompression},
        vote::{self, MarkKey, PackedVote, VotePacker, VoteUnpacker},
    },
};

use crate::{
    harness::RawPeer,
    websocket::{RawWebSocket, upgrade_request_with},
};

/// Returns whether the payload of an AV message is a packed vote.
#[must_use]
pub fn is_packed(payload: &[u8]) -> bool {
    vote::unpack(payload, &mut Vec::new()).is_ok()
}

/// The vote in the payload of an AV message, packed or not.
#[must_use]
pub fn plain(payload: &Bytes) -> Bytes {
    let mut plain = Vec::new();
    match vote::unpack(payload, &mut plain) {
        Ok(()) => plain.into(),
        Err(_) => payload.clone(),
    }
}

/// A vote, packed by itself.
///
/// # Panics
///
/// If it cannot be packed.
#[must_use]
pub fn packed(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    vote::pack(plain, &mut packed).expect("it is a vote");
    packed
}

/// A key that is not random, and as good as one that is.
#[must_use]
pub fn mark_key() -> MarkKey {
    let word =
        |at: usize| 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128.wrapping_pow(at as u32 + 1);
    MarkKey::new(std::array::from_fn(word))
}

/// A peer of a node over a WebSocket, with the state that its votes need.
#[derive(Debug)]
pub struct VotingPeer {
    /// The connection.
    pub raw: RawWebSocket,
    packer: Option<VotePacker>,
    unpacker: Option<VoteUnpacker>,
}

impl VotingPeer {
    /// Connects to a node of the profile `algorand`, with the features of a node that packs votes so. The node must
    /// have tables as large at least.
    ///
    /// # Errors
    ///
    /// When the connection fails or is refused.
    pub async fn connect(
        address: SocketAddr,
        network: &NetworkId,
        votes: VoteCompression,
    ) -> io::Result<Self> {
        let features = Features::announcing(votes);
        let request = upgrade_request_with(&NetworkProfile::ALGORAND, network, features);
        let raw = RawWebSocket::connect(address, &request).await?;
        let table = features.stateful_votes().map(usize::from);
        let (packer, unpacker) =
            (table.and_then(VotePacker::new), table.and_then(VoteUnpacker::new));
        Ok(Self { raw, packer, unpacker })
    }

    /// Sends a vote packed against the earlier ones.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    ///
    /// # Panics
    ///
    /// If it cannot be packed, or this peer has no table.
    pub async fn send_stateful(&mut self, plain: &[u8]) -> io::Result<()> {
        let mut payload = Vec::new();
        let packer = self.packer.as_mut().expect("this peer has a table");
        let key = mark_key();
        let vote = PackedVote::read(packed(plain).into(), &key).expect("it is a vote");
        packer.pack(&vote, &mut payload);
        self.raw.send(Tag::VP, &payload).await
    }

    /// Receives the next vote as it came, and plain. Other messages are skipped; `None` once the connection has ended.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub async fn vote(&mut self) -> Option<(Tag, Bytes, Bytes)> {
        loop {
            let (tag, payload) = self.raw.recv().await?;
            match tag {
                Tag::AV => return Some((tag, payload.clone(), plain(&payload))),
                Tag::VP if *payload != vote::ABORT => {
                    let mut packed = Vec::new();
                    let unpacker = self.unpacker.as_mut().expect("VP comes to those with tables");
                    unpacker.unpack(&payload, &mut packed).expect("the vote can be unpacked");
                    let packed = Bytes::from(packed);
                    assert!(is_packed(&packed), "{packed:?}");
                    return Some((tag, payload, plain(&packed)));
                }
                _ => {}
            }
        }
    }
}
