//! What is counted while serving.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened to a connection or a request, other than an answer of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// All seats were taken.
    Full,
    /// The peer has too many connections waiting, or all waiting places were taken.
    PeerFull,
    /// No seat of the peer became free in time.
    WaitedInVain,
    /// A connection was closed between two requests because others of its peer wait.
    Dismissed,
    /// Too many requests were being handled.
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
    /// A reader or writer stood still.
    Stalled,
    /// A handler panicked, or the body it answered with.
    Panicked,
    /// A service failed.
    Failed,
}

impl Incident {
    /// Every one, in the order of the counters.
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

    /// Its name as a label.
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
    /// Requests that reached the service.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How often something happened.
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
