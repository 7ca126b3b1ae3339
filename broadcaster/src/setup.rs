//! The parts that a broadcaster is made of, and their start.

use std::{collections::BTreeMap, sync::Arc};

use gossip::{
    Durations, Handler, NetworkProfile, Tag, Validator,
    wire::{
        features::{Features, VoteCompression},
        vote::{MarkKey, VotePackers},
    },
};
use mesh::{MeshLimits, Ranking};
use rand::Rng;
use runtime::{
    Environment, TaskSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    application::Application,
    broadcaster::{Broadcaster, Parts},
    budget::ByteBudget,
    context::Context,
    duplicates::Duplicates,
    events::Events,
    inbound::{WayIn, WayInParts, topics::Topics},
    intake::Intake,
    interest::{OwnInterest, WantedTags},
    limits::Limits,
    links::Links,
    mesh_handle::Mesh,
    mesh_loop::MeshLoop,
    mesh_upkeep::Upkeep,
    metrics::Metrics,
    observers::Observers,
    passing::HeldBack,
    performance::Performance,
    pulse::{self, Moment, Pulse},
    registry::Registry,
    relay::Relaying,
    router::Router,
    runs::Runs,
    submit::Submitter,
    topic_sinks::TopicSinks,
    trace::Tracer,
    workers,
    writer::Writing,
};

/// The configuration of a broadcaster. Settings without a sensible default are arguments of [`Setup::new`].
#[must_use = "nothing runs until `Broadcaster::start`"]
pub struct Setup {
    profile: &'static NetworkProfile,
    limits: Limits,
    relaying: Relaying,
    votes: VoteCompression,
    wanted: WantedTags,
    application: Application,
    metrics: Metrics,
    mesh: MeshLimits,
    traced_one_in: u64,
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
            votes: profile.votes,
            wanted: WantedTags::default(),
            application: Application::new(profile.tags),
            metrics: Metrics::default(),
            mesh: MeshLimits::default(),
            traced_one_in: 0,
            environment: Environment::default(),
        }
    }

    /// Sets every bound and deadline. Durations are brought between a millisecond and a year. Default:
    /// [`Limits::default`].
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits: limits.bounded(), ..self }
    }

    /// Sets by which values the node is kept connected, over all its networks. Durations are brought between a
    /// millisecond and a year. Default: [`MeshLimits::default`].
    pub fn mesh(self, mesh: MeshLimits) -> Self {
        Self { mesh: mesh.bounded(), ..self }
    }

    /// Sets what is done with the messages of others. Default: [`Relaying::Off`].
    pub fn relaying(self, relaying: Relaying) -> Self {
        Self { relaying, ..self }
    }

    /// Sets how votes are packed on links to peers that can read them so. Default: as the profile says. A network
    /// without the tag [`Tag::AV`] has no votes to pack.
    pub fn votes(self, votes: VoteCompression) -> Self {
        Self { votes, ..self }
    }

    /// Sets which messages of others the node asks its peers for, if it does not relay; a node that relays asks for
    /// everything. Tags that cannot be asked for are left out, see [`WantedTags::check`]. Default: [`WantedTags::Usual`].
    pub fn wanted(self, wanted: WantedTags) -> Self {
        Self { wanted, ..self }
    }

    /// Installs the handler of a tag, in place of an earlier one. A tag that the network does not have is ignored.
    pub fn handler(mut self, tag: Tag, handler: Arc<dyn Handler>) -> Self {
        self.application.replace_handler(tag, handler);
        self
    }

    /// Installs the validator of a tag, in place of an earlier one. Without one, every message of the tag is
    /// accepted.
    pub fn validator(mut self, tag: Tag, validator: Arc<dyn Validator>) -> Self {
        self.application.replace_validator(tag, validator);
        self
    }

    /// Counts into `metrics`. Default: counters of its own.
    pub fn metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Keeps the way of one message in so many, see [`Tracer`]; of none for zero. Nodes with the same number keep
    /// that of the same messages. Default: zero.
    pub fn traced_one_in(self, traced_one_in: u64) -> Self {
        Self { traced_one_in, ..self }
    }

    /// Takes clock, random numbers, names and sockets from `environment`, and so does every network that
    /// the broadcaster is lent to. Default: [`Environment::system`].
    pub fn environment(self, environment: Environment) -> Self {
        Self { environment, ..self }
    }
}

