//! The node: a broadcaster, and the networks on it.

use std::{cell::RefCell, sync::Arc, time::Duration};

use broadcaster::{Broadcaster, Limits, Setup, WantedTags};
use gossip::{
    Admission, DeliveryError, Identity, LinkId, NodeAddress, Outbound, PeerClass, Recipients,
    Request, SubmitError, Transport,
};
use js_sys::{Array, Function, Promise};
use mesh::{Door, InboundLimits, MeshLimits};
use net_http::HttpServer;
use net_p2p::{AddPeerError, P2pNetwork};
use runtime::TaskSet;
use send_wrapper::SendWrapper;
use tokio_util::sync::CancellationToken;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use crate::{
    code::Code,
    events,
    ground::Ground,
    handlers::{JsHandler, JsValidator},
    libp2p::{RawExchange, RawRequest},
    options::{Options, RawOptions, read_tag},
    panic, serve, shown,
    subscription::{self, RawSubscription},
    topics,
    ws::WsPage,
};

/// Longest time for the orderly end of the node.
const GRACE: Duration = Duration::from_secs(2);

/// A running node.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawNode {
    ground: Ground,
    tasks: TaskSet,
    /// Gossip over the host's WebSocket; `None` once the node was closed, and where the host has no WebSocket.
    ws: RefCell<Option<WsPage>>,
    /// libp2p; `None` without a transport for it.
    libp2p: Option<P2pNetwork>,
    /// Serves HTTP on the streams of libp2p.
    served: HttpServer,
}

#[wasm_bindgen]
#[expect(clippy::missing_errors_doc, reason = "for `tandem.js`; the codes are in `tandem.d.ts`")]
impl RawNode {
    /// Starts a node. Nothing runs after an error.
    pub async fn start(options: RawOptions) -> Result<Self, JsValue> {
        let Options {
            profile,
            network,
            name,
            key,
            tags,
            peers,
            relaying,
            budget_bytes,
            request_time,
            fan_out,
            web_socket,
            libp2p,
            serve,
            on_event,
        } = Options::read(&options)?;
        panic::tell();
        let closing = CancellationToken::new();
        let wanted = tags.map_or(WantedTags::Usual, WantedTags::Only);
        wanted.check(&profile.tags).map_err(|error| Code::Tag.because(error))?;
        let limits = Limits::default().with_budget_bytes(budget_bytes);
        let limits = limits.with_request_timeout(request_time);
        let setup = Setup::new(profile)
            .relaying(relaying)
            .wanted(wanted)
            .limits(limits)
            .mesh(MeshLimits::default().with_fan_out(fan_out));
        let broadcaster = Broadcaster::start(setup, &closing);
        let door = Door::new(InboundLimits::default());
        let ground = Ground { network, key, broadcaster, door, closing };
        let tasks = TaskSet::new(&ground.closing);
        let (heard, tell) = (ground.broadcaster.events(), SendWrapper::new(on_event));
        tasks.spawn_lasting("events", |cancel| events::run(heard, tell, cancel));
        let ws = web_socket.map(|constructor| WsPage::start(&ground, constructor, name));
        let served = serve.server();
        let mut node = Self { ground, tasks, ws: RefCell::new(ws), libp2p: None, served };
        match libp2p.start(&node.ground, node.served.clone()).await {
            Ok(network) => node.libp2p = network,
            Err(error) => return Err(node.given_up(error).await),
        }
        for peer in peers {
            if let Err(error) = node.add_peer(peer) {
                return Err(node.given_up(error).await);
            }
        }
        Ok(node)
    }

    /// The peer ID of this node; undefined if it proves none.
    #[wasm_bindgen(getter = peerId)]
    pub fn peer_id(&self) -> Option<String> {
        self.ground.key.as_ref().map(|key| key.identity().to_string())
    }

    /// The multiaddrs that it listens on, with its peer ID.
    #[wasm_bindgen(getter)]
    pub fn addresses(&self) -> Vec<String> {
        self.libp2p.as_ref().map(P2pNetwork::listen_addresses).unwrap_or_default()
    }

    /// True if peers can call HTTP services of this node.
    #[wasm_bindgen(getter = canServe)]
    pub fn can_serve(&self) -> bool {
        self.libp2p.is_some()
    }

    /// The counts of the requests that it served.
    pub fn served(&self) -> JsValue {
        serve::counts(self.served.metrics())
    }

    /// Prepares an HTTP request to the peer of a multiaddr; `/p2p/ID` names one that is connected.
    pub fn exchange(&self, address: &str, request: &RawRequest) -> Result<RawExchange, JsValue> {
        let network = self.libp2p.as_ref().ok_or_else(no_transport)?;
        RawExchange::new(network, address, request)
    }

