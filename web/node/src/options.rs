//! The options of `Node.start`, as `tandem.js` hands them over: every one is there and of its type.

use std::{sync::Arc, time::Duration};

use gossip::{NetworkId, NetworkProfile, NodeAddress, Tag, wire::identity::Keypair};
use js_sys::{Function, Uint8Array};
use wasm_bindgen::prelude::*;

use crate::{
    code::Code,
    libp2p::Libp2pOptions,
    profile::{self, RawProfile},
    serve::ServeOptions,
};

#[wasm_bindgen]
extern "C" {
    /// The options, made whole by `tandem.js`.
    pub type RawOptions;

    #[wasm_bindgen(method, getter)]
    fn network(this: &RawOptions) -> String;
    /// Undefined for the profile `tandem`.
    #[wasm_bindgen(method, getter)]
    fn profile(this: &RawOptions) -> Option<RawProfile>;
    #[wasm_bindgen(method, getter)]
    fn name(this: &RawOptions) -> String;
    #[wasm_bindgen(method, getter)]
    fn peers(this: &RawOptions) -> Vec<String>;
    #[wasm_bindgen(method, getter)]
    fn tags(this: &RawOptions) -> Option<Vec<String>>;
    #[wasm_bindgen(method, getter)]
    fn seed(this: &RawOptions) -> Option<Uint8Array>;
    #[wasm_bindgen(method, getter)]
    fn relay(this: &RawOptions) -> bool;
    /// Bytes that all queues hold together.
    #[wasm_bindgen(method, getter = budgetBytes)]
    fn budget_bytes(this: &RawOptions) -> f64;
    #[wasm_bindgen(method, getter = requestMs)]
    fn request_ms(this: &RawOptions) -> f64;
    /// Learnt addresses are dialled while fewer peers are connected.
    #[wasm_bindgen(method, getter = fanOut)]
    fn fan_out(this: &RawOptions) -> u32;
    /// The constructor of the host's WebSocket.
    #[wasm_bindgen(method, getter = WebSocket)]
    fn web_socket(this: &RawOptions) -> Option<Function>;
    /// Multiaddrs to listen on.
    #[wasm_bindgen(method, getter)]
    fn listen(this: &RawOptions) -> Vec<String>;
    /// Transports for libp2p.
    #[wasm_bindgen(method, getter)]
    fn transports(this: &RawOptions) -> Vec<JsValue>;
    /// Gets each request of a peer.
    #[wasm_bindgen(method, getter = onRequest)]
    fn on_request(this: &RawOptions) -> Function;
    #[wasm_bindgen(method, getter = serveMs)]
    fn serve_ms(this: &RawOptions) -> f64;
    #[wasm_bindgen(method, getter = serveBodyBytes)]
    fn serve_body_bytes(this: &RawOptions) -> f64;
    /// Gets the kind, the peer and the reason of each event.
    #[wasm_bindgen(method, getter = onEvent)]
    fn on_event(this: &RawOptions) -> Function;
}

/// The checked options.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) profile: &'static NetworkProfile,
    pub(crate) network: NetworkId,
    pub(crate) name: String,
    pub(crate) peers: Vec<NodeAddress>,
    /// The tags that are asked for; `None` for those that peers send unasked.
    pub(crate) tags: Option<Vec<Tag>>,
    pub(crate) key: Option<Arc<Keypair>>,
    pub(crate) relaying: broadcaster::Relaying,
    pub(crate) budget_bytes: usize,
    pub(crate) request_time: Duration,
    pub(crate) fan_out: usize,
    pub(crate) web_socket: Option<Function>,
    pub(crate) libp2p: Libp2pOptions,
    pub(crate) serve: ServeOptions,
    pub(crate) on_event: Function,
}

/// Largest budget, in bytes. Chosen: half of what a 32-bit memory can be.
const MAX_BUDGET_BYTES: usize = 1 << 31;

impl Options {
    /// Checks what was given.
    pub(crate) fn read(raw: &RawOptions) -> Result<Self, JsValue> {
        let network =
            NetworkId::new(raw.network()).map_err(|error| Code::Network.because(error))?;
        let name = raw.name();
        if !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Code::Network.because("the name has characters other than plain text"));
        }
        let peers = raw.peers().iter().map(|text| text.parse()).collect::<Result<_, _>>();
        let tags = raw.tags().map(|tags| tags.iter().map(|tag| read_tag(tag)).collect());
        let relaying = match raw.relay() {
            true => broadcaster::Relaying::Accepted,
            false => broadcaster::Relaying::Off,
        };
        // A float becomes the nearest integer that there is.
        let budget_bytes = (raw.budget_bytes() as usize).min(MAX_BUDGET_BYTES);
        Ok(Self {
            profile: raw
                .profile()
                .map_or(Ok(&NetworkProfile::TANDEM), |raw| profile::read(&raw))?,
            network,
            name,
            peers: peers.map_err(|error: gossip::AddressError| Code::Address.because(error))?,
            tags: tags.transpose()?,
            key: raw.seed().map(|seed| read_seed(&seed)).transpose()?,
            relaying,
            budget_bytes,
            // The broadcaster takes at least a millisecond and at most a year.
            request_time: Duration::from_millis(raw.request_ms() as u64),
            fan_out: raw.fan_out() as usize,
            web_socket: raw.web_socket(),
            libp2p: Libp2pOptions::read(&raw.transports(), &raw.listen())?,
            serve: ServeOptions {
                on_request: raw.on_request(),
                answer_time: Duration::from_millis(raw.serve_ms() as u64),
                body_bytes: raw.serve_body_bytes() as usize,
            },
            on_event: raw.on_event(),
        })
    }
}

fn read_seed(seed: &Uint8Array) -> Result<Arc<Keypair>, JsValue> {
    let bytes = <[u8; 32]>::try_from(seed.to_vec());
    let bytes = bytes.map_err(|_| Code::Key.because("a seed has 32 bytes"))?;
    Ok(Arc::new(Keypair::from_seed(bytes)))
}

/// Reads a tag.
pub(crate) fn read_tag(text: &str) -> Result<Tag, JsValue> {
    text.parse().map_err(|error| Code::Tag.because(error))
}
