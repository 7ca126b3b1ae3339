//! Every bound and deadline of the broadcaster, in one place.

use std::{num::NonZeroUsize, thread, time::Duration};

use gossip::{Durations, Lane};

/// Bounds of one lane of one peer's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneLimits {
    /// Messages that wait at one time.
    pub messages: usize,
    /// Bytes on the wire, tags included. A message longer than this still enters an empty lane.
    pub bytes: usize,
}

impl LaneLimits {
    /// A queue of at most `messages`, which are `bytes` together.
    #[must_use]
    pub const fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes }
    }
}

gossip::setters!(LaneLimits {
    with_messages => messages: usize,
    with_bytes => bytes: usize,
});

/// Every bound and deadline of the broadcaster. `Default` is fit for production. A node with a duration under a
/// millisecond or over a year does not start; a broadcaster without a node takes it as a millisecond or a year.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes that all queues of the node hold together. Default: 192 MiB. Chosen: with the bounds in addition to it
    /// (docs/architecture.md, "Memory") a node stays below 512 MiB.
    pub budget_bytes: usize,
    /// Messages of this node's own that wait for the router, priority lane. Default: 11,000. Source:
    /// wire facts 12.1.
    pub intake_priority: NonZeroUsize,
    /// Messages of this node's own that wait for the router, bulk lane. Default: 1,024. Chosen: the
    /// router empties it in under a millisecond, and the byte budget bounds what it holds.
    pub intake_bulk: NonZeroUsize,
    /// Messages of one peer and lane that wait for the router; nothing more is read from the peer until
    /// there is room. Default: 256. Chosen: four rounds of the router.
    pub peer_intake: NonZeroUsize,
    /// One peer's priority queue. Default: 11,000 messages (wire facts 12.1), 12 MiB. Chosen: two of
    /// the largest proposals and a round of votes.
    pub peer_priority: LaneLimits,
    /// One peer's bulk queue. Default: 4,096 messages, 8 MiB. Chosen: the largest message, and more.
    pub peer_bulk: LaneLimits,
    /// Most messages in one write. Default: 256. Chosen: measured, see docs/performance.md.
    pub batch_messages: usize,
    /// Bytes after which a write takes no further message. Default: 64 KiB. Chosen: a priority
    /// message waits behind one batch at most.
    pub batch_bytes: usize,
    /// Priority messages after which one waiting bulk message goes. Default: 32.
    pub bulk_floor: u32,
    /// Longest time for one write. Default: 10 s. Chosen: a peer that reads nothing for so long is not
    /// taking part.
    pub write_timeout: Duration,
    /// Longest time for the orderly end of a connection. Default: 5 s. Source: wire facts 1.9.
    pub close_timeout: Duration,
    /// Age at which a forwarded priority message is dropped. Default: 8 s.
    pub priority_age: Duration,
    /// Age at which a forwarded bulk message is dropped. Default: 25 s.
    pub bulk_age: Duration,
    /// Age of a waiting message at which its peer is called slow. Default: 25 s. Source: wire facts 11.4.
    pub slow_age: Duration,
    /// Time for which a priority message is remembered as heard. Default: 10 s. Chosen: longer than
    /// `priority_age`, so that nothing circles; short, so that a vote repeated to get out of a stall is heard.
    pub priority_window: Duration,
    /// Time for which a bulk message is remembered as heard. Default: 30 s. Chosen: longer than `bulk_age`.
    pub bulk_window: Duration,
    /// Bytes in which messages are remembered as heard, half of them for each lane; the oldest goes first.
    /// A message takes 40. Rounded down to a power of two messages. Default: 40 MiB, which is 524,288
    /// messages of each lane. Chosen: 17,000 transactions a second for the whole window.
    pub remembered_bytes: usize,
    /// Memory for the tables of all links on which votes are packed against earlier ones, in bytes, in addition to the
    /// budget. Links beyond it pack each vote by itself. Default: 64 MiB, which is 96 links with tables of 2,048
    /// entries, or 767 with tables of 256. Chosen: a third of the default budget.
    pub vote_tables_bytes: usize,
    /// Messages of one peer and lane that wait for a handler or are being handled; requests are not
    /// among them. Default: 10. Source: wire facts 12.2.
    pub peer_tokens: usize,
    /// Messages of one lane that one node passed on in a topic and that wait, for the router or for a
    /// handler. Default: 4,096. Chosen: a topic cannot be held up, so the burst of a block's transactions
    /// has to fit; the byte budget bounds its memory.
    pub topic_queue: NonZeroUsize,
    /// Workers per lane. Messages of one peer are handled one after the other. Default: 8.
    pub workers: NonZeroUsize,
    /// Requests of one peer that wait or are being handled. Beyond it they are dropped, which delays no
    /// message of the peer. Default: 64. Chosen: an existing node that catches up has 16 under way.
    pub peer_requests: NonZeroUsize,
    /// Requests of one peer being handled at one time. Default: 16. Chosen: a tenth of all.
    pub peer_requests_at_once: NonZeroUsize,
    /// Requests being handled at one time. Default: 160. Source: wire facts 4.3.
    pub requests_handled: NonZeroUsize,
    /// Longest time for a message to arrive once its first byte has, counted while the node waits for
    /// its bytes. Default: 30 s. Source: threats and goals, row 9. The largest message needs a peer that
    /// sends 210 kB a second (1.7 Mbit/s), one of a megabyte 35 kB a second.
    pub message_time: Duration,
    /// Large messages that are decompressed and hashed at one time, on threads of their own. Default:
    /// half of the processors, at least one. Chosen: the other half goes on with votes.
    pub unpacked_at_once: NonZeroUsize,
    /// Rates at which one peer may send. Default: [`Rates::default`].
    pub rates: Rates,
    /// Longest wait of a message for room in the budget, or for its worker, before its sender is
    /// disconnected. Default: 30 s.
    pub inbound_wait: Duration,
    /// Longest time for one call of a handler. Default: 5 s. Chosen: longer than any block takes to check.
    pub handler_timeout: Duration,
    /// Longest wait for the answer to a request. Default: 4 s. Source: wire facts 4.3.
    pub request_timeout: Duration,
    /// Requests to one peer that wait for an answer; one more is `Full`. Default: 64. Chosen: an existing node that catches up
    /// has 16 under way.
    pub requests_per_peer: usize,
    /// Longest wait of a closed link's messages for another link. Default: 2 s. Chosen: several round trips.
    pub parking_time: Duration,
}

