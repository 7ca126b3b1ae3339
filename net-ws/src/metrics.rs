//! Counters of refused handshakes in both directions.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_rustls::rustls;

/// The reason why a dial failed. A closed set, so that it can be the label of a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DialRefusal {
    /// No TCP connection could be opened.
    Unreachable,
    /// The certificate of the peer cannot be trusted.
    Certificate,
    /// The TLS handshake failed for another reason.
    Tls,
    /// The connection broke during the handshake.
    Broken,
    /// The handshake took longer than [`WsConfig::dial_timeout`](crate::WsConfig::dial_timeout).
    TimedOut,
    /// The head of the reply exceeded the profile's bound.
    LongHead,
    /// The reply was not HTTP.
    Malformed,
    /// The status of the reply was not 101.
    Status,
    /// The reply had no `Upgrade: websocket`.
    UpgradeHeader,
    /// The reply had no `Connection: Upgrade`.
    ConnectionHeader,
    /// `Sec-WebSocket-Accept` did not match the key of the request.
    AcceptKey,
    /// The peer speaks another version of the protocol.
    Version,
    /// The reply lacked the peer's random text.
    NoRandom,
    /// The peer belongs to another network.
    Network,
    /// The dial reached this node itself.
    Ourselves,
    /// The peer's answer to the identity challenge was wrong.
    Identity,
    /// Another link to the same identity is kept.
    Duplicate,
}

/// The reason why a request for gossip was not upgraded. A closed set, so that it can be the label of a
/// metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpgradeRefusal {
    /// The places for inbound peers are taken: all of them, or those of the peer's host.
    Full,
    /// An operator banned the peer's host or the address that it announces.
    Banned,
    /// The node admits members only, and the peer does not say that it is one.
    NotMember,
    /// The peer speaks another version of the protocol.
    Version,
    /// The peer belongs to another network.
    Network,
    /// The request lacked the peer's random text.
    NoRandom,
    /// The peer is this node itself.
    Ourselves,
    /// The peer's identity challenge was malformed.
    Identity,
    /// `Upgrade` or `Connection` did not ask for a WebSocket.
    NoUpgrade,
    /// The method was not GET.
    Method,
    /// `Sec-WebSocket-Version` was not 13.
    WebSocketVersion,
    /// `Origin` named another host, which is not listed: a page of another site sent the request.
    Origin,
    /// `Sec-WebSocket-Key` was missing.
    NoKey,
    /// The client sent more bytes before it had the answer.
    Pipelined,
    /// The upgrade was for another network of the node, which had no room for another WebSocket.
    NotTaken,
    /// The hello in the query of a page was too long, or said something twice.
    Query,
    /// A page that was upgraded did not take the answer to its hello, or the connection broke before.
    Untold,
}

impl DialRefusal {
    /// All refusals, in the order of the counters.
    pub const ALL: [Self; 17] = [
        Self::Unreachable,
        Self::Certificate,
        Self::Tls,
        Self::Broken,
        Self::TimedOut,
        Self::LongHead,
        Self::Malformed,
        Self::Status,
        Self::UpgradeHeader,
        Self::ConnectionHeader,
        Self::AcceptKey,
        Self::Version,
        Self::NoRandom,
        Self::Network,
        Self::Ourselves,
        Self::Identity,
        Self::Duplicate,
    ];

    /// The value of the metric's label for this reason: a short word in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Certificate => "certificate",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::TimedOut => "timed_out",
            Self::LongHead => "long_head",
            Self::Malformed => "malformed",
            Self::Status => "status",
            Self::UpgradeHeader => "upgrade_header",
            Self::ConnectionHeader => "connection_header",
            Self::AcceptKey => "accept_key",
            Self::Version => "version",
            Self::NoRandom => "no_random",
            Self::Network => "network",
            Self::Ourselves => "ourselves",
            Self::Identity => "identity",
            Self::Duplicate => "duplicate",
        }
    }
}

impl UpgradeRefusal {
    /// All refusals, in the order of the counters.
    pub const ALL: [Self; 17] = [
        Self::Full,
        Self::Banned,
        Self::NotMember,
        Self::Version,
        Self::Network,
        Self::NoRandom,
        Self::Ourselves,
        Self::Identity,
        Self::NoUpgrade,
        Self::Method,
        Self::WebSocketVersion,
        Self::Origin,
        Self::NoKey,
        Self::Pipelined,
        Self::NotTaken,
        Self::Query,
        Self::Untold,
    ];

    /// The value of the metric's label for this reason: a short word in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Banned => "banned",
            Self::NotMember => "not_member",
            Self::Version => "version",
            Self::Network => "network",
            Self::NoRandom => "no_random",
            Self::Ourselves => "ourselves",
            Self::Identity => "identity",
            Self::NoUpgrade => "no_upgrade",
            Self::Method => "method",
            Self::WebSocketVersion => "websocket_version",
            Self::Origin => "origin",
            Self::NoKey => "no_key",
            Self::Pipelined => "pipelined",
            Self::NotTaken => "not_taken",
            Self::Query => "query",
            Self::Untold => "untold",
        }
    }
}

