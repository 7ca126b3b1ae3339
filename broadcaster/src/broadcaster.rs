//! The handle of a broadcaster: one per node, lent to every network of the node.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use gossip::{
    Admission, Delivery, DeliveryError, DisconnectReason, Handler, Identity, Inbound, Lane, LinkId,
    NetworkProfile, Outbound, PeerClass, PeerInfo, Recipients, Request, RequestError, Response,
    SubmitError, Tag, Transport, Validator,
};
use rand::Rng;
use runtime::{Environment, Fault, Opening, Shutdown, TaskSet};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    application::{Application, HandleError},
    assembler::AssemblyRules,
    budget::ByteBudget,
    codec::{LinkCodec, PipeSample},
    contests::Contests,
    duplicates::Duplicates,
    encode,
    frame::{Frame, Origin},
    inbound::{
        topics::{self, Forwarders},
        unpack::Unpacker,
        work::{Shares, WorkQueues},
    },
    lanes::{Lanes, Queued, Serves},
    limits::Limits,
    link::{Attached, FrameSink, FrameSource, LaneSinks, Link, Stopping},
    metrics::{DropReason, Metrics},
    peer::{Peer, PeerParts},
    pulse::{self, Moment, Pulse},
    reader::Reader,
    receipts::Receipts,
    registry::Registry,
    router::{Job, Router, Target, ToTopic},
    shared::{PeerEvent, Relaying, Shared},
    topic::{TopicMessage, TopicSink},
    workers,
    writer::Writer,
};

/// Peer events that a slow listener may fall behind by. Chosen: a reconnecting network of 1,000 peers.
const EVENT_DEPTH: usize = 2_048;
/// Messages that a slow observer may fall behind by.
const OBSERVER_DEPTH: usize = 4_096;
/// What part of the byte budget, on top of it, observers that do not keep up may hold. Chosen: several
/// of the largest messages by default, and little beside the rest.
const OBSERVERS_SHARE: usize = 8;

/// What a broadcaster is made of. What has no sensible default is an argument of [`Setup::new`].
#[must_use = "nothing runs until `Broadcaster::start`"]
pub struct Setup {
    profile: &'static NetworkProfile,
    limits: Limits,
    relaying: Relaying,
    application: Application,
    metrics: Metrics,
    environment: Environment,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { profile, limits, relaying, .. } = self;
        f.debug_struct("Setup")
            .field("profile", &profile.name)
            .field("limits", limits)
            .field("relaying", relaying)
            .finish_non_exhaustive()
    }
}

impl Setup {
    /// A broadcaster for a network, with default limits, that passes nothing on and handles nothing.
    pub fn new(profile: &'static NetworkProfile) -> Self {
        Self {
            profile,
            limits: Limits::default(),
            relaying: Relaying::Off,
            application: Application::new(profile.tags),
            metrics: Metrics::default(),
            environment: Environment::default(),
        }
    }

    /// Sets every bound and deadline.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits: limits.bounded(), ..self }
    }

    /// Sets what is done with the messages of others. Default: [`Relaying::Off`].
    pub fn relaying(self, relaying: Relaying) -> Self {
        Self { relaying, ..self }
    }

    /// Installs the handler of a tag, in place of an earlier one.
    pub fn handler(mut self, tag: Tag, handler: Arc<dyn Handler>) -> Self {
        self.application.replace_handler(tag, handler);
        self
    }

    /// Installs the validator of a tag, in place of an earlier one.
    pub fn validator(mut self, tag: Tag, validator: Arc<dyn Validator>) -> Self {
        self.application.replace_validator(tag, validator);
        self
    }

    /// Counts into `metrics`.
    pub fn metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Takes clock, random numbers, names and sockets from `environment`, and so does every network that
    /// the broadcaster is lent to. Default: [`Environment::system`].
    pub fn environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }
}

/// What is to be done when the last loop of a peer has ended, also when the node stops before they run.
struct OnPeerEnd {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    ended: Option<oneshot::Sender<DisconnectReason>>,
}

impl Drop for OnPeerEnd {
    fn drop(&mut self) {
        let Self { shared, peer, ended } = self;
        let reason = peer.end_reason();
        shared.registry.remove(peer.id);
        shared.registry.hand_over_unsent(peer, peer.take_unsent());
        shared.metrics.disconnected(peer.transport, reason);
        shared.emit(PeerEvent::Disconnected(peer.info(), reason));
        if let Some(ended) = ended.take() {
            // The transport may have stopped listening.
            let _ = ended.send(reason);
        }
    }
}

/// How messages flow in a node, whatever carries them. A cheap handle.
#[derive(Clone)]
pub struct Broadcaster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: TaskSet,
}

