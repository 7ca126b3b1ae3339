//! The sender of a request, as far as its transport can tell.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{identity::Identity, peer::Transport};

/// The sender of a request. An extension of every request that reaches an [`HttpService`](super::HttpService)
/// over a network, and an extractor in `axum` handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The identity that the connection proved. `None` over TCP and TLS, where clients prove none.
    pub identity: Option<Identity>,
    /// The transport of the request: [`Transport::WebSocket`] for the TCP port, TLS included.
    pub transport: Transport,
    /// The address the connection came from: `ip:port`, or a multiaddr.
    pub address: Arc<str>,
    /// The IP address in it, where there is one.
    pub ip: Option<IpAddr>,
}

/// The verified identity of who sent a request: an extractor for handlers that serve nobody else.
///
/// A request without one is answered `401 Unauthorized`; extract `Option<Peer>` to serve those too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Identity);

/// Why nothing could be extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoCaller {
    /// The request did not come in over a network of a node.
    #[error("the request did not come in over a network of a node")]
    NotOverNetwork,
    /// The connection proved no identity.
    #[error("ask over libp2p: only peers with a verified identity are served here")]
    Anonymous,
}

impl IntoResponse for NoCaller {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotOverNetwork => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Anonymous => StatusCode::UNAUTHORIZED,
        };
        (status, self.to_string()).into_response()
    }
}

fn caller(parts: &Parts) -> Result<&Caller, NoCaller> {
    parts.extensions.get().ok_or(NoCaller::NotOverNetwork)
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = NoCaller;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoCaller> {
        caller(parts).cloned()
    }
}

impl<S: Sync> FromRequestParts<S> for Transport {
    type Rejection = NoCaller;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoCaller> {
        Ok(caller(parts)?.transport)
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = NoCaller;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoCaller> {
        caller(parts)?.identity.map(Self).ok_or(NoCaller::Anonymous)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(caller(parts).ok().and_then(|caller| caller.identity).map(Self))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http::Request;

    use super::*;

    fn parts(caller: Option<Caller>) -> Parts {
        let mut request = Request::new(());
        caller.map(|caller| request.extensions_mut().insert(caller));
        request.into_parts().0
    }

    fn from(identity: Option<Identity>) -> Caller {
        Caller { identity, transport: Transport::Libp2p, address: "here".into(), ip: None }
    }

    #[test]
    fn a_handler_learns_who_asked_and_over_what() {
        let mut parts = parts(Some(from(Some(Identity::from_ed25519([7; 32])))));
        let peer = block_on(<Peer as FromRequestParts<()>>::from_request_parts(&mut parts, &()));
        assert_eq!(peer.unwrap(), Peer(Identity::from_ed25519([7; 32])));
        let transport = block_on(Transport::from_request_parts(&mut parts, &()));
        assert_eq!(transport.unwrap(), Transport::Libp2p);
    }

    #[test]
    fn a_caller_without_identity_is_refused_where_one_is_needed() {
        let mut anonymous = parts(Some(from(None)));
        let needed =
            block_on(<Peer as FromRequestParts<()>>::from_request_parts(&mut anonymous, &()));
        assert_eq!(needed.unwrap_err().into_response().status(), StatusCode::UNAUTHORIZED);
        let wanted = block_on(<Peer as OptionalFromRequestParts<()>>::from_request_parts(
            &mut anonymous,
            &(),
        ));
        assert_eq!(wanted, Ok(None));
        let outside = block_on(Caller::from_request_parts(&mut parts(None), &()));
        assert_eq!(outside.unwrap_err(), NoCaller::NotOverNetwork);
    }
}
