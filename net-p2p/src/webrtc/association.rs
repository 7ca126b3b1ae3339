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
    AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload,
    PayloadProtocolIdentifier as Kind, ServerConfig, StreamEvent, TransportConfig,
};

use super::{
    dcep::{ACKNOWLEDGEMENT, Dcep, OPENING},
    window::{Window, is_abort, is_data, is_init},
};
use crate::channels::{Association, Ended, Event, HANDSHAKE, Message, Side};

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
pub(crate) struct Sctp {
    side: Side,
    transport: Arc<TransportConfig>,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, sctp_proto::Association)>,
    is_established: bool,
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
    pub(crate) fn new(side: Side) -> Self {
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
            window: Window::new(WINDOW),
            sample: Bytes::new(),
            inits: 0,
            sending: BTreeSet::new(),
            unsent: 0,
        }
    }

    /// `true` once channels can be opened.
    pub(crate) const fn is_established(&self) -> bool {
        self.is_established
    }

    /// Starts the association, once packets can be sent. The end that listens waits for its peer.
    pub(crate) fn start(&mut self) -> Result<(), Ended> {
        if self.side == Side::Dialer && self.association.is_none() {
            let mut config = ClientConfig::new();
            config.transport = Arc::clone(&self.transport);
            let made = self.endpoint.connect(config, NO_ADDRESS);
            self.association = Some(made.map_err(|_| Ended::Sctp)?);
        }
        Ok(())
    }

    /// Takes a packet of the peer.
    ///
    /// # Errors
    ///
    /// [`Ended::ByPeer`].
    pub(crate) fn receive(&mut self, packet: Bytes, now: Instant) -> Result<(), Ended> {
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

    /// The next packets to send.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        let sent = self.endpoint.poll_transmit();
        let sent = sent.or_else(|| self.association.as_mut()?.1.poll_transmit(now))?;
        let Payload::RawEncode(packets) = sent.payload else { return Some(Vec::new()) };
        for packet in &packets {
            self.window.sends(packet);
        }
        Some(packets)
    }

    /// The next event of the library.
    fn poll_library(&mut self) -> Option<sctp_proto::Event> {
        let (handle, association) = self.association.as_mut()?;
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
        association.poll()
    }

    /// Opens a stream without a word to the peer. Returns `false` if its ID cannot be used now.
    fn open_silently(&mut self, id: u16) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        association.open_stream(id, Kind::Binary).is_ok()
    }

    /// Sends a message of a kind. Returns `false` if the stream is gone, or too much waits on it.
    fn send_kind(&mut self, id: u16, bytes: &[u8], kind: Kind) -> bool {
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
}

impl Association for Sctp {
    fn open(&mut self, id: u16) -> bool {
        self.open_silently(id) && self.send_kind(id, OPENING, Kind::Dcep)
    }

    fn close(&mut self, id: u16) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        association.stream(id).is_ok_and(|mut stream| stream.close().is_ok())
    }

    fn has(&mut self, id: u16) -> bool {
        self.association.as_mut().is_some_and(|(_, association)| association.stream(id).is_ok())
    }

    fn read(&mut self, id: u16) -> Option<Message> {
        loop {
            let (_, association) = self.association.as_mut()?;
            let mut stream = association.stream(id).ok()?;
            let message = stream.read_sctp().ok()??;
            self.window.read(message.len());
            let mut bytes = vec![0; message.len()];
            // The buffer is as long as the message.
            let _ = message.read(&mut bytes);
            match message.ppi {
                Kind::Dcep if Dcep::read(&bytes) == Some(Dcep::Open) => {
                    self.send_kind(id, ACKNOWLEDGEMENT, Kind::Dcep);
                    return Some(Message::Opening);
                }
                Kind::Binary => return Some(Message::Bytes(bytes)),
                _ => {}
            }
        }
    }

    fn send(&mut self, id: u16, bytes: &[u8]) -> bool {
        self.send_kind(id, bytes, Kind::Binary)
    }

    fn poll(&mut self) -> Option<Event> {
        use sctp_proto::Event as Library;
        loop {
            return Some(match self.poll_library()? {
                Library::Connected => {
                    self.is_established = true;
                    // The peer may have written to it already, and then it exists.
                    self.open_silently(HANDSHAKE);
                    continue;
                }
                Library::Stream(StreamEvent::Readable { id }) => Event::Readable(id),
                Library::Stream(StreamEvent::Finished { id }) => Event::Finished(id),
                Library::Stream(StreamEvent::ResetComplete { id }) => Event::Closed(id),
                Library::AssociationLost { .. } | Library::HandshakeFailed { .. } => Event::Lost,
                _ => continue,
            });
        }
    }

    fn tick(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
    }

    fn timeout(&self) -> Option<Instant> {
        self.association.as_ref().and_then(|(_, association)| association.poll_timeout())
    }

    fn held(&self) -> usize {
        self.window.held() + self.unsent
    }

    fn is_half_full(&self) -> bool {
        self.window.held() > WINDOW / 2
    }

    /// SCTP's window keeps the peer from sending more.
    fn overfull(&self) -> Option<u16> {
        None
    }

    fn tell_of_room(&mut self, now: Instant) {
        if self.window.must_tell() {
            // SCTP answers a packet that it knows with the room there is.
            self.feed(self.sample.clone(), now);
        }
    }

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn recount(&mut self) -> BTreeMap<u16, usize> {
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

    fn is_sent(&self) -> bool {
        self.sending.is_empty()
    }

    const KNOWS_ARRIVAL: bool = true;
}