impl std::fmt::Debug for Broadcaster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broadcaster").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Broadcaster {
    /// Starts the router and the workers. They end with `parent`, or by [`Broadcaster::stop`].
    #[must_use]
    pub fn start(setup: Setup, parent: &CancellationToken) -> Self {
        let Setup { profile, limits, relaying, application, metrics, environment } = setup;
        let tasks = TaskSet::new(parent);
        let registry = Arc::new(Registry::new(limits.parking_time, profile, metrics.clone()));
        let topics = Arc::new(RwLock::new(HashMap::new()));
        let depths = [limits.intake_priority.get(), limits.intake_bulk.get()];
        let (router, intake) = Router::new(
            depths,
            Arc::clone(&registry),
            Arc::clone(&topics),
            profile.tags,
            metrics.clone(),
        );
        let shared = Arc::new(Shared {
            profile,
            relaying,
            application,
            budget: ByteBudget::new(limits.budget_bytes),
            observed: ByteBudget::new(limits.budget_bytes / OBSERVERS_SHARE),
            registry,
            contests: Contests::default(),
            duplicates: Arc::new(Duplicates::new(&limits, environment.random().random())),
            unpacker: Unpacker::new(limits.unpacked_at_once.get()),
            forwarders: Forwarders::default(),
            work: WorkQueues::new(&limits),
            intake,
            routed: router.ended(),
            topics,
            pulse: Pulse::new(Moment::now()),
            metrics,
            events: broadcast::Sender::new(EVENT_DEPTH),
            observers: broadcast::Sender::new(OBSERVER_DEPTH),
            limits: Arc::new(limits),
            environment,
        });
        tasks.spawn_lasting("router", |cancel| router.run(cancel));
        workers::spawn(&shared, &tasks);
        let pulse = Arc::clone(&shared);
        tasks.spawn_lasting("pulse", |cancel| pulse::run(pulse, cancel));
        let registry = Arc::clone(&shared.registry);
        tasks.spawn_lasting("sweep", |cancel| registry.sweep(cancel));
        Self { shared, tasks }
    }

    /// The names and numbers of the network.
    #[must_use]
    pub fn profile(&self) -> &'static NetworkProfile {
        self.shared.profile
    }

    /// Every bound and deadline.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Where the node gets its clock, random numbers, names and sockets from. Networks take theirs here.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.shared.environment
    }

    /// What every connection of the node goes by when it assembles messages.
    #[must_use]
    pub fn assembly(&self) -> AssemblyRules {
        let Shared { profile, limits, budget, .. } = &*self.shared;
        AssemblyRules {
            tags: profile.tags,
            budget: budget.clone(),
            message_time: limits.message_time,
            room_time: limits.inbound_wait,
        }
    }

    /// The byte budget of the node.
    #[must_use]
    pub fn budget(&self) -> &ByteBudget {
        &self.shared.budget
    }

    /// What is done with the messages of others.
    #[must_use]
    pub fn relaying(&self) -> Relaying {
        self.shared.relaying
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Handles the messages of a tag from now on, as [`Setup::handler`] does from the start. Messages that
    /// came before were passed on or counted as unhandled, and are not handled late.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a handler: that one stays.
    pub fn handle(&self, tag: Tag, handler: Arc<dyn Handler>) -> Result<(), HandleError> {
        self.shared.application.add_handler(tag, handler)
    }

    /// Judges the messages of a tag from now on, as [`Setup::validator`] does from the start. Messages that
    /// wait for a worker by now are judged too; what was passed on before was not.
    ///
    /// # Errors
    ///
    /// [`HandleError`] when the tag is unknown, or has a validator: that one stays.
    pub fn validate(&self, tag: Tag, validator: Arc<dyn Validator>) -> Result<(), HandleError> {
        self.shared.application.add_validator(tag, validator)
    }

    /// Tasks that run: the router, the workers, two or more per peer.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it was asked to stop, or has stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.tasks.token().is_cancelled()
    }

    /// The first task of the broadcaster that ended unasked, if one did.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.tasks.fault()
    }

    /// Waits until a task of the broadcaster has panicked, or ended unasked, which only a bug makes it do; for
    /// ever if none does.
    ///
    /// # Cancel safety
    ///
    /// Safe: a fault stays.
    pub async fn faulted(&self) -> Fault {
        self.tasks.faulted().await
    }

    /// What happens to peers from now on. A listener that falls behind by 2,048 events loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.shared.events.subscribe()
    }

    /// Every message that is accepted from now on. An observer that falls behind by 4,096 messages
    /// loses the oldest.
    #[must_use]
    pub fn observe(&self) -> broadcast::Receiver<Inbound> {
        self.shared.observers.subscribe()
    }

    /// Asks the node's peers, router and workers to end, and waits for at most `grace`.
    pub async fn stop(&self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }

    /// The name of the next peer to be attached. Names are not reused.
    #[must_use]
    pub fn next_link_id(&self) -> LinkId {
        self.shared.registry.next_id()
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
        let Link { about, sinks, sources, greeting, hooks, codec, gauge } = link;
        let shared = &self.shared;
        // Whoever sees the peer may send to it and stop the node at once: its loops run by then.
        let Some(opening) = self.tasks.open() else { return Err(Stopping) };
        let sinks = match sinks {
            LaneSinks::Shared(sink) => vec![(Serves::Both, sink)],
            LaneSinks::PerLane { priority, bulk } => {
                vec![(Serves::Only(Lane::Priority), priority), (Serves::Only(Lane::Bulk), bulk)]
            }
        };
        let lanes = if sinks.len() > 1 {
            Lanes::per_lane(&shared.limits)
        } else {
            Lanes::shared(&shared.limits)
        };
        for (tag, payload) in greeting {
            let lane = shared.profile.tags.rule(tag).map_or(Lane::Priority, |rule| rule.lane);
            lanes.greet(Frame::control(tag, lane, &payload));
        }
        let (ended_sender, ended) = oneshot::channel();
        let peer = shared.registry.insert(|joined| {
            Peer::new(PeerParts {
                id,
                about,
                joined,
                lanes,
                cancel: self.tasks.token().child_token(),
                hooks,
                gauge,
                interest: shared.profile.tags.default_interest(),
            })
        });
        if let Some(identity) = peer.identity() {
            // After the insertion: whoever parks from now on finds the peer.
            shared.registry.give(&peer, shared.registry.unpark(&identity));
        }
        shared.metrics.connected(peer.transport);
        shared.emit(PeerEvent::Connected(peer.info()));
        self.run_peer(&opening, peer, (sinks, sources, codec), ended_sender);
        Ok(Attached { peer: id, ended })
    }

    /// Starts the loops of a peer. The last of them to end hands over what was not written.
    fn run_peer<S: FrameSink, R: FrameSource>(
        &self,
        tasks: &Opening<'_>,
        peer: Arc<Peer>,
        (sinks, sources, codec): (Vec<(Serves, S)>, Vec<R>, Option<LinkCodec>),
        ended: oneshot::Sender<DisconnectReason>,
    ) {
        let shared = &self.shared;
        // Every loop holds a sender; the channel closes when the last one is gone.
        let (running, mut all_ended) = mpsc::channel::<()>(1);
        // Every read loop holds the guard; the token is cancelled when the last one is gone.
        let read_out = CancellationToken::new();
        let reading = Arc::new(read_out.clone().drop_guard());
        let (mut encoder, mut decoder) = codec.map(|codec| (codec.encoder, codec.decoder)).unzip();
        for (serves, sink) in sinks {
            let writer = Writer {
                peer: Arc::clone(&peer),
                sink,
                serves,
                shared: Arc::clone(shared),
                traffic: shared.metrics.sending(peer.transport),
                batch: Vec::new(),
                // The priority lane's comes first.
                encoder: encoder.take(),
                encoded: Vec::new(),
                read_out: read_out.clone(),
            };
            let running = running.clone();
            tasks.spawn("writer", |_cancel| async move {
                writer.run().await;
                drop(running);
            });
        }
        let shares = Arc::new(Shares::of_peer(&shared.work, &shared.intake, &shared.limits));
        for source in sources {
            let (shared, peer) = (Arc::clone(shared), Arc::clone(&peer));
            let reader =
                Reader::new(peer, source, shared, Arc::clone(&shares)).decoding(decoder.take());
            let held = (running.clone(), Arc::clone(&reading));
            tasks.spawn("reader", |_cancel| async move {
                reader.run().await;
                drop(held);
            });
        }
        drop(running);
        let farewell = OnPeerEnd { shared: Arc::clone(shared), peer, ended: Some(ended) };
        tasks.spawn("peer", |_cancel| async move {
            // Nothing is ever sent: `None` says that every loop has ended.
            let _ = all_ended.recv().await;
            drop(farewell);
        });
    }

    /// Notes the identity of an attached peer, once it is verified.
    pub(crate) fn identify(&self, peer: LinkId, identity: Identity) {
        self.shared.registry.identify(peer, identity);
        if let Some(peer) = self.shared.registry.get(peer) {
            self.shared.registry.give(&peer, self.shared.registry.unpark(&identity));
            self.shared.emit(PeerEvent::Identified(peer.info()));
        }
    }

    /// Starts closing the connection to `peer`. Unknown peers are ignored.
    pub fn disconnect(&self, peer: LinkId, reason: DisconnectReason) {
        if let Some(peer) = self.shared.registry.get(peer) {
            self.shared.end(&peer, reason);
        }
    }

    /// What the path to a peer is like; `None` for an unknown peer, and where its transport cannot tell.
    #[must_use]
    pub fn pressure(&self, peer: LinkId) -> Option<PipeSample> {
        self.shared.registry.get(peer)?.gauge.as_ref()?.sample()
    }

    /// The peers of a class.
    #[must_use]
    pub fn peers(&self, class: PeerClass) -> Vec<PeerInfo> {
        self.shared.registry.infos(class)
    }

    /// The attached peer with this identity.
    #[must_use]
    pub fn peer_of(&self, identity: &Identity) -> Option<LinkId> {
        self.shared.registry.by_identity(identity).map(|peer| peer.id)
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
        match self.shared.relaying {
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
        let shared = &self.shared;
        if self.tasks.token().is_cancelled() {
            return Ok(Admission::Closed);
        }
        let rule = encode::gossip_rule(&shared.profile.tags, message.tag)
            .inspect_err(|_| shared.metrics.dropped(DropReason::UnknownTag, Lane::Bulk))?;
        let frame = encode::encode(rule, &message.body, origin, &shared.budget)
            .inspect_err(|_| shared.metrics.dropped(DropReason::Oversized, rule.lane))?;
        let Some(frame) = frame else {
            shared.metrics.dropped(DropReason::BudgetFull, rule.lane);
            return Ok(Admission::Full);
        };
        let (target, topic) = match message.to {
            Recipients::All => (Target::All, ToTopic::Publish),
            Recipients::AllExcept(peer) => (Target::AllExcept(peer), ToTopic::Publish),
            Recipients::One(peer) => (Target::One(peer), ToTopic::Skip),
        };
        let is_for_everybody = !matches!(target, Target::One(_));
        let fingerprint =
            is_for_everybody.then(|| shared.duplicates.fingerprint(message.tag, &message.body));
        let make = || {
            if let Some(fingerprint) = fingerprint {
                // Heard back, it is a duplicate.
                let generation = shared.registry.generation();
                shared.duplicates.passed(rule.lane, fingerprint, Instant::now(), generation);
            }
            Job { frame, target, topic, receipts }
        };
        Ok(shared.intake.offer(rule.lane, make, &shared.metrics))
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
        let shared = &self.shared;
        let peer = shared.registry.get(id).ok_or(RequestError::NotConnected { peer: id })?;
        let full = RequestError::Full { peer: id };
        let (payload, key, answer) =
            peer.requests().open(&request.topics, shared.limits.requests_per_peer).ok_or(full)?;
        let max = shared.profile.tags.rule(Tag::UE).map_or(0, |rule| rule.max_payload);
        if payload.len() > max {
            peer.requests().withdraw(key);
            return Err(RequestError::TooLarge { bytes: payload.len(), max });
        }
        let frame = shared.direct(Tag::UE, &payload);
        let queued = frame.map(|frame| peer.lanes.offer(Queued { frame, receipt: None }));
        if queued != Some(Admission::Queued) {
            peer.requests().withdraw(key);
            return Err(full);
        }
        tokio::select! {
            biased;
            answer = time::timeout(shared.limits.request_timeout, answer) => match answer {
                Ok(Ok(topics)) => Ok(Response { topics }),
                Ok(Err(_)) => Err(RequestError::NotConnected { peer: id }),
                Err(_elapsed) => Err(RequestError::TimedOut { peer: id }),
            },
            () = peer.cancel.cancelled() => Err(RequestError::NotConnected { peer: id }),
        }
    }

    /// Makes a topic take part in the broadcasts of a tag, in place of the streams of its transport.
    pub fn attach_topic(&self, tag: Tag, transport: Transport, sink: Arc<dyn TopicSink>) {
        let mut topics = self.shared.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(tag, (transport, sink));
    }

    /// Takes a topic out again.
    pub fn detach_topic(&self, tag: Tag) {
        self.shared.topics.write().unwrap_or_else(PoisonError::into_inner).remove(&tag);
    }

    /// Takes a message that was heard on a topic. Never waits; the verdict goes back by its `report`,
    /// also that on another copy of the message which is being judged.
    pub fn hear(&self, message: TopicMessage) {
        topics::hear(&self.shared, &self.tasks, message);
    }
}
