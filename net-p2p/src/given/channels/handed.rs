//! The messages that a host hands over as they come, and the orders for it, without I/O.
//!
//! # Invariants
//!
//! * A stream keeps at most [`STREAM_KEPT`] that nobody has read, and all of a connection at most [`KEPT`]. Beyond either, the
//!   stream that keeps most loses, because the peer cannot be told to wait.
//! * Orders and written bytes are bounded for a channel and for all, flags included: one that is too much is not sent.
//! * Orders go out in the order in which they were given, for each channel; messages wait until their channel is open.
//! * A number is used again only after its channel is closed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use runtime::time::StdInstant as Instant;

use crate::channels::{Association, Event, HANDSHAKE, Ids, Message, Side};

/// Bytes of a stream that nobody has read. Chosen: more than the largest message of a network.
pub(super) const STREAM_KEPT: usize = 8 * 1024 * 1024;

/// The same of a connection. Chosen: below the least bound that all connections have together.
pub(super) const KEPT: usize = 12 * 1024 * 1024;

/// Memory that a message takes beside its bytes. Chosen: its place in the queue, and what an allocator adds.
const MESSAGE_BYTES: usize = 64;

/// Bytes of a channel that may wait for the host. Chosen: as many as with SCTP.
const MAX_WAITING: usize = 128 * 1024;

/// The same of all channels, for flags: streams wait before. Chosen: twice what all streams may have unsent.
const MAX_WAITING_OF_ALL: usize = 1024 * 1024;

/// Orders that wait for the host. Chosen: more than streams may give, with a flag on every channel.
const MAX_ORDERS: usize = 16 * 1024;

/// Channels of the peer that may be there, with those that are closing. Chosen: twice as many as may be open.
const MAX_PEER_CHANNELS: usize = 1_024;

/// An order for the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Open(u16),
    Send(u16, Vec<u8>),
    Close(u16),
}

/// A channel of the host.
#[derive(Debug, Default)]
struct Slot {
    is_open: bool,
    /// `true` once this end has closed it.
    is_closing: bool,
    unread: VecDeque<Message>,
    unread_bytes: usize,
    /// Messages that wait until it is open.
    waiting: Vec<Vec<u8>>,
    /// Bytes of this end that have not left.
    unsent: usize,
}

/// The channels of a connection, as a host has them.
#[derive(Debug)]
pub(super) struct Handed {
    slots: BTreeMap<u16, Slot>,
    events: VecDeque<Event>,
    orders: VecDeque<Order>,
    /// Numbers of the peer's channels.
    peers: Ids,
    /// Bytes that nobody has read, of all channels.
    kept: usize,
    /// Channels with bytes that have not left.
    sending: BTreeSet<u16>,
}

fn cost(message: &Message) -> usize {
    match message {
        Message::Bytes(bytes) => bytes.len() + MESSAGE_BYTES,
        Message::Opening => MESSAGE_BYTES,
    }
}

impl Handed {
    /// The channels of this end. The one for the Noise handshake is there.
    pub(super) fn new(side: Side) -> Self {
        let other = match side {
            Side::Listener => Side::Dialer,
            Side::Dialer => Side::Listener,
        };
        Self {
            slots: BTreeMap::from([(HANDSHAKE, Slot::default())]),
            events: VecDeque::new(),
            orders: VecDeque::new(),
            peers: Ids::new(other),
            kept: 0,
            sending: BTreeSet::new(),
        }
    }

    /// Takes a channel of the peer.
    pub(super) fn accept(&mut self) -> Option<u16> {
        if self.peers.in_use() >= MAX_PEER_CHANNELS {
            return None;
        }
        let id = self.peers.take()?;
        self.slots.insert(id, Slot::default());
        self.keep(id, Message::Opening);
        Some(id)
    }

