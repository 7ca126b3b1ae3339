//! The ranking of outgoing peers by how early each of them brings what all of them bring.
//!
//! ```text
//!   restart ─ warm-up, 15 s ─▶ counted, 60 to 120 s ─ last copies, 15 s ─▶ judged, restart
//! ```
//!
//! # Invariants
//!
//! * A message counts if more than half of the peers brought it: a peer that makes messages up, which nobody else has,
//!   puts nobody behind itself. (Existing nodes count such messages against everybody else.)
//! * A message counts only if its first copy came after the warm-up, so that no late copy passes for a first one.
//! * A round measures the same peers from its beginning to its end; it starts anew when they change.
//! * Memory is bounded: by [`MAX_MEASURED`] peers and [`MAX_TRACKED`] messages.
//!
//! Source: wire facts 11.3, whose stages wait for messages to pass on; here time alone does, so that a silent network
//! leaves nothing half done.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use gossip::{Instant, LinkId};
use rand::Rng;

/// Time in which copies of a message are waited for. Source: wire facts 11.3.
pub const MESSAGE_WAIT: Duration = Duration::from_secs(15);

/// Delay that counts for a message which a peer did not bring. Source: wire facts 11.3.
pub const MISSED: Duration = Duration::from_secs(5);

/// Messages that must have counted before anybody is judged. Chosen: fewer say more about chance than about peers.
pub const FEWEST: u32 = 16;

/// Peers that are measured at most. Chosen: many times the fan-out.
pub const MAX_MEASURED: usize = 64;

/// Messages whose copies are waited for at one time. Chosen: the votes of one round; more are not measured.
pub const MAX_TRACKED: usize = 8_192;

/// The name of a message, under a key that no peer knows.
pub type MessageKey = [u8; 16];

/// The copies of a message.
#[derive(Debug)]
struct Copies {
    first: Instant,
    /// Each peer that brought it, and the delay behind the first copy.
    brought: Vec<(LinkId, Duration)>,
}

/// The state of a round. See the [module](self).
#[derive(Debug)]
pub struct Ranking {
    window: Duration,
    peers: BTreeSet<LinkId>,
    began: Instant,
    /// Time after which no message counts.
    until: Instant,
    tracked: HashMap<MessageKey, Copies>,
    /// The tracked messages, the oldest first.
    order: VecDeque<(Instant, MessageKey)>,
    /// Sum of the delays of each peer.
    delays: HashMap<LinkId, Duration>,
    counted: u32,
}

impl Ranking {
    /// A ranking that counts messages for at least `window`, and for up to twice as long by chance.
    #[must_use]
    pub fn new(window: Duration, now: Instant) -> Self {
        Self {
            window,
            peers: BTreeSet::new(),
            began: now,
            until: now,
            tracked: HashMap::new(),
            order: VecDeque::new(),
            delays: HashMap::new(),
            counted: 0,
        }
    }

    /// Measures these peers from now on. If they are others than before, the round starts anew.
    pub fn watch(&mut self, peers: BTreeSet<LinkId>, now: Instant, rng: &mut impl Rng) {
        if peers != self.peers {
            self.peers = peers;
            self.restart(now, rng);
        }
    }

    /// Returns `true` if this peer is measured.
    #[must_use]
    pub fn measures(&self, peer: LinkId) -> bool {
        self.peers.contains(&peer)
    }

    /// A measured peer has brought a copy of a message.
    pub fn heard(&mut self, peer: LinkId, message: MessageKey, now: Instant) {
        self.settle(now);
        if !self.measures(peer) || self.peers.len() < 2 {
            return;
        }
        let full = self.tracked.len() >= MAX_TRACKED;
        let Some(copies) = self.tracked.get_mut(&message) else {
            if now < self.until && !full {
                self.order.push_back((now, message));
                self.tracked
                    .insert(message, Copies { first: now, brought: vec![(peer, Duration::ZERO)] });
            }
            return;
        };
        if copies.brought.iter().all(|(known, _)| *known != peer) {
            copies.brought.push((peer, now.saturating_duration_since(copies.first)));
        }
    }

    /// The measured peers with the mean delay of each, the slowest first, once a round is over; then the next one begins.
    /// `None` before that, and if too little was heard.
    pub fn judge(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Vec<(LinkId, Duration)>> {
        if now < self.next()? {
            return None;
        }
        self.settle(now);
        let counted = self.counted;
        let mut ranked: Vec<(LinkId, Duration)> = self
            .peers
            .iter()
            .map(|peer| (*peer, self.delays.get(peer).copied().unwrap_or_default()))
            .map(|(peer, sum)| (peer, sum.checked_div(counted).unwrap_or_default()))
            .collect();
        ranked.sort_by_key(|(_, delay)| std::cmp::Reverse(*delay));
        self.restart(now, rng);
        (counted >= FEWEST).then_some(ranked)
    }

    /// The time of the next judgement; `None` if there is nobody to compare.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        // The nanosecond after the last copy that counts.
        let after = MESSAGE_WAIT + Duration::from_nanos(1);
        if self.peers.len() < 2 { None } else { self.until.checked_add(after) }
    }

    fn restart(&mut self, now: Instant, rng: &mut impl Rng) {
        let counts_for = self.window + self.window.mul_f64(rng.random::<f64>());
        self.began = now;
        self.until = now.checked_add(MESSAGE_WAIT + counts_for).unwrap_or(now);
        self.tracked.clear();
        self.order.clear();
        self.delays.clear();
        self.counted = 0;
    }

