//! The data channels of one connection over SCTP, without I/O.
//!
//! # Invariants
//!
//! * Bytes that nobody reads stay in SCTP, beyond [`STREAM_UNREAD`] of a stream and [`UNREAD`] of all. SCTP has one window for
//!   all streams ([`WINDOW`]), so a stream that nobody reads stops its connection in the end, as the protocol has it.
//! * Written bytes are bounded for a stream and for all; a message of 16 KiB may exceed either.
//! * A channel whose handle is gone is closed once the peer has everything, at most [`LINGER`] later.
//! * The ID of a closed channel is used again only once both ends have closed it.
//! * At most [`MAX_PEER_CHANNELS`] channels of the peer are open; further ones are closed at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier as Kind, ServerConfig, StreamEvent, TransportConfig,
};

use super::{
    Ended, Side,
    channel::Channel,
    dcep::{ACKNOWLEDGEMENT, Dcep, OPENING},
    ids::{HANDSHAKE, Ids},
    message::{Flag, Frame},
    window::{Window, is_abort, is_data, is_init},
};

/// Bytes that SCTP keeps for all streams of a connection. Chosen: 10 MB/s over a path of 100 ms.
pub(super) const WINDOW: usize = 1024 * 1024;

/// Unread bytes of a stream that are taken out of SCTP, so that the flags behind them are seen. Chosen: four messages.
pub(super) const STREAM_UNREAD: usize = 64 * 1024;

/// The same of all streams of a connection. Chosen: half of what SCTP keeps.
pub(super) const UNREAD: usize = 512 * 1024;

/// Bytes that a stream may have written and the peer has not acknowledged. Chosen: four messages.
pub(super) const STREAM_UNSENT: usize = 64 * 1024;

/// The same of all streams of a connection, if the node has few. Chosen: what a path of 100 ms takes at 5 MB/s.
pub(super) const UNSENT: usize = 512 * 1024;

/// Longest time for a closed stream until the peer has everything. Chosen: twice that of a connection.
const LINGER: Duration = Duration::from_secs(10);

/// Channels of the peer that may be open at one time. Chosen: as many streams as with QUIC.
const MAX_PEER_CHANNELS: usize = 512;

/// Channels of this node that may be open at one time, with those that are closing. Chosen: as many as a node of this kind
/// lets wait for their negotiation.
const MAX_OWN_CHANNELS: usize = 256;

/// Bytes of answers that may wait for a peer that takes nothing. Chosen: some thousand.
const MAX_ANSWERS: usize = 2 * STREAM_UNSENT;

/// Times at which a peer may begin its association: each costs the library memory. Source: sctp-proto, which sends its own
/// nine times within a handshake's deadline at most.
const MAX_INITS: usize = 16;

/// Largest message that is read, in bytes. A longer one than the specification allows ends its stream, one longer than
/// this its connection.
const MAX_RECEIVED_MESSAGE: u32 = 64 * 1024;

/// Largest payload of a packet, in bytes: 1,280 for IPv6, without the headers of IP, UDP, DTLS, SCTP and the chunk.
/// Source: RFC 8200, 5; RFC 6347, 4.1; RFC 9260, 3.
const PAYLOAD_BYTES: u32 = 1_280 - 48 - 37 - 12 - 16 - 3;

/// SCTP over DTLS has no address of its own.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5_000);

