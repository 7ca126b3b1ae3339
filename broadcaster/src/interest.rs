//! The interest of this node: the tags that it asks its peers for, by messages of interest (MI).
//!
//! ```text
//!   application (WantedTags) ──┐
//!   those who ask (Asked) ─┼─▶ OwnInterest ──MI──▶ every link
//!   handlers, validators ──┘        └────watch───▶ topics of libp2p
//! ```
//!
//! # Invariants
//!
//! * A link is taken in, and a change is told, under one lock: no link misses a change, and none hears two of them in
//!   another order than others.
//! * A set replaces the earlier one, and always has the tags of the protocol itself, or answers and the identity
//!   exchange would stop. Source: wire facts 3.2.
//! * A node that relays asks for everything, always. It says so first on each link over WebSocket, and nothing over
//!   libp2p, as existing relays do. Source: wire facts 3.3 and 3.5.
//! * A node that does not relay says nothing until it wants something else than peers send unasked, or is told to say so.
//!   From then on every link hears of it, over every transport.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gossip::{
    Interest, MAX_TAGS, Tag, TagTable, Transport,
    wire::{features::Features, interest as wire},
};
use tokio::sync::watch;

use crate::{application::Application, peer::Peer, registry::Registry, relay::Relaying};

/// The messages of others that a node which does not relay asks its peers for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WantedTags {
    /// Those that peers send unasked: everything but state proof signatures, as
    /// [`TagTable::default_interest`] has it.
    #[default]
    Usual,
    /// The usual ones without these tags.
    UsualBut(Vec<Tag>),
    /// Those with a handler or a validator, also one that is added later.
    Handled,
    /// These tags and no others.
    Only(Vec<Tag>),
}

/// The reason why the node does not ask for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WantError {
    /// The network has no such tag.
    #[error("{tag} is not a tag of this network")]
    UnknownTag {
        /// The tag as given.
        tag: Tag,
    },
    /// The protocol itself needs the messages of this tag, which are always asked for.
    #[error("{tag} belongs to the protocol, which always needs it")]
    OfProtocol {
        /// The tag as given.
        tag: Tag,
    },
    /// The node relays, and its peers get from it what it hears itself.
    #[error("a node that relays asks for everything, so that it can pass everything on")]
    Relays,
}

impl WantedTags {
    /// Checks the tags against those of a network.
    ///
    /// # Errors
    ///
    /// [`WantError`] for the first tag that cannot be asked for.
    pub fn check(&self, table: &TagTable) -> Result<(), WantError> {
        match self {
            Self::Usual | Self::Handled => Ok(()),
            Self::UsualBut(tags) | Self::Only(tags) => set_of(tags, table).map(drop),
        }
    }
}

/// The set of these tags.
fn set_of(tags: &[Tag], table: &TagTable) -> Result<Interest, WantError> {
    let mut set = Interest::NONE;
    for &tag in tags {
        table.rule(tag).ok_or(WantError::UnknownTag { tag })?;
        if !table.gossip().contains(table, tag) {
            return Err(WantError::OfProtocol { tag });
        }
        set = set.with(table, tag);
    }
    Ok(set)
}

/// Makes the node ask for some tags, beside what it wants anyway, until this is dropped. See
/// [`Broadcaster::ask_for`](crate::Broadcaster::ask_for).
#[must_use = "the node asks for the tags until this is dropped"]
pub struct Asked {
    interest: Arc<OwnInterest>,
    tags: Interest,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags: Vec<Tag> = self.tags.tags(&self.interest.table).collect();
        f.debug_tuple("Asked").field(&tags).finish()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.interest.count(self.tags, |count| count.saturating_sub(1));
    }
}

/// The interest of this node. Shared by the handle of the broadcaster and the owner of its links.
pub(crate) struct OwnInterest {
    table: TagTable,
    relaying: Relaying,
    application: Arc<Application>,
    registry: Arc<Registry>,
    state: Mutex<State>,
    /// The gossip that the node wants now, for those who subscribe to topics.
    wanted: watch::Sender<Interest>,
}

struct State {
    wanted: WantedTags,
    /// Number of those who ask for each tag, in the order of the table.
    asked: [usize; MAX_TAGS],
    /// The messages that tell of the interest; `None` while nothing is said.
    said: Option<Said>,
}

/// The interest as links are told of it.
struct Said {
    interest: Interest,
    /// The payload for peers that know votes packed against earlier ones.
    with_packed_votes: Bytes,
    /// The payload for other peers: older nodes disconnect on a tag that they do not know. Source: wire facts 3.4.
    without: Bytes,
}

impl Said {
    fn of(interest: Interest, table: &TagTable) -> Self {
        let without = interest.without(table, Tag::VP);
        Self {
            interest,
            with_packed_votes: wire::encode(without.with(table, Tag::VP), table),
            without: wire::encode(without, table),
        }
    }

    fn to(&self, theirs: Features) -> &Bytes {
        if theirs.stateful_votes().is_some() { &self.with_packed_votes } else { &self.without }
    }
}

