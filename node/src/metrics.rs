//! The counters of a node in one registry, for collectors.
//!
//! # Invariants
//!
//! * Labels are of closed sets: nothing that a peer says is one.
//! * A registry keeps no node running; of a node that is gone it has what was counted by the broadcaster.

use std::{fmt, sync::Weak};

use gossip::Transport;
use mesh::Refusal;
#[cfg(feature = "http")]
use net_http::{HttpServer, Incident};
#[cfg(feature = "ws")]
use net_ws::{DialRefusal, ProxyFault, TlsRefusal, UpgradeRefusal};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{running::Running, view::Seen};

impl Running {
    /// Adds everything that the node counts to a registry: the message flow, refusals of the door and of
    /// handshakes, HTTP, and libp2p with what its crates count themselves. `docs/metrics.md` lists the names. May be called for several registries.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let seen = self.seen();
        self.metrics().register(registry);
        seen.broadcaster.mesh().register_metrics(registry);
        #[cfg(feature = "discovery")]
        self.dns_metrics().register(registry);
        #[cfg(feature = "p2p")]
        if let Some(p2p) = seen.network.p2p() {
            p2p.metrics().register(registry);
        }
        #[cfg(feature = "http")]
        if let Some(http_server) = self.http_server() {
            registry.register_collector(Box::new(HttpCounters(http_server.clone())));
        }
        let seen = std::sync::Arc::downgrade(seen);
        registry.register_collector(Box::new(Asked { seen }));
    }
}

/// The parts that keep counts of their own, which are asked at each scrape.
#[derive(Debug)]
struct Asked {
    seen: Weak<Seen>,
}

impl Collector for Asked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(seen) = self.seen.upgrade() else { return Ok(()) };
        let door = &seen.door;
        let help =
            "Connections and requests that the door refused, and connections that had to make room";
        let mut family =
            encoder.encode_descriptor("door_refused", help, None, MetricType::Counter)?;
        for transport in [Transport::WebSocket, Transport::Libp2p] {
            for why in Refusal::ALL {
                let labels = [("reason", why.label()), ("transport", transport.label())];
                let count = ConstCounter::new(door.refused_over(why, transport));
                count.encode(family.encode_family(&labels)?)?;
            }
        }
        let taken = [
            ("peers", door.peers()),
            ("sockets", door.sockets()),
            ("half_open", door.half_open()),
            ("outbound", door.outbound()),
        ];
        let help = "Places with the door that are taken";
        gauges(&mut encoder, ("door_taken", "place"), help, taken)?;
        let help = "Times that a peer was disconnected for misbehaviour that its host, or its identity, pays for when it comes again";
        let strikes = encoder.encode_descriptor("door_strikes", help, None, MetricType::Counter)?;
        ConstCounter::new(door.strikes()).encode(strikes)?;
        #[cfg(feature = "ws")]
        if let Some(ws) = seen.network.ws() {
            let metrics = ws.metrics();
            let dials = DialRefusal::ALL.map(|why| (why.label(), metrics.dials_refused(why)));
            let help = "Dials over WebSocket that came to nothing";
            counters(&mut encoder, "ws_dials_refused", help, dials)?;
            let upgrades =
                UpgradeRefusal::ALL.map(|why| (why.label(), metrics.upgrades_refused(why)));
            let help = "Requests for gossip that were not upgraded";
            counters(&mut encoder, "ws_upgrades_refused", help, upgrades)?;
            let faults = ProxyFault::ALL.map(|why| (why.label(), metrics.proxy_faults(why)));
            let help = "Connections and requests of trusted proxies that named no client";
            counters(&mut encoder, "ws_proxy_faults", help, faults)?;
            let refused = TlsRefusal::ALL.map(|why| (why.label(), metrics.tls_refused(why)));
            let help = "Connections to the WebSocket port that got no TLS session";
            counters(&mut encoder, "tls_refused", help, refused)?;
            let tls = ws.tls();
            let reloads = [
                ("taken", tls.map_or(0, |tls| tls.times_taken())),
                ("refused", tls.map_or(0, |tls| tls.times_refused())),
            ];
            let help =
                "Times that changed files of the certificate were taken into use, or could not be";
            let mut family =
                encoder.encode_descriptor("tls_reloads", help, None, MetricType::Counter)?;
            for (outcome, count) in reloads {
                let labels = [("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// An HTTP server, which is asked at each scrape.
#[cfg(feature = "http")]
#[derive(Debug)]
pub(crate) struct HttpCounters(pub(crate) HttpServer);

#[cfg(feature = "http")]
impl Collector for HttpCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(server) = self;
        let metrics = server.metrics();
        let help = "HTTP requests that reached a service";
        let requests =
            encoder.encode_descriptor("http_requests", help, None, MetricType::Counter)?;
        ConstCounter::new(metrics.requests()).encode(requests)?;
        let incidents = Incident::ALL.map(|incident| (incident.label(), metrics.count(incident)));
        let help = "HTTP connections and requests that ended otherwise than by an answer";
        counters(&mut encoder, "http_incidents", help, incidents)?;
        let permits = [
            ("connections", server.served()),
            ("connections_waiting", server.waiting()),
            ("requests", server.requests_in_flight()),
        ];
        let help = "Permits of the HTTP server that are taken, and connections that wait for one";
        gauges(&mut encoder, ("http_permits", "permit"), help, permits)
    }
}

/// Gauges that differ in one label.
fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, label): (&str, &'static str),
    help: &str,
    values: [(&'static str, usize); N],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (text, value) in values {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&[(label, text)])?)?;
    }
    Ok(())
}

/// Counters that differ in their reason.
#[cfg(any(feature = "ws", feature = "http"))]
fn counters<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: [(&'static str, u64); N],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}
