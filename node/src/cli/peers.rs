//! `tandem peers`, `tandem status`, `tandem metrics` and `tandem reload`: a running node's connections, state and
//! counters, and a request to read its certificates again.

use std::{process::ExitCode, time::Duration};

use comfy_table::{Table, presets};

use super::{
    args::{PeerTableArgs, PeersArgs, TargetArgs},
    failure::Failure,
    output,
};
use crate::admin::{
    Client,
    wire::{Certificates, Dial, Peer, Reloaded, Status},
};
use crate::printable::printable;

/// Prints the peers.
pub(crate) async fn peers(args: PeerTableArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.form.target.data_dir()?);
    let peers = client.peers().await?;
    if args.form.json {
        output::print(&output::json(&peers)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&table(&peers)).await?;
    let words = peers.iter().filter(|_| args.verbose).filter_map(words);
    for words in words {
        output::print(&words).await?;
    }
    let dials = client.status().await?.dials;
    let missing = |dial: &&Dial| !dial.outcome.starts_with("connected");
    let missing: Vec<&Dial> = dials.iter().filter(missing).collect();
    if !missing.is_empty() {
        output::print(&format!("\n{}", missing_table(&missing))).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints how the node is doing.
pub(crate) async fn status(args: PeersArgs) -> Result<ExitCode, Failure> {
    let status = Client::new(&args.target.data_dir()?).status().await?;
    output::print(&if args.json { output::json(&status) } else { lines(&status) }).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what the node counts.
pub(crate) async fn metrics(args: TargetArgs) -> Result<ExitCode, Failure> {
    let text = Client::new(&args.target.data_dir()?).metrics().await?;
    output::print(text.trim_end()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the node read the files of its certificates again.
pub(crate) async fn reload(args: TargetArgs) -> Result<ExitCode, Failure> {
    let Reloaded { certificates, changed, needs_restart } =
        Client::new(&args.target.data_dir()?).reload().await?;
    let told = match certificates {
        Certificates::Changed => "the changed certificates are in use",
        Certificates::Unchanged => "the certificates have not changed",
        Certificates::None => "the node has no certificates",
    };
    output::print(told).await?;
    if !changed.is_empty() {
        output::print(&format!("in force now: {}", changed.join(", "))).await?;
    }
    if !needs_restart.is_empty() {
        output::print(&format!("after a restart: {}", needs_restart.join(", "))).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(status: &Status) -> String {
    let Status {
        version,
        network,
        profile,
        mode,
        peer_id,
        ws,
        p2p,
        admin,
        peers,
        uptime_ms,
        lines_lost,
        state: _,
        reasons,
        dials,
        mapped_ports,
    } = status;
    let connected = dials.iter().filter(|dial| dial.outcome.starts_with("connected")).count();
    let of_configured = match dials.len() {
        0 => String::new(),
        all => format!(" ({connected} of {all} configured)"),
    };
    let wrong = if reasons.is_empty() {
        String::new()
    } else {
        format!("\nsomething is wrong: {}", reasons.join(", "))
    };
    let lost = match lines_lost.log + lines_lost.out {
        0 => String::new(),
        lost => {
            format!("\n{lost} lines of its log or its events were lost: they could not be written")
        }
    };
    let uptime = Duration::from_millis(*uptime_ms).as_secs();
    let listening = ws.iter().map(|url| ("ws", url)).chain(p2p.iter().map(|a| ("p2p", a)));
    let listening: String = listening
        .chain(admin.iter().map(|url| ("admin", url)))
        .map(|(transport, address)| format!("\nlistening {transport} {address}"))
        .collect();
    let mapped: String = mapped_ports.iter().map(|port| format!("\nrouter port {port}")).collect();
    let peers = output::peers(*peers);
    format!(
        "tandem {version}, {mode} node of network {network}, profile {profile}\n\
         identity {peer_id}{listening}{mapped}\n{peers}{of_configured}, up for {uptime} s{wrong}{lost}"
    )
}

fn table(peers: &[Peer]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "PEER", "OVER", "DIALLED", "WAY", "ADDRESS", "IDENTITY", "ROLES", "TOPICS", "FOR", "RTT",
        "WAITING",
    ]);
    for peer in peers {
        table.add_row([
            format!("#{}", peer.peer),
            peer.transport.clone(),
            peer.direction.clone(),
            peer.path.clone(),
            printable(&peer.address),
            peer.peer_id.clone().unwrap_or_else(|| "-".to_owned()),
            if peer.roles.is_empty() { "-".to_owned() } else { peer.roles.join(", ") },
            topics(peer),
            format!("{} s", Duration::from_millis(peer.connected_ms).as_secs()),
            peer.rtt_us.map_or_else(|| "-".to_owned(), |rtt| format!("{:.1} ms", rtt as f64 / 1e3)),
            format!("{} B", peer.queued_bytes),
        ]);
    }
    table.trim_fmt()
}

/// The words of a peer about itself and this node; `None` if it has said none.
fn words(peer: &Peer) -> Option<String> {
    let agent = printable(peer.agent.as_deref()?);
    let observed = printable(peer.observed.as_deref().unwrap_or("-"));
    let protocols: String =
        peer.protocols.iter().map(|name| format!("\n    {}", printable(name))).collect();
    Some(format!(
        "\n#{} is {agent}\n  sees this node at {observed}\n  serves{protocols}",
        peer.peer
    ))
}

/// The standing of a peer on topics, as text.
fn topics(peer: &Peer) -> String {
    let score = peer.topic_score.map_or_else(|| "-".to_owned(), |score| format!("{score:.1}"));
    if peer.topic_muted { format!("{score}, muted") } else { score }
}

/// The configured peers that are not connected.
fn missing_table(dials: &[&Dial]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NOT CONNECTED", "TRIED", "NEXT", "LAST ERROR"]);
    for dial in dials {
        let next = dial.next_try_ms.map_or_else(
            || "now".to_owned(),
            |next| format!("in {} s", Duration::from_millis(next).as_secs()),
        );
        let error = dial.last_error.as_deref().unwrap_or("-");
        table.add_row([
            printable(&dial.address),
            format!("{} times", dial.failures),
            next,
            printable(error),
        ]);
    }
    table.trim_fmt()
}
