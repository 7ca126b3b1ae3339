//! Everything that every node of a demo did, put together from the journals.
//!
//! # Invariants
//!
//! * Pure: the same records give the same ledger, in whatever order the journals are read.
//! * A node that was started again is another listener, with counts of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gossip::{Lane, Transport};
use hdrhistogram::Histogram;

use super::{
    body::{Class, Stamp},
    journal::{Deed, Record},
};

/// Messages of one source that a ledger takes. Chosen: more than a day of the fastest demo; a number
/// beyond it is not the demo's.
const MAX_NUMBER: u32 = 1 << 28;

/// Longest latency that is told apart, in microseconds. Chosen: longer than any phase lasts.
const MAX_LATENCY_US: u64 = 600_000_000;

/// One life of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its place.
    pub(crate) node: usize,
    /// Number of earlier starts.
    pub(crate) life: u8,
}

/// The messages of one class that one node sent in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) sender: u8,
    pub(crate) life: u8,
    pub(crate) class: Class,
}

/// The record of one message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    /// When it was sent; `None` if its sender did not note it, or took it back.
    pub(crate) sent_ns: Option<u64>,
    /// Number of times that each listener handled it. Shorter than the list of listeners if the rest is zero.
    handled: Vec<u8>,
}

impl Fate {
    /// Number of times that a listener handled it.
    pub(crate) fn handled_by(&self, listener: usize) -> u8 {
        self.handled.get(listener).copied().unwrap_or(0)
    }

    /// `true` if any listener handled it.
    pub(crate) fn was_heard(&self) -> bool {
        self.handled.iter().any(|times| *times > 0)
    }
}

/// Number of messages that arrived over each transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    pub(crate) ws: u64,
    pub(crate) p2p: u64,
}

/// Everything that every node did.
#[derive(Debug)]
pub(crate) struct Ledger {
    listeners: Vec<Listener>,
    messages: BTreeMap<Source, Vec<Fate>>,
    arrivals: Vec<BTreeMap<Class, Arrivals>>,
    /// Which listener heard a probe of which source.
    probes: BTreeSet<(usize, Source)>,
    /// Which listeners will send nothing more.
    done: BTreeSet<usize>,
    /// In microseconds, by lane.
    latency: [Histogram<u64>; 2],
    sent: u64,
    handled: u64,
    /// When the first message that was handled was sent, and when the last one was handled, in nanoseconds since 1970.
    span_ns: Option<(u64, u64)>,
}

impl Ledger {
    /// A ledger of so many nodes, each in its first life.
    pub(crate) fn new(nodes: usize) -> Self {
        // Fails for more than 5 digits, or bounds that leave no room, only.
        let histogram =
            || Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("these bounds have room");
        Self {
            listeners: (0..nodes).map(|node| Listener { node, life: 0 }).collect(),
            messages: BTreeMap::new(),
            arrivals: vec![BTreeMap::new(); nodes],
            probes: BTreeSet::new(),
            done: BTreeSet::new(),
            latency: [histogram(), histogram()],
            sent: 0,
            handled: 0,
            span_ns: None,
        }
    }

    /// Adds the next life of a node, and names the listener it is.
    pub(crate) fn reborn(&mut self, node: usize, life: u8) -> usize {
        self.listeners.push(Listener { node, life });
        self.listeners.len() - 1
    }