    /// Counts the messages of which no further copy is waited for.
    fn settle(&mut self, now: Instant) {
        while let Some((first, message)) = self.order.front().copied()
            && now.saturating_duration_since(first) > MESSAGE_WAIT
        {
            self.order.pop_front();
            if let Some(copies) = self.tracked.remove(&message) {
                self.count(&copies);
            }
        }
    }

    fn count(&mut self, copies: &Copies) {
        let is_early = copies.first < self.began + MESSAGE_WAIT;
        if is_early || 2 * copies.brought.len() <= self.peers.len() {
            return;
        }
        self.counted = self.counted.saturating_add(1);
        for peer in &self.peers {
            let own = copies.brought.iter().find(|(known, _)| known == peer);
            let delay = own.map_or(MISSED, |(_, delay)| *delay);
            let sum = self.delays.entry(*peer).or_default();
            *sum = sum.saturating_add(delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const MS: Duration = Duration::from_millis(1);

    /// Peers `1..=peers`, and the time.
    struct Bench {
        ranking: Ranking,
        rng: StdRng,
        now: Instant,
        messages: u32,
    }

    impl Bench {
        fn new(peers: u64) -> Self {
            let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
            let mut ranking = Ranking::new(WINDOW, now);
            ranking.watch((1..=peers).map(LinkId).collect(), now, &mut rng);
            Self { ranking, rng, now, messages: 0 }
        }

        /// A message that each of these peers brings so much later, and the next one a tenth of a second after.
        fn message(&mut self, brought: &[(u64, u64)]) {
            self.messages += 1;
            let mut key = MessageKey::default();
            key[..4].copy_from_slice(&self.messages.to_be_bytes());
            for (peer, delay) in brought {
                let at = self.now + MS * u32::try_from(*delay).unwrap();
                self.ranking.heard(LinkId(*peer), key, at);
            }
            self.now += 100 * MS;
        }

        /// Messages until the round is judged.
        fn judged(&mut self, brought: &[(u64, u64)]) -> Option<Vec<(u64, Duration)>> {
            let end = self.ranking.next().expect("there is somebody to compare");
            while self.now < end {
                self.message(brought);
            }
            let ranked = self.ranking.judge(self.now, &mut self.rng)?;
            Some(ranked.into_iter().map(|(link, delay)| (link.0, delay)).collect())
        }
    }

    // Source: wire facts 11.3.
    #[test]
    fn the_peer_that_brings_messages_last_is_ranked_last() {
        let mut bench = Bench::new(4);
        let ranked = bench.judged(&[(2, 0), (1, 10), (4, 20), (3, 30)]).unwrap();
        assert_eq!(ranked, [(3, 30 * MS), (4, 20 * MS), (1, 10 * MS), (2, Duration::ZERO)]);
    }

    #[test]
    fn a_message_that_a_peer_does_not_bring_counts_five_seconds() {
        let mut bench = Bench::new(3);
        let ranked = bench.judged(&[(1, 0), (2, 10)]).unwrap();
        assert_eq!(ranked[0], (3, MISSED));
    }

    // The flaw of existing nodes: messages that one peer makes up count against everybody else.
    #[test]
    fn messages_that_one_peer_makes_up_put_nobody_behind_it() {
        let mut bench = Bench::new(4);
        let end = bench.ranking.next().unwrap();
        while bench.now < end {
            bench.message(&[(4, 0)]);
            bench.message(&[(1, 0), (2, 5), (3, 9), (4, 700)]);
        }
        let ranked = bench.ranking.judge(bench.now, &mut bench.rng).unwrap();
        assert_eq!(ranked[0], (LinkId(4), 700 * MS));
    }

    #[test]
    fn late_copies_of_what_came_before_the_round_pass_for_no_first_ones() {
        let mut bench = Bench::new(3);
        // Only slow copies of old messages at first, as after a change of the peers.
        for _ in 0..100 {
            bench.message(&[(3, 0), (2, 1)]);
        }
        let ranked = bench.judged(&[(1, 0), (2, 5), (3, 50)]).unwrap();
        assert_eq!(ranked[0], (3, 50 * MS));
    }

    #[test]
    fn nobody_is_judged_by_too_few_messages_nor_alone() {
        let mut bench = Bench::new(3);
        bench.now += 20 * 1_000 * MS;
        bench.message(&[(1, 0), (2, 0)]);
        bench.now = bench.ranking.next().unwrap();
        assert_eq!(bench.ranking.judge(bench.now, &mut bench.rng), None);
        assert_eq!(Bench::new(1).ranking.next(), None);
    }

    #[test]
    fn another_set_of_peers_starts_the_round_anew() {
        let mut bench = Bench::new(3);
        let first = bench.ranking.next().unwrap();
        bench.now += WINDOW;
        let peers = (1..=4).map(LinkId).collect();
        bench.ranking.watch(peers, bench.now, &mut bench.rng);
        assert!(bench.ranking.next().unwrap() > first);
    }

    #[test]
    fn a_flood_of_messages_is_tracked_up_to_a_bound() {
        let mut bench = Bench::new(3);
        for message in 0..3 * MAX_TRACKED as u32 {
            let mut key = MessageKey::default();
            key[..4].copy_from_slice(&message.to_be_bytes());
            bench.ranking.heard(LinkId(1), key, bench.now);
        }
        assert!(bench.ranking.tracked.len() <= MAX_TRACKED);
        assert!(bench.ranking.order.len() <= MAX_TRACKED);
    }
}