gossip::setters!(Limits {
    with_budget_bytes => budget_bytes: usize,
    with_intake_priority => intake_priority: NonZeroUsize,
    with_intake_bulk => intake_bulk: NonZeroUsize,
    with_peer_intake => peer_intake: NonZeroUsize,
    with_peer_priority => peer_priority: LaneLimits,
    with_peer_bulk => peer_bulk: LaneLimits,
    with_batch_messages => batch_messages: usize,
    with_batch_bytes => batch_bytes: usize,
    with_bulk_floor => bulk_floor: u32,
    with_write_timeout => write_timeout: Duration,
    with_close_timeout => close_timeout: Duration,
    with_priority_age => priority_age: Duration,
    with_bulk_age => bulk_age: Duration,
    with_slow_age => slow_age: Duration,
    with_priority_window => priority_window: Duration,
    with_bulk_window => bulk_window: Duration,
    with_remembered_bytes => remembered_bytes: usize,
    with_vote_tables_bytes => vote_tables_bytes: usize,
    with_peer_tokens => peer_tokens: usize,
    with_topic_queue => topic_queue: NonZeroUsize,
    with_workers => workers: NonZeroUsize,
    with_peer_requests => peer_requests: NonZeroUsize,
    with_peer_requests_at_once => peer_requests_at_once: NonZeroUsize,
    with_requests_handled => requests_handled: NonZeroUsize,
    with_message_time => message_time: Duration,
    with_unpacked_at_once => unpacked_at_once: NonZeroUsize,
    with_rates => rates: Rates,
    with_inbound_wait => inbound_wait: Duration,
    with_handler_timeout => handler_timeout: Duration,
    with_request_timeout => request_timeout: Duration,
    with_requests_per_peer => requests_per_peer: usize,
    with_parking_time => parking_time: Duration,
});