    /// Offers a message, to all peers or to one link: `queued`, `full` or `closed`.
    pub fn broadcast(&self, tag: &str, body: Vec<u8>, to: Option<f64>) -> Result<String, JsValue> {
        let message = outbound(tag, body, to)?;
        admitted(self.ground.broadcaster.broadcast(&message))
    }

    /// Offers the message of somebody else, which is passed on if this node relays.
    pub fn relay(&self, tag: &str, body: Vec<u8>) -> Result<String, JsValue> {
        admitted(self.ground.broadcaster.relay(&outbound(tag, body, None)?))
    }

    /// Offers a message, and resolves with the numbers of peers that it was written to and given up for.
    #[wasm_bindgen(js_name = broadcastAndWait)]
    pub fn broadcast_and_wait(&self, tag: &str, body: Vec<u8>) -> Result<Promise, JsValue> {
        let message = outbound(tag, body, None)?;
        let delivery = self.ground.broadcaster.broadcast_and_wait(&message);
        Ok(future_to_promise(async move {
            let delivery = delivery.await.map_err(|error| match error {
                DeliveryError::Refused(error) => refused(error),
                DeliveryError::Full => Code::Full.because(error),
                _ => Code::Closed.because(error),
            })?;
            Ok(shown::object([
                ("written", shown::number(delivery.written as u64)),
                ("givenUp", shown::number(delivery.given_up as u64)),
            ]))
        }))
    }

    /// Consensus made progress, so the outgoing peers are no clique.
    #[wasm_bindgen(js_name = networkAdvanced)]
    pub fn network_advanced(&self) {
        self.ground.broadcaster.mesh().network_advanced();
    }

    /// Asks one link, and resolves with the topics of the answer.
    pub fn request(&self, link: f64, topics: &Array) -> Result<Promise, JsValue> {
        let request = Request { topics: topics::read(topics)? };
        let broadcaster = self.ground.broadcaster.clone();
        Ok(future_to_promise(async move {
            let answered = broadcaster.request(LinkId(link as u64), request).await;
            let answer = answered.map_err(|error| {
                use gossip::RequestError as E;
                let code = match error {
                    E::NotConnected { .. } => Code::NotConnected,
                    E::TooLarge { .. } => Code::TooLarge,
                    E::Full { .. } => Code::Full,
                    _ => Code::Timeout,
                };
                code.because(error)
            })?;
            Ok(topics::write(&answer.topics).into())
        }))
    }

    /// The connected peers.
    pub fn peers(&self) -> Array {
        self.ground.broadcaster.peers(PeerClass::Connected).iter().map(shown::peer).collect()
    }

    /// The configured addresses with the outcome of their last dial and its error.
    pub fn dials(&self) -> Array {
        let dials = self.ground.broadcaster.mesh().dials();
        let of = [Transport::WebSocket, Transport::Libp2p].map(|transport| dials.states(transport));
        let shown = |state: &gossip::DialState| {
            shown::object([
                ("address", state.address.clone().into()),
                ("outcome", state.outcome.label().into()),
                ("failures", shown::number(state.failures)),
                ("error", state.last_error.clone().map_or(JsValue::NULL, JsValue::from)),
            ])
        };
        of.iter().flatten().map(shown).collect()
    }

    /// Calls `deliver` with every message of these tags from now on.
    pub fn subscribe(
        &self,
        tags: Vec<String>,
        deliver: Function,
    ) -> Result<RawSubscription, JsValue> {
        let tags = tags.iter().map(|tag| read_tag(tag)).collect::<Result<_, _>>()?;
        subscription::subscribe(&self.ground.broadcaster, &self.tasks, tags, deliver)
    }

    /// Handles the messages of a tag by a function.
    pub fn handle(&self, tag: &str, handler: Function) -> Result<(), JsValue> {
        let handler = Arc::new(JsHandler(SendWrapper::new(handler)));
        let handled = self.ground.broadcaster.handle(read_tag(tag)?, handler);
        handled.map_err(|error| Code::Tag.because(error))
    }

    /// Judges the messages of a tag by a function.
    pub fn validate(&self, tag: &str, validator: Function) -> Result<(), JsValue> {
        let validator = Arc::new(JsValidator(SendWrapper::new(validator)));
        let judged = self.ground.broadcaster.validate(read_tag(tag)?, validator);
        judged.map_err(|error| Code::Tag.because(error))
    }

