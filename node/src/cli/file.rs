//! `tandem file`: puts files on a peer, gets them by what is in them, and shares them from where they lie.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use gossip::{BoxFuture, NodeAddress};
use indicatif::{ProgressBar, ProgressDrawTarget};
use services::files::{Client, Fetch, FetchLimits, FileId, Kept, Transferred};
use tokio::sync::watch;

use super::{
    args::{FileArgs, FileCommand},
    failure::Failure,
    output, progress,
    reach::Reach,
    share::share,
    signals::StopSignals,
};
use crate::log;

/// Peers that are asked at a time. Chosen: more do not fill a link any better, and each holds a megabyte.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Puts, gets or shares a file.
pub(crate) async fn file(args: FileArgs, mut signals: StopSignals) -> Result<ExitCode, Failure> {
    let roots = args.cacert.as_deref();
    // Nothing is lost if one of these ends anywhere.
    let short: BoxFuture<'_, _> = match args.what {
        FileCommand::Share(args) => return share(args, signals).await,
        FileCommand::Put { file, peer } => Box::pin(async move { put(&file, peer, roots).await }),
        FileCommand::Get { link, peers, out } => Box::pin(async move {
            let peers: Vec<NodeAddress> = link.peers.into_iter().chain(peers).collect();
            get(link.id, &peers, out, roots).await
        }),
    };
    tokio::select! {
        biased;
        caught = signals.next() => Ok(caught.exit_code()),
        outcome = short => outcome,
    }
}

async fn put(file: &Path, peer: NodeAddress, roots: Option<&Path>) -> Result<ExitCode, Failure> {
    let reach = Reach::start(std::slice::from_ref(&peer), roots).await?;
    let client = Client::new(reach.client(&peer)?);
    let (sender, progress) = watch::channel(Transferred::default());
    let stored = watched(client.put(file, sender), progress).await;
    reach.stop().await;
    let stored = stored?;
    if stored.kept == Kept::Already {
        log::note("the peer had it already");
    }
    output::print(&stored.id.to_string()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn get(
    id: FileId,
    peers: &[NodeAddress],
    out: Option<PathBuf>,
    roots: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let reach = Reach::start(peers, roots).await?;
    let mut clients = Vec::new();
    for peer in peers {
        clients.push(Client::new(reach.client(peer)?));
    }
    let mut clients = clients.into_iter();
    let first = clients.next().ok_or_else(|| Failure::Usage { text: "no peer is named".into() })?;
    let limits = FetchLimits::default().with_at_once(AT_ONCE);
    let fetch = clients.fold(Fetch::new(id, first, limits), Fetch::or_from);
    let progress = fetch.progress();
    let out = out.unwrap_or_else(|| PathBuf::from(id.to_string()));
    let fetched = watched(fetch.into_file(&out), progress).await;
    reach.stop().await;
    let fetched = fetched?;
    let again = match fetched.resumed {
        0 => String::new(),
        resumed => format!(", {resumed} of which were there already"),
    };
    output::print(&format!("{}: {} bytes{again}", out.display(), fetched.bytes)).await?;
    Ok(ExitCode::SUCCESS)
}

/// Does something, and shows how far it is.
async fn watched<T>(doing: impl Future<Output = T>, mut far: watch::Receiver<Transferred>) -> T {
    let bar = progress::bar(None, ProgressDrawTarget::stderr());
    let mut doing = std::pin::pin!(doing);
    loop {
        tokio::select! {
            biased;
            done = &mut doing => {
                bar.finish_and_clear();
                return done;
            }
            Ok(()) = far.changed() => show(&bar, *far.borrow_and_update()),
        }
    }
}

fn show(bar: &ProgressBar, far: Transferred) {
    if let Some(of) = far.of {
        bar.set_length(of);
    }
    bar.set_position(far.bytes);
}
