//! Every value by which the mesh loop goes, with its default and its source.

use std::{num::NonZeroUsize, time::Duration};

use gossip::{Durations, Transport};

use crate::{door::RateWindow, hosts::LearntHosts, members::Admit};

/// The values of the mesh loop, over all transports of a node together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeshLimits {
    /// Outgoing peers at which no more learnt addresses are dialled. Addresses that an operator named are all dialled,
    /// and count. Links above it, which dials that were answered late lead to, are let go. Default: 4. Source: wire
    /// facts 11.1, `GossipFanout`.
    pub fan_out: usize,
    /// The share of WebSocket in `fan_out`. Default: all of it. Source: wire facts 13: existing hybrid nodes have one
    /// total, and WebSocket first.
    pub fan_out_websocket: Option<usize>,
    /// The share of libp2p in `fan_out`. Default: all of it.
    pub fan_out_libp2p: Option<usize>,
    /// Dials begun at one time. One that is not answered within a quarter of a second, or within a second
    /// while there is a link, no longer counts here. Default: 8. Chosen: what a router at home copes with.
    pub concurrent: NonZeroUsize,
    /// Dials under way, answered or not; at least `concurrent`. As many as `concurrent` says are added for
    /// addresses that worked before. Default: 128. Chosen: a few times what a hundred addresses that never
    /// answer take, and a small part of the descriptors that a process may have.
    pub most: NonZeroUsize,
    /// Longest delay after the first failure, and after the end of a link. Default: 500 ms. Chosen.
    pub base: Duration,
    /// Longest delay after any number of failures. Default: 30 s. Chosen: half of what existing
    /// nodes wait between two looks at their mesh (wire facts 11.1).
    pub cap: Duration,
    /// Dials of one address. Default: 60 in a second. Source: wire facts 10.2.
    pub rate: RateWindow,
    /// Time for which a peer is not dialled that the application disconnected for a reason of its own, such as that it
    /// equivocated. Default: 10 minutes. Chosen: longer than any back-off, and short enough that a mistake of the
    /// application mends itself.
    pub misbehaviour_ban: Duration,
    /// Time for which a peer is not dialled that sent something malformed, or too much. Default: 30 s. Chosen: as long
    /// as after many failed dials; it may have passed on somebody else's message, and may be the only peer there is.
    pub malformed_ban: Duration,
    /// Time without progress of consensus after which the outgoing peers are suspected to be a clique, and one of those
    /// that no operator named is replaced. Default: 5 minutes. Source: wire facts 11.4.
    pub clique_after: Duration,
    /// Time for which a peer is not dialled that was replaced, so that another one gets the place. Default: 5 minutes.
    /// Chosen: as `clique_after`, so that the next one to be replaced may be followed by it.
    pub replaced_for: Duration,
    /// Outgoing peers that may be let go as the slowest; those that come later stay until they end. `None`, the
    /// default, is the fan-out, and half of it in a node that passes messages on. Source: wire facts 11.2.
    pub throttled: Option<usize>,
    /// Time for which the messages of outgoing peers are compared before the slowest may be let go, and up to twice as
    /// long by chance. Default: 60 s. Source: wire facts 11.3.
    pub performance_window: Duration,
    /// Mean delay behind the fastest peer from which the slowest one is let go. Default: 50 ms. Chosen: what two paths
    /// of one continent differ by; existing nodes let the slowest go whatever the difference is.
    pub performance_margin: Duration,
    /// Time without a message in either direction after which a peer is let go that no operator named, if others
    /// brought some in that time. Default: 5 minutes. Source: wire facts 11.4; a network in which nobody says anything
    /// keeps its links, which the pings keep alive.
    pub idle_after: Duration,
    /// Time between two looks for idle peers. Default: 3 minutes. Source: wire facts 11.4.
    pub idle_check: Duration,
    /// Time from one test of an untried address to the next one, and up to twice as long by chance, while there are as
    /// many outgoing peers as the fan-out: the address is dialled, and the link let go. `None` tests none. Default: 2
    /// minutes. Source: threats and goals, row 23; Bitcoin's feeler connections.
    pub feeler_every: Option<Duration>,
    /// Hosts that are dialled at addresses which no operator named. Default: all. Source: wire facts 10.4.
    pub learnt_hosts: LearntHosts,
    /// Time after which a source of addresses that has not answered is given up. Default: 30 s. Source: wire facts
    /// 11.5, as for a dial.
    pub source_time: Duration,
    /// The nodes that are let in and dialled. Default: everybody. Chosen: a node without members would have no peers.
    pub admit: Admit,
}

