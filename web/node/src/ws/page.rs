//! The network: carries out the orders of the mesh loop.
//!
//! # Invariants
//!
//! * The mesh loop bounds the dials in progress. Each is one task, which also waits for the end of its link.
//! * A task that is cancelled drops its ticket, which is a result too.

use std::{sync::Arc, time::Duration};

use broadcaster::{Broadcaster, Dialer, Ticket};
use gossip::{
    NetworkId, NetworkProfile, Transport,
    wire::{
        hello::{self, Hello},
        identity::Keypair,
    },
};
use js_sys::Function;
use mesh::{DialFailure, Door};
use runtime::{Shutdown, TaskSet};
use send_wrapper::SendWrapper;
use tokio_util::sync::CancellationToken;

use super::{
    dial::{self, DialError},
    link,
};
use crate::ground::Ground;

/// State shared by every task of the network.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) profile: &'static NetworkProfile,
    pub(super) network: NetworkId,
    pub(super) broadcaster: Broadcaster,
    pub(super) key: Option<Arc<Keypair>>,
    /// The hello, without the identity exchange.
    pub(super) hello: Hello,
    /// The constructor of the host's WebSocket.
    pub(super) constructor: SendWrapper<Function>,
    door: Door,
}

/// The gossip of a page over WebSocket. It dials, and does not listen.
#[derive(Debug)]
pub(crate) struct WsPage {
    tasks: TaskSet,
}

impl WsPage {
    /// Starts to dial.
    pub(crate) fn start(ground: &Ground, constructor: Function, name: String) -> Self {
        let broadcaster = ground.broadcaster.clone();
        let profile = broadcaster.profile();
        let hello = Hello {
            instance: name,
            node_random: Some(hello::node_random(broadcaster.node_random())),
            genesis: ground.network.as_str().to_owned(),
            features: broadcaster.features().to_header(),
            version: profile.version.to_owned(),
            ..Hello::default()
        };
        let own = ground.key.as_ref().map(|key| key.identity());
        broadcaster.mesh().guard(&ground.door, own);
        let tasks = TaskSet::new(&ground.closing);
        let dialer = broadcaster.mesh().attach(Transport::WebSocket);
        let context = Arc::new(Context {
            profile,
            network: ground.network.clone(),
            broadcaster,
            key: ground.key.clone(),
            hello,
            constructor: SendWrapper::new(constructor),
            door: ground.door.over(Transport::WebSocket),
        });
        let spawner = tasks.clone();
        tasks.spawn_lasting("dialler", |cancel| dial_ordered(context, dialer, spawner, cancel));
        Self { tasks }
    }

    /// Closes every connection in an orderly way, and waits for that.
    pub(crate) async fn stop(&self, grace: Duration) -> Shutdown {
        self.tasks.stop(grace).await
    }
}

/// Carries out orders until the network stops.
async fn dial_ordered(
    context: Arc<Context>,
    mut dialer: Dialer,
    tasks: TaskSet,
    cancel: CancellationToken,
) {
    loop {
        let ordered = cancel.run_until_cancelled(dialer.next()).await;
        let Some(Some(ticket)) = ordered else { return cancel.cancelled().await };
        let context = Arc::clone(&context);
        tasks.spawn("dial", |cancel| keep_dialled(context, ticket, cancel));
    }
}

/// Dials once, and waits for the end of the link.
async fn keep_dialled(context: Arc<Context>, ticket: Ticket, cancel: CancellationToken) {
    let _departure = match context.door.depart() {
        Ok(departure) => departure,
        Err(refusal) => return ticket.failed(DialFailure::Unreachable, &refusal.to_string()),
    };
    let dialling = dial::dial(&context, ticket.address());
    match cancel.run_until_cancelled(dialling).await {
        None => {}
        Some(Err(error)) => failed(ticket, &error),
        Some(Ok(dialled)) => link::run(&context, ticket, dialled, &cancel).await,
    }
}

fn failed(ticket: Ticket, error: &DialError) {
    let told = match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    ticket.failed(error.failure(), &told);
}
