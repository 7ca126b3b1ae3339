//! Provider records that other nodes have left here, within bounds that no one of them can fill.
//!
//! # Invariants
//!
//! * At most [`MAX_KEYS`] keys are stored beside those of the network's own capabilities, and at most
//!   [`MAX_PROVIDERS`] providers of each; one peer provides at most [`MAX_KEYS_PER_PEER`] keys.
//! * A key with all its places taken makes room for a provider of a less crowded subnet and for no other, so identities,
//!   which cost nothing, push nobody out. Source: threats and goals, row 24.
//! * An answer names [`kad::K_VALUE`] providers, another part of them each time: every provider is named sooner or later.
//! * Values are stored in a part of their own (`values.rs`), if at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    iter,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use gossip::Subnet;
use libp2p::{
    PeerId,
    kad::{
        self, ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result},
    },
};

use super::{scope::MAX_ADDRESSES, values::ValueStore};

/// Keys of others' capabilities that are stored, at most. Chosen: a record costs about 1 KiB, so all of them with a
/// dozen providers each cost 12 MiB.
const MAX_KEYS: usize = 1_024;

/// Providers of one key that are stored, at most. Chosen: a few times the nodes that a mesh asks for.
const MAX_PROVIDERS: usize = 256;

/// Keys that one peer provides, at most. Chosen: existing nodes provide three.
pub(super) const MAX_KEYS_PER_PEER: usize = 16;

/// Provider records in all, beside those of the network's own capabilities. Chosen: 12 MiB, as for [`MAX_KEYS`].
const MAX_RECORDS: usize = 12_288;

/// Time for which a record is believed. Source: wire facts 8.7.
const VALIDITY: Duration = Duration::from_secs(48 * 3_600);

/// Longest key, in bytes. Chosen: a multihash of 512 bits has 66.
const MAX_KEY_BYTES: usize = 80;

/// The reason why a record is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key is no multihash of today.
    KeyTooLong,
    /// The peer provides too many keys.
    PeerFull,
    /// All keys, or all records of the store, are taken.
    StoreFull,
    /// All places of the key are taken, by no subnet more than by the peer's own.
    KeyFull,
}

#[derive(Debug)]
struct Stored {
    record: ProviderRecord,
    /// The subnet that the record came from; `None` is this machine.
    from: Option<Subnet>,
    /// End of its validity.
    expires: Instant,
}

/// The providers that this node knows of, itself included.
#[derive(Debug)]
pub(crate) struct Store {
    local: PeerId,
    /// Keys that are stored whatever else is.
    reserved: HashSet<RecordKey>,
    /// Keys that this node provides.
    own: BTreeMap<Vec<u8>, ProviderRecord>,
    others: HashMap<RecordKey, Vec<Stored>>,
    by_peer: HashMap<PeerId, usize>,
    /// Records in `others`.
    count: usize,
    /// The place at which the next answer begins.
    turn: AtomicUsize,
    /// `None` in a node without values.
    pub(super) values: Option<ValueStore>,
}

impl Store {
    /// A store that always has room for the keys `reserved`.
    pub(super) fn new(
        local: PeerId,
        reserved: impl IntoIterator<Item = RecordKey>,
        values: Option<ValueStore>,
    ) -> Self {
        Self {
            local,
            reserved: reserved.into_iter().collect(),
            own: BTreeMap::new(),
            others: HashMap::new(),
            by_peer: HashMap::new(),
            count: 0,
            turn: AtomicUsize::new(0),
            values,
        }
    }

    /// Records in all, this node's own left out.
    #[cfg(test)]
    const fn count(&self) -> usize {
        self.count
    }