    /// Takes a record from the journal of a listener.
    pub(crate) fn take(&mut self, listener: usize, record: Record) {
        let Record { deed, stamp, at_ns } = record;
        let Stamp { class, sender, life, number, sent_ns } = stamp;
        let source = Source { sender, life, class };
        if deed == Deed::Done {
            self.done.insert(listener);
            return;
        }
        if Class::PROBES.contains(&class) {
            if matches!(deed, Deed::Heard(_)) {
                self.probes.insert((listener, source));
            }
            return;
        }
        let (Some(fate), Some(Listener { node, .. })) =
            (fate(&mut self.messages, source, number), self.listeners.get(listener))
        else {
            return;
        };
        match deed {
            Deed::Done => {}
            Deed::Sent => {
                fate.sent_ns = Some(sent_ns);
                self.sent += 1;
            }
            Deed::Withdrawn => {
                fate.sent_ns = None;
                self.sent -= 1;
            }
            Deed::Heard(transport) => {
                if fate.handled.len() <= listener {
                    fate.handled.resize(listener + 1, 0);
                }
                fate.handled[listener] = fate.handled[listener].saturating_add(1);
                self.handled += 1;
                let (first, last) = self.span_ns.unwrap_or((sent_ns, at_ns));
                self.span_ns = Some((first.min(sent_ns), last.max(at_ns)));
                if let Some(classes) = self.arrivals.get_mut(*node) {
                    let arrivals = classes.entry(class).or_default();
                    match transport {
                        Transport::Libp2p => arrivals.p2p += 1,
                        _ => arrivals.ws += 1,
                    }
                }
                let micros = at_ns.saturating_sub(sent_ns) / 1_000;
                self.latency[usize::from(class.lane() == Lane::Bulk)].saturating_record(micros);
            }
        }
    }

    /// Every life of every node.
    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The messages of each source, by their number.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Source, &[Fate])> {
        self.messages.iter().map(|(source, fates)| (source, fates.as_slice()))
    }

    /// The messages of a class that a node heard.
    pub(crate) fn arrivals(&self, node: usize, class: Class) -> Arrivals {
        let classes = self.arrivals.get(node);
        classes.and_then(|classes| classes.get(&class)).copied().unwrap_or_default()
    }

    /// Latencies of a lane, in microseconds.
    pub(crate) const fn latency(&self, lane: Lane) -> &Histogram<u64> {
        let [priority, bulk] = &self.latency;
        match lane {
            Lane::Priority => priority,
            Lane::Bulk => bulk,
        }
    }

    /// Messages that were sent.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that were handled, counted at each node.
    pub(crate) const fn handled(&self) -> u64 {
        self.handled
    }

    /// Time in which the messages were handled: from the sending of the first of them to the handling of the last.
    pub(crate) fn handling_time(&self) -> Duration {
        let span = self.span_ns.map(|(first, last)| last.saturating_sub(first));
        Duration::from_nanos(span.unwrap_or(0))
    }

    /// `true` if the newest life of every node will send nothing more.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.newest().all(|(listener, _)| self.done.contains(&listener))
    }

    /// Pairs of nodes, the newest life of each, of which one has not heard the other on both lanes.
    pub(crate) fn strangers(&self) -> usize {
        let heard = |listener: usize, other: Listener| {
            Class::PROBES.into_iter().all(|class| {
                let sender = u8::try_from(other.node).unwrap_or(u8::MAX);
                self.probes.contains(&(listener, Source { sender, life: other.life, class }))
            })
        };
        let pairs = self.newest().flat_map(|(listener, this)| {
            let others = self.newest().filter(move |(_, other)| other.node != this.node);
            others.map(move |(_, other)| (listener, other))
        });
        pairs.filter(|(listener, other)| !heard(*listener, *other)).count()
    }

    /// The newest life of every node, and which listener it is.
    fn newest(&self) -> impl Iterator<Item = (usize, Listener)> {
        let listeners = self.listeners.iter().copied().enumerate();
        listeners.filter(|(index, listener)| {
            let later = self.listeners.iter().skip(index + 1);
            !later.into_iter().any(|other| other.node == listener.node)
        })
    }
}

/// The place of a message; `None` for a number that no demo reaches.
fn fate(
    messages: &mut BTreeMap<Source, Vec<Fate>>,
    source: Source,
    number: u32,
) -> Option<&mut Fate> {
    let index = usize::try_from(number).ok().filter(|_| number < MAX_NUMBER)?;
    let fates = messages.entry(source).or_default();
    if fates.len() <= index {
        fates.resize(index + 1, Fate::default());
    }
    fates.get_mut(index)
}