impl Broadcaster {
    /// Starts the router and the workers. They end with `parent`, or by [`Broadcaster::stop`].
    #[must_use]
    pub fn start(setup: Setup, parent: &CancellationToken) -> Self {
        let Setup {
            profile,
            limits,
            relaying,
            votes,
            wanted,
            application,
            metrics,
            mesh,
            traced_one_in,
            environment,
        } = setup;
        let (tasks, now) = (TaskSet::new(parent), time::into_std(Instant::now()));
        metrics.show_tags(&profile.tags);
        let context = Arc::new(Context {
            registry: Arc::new(Registry::new(limits.parking_time, profile, metrics.clone())),
            tags: profile.tags,
            proposals: profile.proposals,
            budget: ByteBudget::new(limits.budget_bytes),
            vote_tables: ByteBudget::new(limits.vote_tables_bytes),
            mark_key: Arc::new(MarkKey::new(environment.random().random())),
            vote_packers: VotePackers::default(),
            limits,
            features: announced(profile, votes),
            tracer: Tracer::new(traced_one_in, &environment, &metrics),
            metrics,
            held_back: HeldBack::default(),
            performance: Performance::new(Ranking::new(mesh.performance_window, now)),
        });
        let Context { limits, registry, metrics, .. } = &*context;
        let (application, observers) =
            (Arc::new(application), Arc::new(Observers::new(limits.budget_bytes)));
        let handled = Arc::clone(&application);
        let interest = OwnInterest::new(wanted, relaying, handled, Arc::clone(registry));
        let duplicates = Arc::new(Duplicates::new(limits, environment.random().random()));
        let intake = Intake::new([limits.intake_priority.get(), limits.intake_bulk.get()]);
        let sinks = Arc::new(TopicSinks::default());
        let router = Router::new(intake.clone(), Arc::clone(&context), Arc::clone(&sinks));
        let pulse = Arc::new(Pulse::new(Moment::now()));
        let writing = Arc::new(Writing {
            context: Arc::clone(&context),
            pulse: Arc::clone(&pulse),
            routed: router.ended(),
        });
        let way_in = Arc::new(WayIn::new(WayInParts {
            context: Arc::clone(&context),
            application: Arc::clone(&application),
            relaying,
            duplicates: Arc::clone(&duplicates),
            observers: Arc::clone(&observers),
            intake: intake.clone(),
        }));
        tasks.spawn_lasting("router", |cancel| router.run(cancel));
        workers::spawn(&way_in, &tasks);
        let beaten = metrics.clone();
        tasks.spawn_lasting("pulse", |cancel| pulse::run(pulse, beaten, cancel));
        let swept = Arc::clone(registry);
        tasks.spawn_lasting("sweep", |cancel| swept.sweep(cancel));
        let (mesh, events) = start_mesh(mesh, relaying, &environment, &context, &tasks);
        Self::of(Parts {
            runs: Runs::new(&environment),
            environment,
            mesh,
            relaying,
            application,
            observers,
            sinks,
            submitter: Submitter::new(Arc::clone(&context), duplicates, intake),
            topics: Topics::new(Arc::clone(&way_in), tasks.clone()),
            links: Links {
                profile,
                context,
                events,
                contests: Arc::default(),
                way_in,
                writing,
                interest: Arc::new(interest),
                tasks,
            },
        })
    }
}

/// The features that a node tells its peers: no form of packed votes where there are no votes.
fn announced(profile: &NetworkProfile, votes: VoteCompression) -> Features {
    match profile.tags.rule(Tag::AV) {
        Some(_) => Features::announcing(votes),
        None => Features::announcing(VoteCompression::Off),
    }
}

/// Starts the loop that keeps the node connected.
fn start_mesh(
    limits: MeshLimits,
    relaying: Relaying,
    environment: &Environment,
    context: &Arc<Context>,
    tasks: &TaskSet,
) -> (Mesh, Events) {
    let shares = if relaying == Relaying::Off { 1 } else { 2 };
    let slots = limits.throttled.unwrap_or(limits.fan_out / shares);
    let (events, mesh) = (Events::new(), Mesh::new(limits, environment));
    let mesh_loop = MeshLoop {
        mesh: mesh.clone(),
        context: Arc::clone(context),
        events: events.subscribe(),
        tasks: tasks.clone(),
        known: BTreeMap::new(),
        links_of: BTreeMap::new(),
        upkeep: Upkeep::new(mesh.clone(), Arc::clone(context), slots),
    };
    tasks.spawn_lasting("mesh", |cancel| mesh_loop.run(cancel));
    (mesh, events)
}