    /// Notes that messages can be sent on a channel.
    pub(super) fn opened(&mut self, id: u16) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.is_open = true;
        let waiting = std::mem::take(&mut slot.waiting);
        self.orders.extend(waiting.into_iter().map(|message| Order::Send(id, message)));
        if self.slots.get(&id).is_some_and(|slot| slot.is_closing) {
            self.orders.push_back(Order::Close(id));
        }
    }

    /// Takes a message of the peer.
    pub(super) fn message(&mut self, id: u16, message: Vec<u8>) {
        if self.slots.get(&id).is_some_and(|slot| !slot.is_closing) {
            self.keep(id, Message::Bytes(message));
        }
    }

    fn keep(&mut self, id: u16, message: Message) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let bytes = cost(&message);
        slot.unread_bytes += bytes;
        self.kept += bytes;
        slot.unread.push_back(message);
        self.events.push_back(Event::Readable(id));
    }

    /// Notes that bytes of a channel may have left: the next recount asks.
    pub(super) fn drained(&mut self, id: u16) {
        self.sending.insert(id);
    }

    /// Notes that a channel is closed.
    pub(super) fn closed(&mut self, id: u16) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.kept -= slot.unread_bytes;
        self.sending.remove(&id);
        self.peers.give_back(id);
        if !slot.is_closing {
            self.events.push_back(Event::Finished(id));
        }
        self.events.push_back(Event::Closed(id));
    }

    /// The next order for the host.
    pub(super) fn order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The channels whose bytes have not left, as far as is known.
    pub(super) fn sending(&self) -> Vec<u16> {
        self.sending.iter().copied().collect()
    }

    /// Notes how many bytes of a channel the host keeps.
    pub(super) fn buffered(&mut self, id: u16, bytes: usize) {
        let ordered = self.orders.iter().map(|order| match order {
            Order::Send(other, message) if *other == id => message.len(),
            _ => 0,
        });
        let ordered: usize = ordered.sum();
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.unsent = bytes + ordered + slot.waiting.iter().map(Vec::len).sum::<usize>();
        }
    }
}

impl Association for Handed {
    /// Written bytes count until they have left this host.
    const KNOWS_ARRIVAL: bool = false;

    fn open(&mut self, id: u16) -> bool {
        if self.slots.contains_key(&id) {
            return false;
        }
        self.slots.insert(id, Slot::default());
        self.orders.push_back(Order::Open(id));
        true
    }

    fn close(&mut self, id: u16) -> bool {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| !slot.is_closing) else {
            return false;
        };
        slot.is_closing = true;
        slot.unread.clear();
        self.kept -= std::mem::take(&mut slot.unread_bytes);
        // A channel that is not open yet is closed once it has opened and sent its messages.
        if slot.is_open {
            self.orders.push_back(Order::Close(id));
        }
        true
    }

    fn has(&mut self, id: u16) -> bool {
        self.slots.contains_key(&id)
    }

    fn read(&mut self, id: u16) -> Option<Message> {
        let slot = self.slots.get_mut(&id)?;
        let message = slot.unread.pop_front()?;
        slot.unread_bytes -= cost(&message);
        self.kept -= cost(&message);
        Some(message)
    }

    fn send(&mut self, id: u16, bytes: &[u8]) -> bool {
        if self.orders.len() >= MAX_ORDERS || self.unsent() > MAX_WAITING_OF_ALL {
            return false;
        }
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| !slot.is_closing) else {
            return false;
        };
        if slot.unsent > MAX_WAITING {
            return false;
        }
        slot.unsent += bytes.len();
        self.sending.insert(id);
        if slot.is_open {
            self.orders.push_back(Order::Send(id, bytes.to_vec()));
        } else {
            slot.waiting.push(bytes.to_vec());
        }
        true
    }

    fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn tick(&mut self, _: Instant) {}

    fn timeout(&self) -> Option<Instant> {
        None
    }

    fn held(&self) -> usize {
        self.kept + self.unsent()
    }

    fn is_half_full(&self) -> bool {
        self.kept > KEPT / 2
    }

    fn overfull(&self) -> Option<u16> {
        let (id, most) = self.slots.iter().max_by_key(|(_, slot)| slot.unread_bytes)?;
        (most.unread_bytes > STREAM_KEPT || self.kept > KEPT).then_some(*id)
    }

    fn tell_of_room(&mut self, _: Instant) {}

    fn unsent(&self) -> usize {
        let of = |id| self.slots.get(id).map_or(0, |slot: &Slot| slot.unsent);
        self.sending.iter().map(of).sum()
    }

    fn recount(&mut self) -> BTreeMap<u16, usize> {
        let amount = |id: &u16| (*id, self.slots.get(id).map_or(0, |slot| slot.unsent));
        let amounts: BTreeMap<_, _> =
            self.sending.iter().map(amount).filter(|(_, bytes)| *bytes > 0).collect();
        self.sending = amounts.keys().copied().collect();
        amounts
    }

    fn is_sent(&self) -> bool {
        self.orders.is_empty() && self.unsent() == 0
    }
}
