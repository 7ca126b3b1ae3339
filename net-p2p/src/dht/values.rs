//! Values that other nodes have left here, and this node's own.
//!
//! # Invariants
//!
//! * At most [`MAX_VALUES`] values of others are stored, each of at most [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES), and
//!   [`MAX_OWN`] of this node's own.
//! * A full store makes room for a value from a less crowded subnet and for no other.
//! * A value is stored for [`VALIDITY`] since somebody put it last.
//! * A peer that puts the value of another again neither shortens its time nor gives its place to others.

use std::{collections::HashMap, time::Duration};

use gossip::Subnet;
use libp2p::kad::{Record, RecordKey};
use tokio::time::Instant;

use super::{
    key::ValueKey,
    validator::{InvalidValue, Namespaces, Preference},
};

/// Values of other nodes, at most. Chosen: 4 MiB, with values of the longest kind.
pub(super) const MAX_VALUES: usize = 1_024;

/// Own values, at most. Chosen: those of a command line, and of an application with a few.
pub(super) const MAX_OWN: usize = 128;

/// Time for which a value is stored. Chosen: who puts one a day keeps it.
pub(super) const VALIDITY: Duration = Duration::from_secs(36 * 3_600);

/// The reason why a value is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key is none of a value.
    Key,
    /// Its namespace does not admit it.
    Invalid(InvalidValue),
    /// A value that counts more is stored.
    Older,
    /// All places are taken, by no subnet more than by the peer's own.
    Full,
}

#[derive(Debug)]
struct Kept {
    record: Record,
    from: Option<Subnet>,
    expires: Instant,
}

/// The values of one node.
#[derive(Debug)]
pub(super) struct ValueStore {
    namespaces: Namespaces,
    own: HashMap<RecordKey, Record>,
    others: HashMap<RecordKey, Kept>,
}

impl ValueStore {
    pub(super) fn new(namespaces: Namespaces) -> Self {
        Self { namespaces, own: HashMap::new(), others: HashMap::new() }
    }

