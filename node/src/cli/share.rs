//! `tandem file share`: serves a file from where it lies.

use std::{process::ExitCode, time::Duration};

use gossip::NetworkId;
use services::files::{FileLink, SharedFile};
use tandem::NodeBuilder;
use tokio_util::sync::CancellationToken;

use super::{args::ShareArgs, failure::Failure, output, signals::StopSignals};
use crate::log::{self, LogFormat};

/// Longest time for the stop. Answers under way break off, and whoever asked goes on with another peer, or later.
const GRACE: Duration = Duration::from_secs(2);

/// Serves a file until a signal comes.
pub(crate) async fn share(args: ShareArgs, mut signals: StopSignals) -> Result<ExitCode, Failure> {
    log::to_stderr("warn", LogFormat::Text, None);
    let ShareArgs { file, listen_ws, listen_p2p, address } = args;
    // The name says nothing: the node has nothing to gossip.
    let network = NetworkId::new("any");
    let network = network.map_err(|error| Failure::Usage { text: error.to_string() })?;
    let builder = NodeBuilder::new(network).listen_ws(listen_ws).listen_p2p(listen_p2p);
    let starting = async {
        let failed = |source| Failure::Read { path: file.clone(), source };
        let shared = SharedFile::open(&file).await.map_err(failed)?;
        let (id, bytes) = (shared.id(), shared.bytes());
        let running = builder.http(shared.router()).start(&CancellationToken::new()).await?;
        let peers = if address.is_empty() { running.node().addresses() } else { address };
        output::print(&format!("sharing {}, {bytes} bytes", file.display())).await?;
        output::print(&FileLink { id, peers }.to_string()).await?;
        output::print("ready").await?;
        Ok::<_, Failure>(running)
    };
    let running = tokio::select! {
        biased;
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
        started = starting => started?,
    };
    signals.next().await;
    tokio::select! {
        biased;
        _ = signals.next() => return Ok(ExitCode::FAILURE),
        stopped = running.stop(GRACE) => tracing::debug!(?stopped, "sharing stopped"),
    }
    Ok(ExitCode::SUCCESS)
}
