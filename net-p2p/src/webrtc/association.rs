//! The SCTP association of one connection, without I/O.
//!
//! # Invariants
//!
//! * Bytes that nobody reads stay here, at most [`WINDOW`] of them. SCTP has one window for all streams.
//! * The bytes that the peer has not acknowledged are counted from the moment at which they are written.
//! * A peer that ends the association takes nothing back: what came before can still be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier as Kind, ServerConfig, TransportConfig,
};

use super::{
    Ended, Side,
    window::{Window, is_abort, is_data, is_init},
};

/// Bytes that SCTP keeps for all streams of a connection. Chosen: 10 MB/s over a path of 100 ms.
const WINDOW: usize = 1024 * 1024;

/// Bytes of one stream that may wait for a peer that takes nothing. Chosen: some thousand answers to its flags.
const MAX_WAITING: usize = 128 * 1024;

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

/// An association, and what it keeps.
pub(super) struct Sctp {
    side: Side,
    transport: Arc<TransportConfig>,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    window: Window,
    /// A packet of the peer with data, which it takes for a repeated one if it comes again.
    sample: Bytes,
    /// Times at which the peer has begun an association.
    inits: usize,
    /// Streams with bytes that the peer has not acknowledged, and the sum of these.
    sending: BTreeSet<u16>,
    unsent: usize,
}

impl Sctp {
    /// The association of a connection whose DTLS handshake is under way.
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
            window: Window::new(WINDOW),
            sample: Bytes::new(),
            inits: 0,
            sending: BTreeSet::new(),
            unsent: 0,
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

    /// Bytes that are kept: unread ones, and those that the peer has not acknowledged.
    pub(super) fn held(&self) -> usize {
        self.window.held() + self.unsent
    }

    /// `true` if the peer may send less than half of what it may at other times.
    pub(super) fn is_half_full(&self) -> bool {
        self.window.held() > WINDOW / 2
    }

    /// Bytes that the peer has not acknowledged.
    pub(super) const fn unsent(&self) -> usize {
        self.unsent
    }

    /// `true` once the peer has acknowledged everything.
    pub(super) fn is_sent(&self) -> bool {
        self.sending.is_empty()
    }

    /// Takes a packet of the peer.
    ///
    /// # Errors
    ///
    /// [`Ended::ByPeer`].
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
        Ok(())
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
    pub(super) fn tick(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
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
        self.association.as_ref().and_then(|(_, association)| association.poll_timeout())
    }

    /// The next event.
    pub(super) fn poll(&mut self) -> Option<Event> {
        let (handle, association) = self.association.as_mut()?;
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
        association.poll()
    }

    /// Opens a stream. Returns `false` if its ID cannot be used now.
    pub(super) fn open(&mut self, id: u16) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        association.open_stream(id, Kind::Binary).is_ok()
    }

    /// Returns `true` if the stream is there.
    pub(super) fn has(&mut self, id: u16) -> bool {
        self.association.as_mut().is_some_and(|(_, association)| association.stream(id).is_ok())
    }

    /// Takes the next message of a stream.
    pub(super) fn read(&mut self, id: u16) -> Option<(Kind, Vec<u8>)> {
        let (_, association) = self.association.as_mut()?;
        let message = association.stream(id).and_then(|mut stream| stream.read_sctp()).ok()??;
        self.window.read(message.len());
        let mut bytes = vec![0; message.len()];
        // The buffer is as long as the message.
        let _ = message.read(&mut bytes);
        Some((message.ppi, bytes))
    }

    /// Lets the peer know that there is room again, if it was told of little.
    pub(super) fn tell_of_room(&mut self, now: Instant) {
        if self.window.must_tell() {
            // SCTP answers a packet that it knows with the room there is.
            self.feed(self.sample.clone(), now);
        }
    }

    /// Sends a message. Returns `false` if the stream is gone, or too much waits on it.
    pub(super) fn send(&mut self, id: u16, bytes: &[u8], kind: Kind) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        let Ok(mut stream) = association.stream(id) else { return false };
        if stream.buffered_amount().is_ok_and(|waiting| waiting > MAX_WAITING) {
            return false;
        }
        let Ok(written) = stream.write_with_ppi(bytes, kind) else { return false };
        self.unsent += written;
        self.sending.insert(id);
        true
    }

    /// Counts the bytes that the peer has not acknowledged. Returns them by stream.
    pub(super) fn recount(&mut self) -> BTreeMap<u16, usize> {
        let mut amounts = BTreeMap::new();
        if let Some((_, association)) = &mut self.association {
            for id in std::mem::take(&mut self.sending) {
                let waiting = association.stream(id).and_then(|stream| stream.buffered_amount());
                if let Ok(bytes @ 1..) = waiting {
                    amounts.insert(id, bytes);
                }
            }
        }
        self.sending = amounts.keys().copied().collect();
        self.unsent = amounts.values().sum();
        amounts
    }

    /// Closes a stream. Returns `false` if there is none.
    pub(super) fn close(&mut self, id: u16) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        association.stream(id).is_ok_and(|mut stream| stream.close().is_ok())
    }
}
