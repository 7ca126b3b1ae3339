//! Puts and gets of values that are under way. Pure bookkeeping: the swarm task runs the queries.
//!
//! # Invariants
//!
//! * Of the values that nodes answer with, the caller gets a valid one that counts most, or none.
//! * At most [`MAX_EXCHANGES`] of each are under way, and each ends with its deadline.

use std::{collections::HashMap, hash::Hash, time::Instant};

use tokio::sync::oneshot;

use super::{
    key::ValueKey,
    validator::{InvalidValue, Namespaces, Preference},
};

/// Puts under way, and gets under way, at most. Chosen: a few callers.
pub(super) const MAX_EXCHANGES: usize = 32;

/// Values heard in one get, at most. Source: as for a search for providers.
const MAX_ANSWERS: usize = 256;

#[derive(Debug)]
struct Get {
    key: ValueKey,
    until: Instant,
    best: Option<Vec<u8>>,
    heard: usize,
    /// `true` if no other value can count more than the best one.
    is_decided: bool,
    reply: oneshot::Sender<Option<Vec<u8>>>,
}

#[derive(Debug)]
struct Put {
    until: Instant,
    reply: oneshot::Sender<usize>,
}

/// The puts and gets under way, by the number of their query.
#[derive(Debug)]
pub(super) struct Exchanges<Id> {
    gets: HashMap<Id, Get>,
    puts: HashMap<Id, Put>,
}

impl<Id> Default for Exchanges<Id> {
    fn default() -> Self {
        Self { gets: HashMap::new(), puts: HashMap::new() }
    }
}

impl<Id: Copy + Eq + Hash> Exchanges<Id> {
    /// Returns `true` if another get may begin.
    pub(super) fn may_get(&self) -> bool {
        self.gets.len() < MAX_EXCHANGES
    }

    /// Returns `true` if another put may begin.
    pub(super) fn may_put(&self) -> bool {
        self.puts.len() < MAX_EXCHANGES
    }

    pub(super) fn get(
        &mut self,
        id: Id,
        key: ValueKey,
        until: Instant,
        reply: oneshot::Sender<Option<Vec<u8>>>,
    ) {
        self.gets.insert(id, Get { key, until, best: None, heard: 0, is_decided: false, reply });
    }

    pub(super) fn put(&mut self, id: Id, until: Instant, reply: oneshot::Sender<usize>) {
        self.puts.insert(id, Put { until, reply });
    }

    /// Notes the value that one node answered with.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a value that is none of the key.
    pub(super) fn heard(
        &mut self,
        id: &Id,
        value: Vec<u8>,
        by: &Namespaces,
    ) -> Result<(), InvalidValue> {
        let Some(get) = self.gets.get_mut(id) else { return Ok(()) };
        get.heard += 1;
        by.check(&get.key, &value)?;
        let counts = match &get.best {
            None => true,
            Some(best) => by.compare(&get.key, &value, best) == Preference::New,
        };
        if counts {
            get.is_decided = by.is_only(&get.key, &value);
            get.best = Some(value);
        }
        Ok(())
    }

    /// Returns `true` if a get has heard enough, and its query is to be finished.
    pub(super) fn is_over(&self, id: &Id) -> bool {
        let has_enough = |get: &Get| get.is_decided || get.heard >= MAX_ANSWERS;
        self.gets.get(id).is_some_and(has_enough)
    }

    /// Gives the caller of a get what was found, and returns it with its key.
    pub(super) fn got(&mut self, id: &Id) -> Option<(ValueKey, Vec<u8>)> {
        let get = self.gets.remove(id)?;
        let found = get.best.clone();
        // The send fails only if the caller has stopped waiting.
        let _ = get.reply.send(get.best);
        Some((get.key, found?))
    }

    /// Tells the caller of a put how many nodes took the value.
    pub(super) fn stored(&mut self, id: &Id, nodes: usize) {
        if let Some(put) = self.puts.remove(id) {
            // The send fails only if the caller has stopped waiting.
            let _ = put.reply.send(nodes);
        }
    }

    /// The gets that have taken too long, or whose callers are gone.
    pub(super) fn overdue_gets(&self, now: Instant) -> Vec<Id> {
        let is_over = |get: &Get| get.until <= now || get.reply.is_closed();
        self.gets.iter().filter(|(_, get)| is_over(get)).map(|(id, _)| *id).collect()
    }

    /// The puts that have taken too long. One whose caller is gone goes on.
    pub(super) fn overdue_puts(&self, now: Instant) -> Vec<Id> {
        self.puts.iter().filter(|(_, put)| put.until <= now).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gossip::Keypair;

    use super::*;
    use crate::dht::testing::sign;

    type Begun = (Exchanges<u8>, oneshot::Receiver<Option<Vec<u8>>>, Instant);

    fn begun(key: &ValueKey) -> Begun {
        let (mut exchanges, now) = (Exchanges::default(), Instant::now());
        let (reply, found) = oneshot::channel();
        exchanges.get(7, key.clone(), now + Duration::from_secs(5), reply);
        (exchanges, found, now)
    }

    #[test]
    fn the_first_valid_content_ends_a_get_and_forged_ones_do_not() {
        let (key, namespaces) = (ValueKey::of_content(b"true"), Namespaces::of("net"));
        let (mut exchanges, mut found, _) = begun(&key);
        let forged = exchanges.heard(&7, b"false".to_vec(), &namespaces);
        assert_eq!(forged, Err(InvalidValue::NotOfKey));
        assert!(!exchanges.is_over(&7));
        assert_eq!(exchanges.heard(&7, b"true".to_vec(), &namespaces), Ok(()));
        assert!(exchanges.is_over(&7));
        exchanges.got(&7);
        assert_eq!(found.try_recv(), Ok(Some(b"true".to_vec())));
    }

    #[test]
    fn the_newest_signed_value_is_found_whatever_comes_first() {
        let (owner, namespaces) = (Keypair::from_seed([1; 32]), Namespaces::of("net"));
        let key = ValueKey::of_owner(&owner.identity(), "head").unwrap();
        let (mut exchanges, mut found, _) = begun(&key);
        for sequence in [3, 9, 4] {
            let value = sign(&owner, "net", &key, sequence, b"x");
            assert_eq!(exchanges.heard(&7, value, &namespaces), Ok(()));
            assert!(!exchanges.is_over(&7), "a newer one may come");
        }
        exchanges.got(&7);
        assert_eq!(found.try_recv(), Ok(Some(sign(&owner, "net", &key, 9, b"x"))));
    }

    #[test]
    fn a_get_ends_in_time_and_after_a_number_of_answers() {
        let (key, namespaces) = (ValueKey::of_content(b"true"), Namespaces::of("net"));
        let (mut exchanges, found, now) = begun(&key);
        assert!(exchanges.overdue_gets(now).is_empty());
        assert_eq!(exchanges.overdue_gets(now + Duration::from_secs(5)), [7]);
        for _ in 0..MAX_ANSWERS {
            assert!(!exchanges.is_over(&7));
            // Each of them is counted, the last one as well.
            let forged = exchanges.heard(&7, vec![1], &namespaces);
            assert_eq!(forged, Err(InvalidValue::NotOfKey));
        }
        assert!(exchanges.is_over(&7));
        drop(found);
        assert_eq!(exchanges.overdue_gets(now), [7]);
    }
}
