//! `tandem forward`: a local port for the HTTP services of a peer.

use std::process::ExitCode;

use tandem::{Environment, Forward};
use tokio_util::sync::CancellationToken;

use super::{args::ForwardArgs, failure::Failure, output, reach::Reach, signals::StopSignals};
use crate::log::{self, LogFormat};

/// Longest time for the stop.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// Forwards until a signal comes.
pub(crate) async fn forward(
    args: ForwardArgs,
    mut signals: StopSignals,
) -> Result<ExitCode, Failure> {
    log::to_stderr("warn", LogFormat::Text, None);
    let starting = async {
        let reach = Reach::start(std::slice::from_ref(&args.peer), args.cacert.as_deref()).await?;
        let client = reach.client(&args.peer)?;
        let (root, environment) = (CancellationToken::new(), Environment::system());
        let forward = Forward::start(&args.listen, client, &environment, &root).await?;
        let local = forward.local_address();
        output::print(&format!("forwarding http://{local} to {}", args.peer)).await?;
        Ok::<_, Failure>((reach, forward))
    };
    let (reach, forward) = tokio::select! {
        biased;
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
        started = starting => started?,
    };
    signals.next().await;
    tokio::select! {
        biased;
        _ = signals.next() => return Ok(ExitCode::FAILURE),
        stopped = forward.stop(GRACE) => tracing::debug!(?stopped, "forwarding stopped"),
    }
    reach.stop().await;
    Ok(ExitCode::SUCCESS)
}