/// The reason why what a trusted proxy told was not used. A closed set, so that it can be the label of a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyFault {
    /// The preamble of the PROXY protocol did not come in time, or the connection ended before it. It was closed.
    PreambleMissing,
    /// The connection began with something else. It was closed.
    PreambleMalformed,
    /// The preamble was longer than allowed. The connection was closed.
    PreambleTooLong,
    /// The preamble named a client that cannot be one. The connection was closed.
    PreambleClient,
    /// No header of a request named a client that can be one. The request counted as the proxy's own.
    RequestClient,
}

impl ProxyFault {
    /// All faults, in the order of the counters.
    pub const ALL: [Self; 5] = [
        Self::PreambleMissing,
        Self::PreambleMalformed,
        Self::PreambleTooLong,
        Self::PreambleClient,
        Self::RequestClient,
    ];

    /// The value of the metric's label for this reason: a short word in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PreambleMissing => "preamble_missing",
            Self::PreambleMalformed => "preamble_malformed",
            Self::PreambleTooLong => "preamble_too_long",
            Self::PreambleClient => "preamble_client",
            Self::RequestClient => "request_client",
        }
    }
}

/// The reason why a connection to a listener with a certificate got no TLS session. A closed set, so that it can be the
/// label of a metric.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsRefusal {
    /// The client presented no certificate, and one is demanded.
    NoCertificate,
    /// The certificate of the client is not signed by a named authority, has expired, or is wrong otherwise.
    Certificate,
    /// The client came without TLS, and a certificate is demanded.
    Plain,
    /// The handshake took too long.
    TimedOut,
    /// The handshake failed for another reason.
    Handshake,
}

impl TlsRefusal {
    /// All refusals, in the order of the counters.
    pub const ALL: [Self; 5] =
        [Self::NoCertificate, Self::Certificate, Self::Plain, Self::TimedOut, Self::Handshake];

    /// The value of the metric's label for this reason: a short word in lower case.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Certificate => "certificate",
            Self::Plain => "plain",
            Self::TimedOut => "timed_out",
            Self::Handshake => "handshake",
        }
    }

    /// The reason in an error of the handshake.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::InvalidCertificate(_)) => Self::Certificate,
            _ => Self::Handshake,
        }
    }
}

/// Counters of one WebSocket network. They only grow; clones share them.
#[derive(Clone, Debug, Default)]
pub struct WsMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    dials: [AtomicU64; DialRefusal::ALL.len()],
    upgrades: [AtomicU64; UpgradeRefusal::ALL.len()],
    proxies: [AtomicU64; ProxyFault::ALL.len()],
    tls: [AtomicU64; TlsRefusal::ALL.len()],
}

impl WsMetrics {
    /// Returns the number of dials that failed for the reason `why`.
    #[must_use]
    pub fn dials_refused(&self, why: DialRefusal) -> u64 {
        self.shared.dials[why as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of requests for gossip that were refused for the reason `why`.
    #[must_use]
    pub fn upgrades_refused(&self, why: UpgradeRefusal) -> u64 {
        self.shared.upgrades[why as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of times that what a trusted proxy told was not used for the reason `why`.
    #[must_use]
    pub fn proxy_faults(&self, why: ProxyFault) -> u64 {
        self.shared.proxies[why as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of connections that got no TLS session for the reason `why`.
    #[must_use]
    pub fn tls_refused(&self, why: TlsRefusal) -> u64 {
        self.shared.tls[why as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn note_tls(&self, why: TlsRefusal) {
        self.shared.tls[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_proxy(&self, why: ProxyFault) {
        self.shared.proxies[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_dial(&self, why: DialRefusal) {
        self.shared.dials[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_upgrade(&self, why: UpgradeRefusal) {
        self.shared.upgrades[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_counter_of_its_own() {
        let metrics = WsMetrics::default();
        for (place, why) in DialRefusal::ALL.into_iter().enumerate() {
            assert_eq!(place, why as usize);
            metrics.note_dial(why);
            assert_eq!(metrics.dials_refused(why), 1, "{}", why.label());
        }
        for (place, why) in UpgradeRefusal::ALL.into_iter().enumerate() {
            assert_eq!(place, why as usize);
            metrics.note_upgrade(why);
            assert_eq!(metrics.upgrades_refused(why), 1, "{}", why.label());
        }
        for (place, why) in ProxyFault::ALL.into_iter().enumerate() {
            assert_eq!(place, why as usize);
            metrics.note_proxy(why);
            assert_eq!(metrics.proxy_faults(why), 1, "{}", why.label());
        }
        for (place, why) in TlsRefusal::ALL.into_iter().enumerate() {
            assert_eq!(place, why as usize);
            metrics.note_tls(why);
            assert_eq!(metrics.tls_refused(why), 1, "{}", why.label());
        }
    }
}