    pub(super) const fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    pub(super) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.own.get(key).or_else(|| self.others.get(key).map(|kept| &kept.record))
    }

    /// Returns `true` if a value is stored that counts more than this one.
    pub(super) fn is_outdated(&self, record: &Record) -> bool {
        let counts_more = |known: &Record| {
            let key = ValueKey::of_record(&record.key);
            known.value != record.value
                && key.is_some_and(|key| {
                    let preference = self.namespaces.compare(&key, &record.value, &known.value);
                    preference != Preference::New
                })
        };
        self.get(&record.key).is_some_and(counts_more)
    }

    /// Stores an own value, which its caller has checked. Returns `false` if there are too many.
    pub(super) fn put_own(&mut self, record: Record) -> bool {
        let has_room = self.own.len() < MAX_OWN || self.own.contains_key(&record.key);
        if has_room {
            self.others.remove(&record.key);
            self.own.insert(record.key.clone(), record);
        }
        has_room
    }

    /// Stores the value of a peer whose connection comes from `from`.
    pub(super) fn offer(
        &mut self,
        mut record: Record,
        from: Option<Subnet>,
        now: Instant,
    ) -> Result<(), Refused> {
        let key = ValueKey::of_record(&record.key).ok_or(Refused::Key)?;
        self.namespaces.check(&key, &record.value).map_err(Refused::Invalid)?;
        if self.is_outdated(&record) {
            return Err(Refused::Older);
        }
        // The time that the sender wishes does not count, because anybody can send the value of another.
        let expires = now + VALIDITY;
        // The library's clock is the system's, or tokio's in a simulation: `into` is for both.
        record.expires = Some(expires.into());
        record.value.shrink_to_fit();
        if let Some(own) = self.own.get_mut(&record.key) {
            // Another place of the same owner may have put a newer one; the old one that comes again changes nothing.
            if own.value != record.value {
                *own = record;
            }
            return Ok(());
        }
        if let Some(kept) = self.others.get_mut(&record.key)
            && kept.record.value == record.value
        {
            // Its place stays the one of the subnet that it came from first.
            (kept.expires, kept.record.expires) = (expires, Some(expires.into()));
            return Ok(());
        }
        if self.others.len() >= MAX_VALUES && !self.others.contains_key(&record.key) {
            self.make_room(from, now)?;
        }
        self.others.insert(record.key.clone(), Kept { record, from, expires });
        Ok(())
    }

    fn make_room(&mut self, from: Option<Subnet>, now: Instant) -> Result<(), Refused> {
        self.prune(now);
        if self.others.len() < MAX_VALUES {
            return Ok(());
        }
        let mut crowds: HashMap<Option<Subnet>, usize> = HashMap::new();
        self.others.values().for_each(|kept| *crowds.entry(kept.from).or_default() += 1);
        let own = crowds.get(&from).copied().unwrap_or(0);
        let largest = crowds.into_iter().max_by_key(|(_, count)| *count);
        let (crowd, _) = largest.filter(|(_, most)| *most > own + 1).ok_or(Refused::Full)?;
        let of_it = self.others.iter().filter(|(_, kept)| kept.from == crowd);
        let first = of_it.min_by_key(|(_, kept)| kept.expires).map(|(key, _)| key.clone());
        self.others.remove(&first.ok_or(Refused::Full)?);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        self.own.remove(key);
        self.others.remove(key);
    }

    /// Drops every value that has expired.
    pub(super) fn prune(&mut self, now: Instant) {
        self.others.retain(|_, kept| kept.expires > now);
        self.own
            .retain(|_, record| record.expires.is_none_or(|expires| Instant::from(expires) > now));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gossip::{Host, Keypair};

    use super::*;
    use crate::dht::testing::sign;

    fn subnet(number: u8) -> Option<Subnet> {
        Some(Host::of(IpAddr::from([9, 9, number, 1])).subnet())
    }

    fn content(number: usize) -> Record {
        let value = number.to_be_bytes().to_vec();
        Record::new(ValueKey::of_content(&value).record_key(), value)
    }

    fn store() -> ValueStore {
        ValueStore::new(Namespaces::of("net"))
    }

    // Threats and goals, row 24: memory is flat under a flood of values.
    #[test]
    fn a_flood_of_one_subnet_fills_the_store_and_leaves_room_for_another() {
        let (mut store, now) = (store(), Instant::now());
        for number in 0..3 * MAX_VALUES {
            let _ = store.offer(content(number), subnet(1), now);
        }
        assert_eq!(store.others.len(), MAX_VALUES);
        assert_eq!(store.offer(content(9_999), subnet(1), now), Err(Refused::Full));
        store.offer(content(10_000), subnet(2), now).unwrap();
        assert_eq!(store.others.len(), MAX_VALUES);
        assert!(store.get(&content(10_000).key).is_some());
        let later = now + VALIDITY;
        store.offer(content(9_999), subnet(1), later).unwrap();
        assert_eq!(store.others.len(), 1, "the expired ones are gone");
    }

    #[test]
    fn an_older_value_does_not_take_the_place_of_a_newer_one() {
        let (mut store, now, owner) = (store(), Instant::now(), Keypair::from_seed([1; 32]));
        let key = ValueKey::of_owner(&owner.identity(), "head").unwrap();
        let value = |sequence| {
            let value = sign(&owner, "net", &key, sequence, b"x");
            Record::new(key.record_key(), value)
        };
        store.offer(value(2), None, now).unwrap();
        assert_eq!(store.offer(value(1), None, now), Err(Refused::Older));
        store.offer(value(3), None, now).unwrap();
        store.offer(value(3), None, now).unwrap();
        assert_eq!(store.get(&key.record_key()).unwrap().value, value(3).value);
        // Nor that of the node's own.
        assert!(store.put_own(value(4)));
        assert_eq!(store.offer(value(3), None, now), Err(Refused::Older));
        store.offer(value(5), None, now).unwrap();
        assert_eq!(store.get(&key.record_key()).unwrap().value, value(5).value);
    }

    // Threats and goals, row 24: anybody can put the value of another again.
    #[test]
    fn a_value_that_a_stranger_puts_again_keeps_its_time_and_its_place() {
        let (mut store, now) = (store(), Instant::now());
        store.offer(content(0), subnet(2), now).unwrap();
        assert!(store.put_own(content(1)));
        let soon = now + Duration::from_secs(1);
        for number in [0, 1] {
            let again = Record { expires: Some(soon.into()), ..content(number) };
            store.offer(again, subnet(1), now).unwrap();
        }
        for number in 2..3 * MAX_VALUES {
            let _ = store.offer(content(number), subnet(1), now);
        }
        for number in 0..20 {
            let _ = store.offer(content(100_000 + number), subnet(3), now);
        }
        store.prune(soon);
        for number in [0, 1] {
            let kept = store.get(&content(number).key).unwrap();
            assert!(!kept.is_expired(soon.into()), "{number}");
        }
    }

    #[test]
    fn forged_values_and_strange_keys_are_not_stored() {
        let (mut store, now) = (store(), Instant::now());
        let forged = Record::new(content(1).key, b"another".to_vec());
        let refused = store.offer(forged, None, now);
        assert_eq!(refused, Err(Refused::Invalid(InvalidValue::NotOfKey)));
        for key in [vec![0xff; 34], b"/pk/x".to_vec(), b"no key".to_vec(), vec![b'/'; 5_000]] {
            let strange = Record::new(RecordKey::from(key), b"x".to_vec());
            assert!(store.offer(strange, None, now).is_err());
        }
        assert!(store.others.is_empty());
    }

    #[test]
    fn own_values_are_bounded_in_number() {
        let mut store = store();
        assert!((0..MAX_OWN).all(|number| store.put_own(content(number))));
        assert!(!store.put_own(content(MAX_OWN)));
        assert!(store.put_own(content(0)), "one that is there may be put again");
    }
}
