//! The peer store of a node that does not run, as commands read and change it.
//!
//! # Invariants
//!
//! * The file is read and changed under the lock of the data directory, so a node that starts meanwhile has to wait or
//!   sees all of a change.

use std::{io, path::PathBuf};

use discovery::{PEER_FILE, PeerFile};
use mesh::{Ban, Bans, Record};
use tandem::{DataDir, Environment};
use tokio::time::Instant;

use super::failure::Failure;
use crate::config::{Layers, Settings};

/// The file that a node keeps in its data directory.
#[derive(Clone, Debug)]
pub(super) struct Store {
    layers: Layers,
    dir: PathBuf,
}

impl Store {
    /// The file of the node that has these settings and this data directory.
    pub(super) const fn new(layers: Layers, dir: PathBuf) -> Self {
        Self { layers, dir }
    }

    /// Returns `true` if there is such a file.
    pub(super) fn exists(&self) -> bool {
        self.dir.join(PEER_FILE).exists()
    }

    /// Reads it.
    pub(super) async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&[Record], &Bans) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        blocking(move || self.opened(|_, records, bans| Ok(read(records, bans)))).await
    }

    /// Changes the addresses in it.
    pub(super) async fn change_addresses<T: Send + 'static>(
        self,
        change: impl FnOnce(&mut Vec<Record>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        blocking(move || {
            self.opened(|file, records, bans| {
                let changed = change(records);
                file.save(records, &live(bans))?;
                Ok(changed)
            })
        })
        .await
    }

    /// Changes the bans in it.
    pub(super) async fn change_bans<T: Send + 'static>(
        self,
        change: impl FnOnce(&mut Bans) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        blocking(move || {
            self.opened(|file, records, bans| {
                let changed = change(bans)?;
                file.save(records, &live(bans))?;
                Ok(changed)
            })
        })
        .await
    }

    fn opened<T>(
        &self,
        then: impl FnOnce(&mut PeerFile, &mut Vec<Record>, &mut Bans) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let network = Settings::check(&self.layers)?.network;
        let locked = DataDir::open(&self.dir)?;
        let path = locked.path().join(PEER_FILE);
        let (mut file, mut loaded) = PeerFile::open_any(&path, &network)?;
        let now = Instant::now().into_std();
        let mut bans = Bans::new(now, Environment::system().clock().now());
        bans.restore(loaded.bans, now);
        then(&mut file, &mut loaded.records, &mut bans)
    }
}

fn live(bans: &Bans) -> Vec<Ban> {
    bans.bans(Instant::now().into_std())
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let source = |error: tokio::task::JoinError| io::Error::other(error);
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|error| Failure::System { what: "a thread", source: source(error) })?
}
