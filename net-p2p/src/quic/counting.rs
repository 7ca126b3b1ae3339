//! Counts of what has arrived over a QUIC connection, and how long it took: kept where quinn hears of it, in its congestion control.
//!
//! # Invariants
//!
//! * Counting changes no decision: the controller below it makes all of them.
//! * The counts of a connection go on when its path changes.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use broadcaster::{PipeGauge, PipeSample};
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// The counts of a connection, as of the last acknowledgement.
#[derive(Debug)]
pub(super) struct PathCounts {
    acked: AtomicU64,
    in_flight: AtomicU64,
    /// In microseconds; 0 before the first acknowledgement.
    round_trip: AtomicU64,
    /// In microseconds.
    min_round_trip: AtomicU64,
}

impl Default for PathCounts {
    fn default() -> Self {
        Self {
            acked: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            round_trip: AtomicU64::new(0),
            min_round_trip: AtomicU64::new(u64::MAX),
        }
    }
}

/// Microseconds, at least one.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

impl PathCounts {
    /// The counts of a connection whose controller was made here.
    pub(super) fn of(connection: &quinn::Connection) -> Option<Arc<Self>> {
        let counting = connection.congestion_state().into_any().downcast::<Counting>().ok()?;
        Some(counting.counts)
    }

    fn acknowledged(&self, bytes: u64, smoothed: Duration, sample: Duration) {
        self.acked.fetch_add(bytes, Ordering::Relaxed);
        self.round_trip.store(micros(smoothed), Ordering::Relaxed);
        self.min_round_trip.fetch_min(micros(sample), Ordering::Relaxed);
    }
}

impl PipeGauge for PathCounts {
    fn sample(&self) -> Option<PipeSample> {
        let round_trip = self.round_trip.load(Ordering::Relaxed);
        (round_trip > 0).then(|| PipeSample {
            acked_bytes: self.acked.load(Ordering::Relaxed),
            in_flight_bytes: self.in_flight.load(Ordering::Relaxed),
            round_trip: Duration::from_micros(round_trip),
            min_round_trip: Duration::from_micros(self.min_round_trip.load(Ordering::Relaxed)),
        })
    }
}

/// Makes the controllers of connections: quinn's default one, with counts.
#[derive(Debug, Default)]
pub(super) struct CountingFactory(Arc<CubicConfig>);

impl ControllerFactory for CountingFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Counting { inner, counts: Arc::default() })
    }
}

/// A controller with counts.
struct Counting {
    inner: Box<dyn Controller>,
    counts: Arc<PathCounts>,
}

impl Controller for Counting {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.counts.acknowledged(bytes, rtt.get(), now.saturating_duration_since(sent));
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.counts.in_flight.store(in_flight, Ordering::Relaxed);
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), counts: Arc::clone(&self.counts) })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
