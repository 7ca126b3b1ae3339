//! Gets one file from any of several peers, or from several at once, and goes on where it left off.
//!
//! ```text
//!   <path>.part ─▶ groups that hold ─┐
//!                                    ▼
//!   peers in turn ─▶ outline ─▶ next group ─▶ holds? ─▶ <path>.part ─▶ ... ─▶ <path>
//!        ▲                          │ no, or late, or broken
//!        └──────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! * Every peer is judged by its own outline. One that does not agree with what was verified so far
//!   costs its peer its place as the current one, and nothing that was verified.
//! * A peer that sent a wrong byte is not asked again. One that failed is, [`FetchLimits::tries`] times
//!   in a row.
//! * A group arrives within [`FetchLimits::group_within`], or the next peer is asked.
//! * `<path>` appears whole or not at all; `<path>.part` is locked while it is written.

mod ask;
mod plan;
mod several;

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    num::NonZeroUsize,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use gossip::{
    Durations,
    http::{BoxError, HttpError},
};
use http::StatusCode;
use rustix::fs::OFlags;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use self::{
    ask::Source,
    plan::Plan,
    several::{Several, State},
};
use super::{Client, FileId, GROUP_BYTES, Outline, OutlineError, Transferred, store::blocking};

/// Bounds of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchLimits {
    /// Longest file in bytes. Default 64 GiB. Chosen: an outline of 2 MiB to hold in memory.
    pub max_bytes: u64,
    /// Longest time for an outline or a group. Default 64 s. Source: threats, row 30: 16 KiB/s.
    pub group_within: Duration,
    /// Failures in a row after which a peer is given up. Default 3. Chosen: a peer that restarts is
    /// asked again.
    pub tries: u32,
    /// Peers that [`Fetch::into_file`] asks at a time, each for other groups. Default 1: the next peer is asked when one fails.
    pub at_once: NonZeroUsize,
    /// Pause before a peer that failed is asked again, times its failures in a row. Default 500 ms.
    pub pause: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            group_within: Duration::from_secs(64),
            tries: 3,
            at_once: NonZeroUsize::MIN,
            pause: Duration::from_millis(500),
        }
    }
}

gossip::setters!(FetchLimits {
    with_max_bytes => max_bytes: u64,
    with_group_within => group_within: Duration,
    with_tries => tries: u32,
    with_at_once => at_once: NonZeroUsize,
    with_pause => pause: Duration,
});

impl Durations for FetchLimits {
    fn each_duration(&mut self, visit: &mut dyn FnMut(&'static str, &mut Duration)) {
        visit("files::FetchLimits::group_within", &mut self.group_within);
        visit("files::FetchLimits::pause", &mut self.pause);
    }
}

/// The fault of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer does not have the file.
    #[error("the peer does not have the file")]
    Missing,
    /// The peer says that the file is longer than the fetch takes.
    #[error("the peer says that the file has more than {limit} bytes")]
    TooLong {
        /// The bound of the fetch.
        limit: u64,
    },
    /// The peer sent bytes that are no outline of the file.
    #[error("the peer sent a wrong outline")]
    WrongOutline {
        /// The fault.
        source: OutlineError,
    },
    /// The peer sent an outline that contradicts verified content.
    #[error("the peer sent an outline that contradicts what was verified")]
    Contradiction,
    /// The peer sent content that is not that of the file.
    #[error("the peer sent wrong content for the megabyte {group}")]
    WrongContent {
        /// The group, from 0.
        group: u64,
    },
    /// The peer refused.
    #[error("the peer answers {status}")]
    Status {
        /// The status of its answer.
        status: StatusCode,
    },
    /// The peer sent another part of the file than it was asked for.
    #[error("the peer sent another part than it was asked for")]
    OtherPart,
    /// The peer does not answer.
    #[error("the peer does not answer")]
    NoAnswer {
        /// The reason.
        source: HttpError,
    },
    /// The answer of the peer broke off.
    #[error("the answer of the peer broke off")]
    Broken {
        /// The reason.
        source: BoxError,
    },
    /// The peer was too slow.
    #[error("nothing to verify from the peer within {within:?}")]
    Slow {
        /// The time that was waited.
        within: Duration,
    },
}

