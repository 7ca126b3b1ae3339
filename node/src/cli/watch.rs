//! Looks after a running node: what an operator should hear of although nobody asks.
//!
//! ```text
//!   every second: dials, addresses ──▶ events          every 10 s: the data directory ──▶ health
//! ```
//!
//! # Invariants
//!
//! * A state is told when it begins and when it ends, not each time it is looked at.
//! * The disk is asked on a thread of its own, and never twice at a time: it may hang.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tandem::View;
use tokio::time::{self, MissedTickBehavior};

/// Interval at which the node is asked for its state. Chosen: an operator's patience.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after which the data directory is tried. Chosen: a full disk is known within ten seconds, and a
/// file of a few bytes in ten seconds wears nothing out.
const LOOKS_PER_TRY: u32 = 10;

/// Name of the file that is written to see whether one can be.
const TRIAL: &str = ".trial";

/// A fault of the place where a node keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskTrouble {
    Full,
    ReadOnly,
    NoDescriptors,
    Broken,
}

impl DiskTrouble {
    pub(crate) const ALL: [Self; 4] =
        [Self::Full, Self::ReadOnly, Self::NoDescriptors, Self::Broken];

    /// Its name for programs.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "disk_full",
            Self::ReadOnly => "disk_read_only",
            Self::NoDescriptors => "no_descriptors",
            Self::Broken => "disk_broken",
        }
    }

    /// `true` if nobody can connect any more.
    pub(crate) const fn stops_work(self) -> bool {
        matches!(self, Self::NoDescriptors)
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            // EMFILE and ENFILE, which have no kind.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::NoDescriptors,
            _ => Self::Broken,
        }
    }
}

/// The result of the last look at the data directory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    trouble: Arc<Mutex<Option<DiskTrouble>>>,
}

impl Disk {
    /// The fault, if there is one.
    pub(crate) fn trouble(&self) -> Option<DiskTrouble> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, dir: &Path, tried: &io::Result<()>) {
        let now = tried.as_ref().err().map(DiskTrouble::of);
        let before = std::mem::replace(
            &mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        );
        match tried {
            _ if before == now => {}
            Err(error) => {
                tracing::error!(dir = %dir.display(), %error, "nothing can be written to the data directory");
            }
            Ok(()) => {
                tracing::warn!(dir = %dir.display(), "the data directory can be written to again")
            }
        }
    }
}

/// A change between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A configured peer cannot be reached.
    Unreachable {
        /// Its address.
        address: String,
        /// Why the last dial failed.
        error: String,
        /// Dials in a row that failed.
        failures: u64,
    },
    /// The libp2p side listens on other addresses than before.
    Listening {
        /// All of them.
        p2p: Vec<String>,
        /// Those that were not told before.
        added: Vec<String>,
        /// Those on which it listens no more.
        removed: Vec<String>,
    },
}

/// Looks at a node until it is dropped, and tells what changes. `p2p` has the addresses that were told already.
pub(crate) async fn watch(
    view: View,
    p2p: Vec<String>,
    (dir, disk): (PathBuf, Disk),
    mut tell: impl FnMut(Change),
) {
    let mut look = time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks { told: HashMap::new(), p2p };
    let mut trial = None;
    for count in 0.. {
        look.tick().await;
        looks.changes(&view).into_iter().for_each(&mut tell);
        let running = trial.take_if(|trial: &mut tokio::task::JoinHandle<_>| trial.is_finished());
        if let Some(finished) = running
            && let Ok(tried) = finished.await
        {
            disk.note(&dir, &tried);
        }
        if trial.is_none() && count % LOOKS_PER_TRY == 0 {
            let dir = dir.clone();
            trial = Some(tokio::task::spawn_blocking(move || try_to_write(&dir)));
        }
    }
}

/// The result of the last look.
#[derive(Debug)]
struct Looks {
    /// Number of times that the failure of each address was reported.
    told: HashMap<String, u32>,
    p2p: Vec<String>,
}

impl Looks {
    fn changes(&mut self, view: &View) -> Vec<Change> {
        let mut changes = Vec::new();
        for dial in view.dials() {
            let before = self.told.insert(dial.address.clone(), dial.told).unwrap_or(0);
            if dial.told > before {
                let (address, failures) = (dial.address, dial.failures);
                let error = dial.last_error.unwrap_or_default();
                changes.push(Change::Unreachable { address, error, failures });
            }
        }
        let p2p = view.p2p_addresses();
        if p2p != self.p2p {
            let before = std::mem::replace(&mut self.p2p, p2p.clone());
            let (added, removed) = (missing_in(&before, &p2p), missing_in(&p2p, &before));
            changes.push(Change::Listening { p2p, added, removed });
        }
        changes
    }
}

/// The addresses that only the second list has.
fn missing_in(list: &[String], other: &[String]) -> Vec<String> {
    other.iter().filter(|address| !list.contains(address)).cloned().collect()
}

fn try_to_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(TRIAL);
    // With a few bytes in it: a full disk still has room for names.
    std::fs::write(&path, b"a node looks whether it can write here\n")?;
    std::fs::remove_file(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 8, 30.
    #[test]
    fn a_fault_of_a_disk_is_told_by_its_name() {
        for (errno, label) in [
            (28, "disk_full"),
            (122, "disk_full"),
            (30, "disk_read_only"),
            (24, "no_descriptors"),
            (23, "no_descriptors"),
            (5, "disk_broken"),
        ] {
            let disk = Disk::default();
            disk.note(Path::new("/d"), &Err(io::Error::from_raw_os_error(errno)));
            assert_eq!(disk.trouble().map(DiskTrouble::label), Some(label));
            disk.note(Path::new("/d"), &Ok(()));
            assert_eq!(disk.trouble(), None);
        }
    }

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        try_to_write(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(try_to_write(&dir.path().join("missing")).is_err());
    }
}
