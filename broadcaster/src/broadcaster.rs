//! The handle of a broadcaster: one per node, lent to every network of the node.
//!
//! The handle does nothing itself. Each call goes to the part whose job it is: [`Links`] for connections, [`Submitter`]
//! for messages on their way out, [`Topics`] for what topics bring.

use std::{sync::Arc, time::Duration};

use gossip::{
    Admission, ConnectPolicy, Delivery, DeliveryError, DisconnectReason, Handler, Identity,
    Inbound, Interest, LinkId, NetworkProfile, NodeAddress, Outbound, PeerClass, PeerInfo, Request,
    RequestError, Response, SubmitError, Tag, Transport, Validator, wire::features::Features,
};
use mesh::{BanSubject, LinkClaim, Member, MembersError, TooManyBans, Turnover};
use runtime::{
    Environment, Fault, Shutdown,
    time::{self, Instant},
};
use tokio::sync::{broadcast, watch};

use crate::{
    application::{Application, HandleError},
    assembler::AssemblyRules,
    budget::ByteBudget,
    claims::Claim,
    codec::{LinkCodec, PipeSample},
    context::Context,
    events::PeerEvent,
    frame::Origin,
    inbound::topics::Topics,
    interest::{Asked, WantError, WantedTags},
    limits::Limits,
    link::{Attached, FrameSink, FrameSource, Link, Stopping},
    links::Links,
    mesh_access::NewMembers,
    mesh_handle::Mesh,
    metrics::Metrics,
    observers::Observers,
    plain_codec,
    receipts::Receipts,
    relay::Relaying,
    runs::Runs,
    submit::Submitter,
    tally::LinkTraffic,
    topic::{TopicMessage, TopicSink},
    topic_sinks::TopicSinks,
    trace::Tracer,
    vote_codec,
};

/// The parts of a broadcaster. No task holds them, so dropping the last handle aborts the tasks.
pub(crate) struct Parts {
    pub(crate) environment: Environment,
    pub(crate) mesh: Mesh,
    pub(crate) runs: Runs,
    pub(crate) relaying: Relaying,
    pub(crate) application: Arc<Application>,
    pub(crate) observers: Arc<Observers>,
    pub(crate) sinks: Arc<TopicSinks>,
    pub(crate) submitter: Submitter,
    pub(crate) topics: Topics,
    pub(crate) links: Links,
}

/// Routes the messages of a node between its application and its peers, whatever carries them. A cheap handle.
#[derive(Clone)]
pub struct Broadcaster {
    parts: Arc<Parts>,
}