impl PeerError {
    /// `true` if asking again would be in vain.
    const fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Status { .. } | Self::NoAnswer { .. } | Self::Broken { .. } | Self::Slow { .. }
        )
    }
}

/// The reason for which a file was not got. The content that was verified stays in the `.part` file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No peer is left to ask.
    #[error("no peer is left to ask")]
    NoPeerLeft {
        /// The fault of the last one.
        source: PeerError,
    },
    /// Another fetch writes the same file.
    #[error("{} is being written", path.display())]
    InUse {
        /// The `.part` file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// A file that was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its length.
    pub bytes: u64,
    /// Bytes of it that were there from an earlier try.
    pub resumed: u64,
}

/// Gets one file.
#[derive(Debug)]
pub struct Fetch {
    id: FileId,
    limits: FetchLimits,
    progress: watch::Sender<Transferred>,
    /// Peers that may be asked, the next one first.
    peers: VecDeque<Candidate>,
    /// The outline of the current peer, once it sent one.
    outline: Option<Arc<Outline>>,
    /// Content of the current peer, from the next group on.
    source: Option<Source>,
    /// Groups verified from the start of the file.
    verified: u64,
    /// The outline against which they were.
    proof: Option<Arc<Outline>>,
}

#[derive(Debug)]
struct Candidate {
    client: Client,
    /// In a row.
    failures: u32,
}

impl Fetch {
    /// A fetch of the file `id` from `peer`. Nothing is asked for before it is driven. Durations among the limits are
    /// brought between [`SHORTEST_LIMIT`](gossip::SHORTEST_LIMIT) and [`LONGEST_LIMIT`](gossip::LONGEST_LIMIT).
    #[must_use]
    pub fn new(id: FileId, peer: Client, limits: FetchLimits) -> Self {
        Self {
            id,
            limits: limits.bounded(),
            progress: watch::Sender::default(),
            peers: [Candidate { client: peer, failures: 0 }].into(),
            outline: None,
            source: None,
            verified: 0,
            proof: None,
        }
    }

    /// Adds a peer that is asked when those before it fail.
    #[must_use]
    pub fn or_from(mut self, peer: Client) -> Self {
        self.peers.push_back(Candidate { client: peer, failures: 0 });
        self
    }

