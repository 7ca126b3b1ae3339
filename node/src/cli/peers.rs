//! `tandem peers` and `tandem status`: whom a running node is connected to, and how it is doing.

use std::{process::ExitCode, time::Duration};

use comfy_table::{Table, presets};

use super::{args::PeersArgs, failure::Failure, output};
use crate::admin::{
    Client,
    wire::{Peer, Status},
};

/// Prints the peers.
pub(crate) async fn peers(args: PeersArgs) -> Result<ExitCode, Failure> {
    let peers = Client::new(&args.target.data_dir()?).peers().await?;
    output::print(&if args.json { output::json(&peers) } else { table(&peers) }).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints how the node is doing.
pub(crate) async fn status(args: PeersArgs) -> Result<ExitCode, Failure> {
    let status = Client::new(&args.target.data_dir()?).status().await?;
    output::print(&if args.json { output::json(&status) } else { lines(&status) }).await?;
    Ok(ExitCode::SUCCESS)
}

fn lines(status: &Status) -> String {
    let Status { version, network, profile, mode, peer_id, ws, p2p, peers, uptime_ms, lines_lost } =
        status;
    let lost = match lines_lost.log + lines_lost.out {
        0 => String::new(),
        lost => {
            format!("\n{lost} lines of its log or its events were lost: they could not be written")
        }
    };
    let uptime = Duration::from_millis(*uptime_ms).as_secs();
    let listening = ws.iter().map(|url| ("ws", url)).chain(p2p.iter().map(|a| ("p2p", a)));
    let listening: String = listening
        .map(|(transport, address)| format!("\nlistening {transport} {address}"))
        .collect();
    format!(
        "tandem {version}, {mode} node of network {network}, profile {profile}\n\
         identity {peer_id}{listening}\n{peers} peers, up for {uptime} s{lost}"
    )
}

fn table(peers: &[Peer]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["PEER", "OVER", "DIALLED", "ADDRESS", "IDENTITY", "FOR", "WAITING"]);
    for peer in peers {
        table.add_row([
            format!("#{}", peer.peer),
            peer.transport.clone(),
            peer.direction.clone(),
            printable(&peer.address),
            peer.peer_id.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{} s", Duration::from_millis(peer.connected_ms).as_secs()),
            format!("{} B", peer.queued_bytes),
        ]);
    }
    table.trim_fmt()
}

/// A text that may be a peer's own, without what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{25af}' } else { letter }).collect()
}