impl std::fmt::Debug for Broadcaster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broadcaster")
            .field("tasks", &self.parts.links.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Broadcaster {
    pub(crate) fn of(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    fn context(&self) -> &Context {
        &self.parts.links.context
    }

    /// Returns the profile of the network: its names, tags and numbers.
    #[must_use]
    pub fn profile(&self) -> &'static NetworkProfile {
        self.parts.links.profile
    }

    /// Returns every bound and deadline, as they were set.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.context().limits
    }

    /// The clock, random numbers, names and sockets of the node. Networks take theirs from here.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.parts.environment
    }

    /// The choice of peers: addresses, dialers, bans, over all networks of the node.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.parts.mesh
    }

    /// Renews the outgoing connections of one transport: dials what is due, asks the sources of addresses, and with
    /// [`ConnectPolicy::ReplaceMesh`] drops the outgoing connections first.
    pub fn connect_outgoing(&self, policy: ConnectPolicy, transport: Transport) {
        if policy == ConnectPolicy::ReplaceMesh {
            let outgoing = self.peers(PeerClass::ConnectedOut);
            for peer in outgoing.iter().filter(|peer| peer.transport == transport) {
                self.disconnect(peer.id, DisconnectReason::Requested);
            }
        }
        self.parts.mesh.sources().hurry(Instant::now());
        self.parts.mesh.wake();
    }

    /// Bans a node, a network or an address for a while: it is not dialled, its links end, and the door lets nobody in
    /// who comes from there. See [`Mesh::unban`] and [`Mesh::bans`].
    ///
    /// # Errors
    ///
    /// [`TooManyBans`] when there is no room.
    pub fn ban(
        &self,
        subject: BanSubject,
        duration: Duration,
        reason: &str,
    ) -> Result<(), TooManyBans> {
        let access = self.parts.mesh.ban(subject, duration, reason)?;
        // Before the doors end their connections, so that each link says why it ends.
        let now = time::into_std(Instant::now());
        let registry = &self.context().registry;
        registry.end_where(|peer| access.bans_peer(peer, now), DisconnectReason::Banned);
        self.parts.mesh.publish(access);
        Ok(())
    }

    /// Forgets an address, whoever named it, and ends the links that were dialled to it. A source that lists it still
    /// brings it back. Returns `false` if the address was not known.
    #[must_use = "the address may not have been known"]
    pub fn remove_peer(&self, address: &NodeAddress) -> bool {
        let was_known = self.parts.mesh.remove(address);
        let named = mesh::phonebook::identity_in(address);
        for peer in self.peers(PeerClass::ConnectedOut) {
            let is_its = peer.http_address.as_ref() == Some(address)
                || named.is_some() && peer.identity == named;
            if is_its {
                self.disconnect(peer.id, DisconnectReason::Requested);
            }
        }
        was_known
    }

    /// Takes the members of an epoch, such as the validators of a chain: they, and the members of the epoch set before,
    /// are dialled, let in whatever other peers there are, and never given up for others. Links to those that left end
    /// if only members are admitted ([`Admit::MembersOnly`](mesh::Admit::MembersOnly)); otherwise they are peers like
    /// others, and let go as far as there are more outgoing ones than the fan-out.
    ///
    /// To be called for each epoch as soon as its members are known, before it begins.
    ///
    /// # Errors
    ///
    /// [`MembersError`] when the epoch is not newer than the last one, or the set is too large; nothing has changed then.
    pub fn set_members(
        &self,
        epoch: u64,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<Turnover, MembersError> {
        let NewMembers { turnover, access, let_go } =
            self.parts.mesh.set_members(epoch, members)?;
        let is_let_go =
            |peer: &PeerInfo| peer.identity.is_some_and(|identity| let_go.contains(&identity));
        self.context().registry.end_where(is_let_go, DisconnectReason::NotMember);
        self.parts.mesh.publish(access);
        Ok(turnover)
    }

    /// The random bytes of this run, which every network of the node announces to its peers.
    #[must_use]
    pub fn node_random(&self) -> [u8; 10] {
        self.parts.runs.own
    }

    /// The number of the run of a process that announces `text`, for [`LinkClaim::run`]. Equal for equal texts, and
    /// of no meaning outside this process.
    #[must_use]
    pub fn run_of(&self, text: &str) -> u64 {
        self.parts.runs.number(text)
    }

    /// The bounds by which every connection of the node assembles messages.
    #[must_use]
    pub fn assembly(&self) -> AssemblyRules {
        let Context { tags, limits, budget, .. } = self.context();
        AssemblyRules {
            tags: *tags,
            budget: budget.clone(),
            message_time: limits.message_time,
            room_time: limits.inbound_wait,
        }
    }

    /// The features that this node announces to its peers, over every transport.
    #[must_use]
    pub fn features(&self) -> Features {
        self.context().features
    }

    /// The codec of a link to a peer that announced `theirs`: of packed votes, or of proposals that are not compressed;
    /// `None` if messages go to it as they are. While [`Limits::vote_tables_bytes`] are taken, a new link begins with the end
    /// of packing against earlier votes.
    #[must_use]
    pub fn link_codec(&self, theirs: Features) -> Option<LinkCodec> {
        vote_codec::of(self.context(), theirs).or_else(|| plain_codec::of(self.context(), theirs))
    }

    /// Returns the byte budget, which all networks of the node share.
    #[must_use]
    pub fn budget(&self) -> &ByteBudget {
        &self.context().budget
    }

    /// The setting for the messages of others. Default: [`Relaying::Off`].
    #[must_use]
    pub fn relaying(&self) -> Relaying {
        self.parts.relaying
    }

    /// Returns the counters. Clones of them share the figures.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.context().metrics
    }

    /// Handles the messages of a tag from now on, as [`Setup::handler`](crate::Setup::handler) does from the start.
    /// Messages that came before were passed on or counted as unhandled, and are not handled late.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a handler: that one stays.
    pub fn handle(&self, tag: Tag, handler: Arc<dyn Handler>) -> Result<(), HandleError> {
        self.parts.application.add_handler(tag, handler)?;
        self.parts.links.interest.handled();
        Ok(())
    }

    /// Judges the messages of a tag from now on, as [`Setup::validator`](crate::Setup::validator) does from the start.
    /// Messages that wait for a worker by now are judged too; what was passed on before was not.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a validator: that one stays.
    pub fn validate(&self, tag: Tag, validator: Arc<dyn Validator>) -> Result<(), HandleError> {
        self.parts.application.add_validator(tag, validator)?;
        self.parts.links.interest.handled();
        Ok(())
    }

    /// Asks the peers for other messages from now on, by a message of interest to every link; later links are told first of
    /// all. The set replaces the earlier one. Repeating it sends nothing. Messages that peers have queued may still come,
    /// and are handled.
    ///
    /// # Errors
    ///
    /// [`WantError`] for a tag that cannot be asked for, and in a node that relays; nothing has changed then.
    pub fn want(&self, wanted: WantedTags) -> Result<(), WantError> {
        self.parts.links.interest.want(wanted)
    }

    /// Asks the peers for the messages of these tags as well, until the result is dropped; without tags, for every tag of the
    /// network, state proof signatures too. A node that relays asks for everything anyway.
    ///
    /// # Errors
    ///
    /// [`WantError::UnknownTag`] for a tag that the network does not have.
    pub fn ask_for(&self, tags: &[Tag]) -> Result<Asked, WantError> {
        self.parts.links.interest.ask_for(tags)
    }

    /// The gossip that the node asks its peers for, now and from now on: every tag of it in a node that relays. Networks
    /// with topics subscribe to those of these tags.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<Interest> {
        self.parts.links.interest.watch()
    }

    /// Tasks that run: the router, the workers, two or more per peer.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.parts.links.tasks.len()
    }

    /// Returns `true` once the broadcaster was asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.parts.links.tasks.token().is_cancelled()
    }

    /// The first task of the broadcaster that ended unasked, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.parts.links.tasks.fault()
    }

    /// Waits until a task of the broadcaster has panicked, or ended unasked, which only a bug makes it do; for
    /// ever if none does.
    ///
    /// # Cancel safety
    ///
    /// Safe: a fault stays.
    pub async fn faulted(&self) -> Fault {
        self.parts.links.tasks.faulted().await
    }

    /// Subscribes to peer events, from now on. A listener that falls behind by 2,048 events loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.parts.links.events.subscribe()
    }

    /// Every message that is accepted from now on. An observer that falls behind by 4,096 messages
    /// loses the oldest.
    #[must_use]
    pub fn observe(&self) -> broadcast::Receiver<Inbound> {
        self.parts.observers.subscribe()
    }

    /// Asks the node's peers, router and workers to end, and waits for at most `grace`.
    ///
    /// # Cancel safety
    ///
    /// Not safe: dropping the future aborts the tasks that still run.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.parts.links.tasks.stop(grace).await
    }

    /// The name of the next peer to be attached. Names are not reused.
    #[must_use]
    pub fn next_link_id(&self) -> LinkId {
        self.context().registry.next_id()
    }

    /// Attaches a connection: from now on it takes part in every broadcast.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the node is; the connection is dropped.
    pub fn attach<S, R>(&self, id: LinkId, link: Link<S, R>) -> Result<Attached, Stopping>
    where
        S: FrameSink,
        R: FrameSource,
    {
        self.parts.links.attach(id, link)
    }

    /// Claims the identity of a link that is not attached yet. To be called once the identity is
    /// verified, not before.
    pub fn claim(&self, claim: LinkClaim) -> Claim {
        self.parts.links.claim(claim)
    }

    /// Attaches the link of a claim, as [`Broadcaster::attach`] does. If another link to the same node
    /// stays, this one is attached all the same and yields to it: the peer may have sent messages over it.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the node is; the connection is dropped.
    pub fn attach_claimed<S, R>(&self, claim: Claim, link: Link<S, R>) -> Result<Attached, Stopping>
    where
        S: FrameSink,
        R: FrameSource,
    {
        self.parts.links.attach_claimed(claim, link)
    }

    /// Claims the identity of a link that was attached without one, and carries out the ruling.
    pub fn verified(&self, claim: LinkClaim) {
        self.parts.links.verified(claim);
    }

    /// Returns the link that holds an identity, attached or about to be. `None` if no link does.
    #[must_use]
    pub fn holder(&self, identity: &Identity) -> Option<LinkId> {
        self.parts.links.holder(identity)
    }

    /// Returns `true` if two nodes seem to run with one key: links of several sessions contested one identity five times or
    /// more within ten minutes. Only one of the nodes can be connected to this one at a time.
    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.parts.links.is_contested()
    }

    /// Returns the number of identities that some link holds. Meant for tests and metrics: it changes at any time.
    #[must_use]
    pub fn claimed(&self) -> usize {
        self.parts.links.claimed()
    }

    /// Resolves to `true` when the link of a claim is to be attached: at once if it holds its identity or both
    /// ends rank links. Otherwise the holder has to show within five seconds that it is not dead, if the claim is
    /// worth asking for it.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing has happened if the future is dropped.
    pub async fn prevails(&self, claim: &Claim) -> bool {
        self.parts.links.prevails(claim).await
    }

    /// Pings the link that holds an identity, and disconnects it as silent unless it answers within five seconds.
    /// Returns at once; identities without a link are ignored. To be called when the node at the other end has
    /// proved this identity on a further connection: it may have lost the link without this end having noticed.
    pub fn probe(&self, identity: &Identity) {
        self.parts.links.probe(identity);
    }

    /// Starts closing the connection to `peer`. Unknown peers are ignored.
    pub fn disconnect(&self, peer: LinkId, reason: DisconnectReason) {
        self.parts.links.disconnect(peer, reason);
    }

    /// Sets what a peer weighs among the others: the heavier is offered each message first, after those that this node
    /// dialled. Unknown peers are ignored. Every peer weighs nothing at first.
    pub fn weigh(&self, peer: LinkId, weight: u64) {
        self.context().registry.weigh(peer, weight);
    }

    /// Samples the path to a peer. `None` for an unknown peer, and where its transport has no gauge.
    #[must_use]
    pub fn pressure(&self, peer: LinkId) -> Option<PipeSample> {
        self.context().registry.get(peer)?.gauge.as_ref()?.sample()
    }

    /// Returns the attached peers of a class, in the order in which they were attached.
    #[must_use]
    pub fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        self.context().registry.infos(class)
    }

    /// The traffic of every attached link so far, in the order in which they were attached.
    #[must_use]
    pub fn traffic(&self) -> Vec<LinkTraffic> {
        self.context().registry.list().iter().map(|peer| peer.traffic()).collect()
    }

    /// The ways of messages through this node that are kept.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.context().tracer
    }

    /// The links that lost against another one of their node, and are still read.
    #[must_use]
    pub fn benched(&self) -> Vec<PeerInfo> {
        self.context().registry.benched_infos()
    }

    /// Returns the attached link to the node with this identity; `None` while there is none.
    #[must_use]
    pub fn peer_of(&self, identity: &Identity) -> Option<LinkId> {
        self.context().registry.by_identity(identity).map(|peer| peer.id)
    }

    /// Offers a message of this node's own for delivery.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] when the message can never be sent.
    pub fn broadcast(&self, message: &Outbound) -> Result<Admission, SubmitError> {
        self.submit(message, Origin::Own, None)
    }

    /// Offers somebody else's message for delivery, if this node relays.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] when this node relays and the message can never be sent.
    pub fn relay(&self, message: &Outbound) -> Result<Admission, SubmitError> {
        match self.parts.relaying {
            Relaying::Off => Ok(Admission::Queued),
            Relaying::Accepted | Relaying::OnRequest => {
                self.submit(message, Origin::Forwarded, None)
            }
        }
    }

    /// Offers a message and resolves when every write loop has written it or given it up.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`] when the message was not queued at all, or the node stopped meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The message is on its way when this method returns; dropping the future stops the waiting.
    pub fn broadcast_and_wait(
        &self,
        message: &Outbound,
    ) -> impl Future<Output = Result<Delivery, DeliveryError>> + Send + use<> {
        let (receipts, done) = Receipts::new();
        let admission = self.submit(message, Origin::Own, Some(receipts));
        async move {
            match admission? {
                Admission::Queued => done.await.map_err(|_stopped| DeliveryError::Closed),
                Admission::Full => Err(DeliveryError::Full),
                Admission::Closed => Err(DeliveryError::Closed),
            }
        }
    }

    fn submit(
        &self,
        message: &Outbound,
        origin: Origin,
        receipts: Option<Receipts>,
    ) -> Result<Admission, SubmitError> {
        if self.is_stopping() {
            return Ok(Admission::Closed);
        }
        self.parts.submitter.submit(message, origin, receipts)
    }

    /// Asks one peer and resolves with its answer.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the request; a late answer is dropped.
    pub async fn request(&self, id: LinkId, request: Request) -> Result<Response, RequestError> {
        let peer = self.context().registry.get(id);
        let peer = peer.ok_or(RequestError::NotConnected { peer: id })?;
        self.parts.submitter.request(&peer, request).await
    }

    /// Makes a topic take part in the broadcasts of a tag, in place of the streams of its transport.
    pub fn attach_topic(&self, tag: Tag, transport: Transport, sink: Arc<dyn TopicSink>) {
        self.parts.sinks.attach(tag, transport, sink);
    }

    /// Removes the topic of a tag: messages of the tag take the streams of its transport from now on.
    pub fn detach_topic(&self, tag: Tag) {
        self.parts.sinks.detach(tag);
    }

    /// Takes a message that was heard on a topic. Never waits; the verdict goes back by its `report`,
    /// also that on another copy of the message which is being judged.
    pub fn hear(&self, message: TopicMessage) {
        self.parts.topics.hear(message);
    }
}