    /// A receiver of the progress: bytes that are verified, and the length once it is known.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Transferred> {
        self.progress.subscribe()
    }

    /// Streams the file, group by group, each verified.
    ///
    /// The stream ends early only with an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, FetchError>> + Send {
        futures::stream::try_unfold(self, |mut fetch| async move {
            Ok(fetch.next_group().await?.map(|group| (group, fetch)))
        })
    }

    /// Gets the file into `path`, which is replaced. What an earlier try left in `<path>.part` is
    /// verified and used.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; what was verified stays in `<path>.part`.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves `<path>.part`, with which the next one goes on.
    pub async fn into_file(mut self, path: &Path) -> Result<Fetched, FetchError> {
        let part_path = part_path(path);
        let disk = |source| FetchError::Disk { path: part_path.clone(), source };
        let part = {
            let part_path = part_path.clone();
            blocking(move || open_part(&part_path)).await.map_err(disk)?
        };
        let Some(part) = part.map(Arc::new) else {
            return Err(FetchError::InUse { path: part_path });
        };
        let outline = self.outline().await?;
        let held = {
            let (part, outline) = (part.clone(), outline.clone());
            blocking(move || held(&part, &outline)).await.map_err(disk)?
        };
        let mut resumed = self.resume(held.iter().take_while(|held| **held).count() as u64);
        let mut bytes = resumed;
        // With several peers, until it is known whose outline is right.
        while !self.can_ask_several()
            && let Some(group) = self.next_group().await?
        {
            let (part, at) = (part.clone(), bytes);
            bytes += group.len() as u64;
            blocking(move || part.write_all_at(&group, at)).await.map_err(disk)?;
        }
        if self.can_ask_several() {
            let later;
            (bytes, later) = self.ask_several(&part, &outline, held, &disk).await?;
            resumed += later;
        }
        let (from, to) = (part_path.clone(), path.to_owned());
        blocking(move || finish(&part, bytes, &from, &to)).await.map_err(disk)?;
        Ok(Fetched { bytes, resumed })
    }

    /// `true` once an outline is proved and several peers may send the rest.
    fn can_ask_several(&self) -> bool {
        self.limits.at_once.get() > 1 && self.peers.len() > 1 && self.proof.is_some()
    }

    /// Gets the rest from several peers. `held` are the groups of the `.part` file by `outline`. Returns the length of the
    /// file, and how much of it lay behind a gap of the `.part` file.
    async fn ask_several(
        &mut self,
        part: &Arc<File>,
        outline: &Arc<Outline>,
        mut held: Vec<bool>,
        disk: &(dyn Fn(io::Error) -> FetchError + Sync),
    ) -> Result<(u64, u64), FetchError> {
        let proof = self.proof.clone().unwrap_or_else(|| outline.clone());
        if !Arc::ptr_eq(&proof, outline) {
            // Another peer has proved another outline.
            held = vec![false; usize::try_from(proof.groups()).unwrap_or(usize::MAX)];
        }
        let later = (self.verified..).zip(held.iter().skip(self.verified as usize));
        let later = later.filter(|(_, held)| **held).map(|(group, _)| proof.group_bytes(group));
        let later = later.sum();
        self.progress.send_modify(|progress| progress.bytes += later);
        held.iter_mut().take(self.verified as usize).for_each(|held| *held = true);
        // A body under way is of the whole rest.
        self.source = None;
        let several = Several {
            id: self.id,
            limits: self.limits,
            progress: &self.progress,
            part: part.clone(),
            disk,
            state: Mutex::new(State { plan: Plan::new(&held), bytes: proof.bytes() }),
            proof,
            changed: Notify::new(),
        };
        let peers = self.peers.iter().map(|peer| peer.client.clone()).collect();
        Ok((several.run(peers).await?, later))
    }

    /// Goes on after so many groups, verified against the outline at hand. Their bytes.
    fn resume(&mut self, groups: u64) -> u64 {
        let bytes = self.outline.as_ref().map_or(0, |outline| start(outline, groups));
        if groups > 0 {
            self.verified = groups;
            self.proof.clone_from(&self.outline);
            self.progress.send_modify(|progress| progress.bytes = bytes);
        }
        bytes
    }

    /// The next group; `None` after the last one.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was received stays for the next call, and a request under way is sent again.
    async fn next_group(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            // With its last group verified the file is complete, whichever peer is current.
            if let Some(proof) = &self.proof
                && self.verified == proof.groups()
            {
                return Ok(None);
            }
            if self.outline().await?.groups() == 0 {
                return Ok(None);
            }
            let within = self.limits.group_within;
            let group = match timeout(within, self.receive()).await {
                Ok(group) => group,
                Err(_) => Err(PeerError::Slow { within }),
            };
            match group {
                Ok(group) => {
                    self.verified += 1;
                    self.proof.clone_from(&self.outline);
                    self.progress.send_modify(|progress| progress.bytes += group.len() as u64);
                    if let Some(peer) = self.peers.front_mut() {
                        peer.failures = 0;
                    }
                    return Ok(Some(group));
                }
                Err(error) => self.pass_on(error).await?,
            }
        }
    }

    /// The outline of the current peer. Goes on to the next peer until one sends an outline.
    async fn outline(&mut self) -> Result<Arc<Outline>, FetchError> {
        loop {
            if let Some(outline) = &self.outline {
                return Ok(outline.clone());
            }
            let within = self.limits.group_within;
            let outline = match timeout(within, self.ask_outline()).await {
                Ok(outline) => outline,
                Err(_) => Err(PeerError::Slow { within }),
            };
            match outline {
                Ok(outline) => {
                    self.progress.send_modify(|progress| progress.of = Some(outline.bytes()));
                    self.outline = Some(Arc::new(outline));
                }
                Err(error) => self.pass_on(error).await?,
            }
        }
    }

    /// Goes on to the next peer, and leaves one that failed in peace for a moment if it is the
    /// next one again.
    async fn pass_on(&mut self, error: PeerError) -> Result<(), FetchError> {
        tracing::debug!(id = %self.id, %error, "a peer failed");
        self.outline = None;
        self.source = None;
        if let Some(mut peer) = self.peers.pop_front() {
            peer.failures += 1;
            if !error.is_final() && peer.failures < self.limits.tries {
                self.peers.push_back(peer);
            }
        }
        match self.peers.front() {
            Some(next) => sleep(self.limits.pause.saturating_mul(next.failures)).await,
            None => return Err(FetchError::NoPeerLeft { source: error }),
        }
        Ok(())
    }

    async fn ask_outline(&mut self) -> Result<Outline, PeerError> {
        let peer = self.peers.front().ok_or(PeerError::Missing)?;
        let outline = ask::outline(&peer.client, self.id, self.limits.max_bytes).await?;
        match &self.proof {
            Some(proof) if !outline.agrees(proof, self.verified) => Err(PeerError::Contradiction),
            _ => Ok(outline),
        }
    }

    /// Receives the next group and verifies it.
    async fn receive(&mut self) -> Result<Bytes, PeerError> {
        let outline = self.outline.clone().ok_or(PeerError::Missing)?;
        let group = self.verified;
        let bytes = usize::try_from(outline.group_bytes(group)).unwrap_or(usize::MAX);
        if self.source.is_none() {
            let peer = self.peers.front().ok_or(PeerError::Missing)?;
            let part = start(&outline, group)..outline.bytes();
            self.source = Some(ask::content(&peer.client, self.id, part, outline.bytes()).await?);
        }
        let source = self.source.as_mut().ok_or(PeerError::Missing)?;
        let content = source.take(bytes).await?;
        // A megabyte is hashed in less than a millisecond: not worth a change of thread.
        if outline.holds(group, &content) {
            Ok(content)
        } else {
            Err(PeerError::WrongContent { group })
        }
    }
}