    /// Keeps an address dialled.
    #[wasm_bindgen(js_name = addPeer)]
    pub fn add_peer_text(&self, address: &str) -> Result<(), JsValue> {
        self.add_peer(
            address.parse().map_err(|error: gossip::AddressError| Code::Address.because(error))?,
        )
    }

    /// Forgets an address, and ends the links to it. False if it was not known.
    #[wasm_bindgen(js_name = removePeer)]
    pub fn remove_peer(&self, address: &str) -> Result<bool, JsValue> {
        let address: Result<NodeAddress, _> = address.parse();
        let address = address.map_err(|error| Code::Address.because(error))?;
        Ok(match (&self.libp2p, &address) {
            (Some(network), NodeAddress::Multiaddr(_)) => network.remove_peer(&address),
            _ => self.ground.broadcaster.remove_peer(&address),
        })
    }

    /// Ends the link of this number.
    pub fn disconnect(&self, link: f64) {
        let reason = gossip::DisconnectReason::Requested;
        self.ground.broadcaster.disconnect(LinkId(link as u64), reason);
    }

    /// The link to the peer of this identity; undefined if there is none.
    #[wasm_bindgen(js_name = linkOf)]
    pub fn link_of(&self, peer_id: &str) -> Result<Option<f64>, JsValue> {
        let identity: Result<Identity, _> = peer_id.parse();
        let identity = identity.map_err(|error| Code::Address.because(error))?;
        Ok(self.ground.broadcaster.peer_of(&identity).map(|link| link.0 as f64))
    }

    /// Closes the node, and resolves when everything has ended.
    pub fn close(&self) -> Promise {
        let (ground, tasks) = (self.ground.clone(), self.tasks.clone());
        let (ws, libp2p) = (self.ws.take(), self.libp2p.clone());
        future_to_promise(async move {
            let ws = async {
                match ws {
                    Some(ws) => Some(ws.stop(GRACE).await),
                    None => None,
                }
            };
            let libp2p = async {
                match libp2p {
                    Some(network) => Some(network.stop(GRACE).await),
                    None => None,
                }
            };
            // Tasks that are left after the grace are aborted, and their messages counted as dropped.
            let _ = tokio::join!(ws, libp2p);
            let _ = ground.broadcaster.stop(GRACE).await;
            let _ = tasks.stop(GRACE).await;
            ground.closing.cancel();
            Ok(JsValue::UNDEFINED)
        })
    }
}

/// A message for all peers, or for one link.
fn outbound(tag: &str, body: Vec<u8>, to: Option<f64>) -> Result<Outbound, JsValue> {
    let to = to.map_or(Recipients::All, |link| Recipients::One(LinkId(link as u64)));
    Ok(Outbound::new(read_tag(tag)?, body).to(to))
}

fn admitted(admission: Result<Admission, SubmitError>) -> Result<String, JsValue> {
    let word = match admission.map_err(refused)? {
        Admission::Queued => "queued",
        Admission::Full => "full",
        Admission::Closed => "closed",
    };
    Ok(word.to_owned())
}

fn refused(error: SubmitError) -> JsValue {
    match error {
        SubmitError::TooLarge { .. } => Code::TooLarge.because(error),
        _ => Code::Tag.because(error),
    }
}

impl RawNode {
    /// Closes a node that did not start, and returns the reason.
    async fn given_up(&self, error: JsValue) -> JsValue {
        // A promise of this node's own, which is not rejected.
        let _ = JsFuture::from(self.close()).await;
        error
    }

    fn add_peer(&self, address: NodeAddress) -> Result<(), JsValue> {
        let (ws, mesh) = (self.ws.borrow(), self.ground.broadcaster.mesh());
        match &address {
            NodeAddress::WebSocket(_) if ws.is_none() => {
                return Err(
                    Code::Address.because("this host has no WebSocket: give one as an option")
                );
            }
            NodeAddress::WebSocket(_) => {}
            NodeAddress::Multiaddr(_) => {
                let network = self.libp2p.as_ref().ok_or_else(no_transport)?;
                return network.add_peer(&address).map_err(|error| match error {
                    AddPeerError::TooMany => Code::Full.because(error),
                    _ => Code::Address.because(error),
                });
            }
        }
        match mesh.configure(address) {
            mesh::Added::Full => Err(Code::Full.because("too many addresses are configured")),
            _ => Ok(()),
        }
    }
}

/// The refusal of a multiaddr in a node without libp2p.
fn no_transport() -> JsValue {
    Code::Address.because("a multiaddr needs a transport: give one as the option transports")
}