gossip::setters!(MeshLimits {
    with_fan_out => fan_out: usize,
    with_fan_out_websocket => fan_out_websocket: Option<usize>,
    with_fan_out_libp2p => fan_out_libp2p: Option<usize>,
    with_concurrent => concurrent: NonZeroUsize,
    with_most => most: NonZeroUsize,
    with_base => base: Duration,
    with_cap => cap: Duration,
    with_rate => rate: RateWindow,
    with_misbehaviour_ban => misbehaviour_ban: Duration,
    with_malformed_ban => malformed_ban: Duration,
    with_clique_after => clique_after: Duration,
    with_replaced_for => replaced_for: Duration,
    with_throttled => throttled: Option<usize>,
    with_performance_window => performance_window: Duration,
    with_performance_margin => performance_margin: Duration,
    with_idle_after => idle_after: Duration,
    with_idle_check => idle_check: Duration,
    with_feeler_every => feeler_every: Option<Duration>,
    with_learnt_hosts => learnt_hosts: LearntHosts,
    with_source_time => source_time: Duration,
    with_admit => admit: Admit,
});

impl MeshLimits {
    /// The share of a transport in the fan-out.
    #[must_use]
    pub fn share(&self, transport: Transport) -> usize {
        let share = match transport {
            Transport::WebSocket => self.fan_out_websocket,
            Transport::Libp2p => self.fan_out_libp2p,
            _ => None,
        };
        share.unwrap_or(self.fan_out)
    }
}

impl Durations for MeshLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("MeshLimits::base", &mut self.base);
        visit("MeshLimits::cap", &mut self.cap);
        visit("MeshLimits::misbehaviour_ban", &mut self.misbehaviour_ban);
        visit("MeshLimits::malformed_ban", &mut self.malformed_ban);
        visit("MeshLimits::clique_after", &mut self.clique_after);
        visit("MeshLimits::replaced_for", &mut self.replaced_for);
        visit("MeshLimits::performance_window", &mut self.performance_window);
        visit("MeshLimits::performance_margin", &mut self.performance_margin);
        visit("MeshLimits::idle_after", &mut self.idle_after);
        visit("MeshLimits::idle_check", &mut self.idle_check);
        if let Some(every) = &mut self.feeler_every {
            visit("MeshLimits::feeler_every", every);
        }
        visit("MeshLimits::source_time", &mut self.source_time);
    }
}

impl Default for MeshLimits {
    fn default() -> Self {
        Self {
            fan_out: 4,
            fan_out_websocket: None,
            fan_out_libp2p: None,
            concurrent: NonZeroUsize::MIN.saturating_add(7),
            most: NonZeroUsize::MIN.saturating_add(127),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            rate: RateWindow::default(),
            misbehaviour_ban: Duration::from_secs(600),
            malformed_ban: Duration::from_secs(30),
            clique_after: Duration::from_secs(300),
            replaced_for: Duration::from_secs(300),
            throttled: None,
            performance_window: Duration::from_secs(60),
            performance_margin: Duration::from_millis(50),
            idle_after: Duration::from_secs(300),
            idle_check: Duration::from_secs(180),
            feeler_every: Some(Duration::from_secs(120)),
            learnt_hosts: LearntHosts::Any,
            source_time: Duration::from_secs(30),
            admit: Admit::default(),
        }
    }
}
