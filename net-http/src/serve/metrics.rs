//! Counters of the HTTP server.

use std::sync::atomic::{AtomicU64, Ordering};

use runtime::Rarely;

/// A counted event of a connection or a request. A closed set, so that it can be the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incident {
    /// A connection was closed without an answer: all permits were taken.
    Full,
    /// A connection was refused: too many connections of its peer, or of all peers, were waiting.
    PeerFull,
    /// A connection was refused: no permit of its peer became free in time.
    WaitedInVain,
    /// A connection was closed between two requests, because other connections of its peer were waiting.
    Dismissed,
    /// A request was refused: no request permit became free in time.
    Busy,
    /// A head was too long.
    HeadTooLong,
    /// A head was not HTTP.
    Malformed,
    /// A head had no `Host`.
    NoHost,
    /// A head could be read in two ways, or asked for a feature that is not offered.
    Ambiguous,
    /// A head did not arrive in time.
    HeadTimeout,
    /// A client neither sent nor read the bytes of a message in time.
    Stalled,
    /// A handler panicked, or the body that it answered with.
    Panicked,
    /// A service returned an error.
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

    /// The value of the metric's label for this incident: a short word in lower case.
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

/// Counters of the HTTP server. They only grow.
#[derive(Debug, Default)]
pub struct ServeMetrics {
    requests: AtomicU64,
    incidents: [AtomicU64; Incident::ALL.len()],
    /// Lines about handlers that panicked, and services that failed: any caller may be able to cause them.
    panics: Rarely,
    failures: Rarely,
}

impl ServeMetrics {
    /// Returns the number of requests that reached the service.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns the number of times that `incident` has happened.
    #[must_use]
    pub fn count(&self, incident: Incident) -> u64 {
        self.counter(incident).load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, incident: Incident) {
        self.counter(incident).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and logs a handler that panicked.
    pub(crate) fn note_panic(&self) {
        self.note(Incident::Panicked);
        if let Some(left_out) = self.panics.due() {
            tracing::error!(left_out, "an HTTP handler panicked");
        }
    }

    /// Counts and logs a service that failed.
    pub(crate) fn note_failure(&self, error: &dyn std::fmt::Display) {
        self.note(Incident::Failed);
        if let Some(left_out) = self.failures.due() {
            tracing::warn!(%error, left_out, "an HTTP service failed");
        }
    }

    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, incident: Incident) -> &AtomicU64 {
        // The array has one place per variant, in the order of the variants.
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