impl OwnInterest {
    pub(crate) fn new(
        wanted: WantedTags,
        relaying: Relaying,
        application: Arc<Application>,
        registry: Arc<Registry>,
    ) -> Self {
        let table = *application.tags();
        let (state, sender) = (
            State { wanted, asked: [0; MAX_TAGS], said: None },
            watch::Sender::new(table.gossip()),
        );
        let interest = Self {
            table,
            relaying,
            application,
            registry,
            state: Mutex::new(state),
            wanted: sender,
        };
        let mut state = interest.lock();
        if interest.relays() {
            let everything = interest.table.relay_interest();
            state.said = Some(Said::of(everything, &interest.table));
        } else {
            interest.settle(&mut state, Speaks::IfNeeded);
        }
        drop(state);
        interest
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two lines that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relays(&self) -> bool {
        self.relaying != Relaying::Off
    }

    /// The gossip that the node wants, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Interest> {
        self.wanted.subscribe()
    }

    /// Wants something else from now on, and tells every link, even if it is what peers send unasked.
    pub(crate) fn want(&self, wanted: WantedTags) -> Result<(), WantError> {
        if self.relays() {
            return Err(WantError::Relays);
        }
        wanted.check(&self.table)?;
        let mut state = self.lock();
        state.wanted = wanted;
        self.settle(&mut state, Speaks::Always);
        Ok(())
    }

    /// Asks for these tags too until the result is dropped. Without any, for every tag of the network.
    pub(crate) fn ask_for(self: &Arc<Self>, tags: &[Tag]) -> Result<Asked, WantError> {
        let table = &self.table;
        if let Some(&tag) = tags.iter().find(|tag| table.rule(**tag).is_none()) {
            return Err(WantError::UnknownTag { tag });
        }
        let all = table.gossip();
        let tags = match tags {
            [] => all,
            // Those of the protocol are asked for anyway.
            tags => tags.iter().fold(Interest::NONE, |set, tag| set.with(table, *tag)).and(all),
        };
        self.count(tags, |count| count.saturating_add(1));
        Ok(Asked { interest: Arc::clone(self), tags })
    }

    /// Looks again at the tags that have a handler or a validator.
    pub(crate) fn handled(&self) {
        self.settle(&mut self.lock(), Speaks::IfNeeded);
    }

    fn count(&self, tags: Interest, change: impl Fn(usize) -> usize) {
        let mut state = self.lock();
        for (count, rule) in state.asked.iter_mut().zip(self.table.rules()) {
            if tags.contains(&self.table, rule.tag) {
                *count = change(*count);
            }
        }
        self.settle(&mut state, Speaks::IfNeeded);
    }

    /// The gossip that the node wants by this state.
    fn gossip(&self, state: &State) -> Interest {
        let (table, usual) = (&self.table, self.table.default_interest());
        let set = |tags: &[Tag]| tags.iter().fold(Interest::NONE, |set, tag| set.with(table, *tag));
        let own = match &state.wanted {
            WantedTags::Usual => usual,
            WantedTags::UsualBut(tags) => usual.but(set(tags)),
            WantedTags::Handled => self.application.awaited(),
            WantedTags::Only(tags) => set(tags),
        };
        let asked = state.asked.iter().zip(table.rules()).filter(|(count, _)| **count > 0);
        let all = asked.fold(own, |set, (_, rule)| set.with(table, rule.tag));
        // Those of the protocol may have handlers too.
        all.and(table.gossip())
    }

    /// Tells the links if the interest is another one than they know.
    fn settle(&self, state: &mut State, speaks: Speaks) {
        if self.relays() {
            return;
        }
        let (gossip, usual) = (self.gossip(state), self.table.default_interest());
        let interest = gossip.or(usual.but(self.table.gossip()));
        let known = match (&state.said, speaks) {
            (Some(said), _) => Some(said.interest),
            (None, Speaks::IfNeeded) => Some(usual),
            (None, Speaks::Always) => None,
        };
        if known != Some(interest) {
            let said = Said::of(interest, &self.table);
            self.registry.for_each_link(|peer| peer.tell_interest(said.to(peer.features)));
            state.said = Some(said);
        }
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, gossip) != gossip);
    }

    /// Takes in a link: `insert` is given the message of interest for it, if there is one.
    pub(crate) fn take_in(
        &self,
        transport: Transport,
        theirs: Features,
        insert: impl FnOnce(Option<&Bytes>) -> Arc<Peer>,
    ) -> Arc<Peer> {
        let state = self.lock();
        // Existing relays say nothing over libp2p. Source: wire facts 3.5.
        let is_silent = self.relays() && transport != Transport::WebSocket;
        let said = state.said.as_ref().filter(|_| !is_silent);
        insert(said.map(|said| said.to(theirs)))
    }
}

/// The occasions on which a node that has said nothing yet tells of its interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// When it wants something else than peers send unasked.
    IfNeeded,
    /// Now.
    Always,
}
