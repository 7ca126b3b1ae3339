//! A queue with a bound on the weight of what waits, in which each origin has a turn.
//!
//! # Invariants
//!
//! * Origins take turns, so one that has much to send delays nobody else's messages.
//! * A full queue takes a message of an origin with little in place of the newest ones of the origin with most.
//! * The messages of one origin leave in the order in which they came.
//! * Only a message heavier than the whole bound exceeds it, and that waits alone.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use gossip::Lane;

/// Items that wait, by their origin.
#[derive(Debug)]
pub(crate) struct Waiting<K, T> {
    by_origin: HashMap<K, OfOrigin<T>>,
    /// Every origin of which something waits, once each.
    turns: VecDeque<K>,
    weight: usize,
    bound: usize,
}

/// Items of one origin, each with its weight; at least one.
#[derive(Debug)]
struct OfOrigin<T> {
    items: VecDeque<(usize, T)>,
    weight: usize,
}

impl<K: Copy + Eq + Hash, T> Waiting<K, T> {
    /// An empty queue for items with a weight of `bound` in all.
    pub(crate) fn new(bound: usize) -> Self {
        Self { by_origin: HashMap::new(), turns: VecDeque::new(), weight: 0, bound }
    }

    /// Adds an item, and returns those for which there is no room: only this one, or some of others.
    pub(crate) fn push(&mut self, origin: K, weight: usize, item: T) -> Vec<T> {
        let own = self.by_origin.get(&origin).map_or(0, |own| own.weight);
        let origins = self.turns.len() + usize::from(own == 0);
        let is_full = !self.turns.is_empty() && self.weight.saturating_add(weight) > self.bound;
        // An origin at its fair share makes room itself. For one below, somebody has more than that.
        if is_full && own.saturating_add(weight).saturating_mul(origins) > self.bound {
            return vec![item];
        }
        let mut removed = Vec::new();
        while !self.turns.is_empty() && self.weight.saturating_add(weight) > self.bound {
            self.remove_from_the_heaviest(weight, &mut removed);
        }
        let queue = self.by_origin.entry(origin).or_insert_with(|| {
            self.turns.push_back(origin);
            OfOrigin { items: VecDeque::new(), weight: 0 }
        });
        queue.items.push_back((weight, item));
        queue.weight += weight;
        self.weight += weight;
        removed
    }

    /// Removes the newest items of the origin with most, until `weight` fits or the origin has nothing left.
    fn remove_from_the_heaviest(&mut self, weight: usize, removed: &mut Vec<T>) {
        let heaviest = self.by_origin.iter_mut().max_by_key(|(_, queue)| queue.weight);
        let Some((&origin, queue)) = heaviest else { return };
        while self.weight.saturating_add(weight) > self.bound {
            let Some((freed, item)) = queue.items.pop_back() else { break };
            queue.weight -= freed;
            self.weight -= freed;
            removed.push(item);
        }
        if queue.items.is_empty() {
            self.by_origin.remove(&origin);
            self.turns.retain(|turn| *turn != origin);
        }
    }

    /// The origin whose turn it is, and its oldest item.
    pub(crate) fn front(&self) -> Option<(K, &T)> {
        let origin = *self.turns.front()?;
        Some((origin, &self.by_origin.get(&origin)?.items.front()?.1))
    }

    /// Takes the item at the front out. The next turn is another origin's.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let origin = self.turns.pop_front()?;
        let queue = self.by_origin.get_mut(&origin)?;
        let (weight, item) = queue.items.pop_front()?;
        queue.weight -= weight;
        self.weight -= weight;
        if queue.items.is_empty() {
            self.by_origin.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        Some(item)
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

/// A queue for each lane, each with its own bound.
#[derive(Debug)]
pub(crate) struct LaneQueues<K, T> {
    priority: Waiting<K, T>,
    bulk: Waiting<K, T>,
}

impl<K: Copy + Eq + Hash, T> LaneQueues<K, T> {
    /// Empty queues for items of `bound` together in each.
    pub(crate) fn new(bound: usize) -> Self {
        Self { priority: Waiting::new(bound), bulk: Waiting::new(bound) }
    }

    /// The queue of a lane.
    pub(crate) const fn of(&self, lane: Lane) -> &Waiting<K, T> {
        match lane {
            Lane::Priority => &self.priority,
            Lane::Bulk => &self.bulk,
        }
    }

    /// The queue of a lane, to change it.
    pub(crate) const fn of_mut(&mut self, lane: Lane) -> &mut Waiting<K, T> {
        match lane {
            Lane::Priority => &mut self.priority,
            Lane::Bulk => &mut self.bulk,
        }
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
            assert_eq!(waiting.push('f', 1, number).is_empty(), number < 100);
        }
        assert_eq!(waiting.push('a', 1, 1_000), [99], "the newest of the flood makes room");
        assert_eq!(waiting.push('b', 2, 2_000), [98, 97]);
        let mut left = std::iter::from_fn(|| waiting.pop());
        assert_eq!(left.by_ref().take(4).collect::<Vec<_>>(), [0, 1_000, 2_000, 1]);
        assert_eq!(left.count(), 95);
        assert!(waiting.front().is_none() && waiting.by_origin.is_empty());
        assert_eq!(waiting.weight, 0);
    }

    // Issue 8, 24: the bound was one of numbers, and large messages of one peer took the whole byte budget.
    #[test]
    fn a_flood_of_heavy_items_makes_room_as_well() {
        let mut waiting = Waiting::new(100);
        for number in 0..4 {
            assert_eq!(waiting.push('f', 40, number).is_empty(), number < 2);
        }
        for number in 10..15 {
            let removed = waiting.push('a', 10, number);
            assert_eq!(removed, if number == 12 { vec![1] } else { vec![] });
        }
        assert_eq!(waiting.push('g', 30, 20), [14, 13], "now another one has most");
        assert_eq!(std::iter::from_fn(|| waiting.pop()).collect::<Vec<_>>(), [0, 10, 20, 11, 12]);
    }

    #[test]
    fn an_item_heavier_than_the_bound_waits_alone() {
        let mut waiting = Waiting::new(100);
        assert!(waiting.push('a', 500, 1).is_empty());
        assert_eq!(waiting.push('a', 1, 2), [2]);
        assert_eq!(waiting.push('b', 500, 3), [3]);
        assert_eq!(waiting.push('b', 1, 4), [1], "it makes room for one that fits");
        assert_eq!(waiting.origins(), 1);
    }

    #[test]
    fn equal_shares_make_no_room_for_each_other() {
        let mut waiting = Waiting::new(4);
        for number in 0..4 {
            assert!(waiting.push(number, 1, number).is_empty());
        }
        assert_eq!(waiting.push(4, 1, 4), [4]);
        waiting.skip();
        assert_eq!(waiting.front(), Some((1, &1)));
        assert_eq!(waiting.origins(), 4);
    }
}