    /// Stores the record of a peer whose connection comes from `from`.
    pub(super) fn offer(
        &mut self,
        mut record: ProviderRecord,
        from: Option<Subnet>,
        now: Instant,
    ) -> std::result::Result<(), Refused> {
        if record.key.as_ref().len() > MAX_KEY_BYTES {
            return Err(Refused::KeyTooLong);
        }
        record.addresses.truncate(MAX_ADDRESSES);
        record.addresses.shrink_to_fit();
        let stored = self.others.get_mut(&record.key);
        let known = stored.and_then(|stored| {
            stored.iter_mut().find(|stored| stored.record.provider == record.provider)
        });
        if let Some(known) = known {
            *known = Stored { record, from, expires: now + VALIDITY };
            return Ok(());
        }
        if self.by_peer.get(&record.provider).is_some_and(|keys| *keys >= MAX_KEYS_PER_PEER) {
            return Err(Refused::PeerFull);
        }
        let is_reserved = self.reserved.contains(&record.key);
        let is_new = !self.others.contains_key(&record.key);
        if !is_reserved && (self.is_full(is_new)) {
            self.prune(now);
            if self.is_full(is_new) {
                return Err(Refused::StoreFull);
            }
        }
        if self.others.get(&record.key).is_some_and(|stored| stored.len() >= MAX_PROVIDERS) {
            self.make_room(&record.key, from, now)?;
        }
        *self.by_peer.entry(record.provider).or_default() += 1;
        self.count += 1;
        let stored = self.others.entry(record.key.clone()).or_default();
        stored.push(Stored { record, from, expires: now + VALIDITY });
        Ok(())
    }

    fn is_full(&self, is_new: bool) -> bool {
        self.count >= MAX_RECORDS || (is_new && self.others.len() >= MAX_KEYS)
    }

    /// Drops a record of the key that has expired, or the oldest one of its most crowded subnet.
    fn make_room(
        &mut self,
        key: &RecordKey,
        from: Option<Subnet>,
        now: Instant,
    ) -> std::result::Result<(), Refused> {
        let Some(stored) = self.others.get(key) else { return Ok(()) };
        let expired = stored.iter().position(|stored| stored.expires <= now);
        let place = expired.or_else(|| {
            let mut crowds: HashMap<Option<Subnet>, usize> = HashMap::new();
            stored.iter().for_each(|stored| *crowds.entry(stored.from).or_default() += 1);
            let own = crowds.get(&from).copied().unwrap_or(0);
            let (crowd, most) = crowds.into_iter().max_by_key(|(_, count)| *count)?;
            (most > own + 1).then(|| stored.iter().position(|stored| stored.from == crowd))?
        });
        let provider = place.and_then(|at| stored.get(at)).map(|stored| stored.record.provider);
        self.remove_provider(key, &provider.ok_or(Refused::KeyFull)?);
        Ok(())
    }

    /// Drops every record that has expired.
    pub(super) fn prune(&mut self, now: Instant) {
        if let Some(values) = &mut self.values {
            values.prune(now.into());
        }
        let expired: Vec<_> = self
            .others
            .values()
            .flatten()
            .filter(|stored| stored.expires <= now)
            .map(|stored| (stored.record.key.clone(), stored.record.provider))
            .collect();
        for (key, provider) in expired {
            self.remove_provider(&key, &provider);
        }
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.values.as_ref()?.get(key).map(Cow::Borrowed)
    }

    /// Takes this node's own values; those of others come through [`ValueStore::offer`].
    fn put(&mut self, record: Record) -> Result<()> {
        let is_stored = self.values.as_mut().is_some_and(|values| values.put_own(record));
        if is_stored { Ok(()) } else { Err(Error::MaxRecords) }
    }

