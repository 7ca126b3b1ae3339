//! Where a request comes from, and how far it may still go.
//!
//! A request of existing nodes has no room for a counter of hops: it fills the 67 bytes that its tag may have. But
//! they read its topics in any order, and all write them in the same one. So a request that is passed on is written in
//! the other order: a mark that costs no byte, and that nodes which know nothing of it do not notice. Source: wire
//! facts 4.3; `other_topic_order` in `testdata/block_service.json`. Where a network has room for more, two topics say
//! how many relays may pass it on after that, and how long the answer is waited for.
//!
//! # Invariants
//!
//! * A marked request without those topics goes no further.
//! * With each relay the number of those that may follow becomes smaller, and so does the time.

use std::time::Duration;

use bytes::Bytes;
use gossip::wire::{block::BlockRequest, topics::Topics};

/// One byte: the number of relays that may still pass the request on.
const RELAYS: &str = "relays";

/// Two bytes, big endian: milliseconds for which the answer is waited for.
const PATIENCE: &str = "patience";

/// The maker of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blocks) enum Origin {
    /// The node that wants the block.
    Asker,
    /// A relay that passed it on.
    Relay(Onward),
}

/// The bounds of a request that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blocks) struct Onward {
    /// Relays that may still pass it on.
    pub(super) relays: u8,
    /// Time until nobody waits for the answer any more.
    pub(super) patience: Duration,
}

impl Onward {
    /// Not at all.
    const NOWHERE: Self = Self { relays: 0, patience: Duration::ZERO };

    fn read(topics: &Topics) -> Option<Self> {
        let relays = topics.get(RELAYS)?.first().copied()?;
        let patience = topics.get(PATIENCE)?.first_chunk().copied()?;
        Some(Self { relays, patience: Duration::from_millis(u16::from_be_bytes(patience).into()) })
    }
}

impl Origin {
    /// Looks for the mark in the payload of a request.
    pub(in crate::blocks) fn of(payload: &Bytes, round: u64) -> Self {
        let Ok(topics) = Topics::decode(payload) else { return Self::Relay(Onward::NOWHERE) };
        if let Some(onward) = Onward::read(&topics) {
            return Self::Relay(onward);
        }
        let own = BlockRequest { round }.topics();
        let first = own.iter().next().map(|(key, _)| key);
        // The nonce may stand anywhere, or be missing.
        let known = |key: &Bytes| own.get(std::str::from_utf8(key).unwrap_or("")).is_some();
        let keys = topics.iter().map(|(key, _)| key.clone()).find(known);
        if keys.as_ref() == first { Self::Asker } else { Self::Relay(Onward::NOWHERE) }
    }
}

/// The topics of a request that is passed on: those of any other, the other way round, and how far it may still go, if
/// it may.
pub(super) fn marked(round: u64, onward: Onward) -> Topics {
    let topics = BlockRequest { round }.topics();
    let mut topics: Vec<_> = topics.iter().map(|(key, data)| (key.clone(), data.clone())).collect();
    topics.reverse();
    let topics: Topics = topics.into_iter().collect();
    if onward.relays == 0 {
        return topics;
    }
    let patience = u16::try_from(onward.patience.as_millis()).unwrap_or(u16::MAX);
    topics.with(RELAYS, vec![onward.relays]).with(PATIENCE, patience.to_be_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use gossip::wire::request::seal;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_of_an_asker_has_no_mark() {
        let payload = seal(&BlockRequest { round: 7 }.topics(), 1);
        assert_eq!(Origin::of(&payload, 7), Origin::Asker);
        let garbage = Bytes::from_static(b"\xff");
        assert_eq!(Origin::of(&garbage, 7), Origin::Relay(Onward::NOWHERE));
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(round: u64, relays: u8, millis: u16, nonce: u64) {
            let patience = Duration::from_millis(millis.into());
            let onward = Onward { relays, patience };
            let payload = seal(&marked(round, onward), nonce);
            let read = if relays == 0 { Onward::NOWHERE } else { onward };
            prop_assert_eq!(Origin::of(&payload, round), Origin::Relay(read));
            prop_assert_eq!(BlockRequest::parse(&payload), Ok(BlockRequest { round }));
            prop_assert_eq!(payload.len() <= 67, relays == 0);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, round: u64) {
            let _: Origin = Origin::of(&bytes.into(), round);
        }
    }
}
