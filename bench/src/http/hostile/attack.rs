//! A hostile peer that attacks in one of four ways, or in all of them, and starts again after each disconnect.

use std::{net::SocketAddr, time::Duration};

use clap::ValueEnum;
use gossip::NodeAddress;
use libp2p::{Multiaddr, PeerId, Stream, identity::Keypair, multiaddr::Protocol};
use runtime::TaskSet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Builder,
    time,
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::super::{Carrier, bare::PROTOCOL};
use crate::{error::Failure, receiver::p2p as streams};

/// Number of streams of each kind. Chosen: together more than a connection may have.
const HOARD: usize = 512;
const DRIP: usize = 64;
const FLOOD: usize = 64;
const DEAF: usize = 64;

/// Time between two bytes that keep a request alive. Chosen: often enough that no stall limit fires.
const DRIP_EVERY: Duration = Duration::from_millis(500);

/// Pause between the end of one connection and the start of the next.
const BREATH: Duration = Duration::from_millis(1);

/// Requests sent in one write.
const BATCH: usize = 64;

const HEAD: &[u8] = b"GET /hello HTTP/1.1\r\nHost: bench\r\nX: ";
const SINK: &[u8] = b"POST /sink HTTP/1.1\r\nHost: bench\r\nContent-Length: 1000000\r\n\r\n";
const SMALL: &[u8] = b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n";
const LARGE: &[u8] = b"GET /body HTTP/1.1\r\nHost: bench\r\n\r\n";

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttackKind {
    /// Keeps as many request heads as possible unfinished, one byte at a time.
    Hoard,
    /// Sends long request bodies, one byte at a time.
    Drip,
    /// Sends requests without reading the answers.
    Flood,
    /// Requests long answers, and reads none of them.
    Deaf,
    /// All four at once.
    All,
}

impl AttackKind {
    /// Every kind of attack.
    pub(super) const EVERY: [Self; 5] =
        [Self::Hoard, Self::Drip, Self::Flood, Self::Deaf, Self::All];

    /// The name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hoard => "hoard",
            Self::Drip => "drip",
            Self::Flood => "flood",
            Self::Deaf => "deaf",
            Self::All => "all",
        }
    }
}

/// Settings of `bench attack`.
#[derive(Debug, clap::Args)]
pub(crate) struct Attack {
    /// Transport of the attack.
    #[arg(value_enum)]
    carrier: Carrier,
    /// Kind of the attack.
    #[arg(value_enum)]
    way: AttackKind,
    /// Address of the node to attack.
    address: NodeAddress,
}

/// Attacks until the process is killed.
pub(crate) fn attack(args: &Attack) -> Result<(), Failure> {
    Builder::new_current_thread().enable_all().build()?.block_on(run(args))
}

async fn run(args: &Attack) -> Result<(), Failure> {
    let tasks = TaskSet::new(&CancellationToken::new());
    let way = args.way;
    match args.carrier {
        Carrier::Tcp | Carrier::Tls => start(&tasks, way, &Sockets::new(&args.address)?),
        Carrier::P2p => start(&tasks, way, &Streams::dial(&args.address, &tasks).await?),
    }
    tasks.token().cancelled().await;
    Err("the attack has failed".into())
}

/// Opens connections or streams.
trait Open: Clone + Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn open(&mut self) -> impl Future<Output = Result<Self::Io, Failure>> + Send;
}

/// Opens sockets from an address other than the honest caller's.
#[derive(Clone)]
struct Sockets(SocketAddr);

impl Sockets {
    fn new(address: &NodeAddress) -> Result<Self, Failure> {
        let NodeAddress::WebSocket(address) = address else {
            return Err("sockets need another kind of address".into());
        };
        Ok(Self(format!("{}:{}", address.host(), address.port()).parse()?))
    }
}

impl Open for Sockets {
    type Io = TcpStream;

    async fn open(&mut self) -> Result<TcpStream, Failure> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
        Ok(socket.connect(self.0).await?)
    }
}

/// Opens streams of one connection.
#[derive(Clone)]
struct Streams {
    control: libp2p_stream::Control,
    hub: PeerId,
}

impl Streams {
    async fn dial(address: &NodeAddress, tasks: &TaskSet) -> Result<Self, Failure> {
        let address: Multiaddr = address.to_string().parse()?;
        let Some(Protocol::P2p(hub)) = address.iter().last() else {
            return Err("the address does not name a peer".into());
        };
        let control = streams::dial(Keypair::generate_ed25519(), &address, tasks).await?;
        Ok(Self { control, hub })
    }
}

impl Open for Streams {
    type Io = Compat<Stream>;

    async fn open(&mut self) -> Result<Self::Io, Failure> {
        Ok(self.control.open_stream(self.hub, PROTOCOL).await?.compat())
    }
}

fn start<O: Open>(tasks: &TaskSet, way: AttackKind, open: &O) {
    let is_wanted = |wanted| way == wanted || way == AttackKind::All;
    if is_wanted(AttackKind::Hoard) {
        repeat(tasks, open, HOARD, |io| drip(io, HEAD));
    }
    if is_wanted(AttackKind::Drip) {
        repeat(tasks, open, DRIP, |io| drip(io, SINK));
    }
    if is_wanted(AttackKind::Flood) {
        repeat(tasks, open, FLOOD, flood);
    }
    if is_wanted(AttackKind::Deaf) {
        repeat(tasks, open, DEAF, deaf);
    }
}

/// Runs `act` on new connections for ever, `at_a_time` of them concurrently.
fn repeat<O, F>(tasks: &TaskSet, open: &O, at_a_time: usize, act: fn(O::Io) -> F)
where
    O: Open,
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    for _ in 0..at_a_time {
        let mut open = open.clone();
        tasks.spawn("act", |_cancel| async move {
            loop {
                if let Ok(io) = open.open().await {
                    // The node may end the connection in any way; the next round opens another one.
                    let _ = act(io).await;
                }
                time::sleep(BREATH).await;
            }
        });
    }
}

async fn drip<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io, begin: &[u8]) -> std::io::Result<()> {
    io.write_all(begin).await?;
    loop {
        io.write_all(b"x").await?;
        io.flush().await?;
        time::sleep(DRIP_EVERY).await;
    }
}

async fn flood<Io: AsyncRead + AsyncWrite + Unpin>(io: Io) -> std::io::Result<()> {
    let (mut read, mut write) = tokio::io::split(io);
    let batch = SMALL.repeat(BATCH);
    let send = async {
        loop {
            write.write_all(&batch).await?;
            write.flush().await?;
        }
    };
    let receive = async {
        let mut answers = vec![0; 64 * 1024];
        while read.read(&mut answers).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        ended = send => ended,
        ended = receive => ended,
    }
}

async fn deaf<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io) -> std::io::Result<()> {
    let batch = LARGE.repeat(BATCH);
    loop {
        io.write_all(&batch).await?;
        io.flush().await?;
    }
}
