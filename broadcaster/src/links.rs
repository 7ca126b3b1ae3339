//! The owner of a node's links: what joins, what leaves, and what is told of it.
//!
//! # Invariants
//!
//! * A peer becomes visible after its place in the task set is there, and before its loops run; a node that stops
//!   in between still runs them.
//! * This node's own interest goes ahead of the rest of the greeting, as existing relays send it.
//! * Messages parked for an identity are given to its link after the link is in the registry, so that none is
//!   parked in vain.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gossip::{DisconnectReason, Identity, Lane, LinkId, NetworkProfile, Tag};
use runtime::{Opening, TaskSet, time};
use tokio::sync::oneshot;

use crate::{
    contests::Contests,
    context::Context,
    events::Events,
    frame::Frame,
    inbound::WayIn,
    interest::OwnInterest,
    lanes::{Lanes, Serves},
    link::{Attached, FrameSink, FrameSource, LaneSinks, Link, Stopping},
    link_tasks::{Loops, OnPeerEnd},
    peer::{Peer, PeerParts},
    writer::Writing,
};

/// The owner of the links. A cheap handle.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) context: Arc<Context>,
    pub(crate) events: Events,
    pub(crate) contests: Arc<Contests>,
    pub(crate) way_in: Arc<WayIn>,
    pub(crate) writing: Arc<Writing>,
    pub(crate) interest: Arc<OwnInterest>,
    pub(crate) tasks: TaskSet,
}

impl Links {
    /// Attaches a connection: from now on it takes part in every broadcast.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the node is; the connection is dropped.
    pub(crate) fn attach<S, R>(&self, id: LinkId, link: Link<S, R>) -> Result<Attached, Stopping>
    where
        S: FrameSink,
        R: FrameSource,
    {
        let Link { about, sinks, sources, greeting, hooks, codec, gauge } = link;
        let Context { tags, limits, registry, metrics, .. } = &*self.context;
        // The peer becomes visible below. Its loops must run by then, or a message sent to it right before a
        // stop is lost.
        let Some(opening) = self.tasks.open() else { return Err(Stopping) };
        let sinks = match sinks {
            LaneSinks::Shared(sink) => vec![(Serves::Both, sink)],
            LaneSinks::PerLane { priority, bulk } => {
                vec![(Serves::Only(Lane::Priority), priority), (Serves::Only(Lane::Bulk), bulk)]
            }
        };
        let lanes = if sinks.len() > 1 { Lanes::per_lane(limits) } else { Lanes::shared(limits) };
        let first = codec.as_ref().and_then(|codec| codec.opening.clone());
        let greet = |told: Option<&Bytes>| {
            let told = told.map(|payload| (Tag::MI, payload.clone()));
            for (tag, payload) in told.into_iter().chain(greeting).chain(first) {
                let lane = tags.rule(tag).map_or(Lane::Priority, |rule| rule.lane);
                lanes.greet(Frame::control(tag, lane, &payload));
            }
            lanes
        };
        let identity_time = about.identity_time;
        let (ended_sender, ended) = oneshot::channel();
        let peer = self.interest.take_in(about.transport, about.features, |told| {
            registry.insert(|joined| {
                Peer::new(PeerParts {
                    id,
                    about,
                    joined,
                    lanes: greet(told),
                    cancel: self.tasks.token().child_token(),
                    hooks,
                    gauge,
                    interest: tags.default_interest(),
                    told: told.cloned(),
                })
            })
        });
        if let Some(identity) = peer.identity() {
            registry.give(&peer, registry.unpark(&identity));
        }
        metrics.connected(peer.transport);
        match identity_time {
            None => peer.events.connected(&self.events, || peer.info()),
            Some(limit) => self.await_identity(&opening, &peer, limit),
        }
        let on_end = OnPeerEnd::new(&self.context, &self.events, Arc::clone(&peer), ended_sender);
        Loops { peer, sinks, sources, codec }.spawn(&opening, &self.way_in, &self.writing, on_end);
        Ok(Attached { peer: id, ended })
    }

    /// Tells of a peer as anonymous if it has not proved an identity in time.
    fn await_identity(&self, tasks: &Opening<'_>, peer: &Arc<Peer>, limit: Duration) {
        let (events, peer) = (self.events.clone(), Arc::clone(peer));
        tasks.spawn("identity deadline", move |_cancel| async move {
            tokio::select! {
                biased;
                () = peer.events.told() => {}
                // The end of the peer tells of it.
                () = peer.cancel.cancelled() => {}
                () = time::sleep(limit) => peer.events.connected(&events, || peer.info()),
            }
        });
    }

    /// Notes the identity of an attached peer, once it is verified.
    pub(crate) fn identify(&self, id: LinkId, identity: Identity) {
        let registry = &self.context.registry;
        registry.identify(id, identity);
        if let Some(peer) = registry.get(id) {
            registry.give(&peer, registry.unpark(&identity));
            peer.events.identified(&self.events, || peer.info());
        }
    }

    /// Starts closing the connection to a peer. Unknown peers are ignored.
    pub(crate) fn disconnect(&self, id: LinkId, reason: DisconnectReason) {
        if let Some(peer) = self.context.registry.get(id) {
            self.context.registry.end(&peer, reason);
        }
    }
}
