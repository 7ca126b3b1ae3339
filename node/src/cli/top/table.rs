//! The columns of the table of peers: their numbers, their texts and their order.

use std::cmp::Reverse;

use crate::{admin::wire::Peer, printable::printable};

/// A column of the table, by which it can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Peer,
    Over,
    Rtt,
    PriorityIn,
    PriorityOut,
    BulkIn,
    BulkOut,
    Queued,
    Dropped,
    Age,
    Address,
}

impl Column {
    pub(super) const ALL: [Self; 11] = [
        Self::Peer,
        Self::Over,
        Self::Rtt,
        Self::PriorityIn,
        Self::PriorityOut,
        Self::BulkIn,
        Self::BulkOut,
        Self::Queued,
        Self::Dropped,
        Self::Age,
        Self::Address,
    ];

    /// Its head, with the key that sorts by it as a capital letter.
    pub(super) const fn head(self) -> &'static str {
        match self {
            Self::Peer => "Num",
            Self::Over => "Way",
            Self::Rtt => "rTt",
            Self::PriorityIn => "Prio <",
            Self::PriorityOut => "pRio >",
            Self::BulkIn => "Bulk <",
            Self::BulkOut => "bUlk >",
            Self::Queued => "Fill",
            Self::Dropped => "Drops",
            Self::Age => "aGe",
            Self::Address => "Address",
        }
    }

    /// The key that sorts by it.
    pub(super) fn key(self) -> Option<char> {
        let head = self.head().chars().find(char::is_ascii_uppercase);
        head.map(|letter| letter.to_ascii_lowercase())
    }

    /// Its width in cells; the last column has what is left.
    pub(super) const fn width(self) -> u16 {
        match self {
            Self::Age => 4,
            Self::Peer | Self::Over | Self::Queued | Self::Dropped => 5,
            Self::Rtt => 6,
            Self::PriorityIn | Self::PriorityOut | Self::BulkIn | Self::BulkOut => 7,
            Self::Address => 0,
        }
    }

    /// The text of a peer.
    pub(super) fn text(self, peer: &Peer) -> String {
        let Peer { lanes, .. } = peer;
        match self {
            Self::Peer => format!("#{}", peer.peer),
            Self::Over => {
                format!("{} {}", peer.transport, if peer.direction == "in" { "<" } else { ">" })
            }
            Self::Rtt => peer.rtt_us.map_or_else(|| "-".to_owned(), milliseconds),
            Self::PriorityIn => rate(lanes.priority.received_bytes_per_s),
            Self::PriorityOut => rate(lanes.priority.sent_bytes_per_s),
            Self::BulkIn => rate(lanes.bulk.received_bytes_per_s),
            Self::BulkOut => rate(lanes.bulk.sent_bytes_per_s),
            Self::Queued => short(peer.queued_bytes as f64),
            Self::Dropped => short(peer.dropped as f64),
            Self::Age => age(peer.connected_ms),
            Self::Address => printable(&peer.address),
        }
    }

    /// Sorts the peers: the largest first, texts from A, and turned round if `is_reverse`.
    pub(super) fn sort(self, peers: &mut [Peer], order: Order) {
        type Of = fn(&Peer) -> f64;
        let most = |of: Of| move |one: &Peer, other: &Peer| of(other).total_cmp(&of(one));
        match self {
            Self::Peer => peers.sort_by_key(|peer| peer.peer),
            Self::Over => peers.sort_by(|one, other| {
                (&one.transport, &one.direction).cmp(&(&other.transport, &other.direction))
            }),
            Self::Rtt => peers.sort_by_key(|peer| Reverse(peer.rtt_us)),
            Self::PriorityIn => {
                peers.sort_by(most(|peer| peer.lanes.priority.received_bytes_per_s))
            }
            Self::PriorityOut => peers.sort_by(most(|peer| peer.lanes.priority.sent_bytes_per_s)),
            Self::BulkIn => peers.sort_by(most(|peer| peer.lanes.bulk.received_bytes_per_s)),
            Self::BulkOut => peers.sort_by(most(|peer| peer.lanes.bulk.sent_bytes_per_s)),
            Self::Queued => peers.sort_by_key(|peer| Reverse(peer.queued_bytes)),
            Self::Dropped => peers.sort_by_key(|peer| Reverse(peer.dropped)),
            Self::Age => peers.sort_by_key(|peer| Reverse(peer.connected_ms)),
            Self::Address => peers.sort_by(|one, other| one.address.cmp(&other.address)),
        }
        if order == Order::TurnedRound {
            peers.reverse();
        }
    }
}

/// The direction in which the table is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The column's own.
    Usual,
    TurnedRound,
}

/// A number in four letters at most, and its unit.
pub(super) fn short(number: f64) -> String {
    let units = [("G", 1e9), ("M", 1e6), ("k", 1e3)];
    match units.into_iter().find(|(_, size)| number >= *size) {
        Some((unit, size)) if number / size < 10.0 => format!("{:.1}{unit}", number / size),
        Some((unit, size)) => format!("{:.0}{unit}", number / size),
        None => format!("{number:.0}"),
    }
}

/// Bytes a second.
pub(super) fn rate(bytes: f64) -> String {
    if bytes < 0.5 { "-".to_owned() } else { format!("{}B/s", short(bytes)) }
}

/// A time in milliseconds.
pub(super) fn milliseconds(micros: u64) -> String {
    match micros {
        ..10_000 => format!("{:.1}ms", micros as f64 / 1e3),
        _ => format!("{}ms", micros / 1_000),
    }
}

/// An age in its largest unit.
pub(super) fn age(milliseconds: u64) -> String {
    match milliseconds / 1_000 {
        seconds @ ..100 => format!("{seconds}s"),
        seconds @ ..6_000 => format!("{}m", seconds / 60),
        seconds @ ..360_000 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (999.0, "999"),
            (1_000.0, "1.0k"),
            (45_678.0, "46k"),
            (2.5e6, "2.5M"),
            (7e9, "7.0G"),
        ] {
            assert_eq!(short(number), text);
        }
        for (age_ms, text) in
            [(0, "0s"), (99_999, "99s"), (100_000, "1m"), (7_200_000, "2h"), (864_000_000, "10d")]
        {
            assert_eq!(age(age_ms), text);
        }
        assert_eq!((milliseconds(1_234), milliseconds(123_456)), ("1.2ms".into(), "123ms".into()));
    }

    #[test]
    fn every_column_has_a_key_of_its_own() {
        let mut keys: Vec<char> = Column::ALL.into_iter().filter_map(Column::key).collect();
        assert_eq!(keys.len(), Column::ALL.len());
        keys.push('q');
        keys.push('o');
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), Column::ALL.len() + 2, "and none ends the program");
    }
}
