//! The datagrams of one connection: checks of the way, and packets that DTLS encrypts.
//!
//! # Invariants
//!
//! * Nothing is encrypted before the way is open, and no packet of the peer is passed on before the handshake is over.
//! * The end that dials goes no further with a certificate other than the one that its address names. The end that
//!   listens takes any: the Noise handshake says who is there.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use dimpl::{Config, Dtls, DtlsCertificate, Output};

use super::{
    certificate::fingerprint_of,
    path::{Path, is_dtls, is_stun},
};
use crate::channels::{Ended, Fingerprint};

/// Room for a record that is read or written. Source: dimpl, whose records fit a datagram.
const RECORD_BYTES: usize = 4 * 1024;

/// A datagram to send.
pub(super) type Outgoing = (SocketAddr, Vec<u8>);

/// The datagrams of one connection.
pub(super) struct Secured {
    path: Path,
    dtls: Dtls,
    /// The certificate that the peer has to have; `None` for any.
    expected: Option<Fingerprint>,
    peer: Option<Fingerprint>,
    is_connected: bool,
    is_started: bool,
    timeout: Option<Instant>,
    record: Vec<u8>,
    outgoing: VecDeque<Outgoing>,
    packets: VecDeque<Bytes>,
}

impl Secured {
    /// The end that listens.
    pub(super) fn listener(
        path: Path,
        (config, certificate): (Arc<Config>, DtlsCertificate),
        now: Instant,
    ) -> Self {
        let mut secured = Self::new(path, Dtls::new_12(config, certificate, now));
        secured.is_started = true;
        secured
    }

    /// The end that dials a peer with the certificate `expected`.
    pub(super) fn dialer(
        path: Path,
        (config, certificate): (Arc<Config>, DtlsCertificate),
        expected: Fingerprint,
        now: Instant,
    ) -> Self {
        let mut secured = Self::new(path, Dtls::new_12(config, certificate, now));
        secured.expected = Some(expected);
        secured
    }

    fn new(path: Path, dtls: Dtls) -> Self {
        Self {
            path,
            dtls,
            expected: None,
            peer: None,
            is_connected: false,
            is_started: false,
            timeout: None,
            record: vec![0; RECORD_BYTES],
            outgoing: VecDeque::new(),
            packets: VecDeque::new(),
        }
    }

    /// The certificate of the peer, once the handshake is over.
    pub(super) fn peer(&self) -> Option<Fingerprint> {
        self.peer.filter(|_| self.is_connected)
    }

    /// Takes a datagram.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) fn receive(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), Ended> {
        if is_stun(datagram) {
            let answer = self.path.receive(datagram, from, now);
            self.outgoing.extend(answer.map(|answer| (from, answer)));
            return self.tick(now);
        }
        if is_dtls(datagram) && self.is_started {
            self.dtls.handle_timeout(now)?;
            self.dtls.handle_packet(datagram)?;
            return self.drain(now);
        }
        Ok(())
    }

    /// Does what is due.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Ended> {
        if self.path.is_lost(now) {
            return Err(Ended::Silent);
        }
        let check = self.path.poll_check(now);
        self.outgoing.extend(check.map(|check| (self.path.remote(), check)));
        if self.path.is_open() && !std::mem::replace(&mut self.is_started, true) {
            self.dtls.set_active(true);
            self.timeout = Some(now);
        }
        if self.timeout.is_some_and(|at| at <= now) {
            self.timeout = None;
            self.dtls.handle_timeout(now)?;
            self.drain(now)?;
        }
        Ok(())
    }

    /// Encrypts and sends a packet.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) fn send(&mut self, packet: &[u8], now: Instant) -> Result<(), Ended> {
        self.dtls.send_application_data(packet)?;
        self.drain(now)
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn close(&mut self, now: Instant) {
        // A connection that has ended has nobody to tell.
        let _ = self.dtls.close().map_err(Ended::from).and_then(|()| self.drain(now));
    }

    /// The next datagram to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// The next packet of the peer.
    pub(super) fn poll_packet(&mut self) -> Option<Bytes> {
        if self.is_connected { self.packets.pop_front() } else { None }
    }

    /// The moment at which [`Self::tick`] is due.
    pub(super) fn timeout(&self) -> Instant {
        let path = self.path.timeout();
        self.timeout.map_or(path, |dtls| path.min(dtls))
    }

    fn drain(&mut self, now: Instant) -> Result<(), Ended> {
        loop {
            match self.dtls.poll_output(&mut self.record) {
                Output::Packet(packet) => {
                    self.outgoing.push_back((self.path.remote(), packet.to_vec()));
                }
                Output::BufferTooSmall { needed } => self.record.resize(needed, 0),
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return Ok(());
                }
                Output::Connected => self.is_connected = true,
                Output::PeerCert(certificate) => {
                    let shown = fingerprint_of(certificate);
                    if self.expected.is_some_and(|expected| expected != shown) {
                        return Err(Ended::OtherCertificate);
                    }
                    self.peer = Some(shown);
                }
                Output::ApplicationData(packet) => {
                    self.path.heard(now);
                    self.packets.push_back(Bytes::copy_from_slice(packet));
                }
                Output::CloseNotify => return Err(Ended::ByPeer),
                _ => {}
            }
        }
    }
}
