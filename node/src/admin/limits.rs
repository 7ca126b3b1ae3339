//! The limits in force by name, for people who look for the one that holds them up.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use tandem::{DoorState, Limits, MeshLimits};

use super::wire::millis;

/// Numbers by name.
type Numbers = BTreeMap<String, u64>;

/// A value that stands among the numbers.
trait Number {
    fn number(&self) -> u64;
}

impl Number for usize {
    fn number(&self) -> u64 {
        *self as u64
    }
}

impl Number for u32 {
    fn number(&self) -> u64 {
        u64::from(*self)
    }
}

impl Number for u64 {
    fn number(&self) -> u64 {
        *self
    }
}

impl Number for NonZeroUsize {
    fn number(&self) -> u64 {
        self.get() as u64
    }
}

impl Number for Duration {
    fn number(&self) -> u64 {
        millis(*self)
    }
}

macro_rules! numbers {
    ($($name:literal: $value:expr),* $(,)?) => {
        [$(($name.to_owned(), Number::number(&$value))),*].into_iter().collect()
    };
}

/// The bounds of queues, and the deadlines of messages.
pub(super) fn of_messages(limits: &Limits) -> Numbers {
    numbers! {
        "budget_bytes": limits.budget_bytes,
        "intake_priority": limits.intake_priority,
        "intake_bulk": limits.intake_bulk,
        "peer_intake": limits.peer_intake,
        "peer_priority_messages": limits.peer_priority.messages,
        "peer_priority_bytes": limits.peer_priority.bytes,
        "peer_bulk_messages": limits.peer_bulk.messages,
        "peer_bulk_bytes": limits.peer_bulk.bytes,
        "batch_messages": limits.batch_messages,
        "batch_bytes": limits.batch_bytes,
        "bulk_floor": limits.bulk_floor,
        "write_timeout_ms": limits.write_timeout,
        "close_timeout_ms": limits.close_timeout,
        "priority_age_ms": limits.priority_age,
        "bulk_age_ms": limits.bulk_age,
        "slow_age_ms": limits.slow_age,
        "priority_window_ms": limits.priority_window,
        "bulk_window_ms": limits.bulk_window,
        "remembered_bytes": limits.remembered_bytes,
        "vote_tables_bytes": limits.vote_tables_bytes,
        "topic_queue": limits.topic_queue,
        "workers": limits.workers,
        "peer_requests": limits.peer_requests,
        "peer_requests_at_once": limits.peer_requests_at_once,
        "requests_handled": limits.requests_handled,
        "message_time_ms": limits.message_time,
        "unpacked_at_once": limits.unpacked_at_once,
        "inbound_wait_ms": limits.inbound_wait,
        "handler_timeout_ms": limits.handler_timeout,
        "request_timeout_ms": limits.request_timeout,
        "requests_per_peer": limits.requests_per_peer,
        "parking_time_ms": limits.parking_time,
        "priority_gossip_per_s": limits.rates.gossip.priority.per_second,
        "priority_gossip_burst": limits.rates.gossip.priority.burst,
        "priority_passed_on_per_s": limits.rates.passed_on.priority.per_second,
        "bulk_gossip_per_s": limits.rates.gossip.bulk.per_second,
        "bulk_gossip_burst": limits.rates.gossip.bulk.burst,
        "bulk_passed_on_per_s": limits.rates.passed_on.bulk.per_second,
        "unpacked_bytes_per_s": limits.rates.unpacked_bytes.per_second,
        "unpacked_in_all_per_s": limits.rates.unpacked_in_all.per_second,
        "flood_after_ms": limits.rates.flood_after,
    }
}

/// The places with the door, and those that are taken.
pub(super) fn of_door(door: &DoorState) -> (Numbers, Numbers) {
    let limits = &door.limits;
    let bounds = numbers! {
        "peers": limits.total,
        "peers_per_ip": limits.per_ip,
        "peers_per_subnet": limits.per_subnet,
        "peers_per_origin": limits.per_origin,
        "half_open": limits.half_open_total,
        "half_open_per_ip": limits.half_open_per_ip,
        "connections_per_window": limits.rate.count,
        "connections_window_ms": limits.rate.window,
        "subnet_connections_per_window": limits.subnet_rate.count,
        "subnet_connections_window_ms": limits.subnet_rate.window,
        "penalty_ms": limits.penalty,
        "outbound": limits.outbound,
    };
    let taken = numbers! {
        "peers": door.peers,
        "sockets": door.sockets,
        "half_open": door.half_open,
        "outbound": door.outbound,
    };
    (bounds, taken)
}

/// The values by which the node dials.
pub(super) fn of_mesh(limits: &MeshLimits) -> Numbers {
    numbers! {
        "fan_out": limits.fan_out,
        "concurrent": limits.concurrent,
        "most": limits.most,
        "base_ms": limits.base,
        "cap_ms": limits.cap,
        "dials_per_window": limits.rate.count,
        "dials_window_ms": limits.rate.window,
        "misbehaviour_ban_ms": limits.misbehaviour_ban,
        "malformed_ban_ms": limits.malformed_ban,
        "clique_after_ms": limits.clique_after,
        "replaced_for_ms": limits.replaced_for,
        "performance_window_ms": limits.performance_window,
        "performance_margin_ms": limits.performance_margin,
        "idle_after_ms": limits.idle_after,
        "idle_check_ms": limits.idle_check,
        "source_time_ms": limits.source_time,
    }
}
