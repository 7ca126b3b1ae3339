//! The node that is attacked, in a process of its own.

use std::{io::Write, net::SocketAddr, time::Duration};

use broadcaster::PeerEvent;
use serde::{Deserialize, Serialize};
use testkit::hostile::{self, Counters};
use tokio::{io::AsyncReadExt, runtime::Builder, sync::broadcast::error::RecvError, time};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;

/// Between two reports of the counters. Chosen: a measurement lasts seconds.
const REPORT: Duration = Duration::from_millis(250);

/// Where the hub listens.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Ready {
    pub(super) ws: SocketAddr,
    pub(super) p2p: String,
}

/// A peer that the hub lost.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Gone {
    pub(super) address: String,
    pub(super) reason: String,
}

/// The hub's counters of what went wrong.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Counted {
    pub(super) counters: Counters,
}

/// Runs the hub until standard input ends.
pub(crate) fn hub() -> Result<(), Failure> {
    Builder::new_multi_thread().enable_all().build()?.block_on(run())
}

fn say(what: &impl Serialize) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(what)?)?)
}

async fn run() -> Result<(), Failure> {
    let root = CancellationToken::new();
    let (mut running, target) = Box::pin(hostile::hub(&root)).await?;
    let mut events = running.events();
    say(&Ready { ws: target.ws, p2p: target.p2p })?;
    let tell = async {
        loop {
            match events.recv().await {
                Ok(PeerEvent::Disconnected(peer, reason)) => {
                    let reason = reason.label().to_owned();
                    say(&Gone { address: peer.address.clone(), reason })?;
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    };
    let count = async {
        loop {
            time::sleep(REPORT).await;
            say(&Counted { counters: hostile::counters(&running) })?;
        }
    };
    let (mut stdin, mut nothing) = (tokio::io::stdin(), [0; 1]);
    tokio::select! {
        told = tell => told,
        told = count => told,
        read = stdin.read(&mut nothing) => { read?; Ok(()) }
    }
}