impl Durations for Limits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("Limits::write_timeout", &mut self.write_timeout);
        visit("Limits::close_timeout", &mut self.close_timeout);
        visit("Limits::priority_age", &mut self.priority_age);
        visit("Limits::bulk_age", &mut self.bulk_age);
        visit("Limits::slow_age", &mut self.slow_age);
        visit("Limits::priority_window", &mut self.priority_window);
        visit("Limits::bulk_window", &mut self.bulk_window);
        visit("Limits::message_time", &mut self.message_time);
        visit("Limits::inbound_wait", &mut self.inbound_wait);
        visit("Limits::handler_timeout", &mut self.handler_timeout);
        visit("Limits::request_timeout", &mut self.request_timeout);
        visit("Limits::parking_time", &mut self.parking_time);
        self.rates.each_duration(visit);
    }
}

impl Default for Limits {
    fn default() -> Self {
        const fn count(n: usize) -> NonZeroUsize {
            match NonZeroUsize::new(n) {
                Some(n) => n,
                None => NonZeroUsize::MIN,
            }
        }
        const MIB: usize = 1024 * 1024;
        let seconds = Duration::from_secs;
        Self {
            budget_bytes: 192 * MIB,
            intake_priority: count(11_000),
            intake_bulk: count(1_024),
            peer_intake: count(256),
            peer_priority: LaneLimits::new(11_000, 12 * MIB),
            peer_bulk: LaneLimits::new(4_096, 8 * MIB),
            batch_messages: 256,
            batch_bytes: 64 * 1024,
            bulk_floor: 32,
            write_timeout: seconds(10),
            close_timeout: seconds(5),
            priority_age: seconds(8),
            bulk_age: seconds(25),
            slow_age: seconds(25),
            priority_window: seconds(10),
            bulk_window: seconds(30),
            remembered_bytes: 40 * MIB,
            vote_tables_bytes: 64 * MIB,
            peer_tokens: 10,
            topic_queue: count(4_096),
            workers: count(8),
            peer_requests: count(64),
            peer_requests_at_once: count(16),
            unpacked_at_once: count(thread::available_parallelism().map_or(1, |n| n.get() / 2)),
            rates: Rates::default(),
            requests_handled: count(160),
            message_time: seconds(30),
            inbound_wait: seconds(30),
            handler_timeout: seconds(5),
            request_timeout: seconds(4),
            requests_per_peer: 64,
            parking_time: seconds(2),
        }
    }
}

impl Limits {
    /// Returns the bounds of one lane of a peer's queue.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> LaneLimits {
        match lane {
            Lane::Priority => self.peer_priority,
            Lane::Bulk => self.peer_bulk,
        }
    }

    /// Returns the age at which a forwarded message of a lane is dropped.
    #[must_use]
    pub fn age(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Priority => self.priority_age,
            Lane::Bulk => self.bulk_age,
        }
    }

    /// Returns the time for which a message of a lane is remembered as heard.
    #[must_use]
    pub fn window(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Priority => self.priority_window,
            Lane::Bulk => self.bulk_window,
        }
    }
}

/// A rate with a burst, in messages or in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// Amount per second that may be kept up for ever. Zero counts as one.
    pub per_second: u64,
    /// Amount beyond that which may come at once; it is paid off at `per_second`.
    pub burst: u64,
}

gossip::setters!(Rate {
    with_per_second => per_second: u64,
    with_burst => burst: u64,
});

impl Rate {
    /// A rate of `per_second`, and as much as `burst` beyond it at once.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst }
    }

    /// The time in which the rate pays off `amount`.
    #[must_use]
    pub fn time_of(self, amount: u64) -> Duration {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
    }
}

/// A rate for each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneRates {
    /// The rate of the priority lane.
    pub priority: Rate,
    /// The rate of the bulk lane.
    pub bulk: Rate,
}

gossip::setters!(LaneRates {
    with_priority => priority: Rate,
    with_bulk => bulk: Rate,
});

impl LaneRates {
    /// The same rate in both lanes, each by itself.
    #[must_use]
    pub const fn each(rate: Rate) -> Self {
        Self { priority: rate, bulk: rate }
    }

    /// The rate of a lane.
    #[must_use]
    pub const fn of(self, lane: Lane) -> Rate {
        match lane {
            Lane::Priority => self.priority,
            Lane::Bulk => self.bulk,
        }
    }

    /// Both, each as `change` makes it.
    #[must_use]
    pub fn map(self, change: impl Fn(Rate) -> Rate) -> Self {
        Self { priority: change(self.priority), bulk: change(self.bulk) }
    }
}

