//! The phases of a demo.
//!
//! ```text
//!   start hubs, then leaves ─▶ probe until nobody is a stranger ─▶ load ─▶ drain ─▶ stop ─▶ account
//!                                                   kill, start again, probe ┘
//! ```
//!
//! # Invariants
//!
//! * Every phase has a deadline.
//! * Dropping the director kills every node.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rand::RngCore;
use runtime::Random;
use tempfile::TempDir;
use tokio::time::{self, Instant};

use super::{
    account::{Account, Outage},
    child::{NodeProcess, Start},
    client::Client,
    control::{Order, Schedule, nanos, now_ns},
    error::DemoError,
    journal::Tail,
    ledger::Ledger,
    page::{Page, Told},
    progress::Progress,
    topology::{Member, Topology},
    watcher::{Watch, Watcher},
};
use crate::{
    cli::{Failure, open_page},
    log,
};

/// Interval at which journals are read. Chosen: progress looks live, and costs nothing.
const LOOK: Duration = Duration::from_millis(100);

/// Longest time until the nodes receive messages from each other. Chosen: several rounds of a topic's overlay.
const MESH_TIME: Duration = Duration::from_secs(30);

/// Delay between the order and the first message. Chosen: every node has read the order by then.
const LEAD: Duration = Duration::from_millis(300);

/// Longest wait for the last messages while none arrives. Source: issue 3, part 8.
const STILL_TIME: Duration = Duration::from_secs(5);

/// Longest wait for the last messages in total.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// Longest time until a killed node is restarted. Chosen: its peers notice, and something is missed.
const DEAD_TIME: Duration = Duration::from_secs(1);

/// Longest time for a node to end.
const STOP_TIME: Duration = Duration::from_secs(6);

/// The parts of a demo to show.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) topology: Topology,
    pub(crate) seconds: u64,
    pub(crate) rate: f64,
    /// The place of the node to kill.
    pub(crate) victim: Option<usize>,
    /// The pages that show it.
    pub(crate) views: Vec<View>,
    pub(crate) opening: Opening,
    /// The folder of the package for the page, if one is named.
    pub(crate) web_node: Option<PathBuf>,
}

/// A page that shows a demo while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The dashboard of a node that watches the others.
    Dashboard,
    /// A page that is a peer itself.
    Peer,
}

/// The way in which pages are shown. Their addresses are printed in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// By their addresses alone.
    ByAddress,
    /// A browser is started.
    InABrowser,
}

/// Why a demo did not come to its end.
#[derive(Debug)]
pub(crate) enum RunError {
    Demo(DemoError),
    /// The dashboard could not be shown.
    Page(Failure),
}

impl From<DemoError> for RunError {
    fn from(error: DemoError) -> Self {
        Self::Demo(error)
    }
}

/// Runs a demo.
#[derive(Debug)]
pub(crate) struct Director {
    plan: Plan,
    members: Vec<Member>,
    /// Of this demo alone, so that two of them never mix.
    network: String,
    files: TempDir,
    nodes: Vec<Node>,
    /// The node that watches the others, if somebody does.
    watcher: Option<Watcher>,
    /// The page that is a peer, if there is one.
    page: Option<Page>,
    /// The rest to read of a node that was killed: its listener and its journal.
    ended: Option<(usize, Tail)>,
    outage: Option<Outage>,
    ledger: Ledger,
    rounds: u32,
}

/// A node that runs.
#[derive(Debug)]
struct Node {
    process: NodeProcess,
    /// Which listener of the ledger it is.
    listener: usize,
}

/// The outcome of a demo.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) account: Account,
    pub(crate) ledger: Ledger,
    pub(crate) outage: Option<Outage>,
}

impl Director {
    /// A demo whose nodes have not been started.
    pub(crate) fn new(plan: Plan) -> Result<Self, DemoError> {
        let files = TempDir::with_prefix("tandem-demo-")
            .map_err(|source| DemoError::Files { path: std::env::temp_dir(), source })?;
        let members = plan.topology.members();
        Ok(Self {
            network: format!("demo-{:08x}", Random::system().next_u32()),
            ledger: Ledger::new(members.len()),
            plan,
            members,
            files,
            nodes: Vec::new(),
            watcher: None,
            page: None,
            ended: None,
            outage: None,
            rounds: 0,
        })
    }