/// The start of a group, or the end of the file.
const fn start(outline: &Outline, group: u64) -> u64 {
    let start = group.saturating_mul(GROUP_BYTES);
    if start < outline.bytes() { start } else { outline.bytes() }
}

fn part_path(path: &Path) -> PathBuf {
    let mut part = OsString::from(path);
    part.push(".part");
    part.into()
}

/// Opens a `.part` file; `None` if another fetch has it.
fn open_part(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let part = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    match part.try_lock() {
        Ok(()) => Ok(Some(part)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The groups of the file that are there already.
fn held(part: &File, outline: &Outline) -> io::Result<Vec<bool>> {
    let length = part.metadata()?.len();
    let mut content = Vec::new();
    let is_held = |group| {
        let bytes = outline.group_bytes(group);
        if start(outline, group).saturating_add(bytes) > length {
            return Ok(false);
        }
        content.resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
        part.read_exact_at(&mut content, start(outline, group))?;
        Ok(outline.holds(group, &content))
    };
    (0..outline.groups()).map(is_held).collect()
}

/// Gives a whole file its name.
fn finish(part: &File, bytes: u64, from: &Path, to: &Path) -> io::Result<()> {
    part.set_len(bytes)?;
    part.sync_all()?;
    fs::rename(from, to)?;
    match to.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
