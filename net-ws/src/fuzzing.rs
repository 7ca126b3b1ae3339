//! The framing of a connection, and what proxies tell, for fuzz targets; compiled for them alone.

use std::{net::IpAddr, sync::Arc};

use broadcaster::Framing;
use tokio::time::Instant;

use http::HeaderMap;

use crate::{
    frame::Role,
    framing::WsFraming,
    port::Port,
    proxy::{
        RealIpHeader, forwarded,
        preamble::{self, Step},
    },
};

/// The end of a connection that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It listened.
    Listener,
    /// It dialled.
    Dialer,
}

/// The decoder for the frames of a new connection.
#[must_use]
pub fn framing(end: End) -> impl Framing {
    let role = match end {
        End::Listener => Role::Server,
        End::Dialer => Role::Client,
    };
    WsFraming::new(role, Arc::<Port>::default(), Instant::now())
}

/// Reads a preamble of the PROXY protocol in the steps that the decoder asks for, and returns its length.
///
/// # Panics
///
/// If the decoder asks for nothing and is not done, or for more than the bound.
#[must_use]
pub fn preamble(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    loop {
        match preamble::look(bytes.get(..len)?).ok()? {
            Step::Done(_) => return Some(len),
            Step::Needs(more) => {
                assert!(more > 0, "the decoder asks for nothing");
                len += more;
                assert!(len <= preamble::MAX_BYTES, "the decoder asks for more than its bound");
            }
        }
    }
}

/// The client that the headers of a request tell, behind proxies in 10.0.0.0/8.
#[must_use]
pub fn forwarded(headers: &HeaderMap, header: RealIpHeader) -> Option<IpAddr> {
    forwarded::client(headers, header, |ip| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10))
}