    /// The parts of a demo to show.
    pub(crate) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Leaves the files of the nodes where they are, for somebody to look at, and says where.
    pub(crate) fn keep_files(&mut self) -> &Path {
        self.files.disable_cleanup(true);
        self.files.path()
    }

    /// Runs every phase.
    pub(crate) async fn run(&mut self) -> Result<Outcome, RunError> {
        let progress = Progress::new(self.plan.seconds);
        progress.phase("starting nodes");
        for place in 0..self.members.len() {
            let process = self.start_node(place, 0).await?;
            self.nodes.push(Node { process, listener: place });
        }
        self.show().await?;
        progress.phase("waiting until everybody hears everybody");
        self.meet().await?;
        self.load(&progress).await?;
        progress.phase("waiting for the last messages");
        self.drain().await?;
        progress.phase("stopping nodes");
        let stops = self.nodes.drain(..).map(|node| node.process.stop(STOP_TIME));
        futures::future::join_all(stops).await;
        progress.done();
        let account = self.account();
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new(0));
        Ok(Outcome { account, ledger, outage: self.outage })
    }

    /// Starts what shows the demo: the node that watches the others, and the page that is a peer.
    async fn show(&mut self) -> Result<(), RunError> {
        for view in self.plan.views.clone() {
            let (name, (page, said)) = match view {
                View::Dashboard => ("dashboard", (self.start_dashboard().await?, None)),
                View::Peer => ("page", self.start_page().await?),
            };
            // Not on standard output, where the report is.
            log::note(&format!("{name} {page}"));
            said.into_iter().for_each(log::note);
            if self.plan.opening == Opening::InABrowser {
                open_page(&page);
            }
        }
        Ok(())
    }

    /// The first address of each node, by which nodes beside them dial it.
    fn first_addresses(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter().filter_map(|node| node.process.addresses.first())
    }

    /// Starts the node that watches the others, and returns the address of its dashboard.
    async fn start_dashboard(&mut self) -> Result<String, RunError> {
        let (network, files) = (self.network.as_str(), self.files.path());
        let watch = Watch { name: "watcher".to_owned(), network, files, more: &[] };
        let watcher = Watcher::start(watch, self.first_addresses()).await?;
        let page = watcher.page().await.map_err(RunError::Page)?;
        self.watcher = Some(watcher);
        Ok(page)
    }

    /// Starts the page that is a peer, and returns its address with a line on what it runs.
    async fn start_page(&mut self) -> Result<(String, Option<&'static str>), RunError> {
        let told = self.members.iter().zip(&self.nodes).map(|(member, node)| {
            let ids = node.process.addresses.iter().filter_map(|at| at.rsplit_once("/p2p/"));
            let peer_id = ids.map(|(_, id)| id.to_owned()).next();
            Told { name: member.name.clone(), mode: member.mode.name(), peer_id }
        });
        let peers: Vec<String> = self.first_addresses().cloned().collect();
        let place = (self.network.as_str(), self.files.path());
        let client = Client::find(self.plan.web_node.as_deref())?;
        let said = client.told();
        let page = Page::start(place, &peers, told.collect(), client).await?;
        let url = page.url.clone();
        self.page = Some(page);
        Ok((url, Some(said)))
    }

    async fn start_node(&self, place: usize, life: u8) -> Result<NodeProcess, DemoError> {
        let member = &self.members[place];
        let dialled = member.dials.iter().filter_map(|hub| self.nodes.get(*hub));
        let peers = dialled.flat_map(|hub| &hub.process.addresses);
        // Each end of a link is told only what it can dial.
        let peers = peers.filter(|address| match member.mode {
            tandem::Mode::Hybrid => true,
            tandem::Mode::WebSocket => !address.starts_with('/'),
            tandem::Mode::Libp2p => address.starts_with('/'),
        });
        let (network, dir) = (self.network.as_str(), self.files.path());
        let peers = peers.cloned().collect();
        NodeProcess::start(Start { member, place, life, network, dir, peers }).await
    }

    /// Has everybody send probes until everybody has heard everybody.
    async fn meet(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + MESH_TIME;
        loop {
            self.rounds += 1;
            let round = self.rounds;
            for node in &mut self.nodes {
                node.process.order(Order::Probe { round }).await?;
            }
            time::sleep(LOOK).await;
            self.look()?;
            let missing = self.ledger.strangers();
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let (seconds, dir) = (MESH_TIME.as_secs(), self.files.path().to_owned());
                return Err(DemoError::NotMeshed { missing, seconds, dir });
            }
        }
    }

    async fn load(&mut self, progress: &Progress) -> Result<(), DemoError> {
        let Plan { seconds, rate, victim, .. } = self.plan;
        let nodes = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let schedule =
            Schedule { start_ns: now_ns().saturating_add(nanos(LEAD)), seconds, rate, nodes };
        let total = Duration::from_secs(seconds);
        for node in &mut self.nodes {
            node.process.order(Order::Load(schedule)).await?;
        }
        progress.phase("sending");
        let start = Instant::now() + LEAD;
        let mut victim = victim;
        while start.elapsed() < total || Instant::now() < start {
            time::sleep(LOOK).await;
            self.look()?;
            progress.show(start.elapsed(), &self.ledger);
            if let Some(place) = victim.take_if(|_| start.elapsed() >= total / 2) {
                self.replace(place, schedule, progress).await?;
            }
        }
        Ok(())
    }

    /// Kills a node and starts it again with the same identity.
    async fn replace(
        &mut self,
        place: usize,
        schedule: Schedule,
        progress: &Progress,
    ) -> Result<(), DemoError> {
        let life = 1;
        progress.phase("killing a node");
        // The others keep their places meanwhile.
        let Node { process, listener } = self.nodes.remove(place);
        let killed_ns = now_ns();
        self.ended = Some((listener, process.kill().await?));
        time::sleep(DEAD_TIME.min(Duration::from_secs(self.plan.seconds) / 8)).await;
        progress.phase("starting it again");
        let process = self.start_node(place, life).await?;
        let relays = self.page.iter().flat_map(|page| &page.relays);
        for watcher in self.watcher.iter().chain(relays) {
            watcher.dial(process.addresses.get(..1).unwrap_or_default()).await;
        }
        let listener = self.ledger.reborn(place, life);
        self.nodes.insert(place, Node { process, listener });
        self.meet().await?;
        self.outage = Some(Outage { node: place, life: 0, killed_ns, back_ns: now_ns() });
        self.nodes[place].process.order(Order::Load(schedule)).await?;
        progress.phase("sending");
        Ok(())
    }

    /// Waits until nothing is missing, or nothing arrives any more.
    async fn drain(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + DRAIN_TIME;
        let (mut before, mut moved) = (self.ledger.handled(), Instant::now());
        let mut complete = 0;
        // Twice in a row, so that what somebody has not noted yet shows.
        while complete < 2 {
            time::sleep(LOOK).await;
            self.look()?;
            let settled = self.ledger.is_all_sent() && self.account().lost() == 0;
            complete = if settled { complete + 1 } else { 0 };
            let now = Instant::now();
            if self.ledger.handled() != before {
                (before, moved) = (self.ledger.handled(), now);
            }
            if now - moved > STILL_TIME || now > deadline {
                break;
            }
        }
        Ok(())
    }

    /// Reads every journal, and sees that every node lives.
    fn look(&mut self) -> Result<(), DemoError> {
        let failed = |source| DemoError::Files { path: self.files.path().to_owned(), source };
        for Node { process, listener } in &mut self.nodes {
            process.journal.read(|record| self.ledger.take(*listener, record)).map_err(failed)?;
            process.check()?;
        }
        if let Some((listener, journal)) = &mut self.ended {
            journal.read(|record| self.ledger.take(*listener, record)).map_err(failed)?;
        }
        Ok(())
    }

    fn account(&self) -> Account {
        Account::of(&self.ledger, self.members.len(), self.outage)
    }
}