    fn remove(&mut self, key: &RecordKey) {
        if let Some(values) = &mut self.values {
            values.remove(key);
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    /// Takes this node's own records; those of others come through [`Store::offer`].
    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.provider != self.local {
            return Err(Error::MaxProvidedKeys);
        }
        self.own.insert(record.key.to_vec(), record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let own = self.own.get(key.as_ref()).cloned();
        let others = self.others.get(key).map_or(&[][..], Vec::as_slice);
        let most = kad::K_VALUE.get() - usize::from(own.is_some());
        let begin = match others.len() {
            0 => 0,
            len => self.turn.fetch_add(most, Ordering::Relaxed) % len,
        };
        let (before, behind) = others.split_at(begin);
        let turned = behind.iter().chain(before).take(most);
        own.into_iter().chain(turned.map(|stored| stored.record.clone())).collect()
    }

    /// Empty: `announcements.rs` decides when this node's records are published again.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.local {
            self.own.remove(key.as_ref());
            return;
        }
        let Some(stored) = self.others.get_mut(key) else { return };
        let Some(place) = stored.iter().position(|stored| stored.record.provider == *provider)
        else {
            return;
        };
        stored.remove(place);
        if stored.is_empty() {
            self.others.remove(key);
        }
        self.count -= 1;
        if let Some(keys) = self.by_peer.get_mut(provider) {
            *keys -= 1;
            if *keys == 0 {
                self.by_peer.remove(provider);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use gossip::Host;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn key(number: usize) -> RecordKey {
        RecordKey::from(number.to_be_bytes().to_vec())
    }

    fn subnet(number: u8) -> Option<Subnet> {
        Some(Host::of(IpAddr::from([9, 9, number, 1])).subnet())
    }

    fn store() -> Store {
        Store::new(PeerId::random(), [key(0)], None)
    }

    fn record(key: RecordKey, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(key, provider, Vec::new())
    }

    #[test]
    fn a_crowd_of_one_subnet_hides_no_honest_provider() {
        let (mut store, now) = (store(), Instant::now());
        let early = PeerId::random();
        store.offer(record(key(0), early), subnet(1), now).unwrap();
        for _ in 0..2_000 {
            let _ = store.offer(record(key(0), PeerId::random()), subnet(2), now);
        }
        let late = PeerId::random();
        store.offer(record(key(0), late), subnet(3), now).unwrap();
        for honest in [early, late] {
            let answers = MAX_PROVIDERS.div_ceil(kad::K_VALUE.get());
            let is_named = (0..=answers)
                .any(|_| store.providers(&key(0)).iter().any(|record| record.provider == honest));
            assert!(is_named);
        }
        assert_eq!(store.count(), MAX_PROVIDERS);
        let another = store.offer(record(key(0), PeerId::random()), subnet(2), now);
        assert_eq!(another, Err(Refused::KeyFull));
    }

    #[test]
    fn the_keys_of_the_network_have_room_when_all_others_are_taken() {
        let (mut store, now) = (store(), Instant::now());
        for number in 1..=2 * MAX_KEYS {
            let _ = store.offer(record(key(number), PeerId::random()), subnet(1), now);
        }
        let refused = store.offer(record(key(9_999), PeerId::random()), subnet(4), now);
        assert_eq!(refused, Err(Refused::StoreFull));
        store.offer(record(key(0), PeerId::random()), subnet(4), now).unwrap();
        let later = now + VALIDITY;
        store.offer(record(key(9_999), PeerId::random()), subnet(4), later).unwrap();
        assert_eq!(store.count(), 1, "the expired ones are gone");
    }

    #[test]
    fn one_peer_provides_a_few_keys() {
        let (mut store, now, peer) = (store(), Instant::now(), PeerId::random());
        let stored =
            (0..100).filter(|n| store.offer(record(key(*n), peer), None, now).is_ok()).count();
        assert_eq!(stored, MAX_KEYS_PER_PEER);
        store.offer(record(key(1), peer), None, now).unwrap();
        assert_eq!(store.count(), MAX_KEYS_PER_PEER, "a record that is told again is the same");
        let long = RecordKey::from(vec![0; 100]);
        let refused = store.offer(record(long, PeerId::random()), None, now);
        assert_eq!(refused, Err(Refused::KeyTooLong));
    }

    #[test]
    fn counts_are_right_after_any_sequence() {
        let mut random = StdRng::seed_from_u64(3);
        let (mut store, begun) = (store(), Instant::now());
        let peers: Vec<_> = (0..40).map(|_| PeerId::random()).collect();
        for step in 0..20_000_u64 {
            let now = begun + Duration::from_secs(step * 20);
            let (key, peer) = (key(random.random_range(0..30)), peers[random.random_range(0..40)]);
            match random.random_range(0..10) {
                0 => store.remove_provider(&key, &peer),
                1 => store.prune(now),
                _ => {
                    let from = subnet(random.random_range(0..3));
                    let _ = store.offer(record(key, peer), from, now);
                }
            }
            let all = store.others.values().flatten();
            let mut by_peer: HashMap<PeerId, usize> = HashMap::new();
            all.for_each(|stored| *by_peer.entry(stored.record.provider).or_default() += 1);
            assert_eq!(store.count, by_peer.values().sum::<usize>());
            assert_eq!(store.by_peer, by_peer);
        }
    }
}
