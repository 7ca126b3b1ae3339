//! Counters of the serving side.

use std::sync::atomic::{AtomicU64, Ordering};

/// An event of a connection or a request other than an answer of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A connection was closed because all permits were taken.
    Full,
    /// A connection was refused because too many of its peer, or of all, wait for a permit.
    PeerFull,
    /// A connection was refused because no permit of its peer became free in time.
    WaitedInVain,
    /// A connection was closed between two requests because others of its peer wait.
    Dismissed,
    /// A request was refused because no request permit became free in time.
    Busy,
    /// A head was too long.
    HeadTooLong,
    /// A head was no HTTP.
    Malformed,
    /// A head did not say for whom it is.
    NoHost,
    /// A head could be read in two ways, or asked for what is not offered.
    Ambiguous,
    /// A head did not come in time.
    HeadTimeout,
    /// A client stood still while a message was read or written.
    Stalled,
    /// A handler panicked, or the body it answered with.
    Panicked,
    /// A service failed.
    Failed,
}

impl Incident {
    /// All incidents, in the order of the counters.
    pub const ALL: [Self; 13] = [
        Self::Full,
        Self::PeerFull,
        Self::WaitedInVain,
        Self::Dismissed,
        Self::Busy,
        Self::HeadTooLong,
        Self::Malformed,
        Self::NoHost,
        Self::Ambiguous,
        Self::HeadTimeout,
        Self::Stalled,
        Self::Panicked,
        Self::Failed,
    ];

    /// The name of the incident as a label of a metric.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PeerFull => "peer_full",
            Self::WaitedInVain => "waited_in_vain",
            Self::Dismissed => "dismissed",
            Self::Busy => "busy",
            Self::HeadTooLong => "head_too_long",
            Self::Malformed => "malformed",
            Self::NoHost => "no_host",
            Self::Ambiguous => "ambiguous",
            Self::HeadTimeout => "head_timeout",
            Self::Stalled => "stalled",
            Self::Panicked => "panicked",
            Self::Failed => "failed",
        }
    }
}

/// Counters of the serving side. They only grow.
#[derive(Debug, Default)]
pub struct ServeMetrics {
    requests: AtomicU64,
    incidents: [AtomicU64; Incident::ALL.len()],
}

impl ServeMetrics {
    /// Number of requests that reached the service.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Number of times that an incident happened.
    #[must_use]
    pub fn count(&self, incident: Incident) -> u64 {
        self.counter(incident).load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, incident: Incident) {
        self.counter(incident).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, incident: Incident) -> &AtomicU64 {
        // The table has as many places as there are incidents, in their order.
        &self.incidents[incident as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_incident_has_a_counter_of_its_own() {
        let metrics = ServeMetrics::default();
        for (place, incident) in Incident::ALL.into_iter().enumerate() {
            assert_eq!(place, incident as usize);
            metrics.note(incident);
        }
        assert!(Incident::ALL.iter().all(|&incident| metrics.count(incident) == 1));
    }
}