/// Rates at which one peer may send. A message beyond its rate and burst is counted as `over_rate`, and such messages are
/// read at a quarter of the rate; none is lost. A peer that does not let up is disconnected as
/// [`Flood`](gossip::DisconnectReason::Flood).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rates {
    /// Messages of one gossip tag. Default: 50,000 a second and 100,000 at once in the priority lane, 20,000 a second and
    /// 40,000 at once in the bulk lane. Chosen: thirty times the votes that a relay of the whole network passes on, which
    /// are some 5,000 in a round of three seconds, and twice its 10,000 transactions a second; a transaction costs as
    /// much as ten votes, because it goes on through a topic.
    pub gossip: LaneRates,
    /// Messages of one tag that belongs to the connection, such as requests. Default: 1,000 a second,
    /// 4,000 at once. Chosen: an existing node that catches up repeats a refused request a thousand
    /// times at once (wire facts, S-32).
    pub hop_local: Rate,
    /// Messages of tags that this network does not have, all together. Default: 100 a second, 1,000 at
    /// once. Chosen: a newer node may have tags of its own.
    pub unknown: Rate,
    /// Bytes that compressed messages become, which cost this node and not their sender. Beyond it there
    /// is no waiting. Default: 64 MiB a second, 256 MiB at once. Chosen: twelve of the largest proposals
    /// each second, and a quarter of a core.
    pub unpacked_bytes: Rate,
    /// The same of all peers together. What is beyond is dropped, first of those who have most. Default: 48 MiB a
    /// second, 192 MiB at once. Chosen: three quarters of [`unpacked_bytes`](Self::unpacked_bytes), so that what
    /// this node passes on is no flood for the next one.
    pub unpacked_in_all: Rate,
    /// Messages of all peers together that are passed on in one lane. Beyond it, messages of peers that send much are
    /// handled but not passed on, and counted as `over_rate`; others wait. Default: 37,500 a second and 75,000 at once in
    /// the priority lane, 15,000 a second and 30,000 at once in the bulk lane. Chosen: three quarters of
    /// [`gossip`](Self::gossip), so that what this node passes on is no flood for the next one.
    pub passed_on: LaneRates,
    /// For how long reading from a peer may have been held back, in all and without its letting up,
    /// before it is a flood. Default: 10 s. Chosen: time for a peer with a backlog to get rid of 90,000 messages of one
    /// tag in the bulk lane, and of 225,000 in the other.
    pub flood_after: Duration,
}

gossip::setters!(Rates {
    with_gossip => gossip: LaneRates,
    with_hop_local => hop_local: Rate,
    with_unknown => unknown: Rate,
    with_unpacked_bytes => unpacked_bytes: Rate,
    with_unpacked_in_all => unpacked_in_all: Rate,
    with_passed_on => passed_on: LaneRates,
    with_flood_after => flood_after: Duration,
});

impl Rates {
    /// The rates of a peer whose host, or which itself, was disconnected for misbehaviour so often of late: a sixteenth of the
    /// burst, and half of the rate for each time, at least a quarter. Chosen: coming back brings less than staying, and a
    /// quarter of the default is more than an honest peer sends, which may have the same address.
    #[must_use]
    pub fn after(self, strikes: u32) -> Self {
        let lower = |rate: Rate| match strikes {
            0 => rate,
            _ => Rate { per_second: rate.per_second >> strikes.min(2), burst: rate.burst / 16 },
        };
        Self {
            gossip: self.gossip.map(lower),
            hop_local: lower(self.hop_local),
            unknown: lower(self.unknown),
            unpacked_bytes: lower(self.unpacked_bytes),
            ..self
        }
    }
}

impl Durations for Rates {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("Rates::flood_after", &mut self.flood_after);
    }
}

impl Default for Rates {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            gossip: LaneRates {
                priority: Rate { per_second: 50_000, burst: 100_000 },
                bulk: Rate { per_second: 20_000, burst: 40_000 },
            },
            hop_local: Rate { per_second: 1_000, burst: 4_000 },
            unknown: Rate { per_second: 100, burst: 1_000 },
            unpacked_bytes: Rate { per_second: 64 * MIB, burst: 256 * MIB },
            unpacked_in_all: Rate { per_second: 48 * MIB, burst: 192 * MIB },
            passed_on: LaneRates {
                priority: Rate { per_second: 37_500, burst: 75_000 },
                bulk: Rate { per_second: 15_000, burst: 30_000 },
            },
            flood_after: Duration::from_secs(10),
        }
    }
}