/// The data channels of one connection.
pub(super) struct Channels {
    side: Side,
    transport: Arc<TransportConfig>,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    is_established: bool,
    channels: BTreeMap<u16, Channel>,
    /// Those that the peer has opened and nobody has taken.
    opened: VecDeque<u16>,
    ids: Ids,
    window: Window,
    /// A packet of the peer with data, which it takes for a repeated one if it comes again.
    sample: Bytes,
    /// Times at which the peer has begun an association.
    inits: usize,
    /// Bytes taken out of SCTP and not read.
    unread: usize,
    /// Channels whose bytes stay in SCTP for now.
    held_back: BTreeSet<u16>,
    /// Channels with bytes that the peer has not acknowledged, and the sum of these.
    sending: BTreeSet<u16>,
    unsent: usize,
    /// Most bytes of all streams that the peer has not acknowledged.
    max_unsent: usize,
    /// Channels that this end has closed and the peer has not.
    closing: BTreeSet<u16>,
    /// Channels that were refused since the caller asked last.
    refused: usize,
    /// `true` once dropped streams are to be finished instead of reset.
    is_closing: bool,
}

impl Channels {
    /// The channels of a connection whose DTLS handshake is under way. The one for the Noise handshake is there.
    pub(super) fn new(side: Side) -> Self {
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(u32::try_from(WINDOW).unwrap_or(u32::MAX))
            .with_max_receive_message_size(MAX_RECEIVED_MESSAGE)
            .with_max_init_retransmits(None)
            .with_max_data_retransmits(None);
        let transport = Arc::new(transport);
        let mut config = EndpointConfig::new();
        config.max_payload_size(PAYLOAD_BYTES);
        // Also for the end that dials: without it, the library panics at a peer that begins an association.
        let mut server = ServerConfig::new();
        server.transport = Arc::clone(&transport);
        Self {
            side,
            transport,
            endpoint: Endpoint::new(Arc::new(config), Some(Arc::new(server))),
            association: None,
            is_established: false,
            channels: BTreeMap::from([(HANDSHAKE, Channel::held())]),
            opened: VecDeque::new(),
            ids: Ids::new(side),
            window: Window::new(WINDOW),
            sample: Bytes::new(),
            inits: 0,
            unread: 0,
            held_back: BTreeSet::new(),
            sending: BTreeSet::new(),
            unsent: 0,
            max_unsent: UNSENT,
            closing: BTreeSet::new(),
            refused: 0,
            is_closing: false,
        }
    }

    /// Starts the association, once packets can be sent. The end that listens waits for its peer.
    pub(super) fn start(&mut self) -> Result<(), Ended> {
        if self.side == Side::Dialer && self.association.is_none() {
            let mut config = ClientConfig::new();
            config.transport = Arc::clone(&self.transport);
            let made = self.endpoint.connect(config, NO_ADDRESS);
            self.association = Some(made.map_err(|_| Ended::Sctp)?);
        }
        Ok(())
    }

    /// `true` once channels can be opened.
    pub(super) const fn is_established(&self) -> bool {
        self.is_established
    }

    /// Bytes that this node keeps for the connection.
    pub(super) fn held(&self) -> usize {
        self.window.held() + self.unread + self.unsent
    }

    /// `true` once the peer has acknowledged everything.
    pub(super) fn is_sent(&self) -> bool {
        self.sending.is_empty()
    }

    /// Bounds the bytes that the peer has not acknowledged.
    pub(super) fn set_max_unsent(&mut self, bytes: usize) {
        self.max_unsent = bytes.clamp(STREAM_UNSENT, UNSENT);
    }

    /// Channels that were refused since the last call.
    pub(super) fn take_refused(&mut self) -> usize {
        std::mem::take(&mut self.refused)
    }

    /// Takes a packet of the peer.
    pub(super) fn receive(&mut self, packet: Bytes, now: Instant) -> Result<(), Ended> {
        if is_abort(&packet) {
            // The library would throw away the bytes that came before.
            return Err(Ended::ByPeer);
        }
        if is_init(&packet) {
            self.inits += 1;
            // Some peers begin an association from their end too; this one is enough.
            if self.side == Side::Dialer || self.inits > MAX_INITS {
                return Ok(());
            }
        }
        if is_data(&packet) {
            self.sample = packet.clone();
        }
        self.feed(packet, now);
        self.settle(now)
    }

