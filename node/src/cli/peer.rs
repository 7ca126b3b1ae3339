//! `tandem peer`: the peers that an operator adds, removes and bans, of a node that runs or of one that does not.
//!
//! # Invariants
//!
//! * A node that runs is asked; the file of one that does not is read and changed under the lock of its directory.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use comfy_table::{Table, presets};
use mesh::{BanCause, Role};
use serde::Serialize;
use tandem::{Ban, BanSubject};
use tokio::time::Instant;

use super::{
    args::{BanArgs, BanOptions, PeerArgs, PeerCommand},
    failure::Failure,
    output,
    phonebook::{Book, span},
    store::Store,
};
use crate::admin::{
    ClientError,
    wire::{BanOrder, Banned, Entry, MemberSet, MembersNow, NamedMember},
};

/// Sources whose addresses an operator named.
const OWN_SOURCES: [&str; 2] = ["configuration", "operator"];

/// The peers that somebody decided about.
#[derive(Debug, Serialize)]
struct Decided {
    /// Addresses that the configuration names or an operator added.
    added: Vec<Entry>,
    banned: Vec<Banned>,
    members: MembersNow,
}

/// Bans peers.
pub(crate) async fn ban_peers(args: BanArgs) -> Result<ExitCode, Failure> {
    ban_all(&Book::of(args.target.layers()?)?, &args.options).await?;
    Ok(ExitCode::SUCCESS)
}

/// Bans each of them, at the node or, if none runs, in its peer store.
async fn ban_all(book: &Book, options: &BanOptions) -> Result<(), Failure> {
    for subject in &options.subjects {
        let (for_s, reason) = (options.duration.as_secs(), options.reason.clone());
        let order = BanOrder { subject: subject.to_string(), for_s, reason };
        match book.client.ban(&order).await {
            Err(ClientError::NoNode { .. }) => {
                ban(book.store(), subject.clone(), options.duration, order.reason).await?;
            }
            told => told?,
        }
    }
    Ok(())
}

/// Does what the subcommand says.
pub(crate) async fn peer(args: PeerArgs) -> Result<ExitCode, Failure> {
    let book = Book::of(args.target.layers()?)?;
    match args.what {
        PeerCommand::List { json } => {
            let decided = decided(&book).await?;
            output::print(&if json { output::json(&decided) } else { table(&decided) }).await?;
        }
        PeerCommand::Add { addresses } => book.add(&addresses, &[Role::relay()]).await?,
        PeerCommand::Remove { addresses } => {
            let mut removed = 0;
            for address in &addresses {
                let was_known = match book.client.remove_peer(address).await {
                    Err(ClientError::NoNode { .. }) => return book.forget(&addresses).await,
                    told => told?,
                };
                removed += usize::from(was_known);
            }
            if removed < addresses.len() {
                return Err(Failure::NotKnown { count: addresses.len() - removed });
            }
        }
        PeerCommand::Ban(options) => ban_all(&book, &options).await?,
        PeerCommand::Members { epoch, members, json } => {
            let told = match epoch {
                None => book.client.members().await?,
                Some(epoch) => {
                    let members = members.iter().map(|text| named(text)).collect();
                    book.client.set_members(&MemberSet { epoch, members }).await?
                }
            };
            output::print(&if json { output::json(&told) } else { lines(&told) }).await?;
        }
        PeerCommand::Unban { subjects } => {
            let mut ended = 0;
            for subject in &subjects {
                let was_banned = match book.client.unban(subject).await {
                    Err(ClientError::NoNode { .. }) => unban(book.store(), subject.clone()).await?,
                    told => told?,
                };
                ended += usize::from(was_banned);
            }
            if ended < subjects.len() {
                return Err(Failure::NotBanned { count: subjects.len() - ended });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The member that a word names. The node judges what it says.
fn named(text: &str) -> NamedMember {
    let (peer_id, addresses) = text.split_once('=').unwrap_or((text, ""));
    let addresses = addresses.split(',').filter(|address| !address.is_empty());
    NamedMember { peer_id: peer_id.to_owned(), addresses: addresses.map(str::to_owned).collect() }
}

fn lines(told: &MembersNow) -> String {
    let epoch = match told.epoch {
        Some(epoch) => format!("epoch {epoch}, and the one before it"),
        None => "no members were named".to_owned(),
    };
    [&[epoch], &told.peer_ids[..]].concat().join("\n")
}

async fn decided(book: &Book) -> Result<Decided, Failure> {
    let added = book.listed().await?;
    let is_own = |source: &String| OWN_SOURCES.contains(&&**source);
    let added = added.into_iter().filter(|entry| entry.sources.iter().any(is_own)).collect();
    let (banned, members) = match book.client.bans().await {
        Err(ClientError::NoNode { .. }) => {
            let told = |bans: Vec<Ban>| bans.iter().map(Banned::of).collect();
            let now = Instant::now().into_std();
            let banned = book.store().read(move |_, bans| told(bans.bans(now))).await?;
            (banned, MembersNow { epoch: None, peer_ids: Vec::new() })
        }
        banned => (banned?, book.client.members().await?),
    };
    Ok(Decided { added, banned, members })
}

async fn ban(
    store: Store,
    subject: BanSubject,
    duration: Duration,
    reason: String,
) -> Result<(), Failure> {
    let ban = move |bans: &mut mesh::Bans| {
        let why = (BanCause::Operator, &*reason);
        Ok(bans.ban(subject, duration, why, Instant::now().into_std())?)
    };
    store.change_bans(ban).await
}

async fn unban(store: Store, subject: BanSubject) -> Result<bool, Failure> {
    if !store.exists() {
        return Ok(false);
    }
    store.change_bans(move |bans| Ok(bans.unban(&subject, Instant::now().into_std()))).await
}

fn table(decided: &Decided) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["PEER", "IS", "FOR", "BY", "REASON"]);
    let dash = || "-".to_owned();
    for entry in &decided.added {
        let state = if entry.connected { "added, connected" } else { "added" };
        let by = entry.sources.join(", ");
        table.add_row([entry.address.clone(), state.to_owned(), dash(), by, dash()]);
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    for ban in &decided.banned {
        let left = Duration::from_secs(ban.until).saturating_sub(now);
        let reason = if ban.reason.is_empty() { dash() } else { ban.reason.clone() };
        let is = "banned".to_owned();
        table.add_row([ban.subject.clone(), is, span(left), ban.cause.clone(), reason]);
    }
    for peer in &decided.members.peer_ids {
        let is = "member".to_owned();
        table.add_row([peer.clone(), is, dash(), "application".to_owned(), dash()]);
    }
    table.trim_fmt()
}
