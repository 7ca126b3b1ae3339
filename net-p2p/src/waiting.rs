//! A bounded queue in which each origin has a turn.
//!
//! # Invariants
//!
//! * Origins take turns, so one that has much to send delays nobody else's messages.
//! * A full queue takes a message of an origin with few in place of the newest one of the origin with most.
//! * The messages of one origin leave in the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Items that wait, by their origin.
#[derive(Debug)]
pub(crate) struct Waiting<K, T> {
    by_origin: HashMap<K, VecDeque<T>>,
    /// Every origin of which something waits, once each.
    turns: VecDeque<K>,
    count: usize,
    bound: usize,
}

impl<K: Copy + Eq + Hash, T> Waiting<K, T> {
    /// An empty queue for `bound` items.
    pub(crate) fn new(bound: usize) -> Self {
        Self { by_origin: HashMap::new(), turns: VecDeque::new(), count: 0, bound }
    }

    /// Adds an item, and returns the one for which there is no room: this or another one.
    pub(crate) fn push(&mut self, origin: K, item: T) -> Option<T> {
        let mut removed = None;
        if self.count >= self.bound {
            let own = self.by_origin.get(&origin).map_or(0, VecDeque::len);
            // At its fair share an origin makes room itself, so that a flood costs no search.
            if own * self.turns.len() >= self.bound {
                return Some(item);
            }
            removed = self.remove_from_the_longest(own + 1);
            if removed.is_none() {
                return Some(item);
            }
        }
        let queue = self.by_origin.entry(origin).or_default();
        if queue.is_empty() {
            self.turns.push_back(origin);
        }
        queue.push_back(item);
        self.count += 1;
        removed
    }

    /// Removes the newest item of the origin with most, if it has more than `few`.
    fn remove_from_the_longest(&mut self, few: usize) -> Option<T> {
        let longest = self.by_origin.values_mut().max_by_key(|queue| queue.len())?;
        // An origin keeps at least one item, so its turn stays true.
        if longest.len() <= few {
            return None;
        }
        self.count -= 1;
        longest.pop_back()
    }

    /// The origin whose turn it is, and its oldest item.
    pub(crate) fn front(&self) -> Option<(K, &T)> {
        let origin = *self.turns.front()?;
        Some((origin, self.by_origin.get(&origin)?.front()?))
    }

    /// Takes the item at the front out. The next turn is another origin's.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let origin = self.turns.pop_front()?;
        let queue = self.by_origin.get_mut(&origin)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.by_origin.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        self.count -= usize::from(item.is_some());
        item
    }

    /// Passes the turn on, and takes nothing.
    pub(crate) fn skip(&mut self) {
        if !self.turns.is_empty() {
            self.turns.rotate_left(1);
        }
    }

    /// The number of origins of which something waits.
    pub(crate) fn origins(&self) -> usize {
        self.turns.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 8, 24.
    #[test]
    fn a_flood_takes_no_turn_and_no_place_of_others() {
        let mut waiting = Waiting::new(100);
        for number in 0..200 {
            assert_eq!(waiting.push('f', number).is_some(), number >= 100);
        }
        assert_eq!(waiting.push('a', 1_000), Some(99), "the newest of the flood makes room");
        assert_eq!(waiting.push('b', 2_000), Some(98));
        let mut left = std::iter::from_fn(|| waiting.pop());
        assert_eq!(left.by_ref().take(4).collect::<Vec<_>>(), [0, 1_000, 2_000, 1]);
        assert_eq!(left.count(), 96);
        assert!(waiting.front().is_none() && waiting.by_origin.is_empty());
    }

    #[test]
    fn equal_shares_make_no_room_for_each_other() {
        let mut waiting = Waiting::new(4);
        for number in 0..4 {
            assert_eq!(waiting.push(number, number), None);
        }
        assert_eq!(waiting.push(4, 4), Some(4));
        waiting.skip();
        assert_eq!(waiting.front(), Some((1, &1)));
        assert_eq!(waiting.origins(), 4);
    }
}