    fn feed(&mut self, packet: Bytes, now: Instant) {
        match self.endpoint.handle(now, NO_ADDRESS, None, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association)))
                if self.association.is_none() =>
            {
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((own, association)) = &mut self.association
                    && *own == handle
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ended> {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
        self.settle(now)
    }

    /// The next packets to send.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        let sent = self.endpoint.poll_transmit();
        let sent = sent.or_else(|| self.association.as_mut()?.1.poll_transmit(now))?;
        let Payload::RawEncode(packets) = sent.payload else { return Some(Vec::new()) };
        for packet in &packets {
            self.window.sends(packet);
        }
        Some(packets)
    }

    /// The moment at which [`Self::tick`] is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let sctp =
            self.association.as_ref().and_then(|(_, association)| association.poll_timeout());
        let lingering = self.channels.values().filter_map(Channel::lingers_until).min();
        [sctp, lingering].into_iter().flatten().min()
    }

    /// Handles what has happened in the association.
    fn settle(&mut self, now: Instant) -> Result<(), Ended> {
        while let Some((handle, association)) = &mut self.association {
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            let Some(event) = association.poll() else { break };
            match event {
                Event::Connected => self.establish(),
                Event::Stream(event) => self.on_stream(event, now),
                Event::AssociationLost { .. } | Event::HandshakeFailed { .. } => {
                    return Err(Ended::Sctp);
                }
                _ => {}
            }
        }
        self.recount();
        self.close_lingering(now);
        Ok(())
    }

    fn establish(&mut self) {
        self.is_established = true;
        if let Some((_, association)) = &mut self.association {
            // The peer may have written to it already, and then it exists.
            let _ = association.open_stream(HANDSHAKE, Kind::Binary);
        }
    }

    fn on_stream(&mut self, event: StreamEvent, now: Instant) {
        match event {
            StreamEvent::Readable { id } => self.look_at(id, now),
            StreamEvent::Finished { id } => {
                // This end closes it once its handle is gone, and until then the peer cannot use the ID again: nobody
                // opens streams faster than they are taken.
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.halves.close();
                    channel.is_closed = true;
                    channel.wake();
                    if !channel.is_held() {
                        self.close(id);
                    }
                }
            }
            StreamEvent::ResetComplete { id } => {
                self.closing.remove(&id);
                self.ids.give_back(id);
                // The peer may use the ID for its next stream already.
                self.look_at(id, now);
            }
            _ => {}
        }
    }

    /// Takes what has come on a channel, which may be a new one of the peer.
    fn look_at(&mut self, id: u16, now: Instant) {
        let Some((_, association)) = &mut self.association else { return };
        if self.closing.contains(&id) || association.stream(id).is_err() {
            return;
        }
        if self.ids.is_own(id) && !self.channels.contains_key(&id) {
            return self.close_in_sctp(id);
        }
        self.discover(id, now);
        self.pull(id);
    }

    /// Notes a channel of the peer that is not known yet.
    fn discover(&mut self, id: u16, now: Instant) {
        if self.channels.contains_key(&id) {
            return;
        }
        let own = self.channels.values().filter(|channel| channel.is_of_peer).count();
        let is_refused = own >= MAX_PEER_CHANNELS;
        self.channels.insert(id, Channel::of_peer());
        if is_refused {
            self.refused += 1;
            self.release(id, now);
        }
    }

    /// Takes messages out of SCTP.
    fn pull(&mut self, id: u16) {
        loop {
            let Some(channel) = self.channels.get_mut(&id) else { return };
            let is_full = channel.unread_bytes() >= STREAM_UNREAD || self.unread >= UNREAD;
            if is_full && channel.keeps_bytes() {
                self.held_back.insert(id);
                return;
            }
            let Some((_, association)) = &mut self.association else { return };
            let Ok(Some(message)) =
                association.stream(id).and_then(|mut stream| stream.read_sctp())
            else {
                self.held_back.remove(&id);
                return;
            };
            self.window.read(message.len());
            let mut bytes = vec![0; message.len()];
            // The buffer is as long as the message.
            let _ = message.read(&mut bytes);
            match message.ppi {
                Kind::Dcep => self.on_dcep(id, &bytes),
                Kind::Binary => self.on_message(id, &bytes),
                _ => {}
            }
        }
    }

    fn on_dcep(&mut self, id: u16, bytes: &[u8]) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if Dcep::read(bytes) != Some(Dcep::Open) || !channel.is_of_peer {
            return;
        }
        let is_new = !std::mem::replace(&mut channel.is_opened, true);
        if is_new && !channel.is_released() {
            self.opened.push_back(id);
        }
        self.send(id, ACKNOWLEDGEMENT, Kind::Dcep);
    }

    fn on_message(&mut self, id: u16, bytes: &[u8]) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let before = channel.unread_bytes();
        let taken = channel.take(bytes);
        self.unread += channel.unread_bytes() - before;
        match taken {
            Ok(answers) => {
                for flag in answers {
                    self.say(id, Some(flag));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "resetting a stream");
                self.give_up(id);
            }
        }
        if self.channels.get(&id).is_some_and(Channel::is_released) {
            self.close_if_over(id);
        }
    }

    /// Resets both directions of a stream, whose handle may still be there.
    fn give_up(&mut self, id: u16) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let flags = [channel.halves.reset(), channel.halves.stop()];
        channel.halves.receive(Flag::Reset);
        channel.wake();
        for flag in flags {
            self.say(id, flag);
        }
    }

    /// Sends a flag, unless too much waits for the peer already.
    fn say(&mut self, id: u16, flag: Option<Flag>) {
        if let Some(flag) = flag {
            self.send(id, &Frame::from(flag).encode(), Kind::Binary);
        }
    }

    fn send(&mut self, id: u16, bytes: &[u8], kind: Kind) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        let Ok(mut stream) = association.stream(id) else { return false };
        if stream.buffered_amount().is_ok_and(|waiting| waiting > MAX_ANSWERS) {
            return false;
        }
        let Ok(written) = stream.write_with_ppi(bytes, kind) else { return false };
        self.unsent += written;
        self.sending.insert(id);
        true
    }

    /// Counts what the peer has not acknowledged, and wakes writers for whom there is room again.
    fn recount(&mut self) {
        let Some((_, association)) = &mut self.association else { return };
        let mut total = 0;
        let mut amounts = Vec::new();
        self.sending.retain(|&id| {
            let amount =
                association.stream(id).and_then(|stream| stream.buffered_amount()).unwrap_or(0);
            total += amount;
            amounts.push((id, amount));
            amount > 0
        });
        self.unsent = total;
        if total < self.max_unsent {
            // Also those of streams with nothing on its way: they may have waited for the room of all.
            for channel in self.channels.values_mut() {
                channel.unsent = 0;
            }
            for (id, amount) in amounts {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.unsent = amount;
                }
            }
            for channel in self.channels.values_mut() {
                if channel.unsent < STREAM_UNSENT {
                    channel.wake_writer();
                }
            }
        }
    }

    /// Opens a channel. `None` while too many are open, or all IDs are in use.
    pub(super) fn open(&mut self) -> Option<u16> {
        let own = self.ids.in_use();
        let (_, association) = self.association.as_mut().filter(|_| own < MAX_OWN_CHANNELS)?;
        // One that the peer has used without a right to it is left to it.
        let id = loop {
            let id = self.ids.take()?;
            if association.open_stream(id, Kind::Binary).is_ok() {
                break id;
            }
        };
        self.channels.insert(id, Channel::held());
        self.send(id, OPENING, Kind::Dcep);
        Some(id)
    }

    /// Takes a channel that the peer has opened.
    pub(super) fn accept(&mut self) -> Option<u16> {
        loop {
            let id = self.opened.pop_front()?;
            if self.channels.get(&id).is_some_and(|channel| !channel.is_released()) {
                return Some(id);
            }
        }
    }

    /// Reads bytes of a stream; 0 at its end.
    pub(super) fn read(
        &mut self,
        id: u16,
        context: &Context<'_>,
        into: &mut [u8],
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let read = channel.read(context, into);
        if let Poll::Ready(Ok(bytes @ 1..)) = read {
            self.unread -= bytes;
            self.refill(id, now);
        }
        read
    }

    /// Takes more out of SCTP after bytes were read, and lets the peer know that there is room.
    fn refill(&mut self, id: u16, now: Instant) {
        if self.held_back.contains(&id) {
            self.pull(id);
        }
        if self.unread < UNREAD && !self.held_back.is_empty() {
            let waiting: Vec<u16> = self.held_back.iter().copied().collect();
            for other in waiting {
                self.pull(other);
            }
        }
        if self.window.must_tell() {
            // SCTP answers a packet that it knows with the room there is.
            self.feed(self.sample.clone(), now);
        }
    }

    /// Writes as much as one message takes, once there is room.
    pub(super) fn write(
        &mut self,
        id: u16,
        context: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let max_unsent = self.max_unsent;
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.is_writable())
        else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if self.unsent >= max_unsent || channel.unsent >= STREAM_UNSENT {
            channel.wait_to_write(context);
            return Poll::Pending;
        }
        let frame = Frame::of(bytes);
        let taken = frame.data.len();
        let parts = frame.parts();
        channel.unsent += parts.iter().map(Vec::len).sum::<usize>();
        if parts.iter().all(|part| self.send(id, part, Kind::Binary)) {
            return Poll::Ready(Ok(taken));
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Ends what this node sends on a stream.
    pub(super) fn finish(&mut self, id: u16) {
        let flag = self.channels.get_mut(&id).and_then(|channel| channel.halves.finish());
        self.say(id, flag);
    }

    /// Finishes all streams; those that are dropped from now on are finished too.
    pub(super) fn finish_all(&mut self) {
        self.is_closing = true;
        let ids: Vec<u16> = self.channels.keys().copied().collect();
        for id in ids {
            self.finish(id);
        }
    }

    /// Takes the handle of a stream back: one that was not finished is reset.
    pub(super) fn release(&mut self, id: u16, now: Instant) {
        if self.is_closing {
            self.finish(id);
        }
        let Some(channel) = self.channels.get_mut(&id) else { return };
        self.unread -= channel.unread_bytes();
        channel.release(now + LINGER);
        let flags = [channel.halves.reset(), channel.halves.stop()];
        for flag in flags {
            self.say(id, flag);
        }
        // Everything else that comes is read and thrown away.
        self.pull(id);
        self.close_if_over(id);
    }

    fn close_lingering(&mut self, now: Instant) {
        let is_late = |channel: &Channel| channel.lingers_until().is_some_and(|until| until <= now);
        let late: Vec<u16> = self
            .channels
            .iter()
            .filter(|(_, channel)| is_late(channel))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.close(id);
        }
    }

    fn close_if_over(&mut self, id: u16) {
        if self.channels.get(&id).is_some_and(|channel| channel.halves.is_all_sent()) {
            self.close(id);
        }
    }

    /// Closes the channel of a stream whose handle is gone.
    fn close(&mut self, id: u16) {
        self.close_in_sctp(id);
        self.forget(id);
    }

    fn close_in_sctp(&mut self, id: u16) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
            && stream.close().is_ok()
        {
            self.closing.insert(id);
        }
    }

    fn forget(&mut self, id: u16) {
        self.channels.remove(&id);
        self.held_back.remove(&id);
    }

    /// Wakes everybody who waits, because the connection has ended.
    pub(super) fn wake_all(&mut self) {
        for channel in self.channels.values_mut() {
            channel.wake();
        }
    }
}
