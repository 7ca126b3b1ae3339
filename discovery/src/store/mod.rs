//! The peer store: what a node knows of others, from one run to the next.
//!
//! ```text
//!   phonebook, bans ──▶ PeerStore ──a thread──▶ PeerFile ──▶ peers.redb
//! ```

mod codec;
mod file;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use gossip::NetworkId;
use mesh::{Ban, Record};
use tokio::task::spawn_blocking;

pub use codec::{decode_ban, decode_record, encode_ban, encode_record};
pub use file::{Aside, Loaded, PEER_FILE, PeerFile, PeerFileError};

/// The peer store for async code: every call runs on a thread that may block. A cheap handle.
#[derive(Clone, Debug)]
pub struct PeerStore {
    file: Arc<Mutex<PeerFile>>,
}

impl PeerStore {
    /// Opens the file as [`PeerFile::open`] does, and reads it.
    ///
    /// # Errors
    ///
    /// [`PeerFileError`], and the node has to do without a store.
    ///
    /// # Cancel safety
    ///
    /// Opening goes on when the future is dropped, and the file is closed then.
    pub async fn open(
        path: PathBuf,
        network: NetworkId,
    ) -> Result<(Self, Loaded, Option<Aside>), PeerFileError> {
        let opened = run(move || PeerFile::open(&path, &network)).await?;
        let (file, loaded, aside) = opened;
        Ok((Self { file: Arc::new(Mutex::new(file)) }, loaded, aside))
    }

    /// Writes as [`PeerFile::save`] does. Returns `false` if nothing had changed.
    ///
    /// # Errors
    ///
    /// [`PeerFileError`] when the disk refuses; the file is as it was.
    ///
    /// # Cancel safety
    ///
    /// Writing goes on when the future is dropped.
    pub async fn save(&self, records: Vec<Record>, bans: Vec<Ban>) -> Result<bool, PeerFileError> {
        let file = Arc::clone(&self.file);
        let save =
            move || file.lock().unwrap_or_else(PoisonError::into_inner).save(&records, &bans);
        run(save).await
    }
}

async fn run<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, PeerFileError> + Send + 'static,
) -> Result<T, PeerFileError> {
    match spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(PeerFileError::Broken { reason: error.to_string() }),
    }
}
