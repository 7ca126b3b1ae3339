//! The other end of an accepted socket: a client, or a trusted proxy that passes on those of others.
//!
//! # Invariants
//!
//! * Only connections of trusted proxies begin with a preamble of the PROXY protocol, and all of theirs do, if it is on.
//! * The wait for a preamble ends after [`PREAMBLE_TIME`], and the time for the head of a request goes on meanwhile.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use gossip::{Transport, http::Caller};
use runtime::Stream;
use tokio::{
    io::AsyncReadExt,
    time::{self, Instant},
};

use super::Place;
use crate::{
    metrics::ProxyFault,
    proxy::{
        ProxyProtocol, is_credible,
        preamble::{self, Client, PreambleError, Step},
    },
};

/// Longest wait for a preamble. Chosen: a proxy sends it with the connection, so this is several round trips of the
/// slowest one.
const PREAMBLE_TIME: Duration = Duration::from_secs(5);

/// The kind of sender at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A client, which sends its own requests.
    Client,
    /// A trusted proxy, whose requests name their clients.
    Proxy,
}

/// The other end of a connection, as far as it is known before the first request.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) sender: Sender,
    /// `ip:port`.
    pub(super) address: Arc<str>,
    pub(super) ip: IpAddr,
}

impl Origin {
    /// The caller of requests that name no other.
    pub(super) fn caller(&self) -> Caller {
        let (address, ip) = (Arc::clone(&self.address), Some(self.ip));
        Caller { identity: None, transport: Transport::WebSocket, address, ip }
    }
}

impl Place {
    /// Returns `true` if the connection has to begin with a preamble.
    pub(super) fn begins_with_preamble(&self) -> bool {
        let proxies = &self.context.proxies;
        proxies.protocol == ProxyProtocol::On && proxies.trusts(self.from.ip())
    }

    /// The origin of a connection without a preamble.
    pub(super) fn origin(&self) -> Origin {
        let ip = self.from.ip();
        let sender = self.sender(ip);
        Origin { sender, address: self.from.to_string().into(), ip }
    }

    fn sender(&self, ip: IpAddr) -> Sender {
        if self.context.proxies.trusts(ip) { Sender::Proxy } else { Sender::Client }
    }

    /// Reads the preamble, and counts the connection for the client that it names. `None` if the connection has to be
    /// closed; the reason was counted.
    pub(super) async fn introduced(
        &self,
        stream: &mut Stream,
        deadline: Instant,
    ) -> Option<Origin> {
        let deadline = deadline.min(Instant::now() + PREAMBLE_TIME);
        let fault = match time::timeout_at(deadline, read(stream)).await {
            Ok(Ok(Ok(Client::Proxy))) => return Some(self.origin()),
            Ok(Ok(Ok(Client::At(client)))) if is_credible(client.ip(), self.from.ip()) => {
                let ip = client.ip();
                let sender = self.sender(ip);
                if sender == Sender::Client {
                    let introduced = self.pass.introduce(ip, Instant::now().into_std());
                    introduced.ok()?;
                }
                return Some(Origin { sender, address: client.to_string().into(), ip });
            }
            Ok(Ok(Ok(Client::At(_)))) => ProxyFault::PreambleClient,
            Ok(Ok(Err(PreambleError::TooLong))) => ProxyFault::PreambleTooLong,
            Ok(Ok(Err(PreambleError::Unknown | PreambleError::Malformed))) => {
                ProxyFault::PreambleMalformed
            }
            Ok(Err(_)) | Err(_) => ProxyFault::PreambleMissing,
        };
        self.context.metrics.note_proxy(fault);
        tracing::debug!(from = %self.from, reason = fault.label(), "a proxy's connection is closed");
        None
    }
}

/// Reads a preamble, and nothing behind it.
async fn read(stream: &mut Stream) -> io::Result<Result<Client, PreambleError>> {
    let mut bytes = Vec::new();
    loop {
        match preamble::look(&bytes) {
            Ok(Step::Done(client)) => return Ok(Ok(client)),
            Ok(Step::Needs(more)) => {
                let mut rest = (&mut *stream).take(more as u64);
                if rest.read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}
