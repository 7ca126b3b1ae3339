//! `tandem phonebook`: the addresses that a node knows, of one that runs or of one that does not.
//!
//! # Invariants
//!
//! * A node that runs is asked; the file of one that does not is read and changed under the lock of its directory.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use comfy_table::{Table, presets};
use discovery::{PEER_FILE, PeerFile};
use gossip::NodeAddress;
use mesh::{Record, Role, RoleSet, SourceId, SourceKind, phonebook::MAX_PERSISTENT};
use tandem::{DataDir, Mode, PeerError};

use super::{
    args::{PhonebookArgs, PhonebookCommand},
    failure::Failure,
    output,
};
use crate::{
    admin::{
        Client, ClientError,
        wire::{Additions, Entry},
    },
    config::{Layers, Settings},
};

/// Does what the subcommand says.
pub(crate) async fn phonebook(args: PhonebookArgs) -> Result<ExitCode, Failure> {
    let layers = args.target.layers()?;
    let dir = Settings::data_dir(&layers)?;
    let client = Client::new(&dir);
    match args.what {
        PhonebookCommand::List { role, json } => {
            let entries = listed(&client, layers, dir, role).await?;
            output::print(&if json { output::json(&entries) } else { table(&entries) }).await?;
        }
        PhonebookCommand::Export { role, json } => {
            let entries = listed(&client, layers, dir, role).await?;
            let lines = || entries.iter().map(|entry| &*entry.address).collect::<Vec<_>>();
            let text = if json { output::json(&entries) } else { lines().join("\n") };
            // Nothing known is no line.
            if !text.is_empty() {
                output::print(&text).await?;
            }
        }
        PhonebookCommand::Add { addresses, role } => {
            // As a node that runs would judge; of its mode it alone knows.
            for address in &addresses {
                let refused = |error: PeerError| Failure::Usage { text: error.to_string() };
                Mode::default().check_peer(address).map_err(refused)?;
            }
            let roles = if role.is_empty() { vec![Role::relay()] } else { role };
            let additions = Additions {
                addresses: addresses.iter().map(ToString::to_string).collect(),
                roles: roles.iter().map(ToString::to_string).collect(),
            };
            let placed = match client.add(&additions).await {
                Err(ClientError::NoNode { dir }) => {
                    let wanted = addresses.clone();
                    changed(layers, dir, move |records| add(records, &wanted, &roles)).await?
                }
                told => told?,
            };
            if placed < addresses.len() {
                return Err(Failure::PhonebookFull { count: addresses.len() - placed });
            }
        }
        PhonebookCommand::Remove { addresses } => {
            let removed = match removed(&client, &addresses).await {
                Err(ClientError::NoNode { dir }) => {
                    let unwanted = addresses.clone();
                    changed(layers, dir, move |records| {
                        let before = records.len();
                        records.retain(|record| !unwanted.contains(&record.address));
                        before - records.len()
                    })
                    .await?
                }
                told => told?,
            };
            if removed < addresses.len() {
                return Err(Failure::NotKnown { count: addresses.len() - removed });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The addresses of a node, in the order of their texts.
async fn listed(
    client: &Client,
    layers: Layers,
    dir: PathBuf,
    role: Option<Role>,
) -> Result<Vec<Entry>, Failure> {
    let mut entries = match client.phonebook().await {
        Err(error @ ClientError::NoNode { .. }) if !store(&dir).exists() => {
            return Err(error.into());
        }
        Err(ClientError::NoNode { dir }) => {
            let all = |records: &mut Vec<Record>| records.iter().map(Entry::of).collect();
            read(layers, dir, all).await?
        }
        told => told?,
    };
    if let Some(role) = role {
        entries.retain(|entry| entry.roles.iter().any(|own| *own == role.as_str()));
    }
    entries.sort_by(|one, other| one.address.cmp(&other.address));
    Ok(entries)
}

/// Removes addresses from a node that runs, and returns the number that it knew.
async fn removed(client: &Client, addresses: &[NodeAddress]) -> Result<usize, ClientError> {
    let mut removed = 0;
    for address in addresses {
        removed += usize::from(client.remove(address).await?);
    }
    Ok(removed)
}

/// Adds addresses as an operator, and returns the number of those that are there afterwards.
fn add(records: &mut Vec<Record>, addresses: &[NodeAddress], roles: &[Role]) -> usize {
    let operator = SourceId::of(SourceKind::Operator);
    let is_own = |record: &Record| record.listings.iter().any(|(source, _)| *source == operator);
    let mut own = records.iter().filter(|record| is_own(record)).count();
    let mut placed = 0;
    for address in addresses {
        let known = records.iter().position(|record| record.address == *address);
        let is_known = known.is_some_and(|at| is_own(&records[at]));
        if !is_known && own >= MAX_PERSISTENT {
            continue;
        }
        let at = known.unwrap_or_else(|| {
            records.push(Record::new(address.clone()));
            records.len() - 1
        });
        let listings = &mut records[at].listings;
        listings.retain(|(source, _)| *source != operator);
        listings.push((operator.clone(), roles.iter().cloned().collect::<RoleSet>()));
        own += usize::from(!is_known);
        placed += 1;
    }
    placed
}

fn store(dir: &Path) -> PathBuf {
    dir.join(PEER_FILE)
}

/// Reads the file of a node that does not run.
async fn read<T: Send + 'static>(
    layers: Layers,
    dir: PathBuf,
    read: impl FnOnce(&mut Vec<Record>) -> T + Send + 'static,
) -> Result<T, Failure> {
    blocking(move || opened(&layers, &dir, |_, records, _| Ok(read(records)))).await
}

/// Changes the file of a node that does not run.
async fn changed(
    layers: Layers,
    dir: PathBuf,
    change: impl FnOnce(&mut Vec<Record>) -> usize + Send + 'static,
) -> Result<usize, Failure> {
    let change = move || {
        opened(&layers, &dir, |file, records, bans| {
            let changed = change(records);
            file.save(records, bans)?;
            Ok(changed)
        })
    };
    blocking(change).await
}

fn opened<T>(
    layers: &Layers,
    dir: &Path,
    then: impl FnOnce(&mut PeerFile, &mut Vec<Record>, &[mesh::Ban]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let network = Settings::check(layers)?.network;
    let locked = DataDir::open(dir)?;
    let (mut file, mut loaded) = PeerFile::open_any(&store(locked.path()), &network)?;
    then(&mut file, &mut loaded.records, &loaded.bans)
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let source = |error: tokio::task::JoinError| io::Error::other(error);
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| Failure::System { what: "a thread", source: source(error) })?
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ADDRESS", "ROLES", "LISTED BY", "SEEN", "FAILED", "RTT", "IDENTITY"]);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let list = |words: &[String]| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    for entry in entries {
        let seen = match entry.last_seen {
            _ if entry.connected => "connected".to_owned(),
            Some(at) => ago(now.saturating_sub(Duration::from_secs(at))),
            None => "-".to_owned(),
        };
        let rtt = entry
            .rtt_us
            .map_or_else(|| "-".to_owned(), |rtt| format!("{:.1} ms", rtt as f64 / 1e3));
        table.add_row([
            entry.address.clone(),
            list(&entry.roles),
            list(&entry.sources),
            seen,
            format!("{} times", entry.failures),
            rtt,
            entry.peer_id.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.trim_fmt()
}

/// The time since something, in its largest unit.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_added_once_and_keeps_its_history() {
        let address = |text: &str| text.parse::<NodeAddress>().unwrap();
        let mut known = Record::new(address("a.example:1"));
        (known.worked, known.failures) = (true, 3);
        let mut records = vec![known];
        let both = [address("a.example:1"), address("b.example:1")];
        for _ in 0..2 {
            assert_eq!(add(&mut records, &both, &[Role::relay()]), 2);
        }
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].worked, records[0].failures), (true, 3));
        assert!(records.iter().all(|record| record.listings.len() == 1));
        let many: Vec<NodeAddress> =
            (1..=2_000).map(|port| address(&format!("c.example:{port}"))).collect();
        assert_eq!(add(&mut records, &many, &[]), MAX_PERSISTENT - 2);
    }

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let told = [5, 119, 120, 7_200, 200_000].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(told, ["5 s ago", "119 s ago", "2 min ago", "2 h ago", "2 d ago"]);
    }
}
