//! `tandem phonebook`: the addresses that a node knows, of one that runs or of one that does not.
//!
//! # Invariants
//!
//! * A node that runs is asked; the file of one that does not is read and changed under the lock of its directory.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use comfy_table::{Table, presets};
use gossip::NodeAddress;
use mesh::{Bans, Record, Role, RoleSet, SourceId, SourceKind, phonebook::MAX_PERSISTENT};
use tandem::{Mode, PeerError};

use super::{
    args::{PhonebookArgs, PhonebookCommand},
    failure::Failure,
    output,
    store::Store,
};
use crate::{
    admin::{
        Client, ClientError,
        wire::{Additions, Entry},
    },
    config::{Layers, Settings},
};

/// The phonebook of a node, which may run or not.
pub(super) struct Book {
    pub(super) client: Client,
    store: Store,
}

impl Book {
    /// The phonebook of the node that has these settings.
    pub(super) fn of(layers: Layers) -> Result<Self, Failure> {
        let dir = Settings::data_dir(&layers)?;
        Ok(Self { client: Client::new(&dir), store: Store::new(layers, dir) })
    }

    /// The file of the node, for when it does not run.
    pub(super) fn store(&self) -> Store {
        self.store.clone()
    }

    /// The addresses of the node, in the order of their texts.
    pub(super) async fn listed(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = match self.client.phonebook().await {
            Err(error @ ClientError::NoNode { .. }) if !self.store.exists() => {
                return Err(error.into());
            }
            Err(ClientError::NoNode { .. }) => {
                let all = |records: &[Record], _: &Bans| records.iter().map(Entry::of).collect();
                self.store().read(all).await?
            }
            told => told?,
        };
        entries.sort_by(|one: &Entry, other| one.address.cmp(&other.address));
        Ok(entries)
    }

    /// Adds addresses as an operator.
    pub(super) async fn add(
        &self,
        addresses: &[NodeAddress],
        roles: &[Role],
    ) -> Result<(), Failure> {
        // As a node that runs would judge; of its mode it alone knows.
        for address in addresses {
            let refused = |error: PeerError| Failure::Usage { text: error.to_string() };
            Mode::default().check_peer(address).map_err(refused)?;
        }
        let additions = Additions {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            roles: roles.iter().map(ToString::to_string).collect(),
        };
        let placed = match self.client.add(&additions).await {
            Err(ClientError::NoNode { .. }) => {
                let (wanted, roles) = (addresses.to_vec(), roles.to_vec());
                self.store().change_addresses(move |records| add(records, &wanted, &roles)).await?
            }
            told => told?,
        };
        match addresses.len() - placed {
            0 => Ok(()),
            count => Err(Failure::PhonebookFull { count }),
        }
    }

    /// Forgets addresses in the file of a node that does not run.
    pub(super) async fn forget(&self, addresses: &[NodeAddress]) -> Result<ExitCode, Failure> {
        let unwanted = addresses.to_vec();
        let forget = move |records: &mut Vec<Record>| {
            let before = records.len();
            records.retain(|record| !unwanted.contains(&record.address));
            before - records.len()
        };
        match addresses.len() - self.store().change_addresses(forget).await? {
            0 => Ok(ExitCode::SUCCESS),
            count => Err(Failure::NotKnown { count }),
        }
    }
}

/// Does what the subcommand says.
pub(crate) async fn phonebook(args: PhonebookArgs) -> Result<ExitCode, Failure> {
    let book = Book::of(args.target.layers()?)?;
    let listed = async |role: Option<Role>| -> Result<Vec<Entry>, Failure> {
        let mut entries = book.listed().await?;
        if let Some(role) = role {
            entries.retain(|entry| entry.roles.iter().any(|own| *own == role.as_str()));
        }
        Ok(entries)
    };
    match args.what {
        PhonebookCommand::List { role, json } => {
            let entries = listed(role).await?;
            output::print(&if json { output::json(&entries) } else { table(&entries) }).await?;
        }
        PhonebookCommand::Export { role, json } => {
            let entries = listed(role).await?;
            let lines = || entries.iter().map(|entry| &*entry.address).collect::<Vec<_>>();
            let text = if json { output::json(&entries) } else { lines().join("\n") };
            // Nothing known is no line.
            if !text.is_empty() {
                output::print(&text).await?;
            }
        }
        PhonebookCommand::Add { addresses, role } => {
            let roles = if role.is_empty() { vec![Role::relay()] } else { role };
            book.add(&addresses, &roles).await?;
        }
        PhonebookCommand::Remove { addresses } => {
            let mut removed = 0;
            for address in &addresses {
                let was_known = match book.client.remove(address).await {
                    Err(ClientError::NoNode { .. }) => return book.forget(&addresses).await,
                    told => told?,
                };
                removed += usize::from(was_known);
            }
            if removed < addresses.len() {
                return Err(Failure::NotKnown { count: addresses.len() - removed });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
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

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ADDRESS", "ROLES", "LISTED BY", "SEEN", "FAILED", "RTT", "IDENTITY"]);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let list = |words: &[String]| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    for entry in entries {
        let seen = match entry.last_seen {
            _ if entry.connected => "connected".to_owned(),
            Some(at) => format!("{} ago", span(now.saturating_sub(Duration::from_secs(at)))),
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

/// A time in its largest unit.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{number} {unit}")
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
        let told = [5, 119, 120, 7_200, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(told, ["5 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
