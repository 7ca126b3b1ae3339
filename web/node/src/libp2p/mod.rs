//! libp2p over the transports that JavaScript gives: the native network, on the ground that the node's networks share.

mod exchange;

use std::error::Error;

use gossip::Keypair;
use net_http::HttpServer;
use net_p2p::{Multiaddr, P2pConfig, P2pNetwork, SharedChannelTransport, SharedTransport};
use wasm_bindgen::JsValue;

pub use self::exchange::{RawExchange, RawRequest};
use crate::{code::Code, ground::Ground, transport::Transports};

/// The transports and addresses for libp2p that JavaScript gave, checked.
#[derive(Debug, Default)]
pub(crate) struct Libp2pOptions {
    transports: Vec<SharedTransport>,
    channel_transports: Vec<SharedChannelTransport>,
    listen: Vec<Multiaddr>,
}

impl Libp2pOptions {
    /// Checks transports, and addresses to listen on.
    pub(crate) fn read(transports: &[JsValue], listen: &[String]) -> Result<Self, JsValue> {
        let given = transports
            .iter()
            .map(|given| Transports::of(given).map_err(|error| Code::Transport.because(error)));
        let given: Vec<_> = given.collect::<Result<_, JsValue>>()?;
        let channel_transports: Vec<_> =
            given.iter().filter_map(|transport| transport.channels.clone()).collect();
        let transports: Vec<_> = given.into_iter().filter_map(|given| given.bytes).collect();
        let address = |text: &String| {
            text.parse().map_err(|_| Code::Address.because(format!("{text:?} is no multiaddr")))
        };
        let listen: Vec<_> = listen.iter().map(address).collect::<Result<_, JsValue>>()?;
        if transports.is_empty() && !listen.is_empty() {
            return Err(Code::Transport.because("to listen, the node needs a transport that can"));
        }
        Ok(Self { transports, channel_transports, listen })
    }

    /// Starts the network; `None` without a transport.
    pub(crate) async fn start(
        self,
        ground: &Ground,
        http_server: HttpServer,
    ) -> Result<Option<P2pNetwork>, JsValue> {
        let Self { transports, channel_transports, listen } = self;
        if transports.is_empty() && channel_transports.is_empty() {
            return Ok(None);
        }
        let key = ground.key.as_ref();
        let key =
            key.ok_or_else(|| Code::Key.because("libp2p needs a key: the identity is null"))?;
        let mut config = P2pConfig::new(ground.network.clone(), Keypair::clone(key));
        config.transports = transports;
        config.channel_transports = channel_transports;
        config.listen = listen;
        config.door = ground.door.clone();
        config.http_server = Some(http_server);
        let started = P2pNetwork::start(config, ground.broadcaster.clone(), &ground.closing).await;
        started.map(Some).map_err(|error| Code::Transport.because(with_causes(&error)))
    }
}

/// An error and its causes in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
