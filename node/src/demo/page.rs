//! The page that joins the network of a demo as a peer, and the relays that let it in.
//!
//! ```text
//!   page ── WebSocket ──▶ relay-1, or relay-2 when that dies ── both transports ──▶ nodes of the demo
//! ```
//!
//! # Invariants
//!
//! * The page and its relays are in no account, so either may come and go, and a relay may be killed.
//! * The relays let in pages of this origin alone.

use std::path::Path;

use axum::{Json, Router, routing::get};
use runtime::{Environment, TaskSet};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    error::DemoError,
    watcher::{Watch, Watcher},
};
use crate::{
    admin::{Crowded, Open, Places, Port},
    web_page::{self, File, HTML, Policy, Runs, SCRIPT, STYLE},
};

/// Relays for the page: the one that it uses, and the one that it goes to.
const RELAYS: usize = 2;

/// Pages at one time, all of them from this machine. Chosen: more tabs than anybody opens.
const MAX_PAGES: usize = 64;

/// Connections for the files of pages at one time.
const MAX_CONNECTIONS: usize = 64;

/// A page that is served, and its relays.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) url: String,
    pub(super) relays: Vec<Watcher>,
    /// Serves the files until it is dropped.
    _tasks: TaskSet,
}

/// A node of the demo, as the page is told of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) mode: &'static str,
    /// Its peer ID, where others know it by one: over libp2p.
    pub(super) peer_id: Option<String>,
}

/// All that the page is told.
#[derive(Clone, Debug, Serialize)]
struct Network {
    network: String,
    /// The client that the page finds as `tandem.js`.
    client: &'static str,
    relays: Vec<Relay>,
    nodes: Vec<Told>,
}

#[derive(Clone, Debug, Serialize)]
struct Relay {
    name: String,
    address: String,
    pid: Option<u32>,
}

impl Page {
    /// Starts relays that dial all `peers`, and serves the page.
    pub(super) async fn start(
        (network, files): (&str, &Path),
        peers: &[String],
        nodes: Vec<Told>,
        client: Client,
    ) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Page { source };
        let listener = Environment::default().bind("127.0.0.1:0").await.map_err(failed)?;
        let origin = format!("http://{}", listener.local_addr());
        let mut relays = Vec::new();
        for number in 1..=RELAYS {
            let more = [
                "--page-origin",
                &origin,
                "--max-inbound-per-ip",
                &MAX_PAGES.to_string(),
                "--service",
                "status",
                "--service",
                "bridge",
            ];
            let name = format!("relay-{number}");
            let watch = Watch { name, network, files, more: &more.map(str::to_owned) };
            relays.push(Watcher::start(watch, peers.iter()).await?);
        }
        let told = Network {
            network: network.to_owned(),
            client: client.label(),
            relays: relays.iter().map(Relay::of).collect(),
            nodes,
        };
        let at = |scheme: &str| {
            let hosts = told.relays.iter().map(|relay| relay.address.replacen("http", scheme, 1));
            hosts.collect::<Vec<_>>().join(" ")
        };
        let connects = format!("{} {}", at("http"), at("ws"));
        let tasks = TaskSet::new(&CancellationToken::new());
        let port = Port {
            name: "a connection for the page",
            task: "page connection",
            places: Places::new(MAX_CONNECTIONS),
            doors: Open(router(told, &connects, client)),
            crowded: Crowded::default(),
            tasks: tasks.clone(),
        };
        tasks.spawn_lasting("page", |cancel| port.serve(listener, cancel));
        Ok(Self { url: format!("{origin}/"), relays, _tasks: tasks })
    }
}

impl Relay {
    fn of(watcher: &Watcher) -> Self {
        let (name, pid) = (watcher.name().to_owned(), watcher.pid());
        Self { name, address: watcher.ws().to_owned(), pid }
    }
}

fn router(told: Network, connects: &str, client: Client) -> Router {
    let runs = match &client {
        Client::Plain => Runs::JavaScript,
        Client::Package(_) => Runs::WebAssembly,
    };
    let mut files = vec![
        File::of_program("/", HTML, include_str!("../../demo-page/index.html")),
        File::of_program("/demo.css", STYLE, include_str!("../../demo-page/demo.css")),
        File::of_program("/demo.js", SCRIPT, include_str!("../../demo-page/demo.js")),
    ];
    match client {
        Client::Plain => {
            let text = include_str!("../../client/tandem.js");
            files.push(File::of_program("/tandem.js", SCRIPT, text));
        }
        Client::Package(package) => files.extend(package),
    }
    let policy = Policy { connects, runs };
    let network = Router::new().route("/network", get(move || std::future::ready(Json(told))));
    web_page::router(files, policy).merge(web_page::guarded(network, policy))
}
