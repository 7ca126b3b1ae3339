//! Gets the groups of a file from several peers at once.
//!
//! # Invariants
//!
//! * Every peer is judged by its own outline, which has to have the groups of the one that is proved. The length of the
//!   file is that of the outline against which the last group was verified.
//! * A group is written once it is verified, and a peer that fails gives its groups to the others.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{FetchError, FetchLimits, PeerError, ask, plan::Plan, start};
use crate::files::{Client, FileId, Outline, Transferred, store::blocking};

/// A file that several peers send.
pub(super) struct Several<'a> {
    pub(super) id: FileId,
    pub(super) limits: FetchLimits,
    pub(super) progress: &'a watch::Sender<Transferred>,
    /// The outline against which the first groups were verified.
    pub(super) proof: Arc<Outline>,
    pub(super) part: Arc<File>,
    /// Makes the error of a disk.
    pub(super) disk: &'a (dyn Fn(std::io::Error) -> FetchError + Sync),
    pub(super) state: Mutex<State>,
    /// Groups came, or were given back.
    pub(super) changed: Notify,
}

/// The groups, and the length of the file as far as it is proved.
pub(super) struct State {
    pub(super) plan: Plan,
    pub(super) bytes: u64,
}

impl Several<'_> {
    /// Gets everything that is missing, and returns the length of the file.
    pub(super) async fn run(&self, peers: Vec<Client>) -> Result<u64, FetchError> {
        let mut waiting = peers.into_iter().enumerate();
        let mut working = FuturesUnordered::new();
        for (number, peer) in waiting.by_ref().take(self.limits.at_once.get()) {
            working.push(self.work(number, peer));
        }
        loop {
            match working.next().await {
                // One of them has seen that the file is whole. The others are not needed.
                Some(Ok(())) | None => return Ok(self.change(|state| state.bytes)),
                Some(Err(error @ FetchError::NoPeerLeft { .. })) => match waiting.next() {
                    Some((number, peer)) => working.push(self.work(number, peer)),
                    None if working.is_empty() => return Err(error),
                    None => {}
                },
                Some(Err(error)) => return Err(error),
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks one peer for one span after another, until the file is whole or the peer is given up.
    async fn work(&self, number: usize, peer: Client) -> Result<(), FetchError> {
        let (mut outline, mut failures) = (None, 0_u32);
        loop {
            // From before the look, so that no change is missed.
            let changed = self.changed.notified();
            if self.change(|state| state.plan.is_whole()) {
                return Ok(());
            }
            let Some(span) = self.change(|state| state.plan.next(number)) else {
                changed.await;
                continue;
            };
            let mut got = 0;
            let sent = self.span(&peer, &mut outline, span.clone(), &mut got).await;
            self.change(|state| state.plan.give_back(number, span));
            self.changed.notify_waiters();
            let fault = match sent {
                Ok(Ok(())) => {
                    failures = 0;
                    continue;
                }
                Ok(Err(fault)) => fault,
                Err(disk) => return Err(disk),
            };
            tracing::debug!(id = %self.id, %fault, "a peer failed");
            failures = if got > 0 { 1 } else { failures + 1 };
            if fault.is_final() || failures >= self.limits.tries {
                return Err(FetchError::NoPeerLeft { source: fault });
            }
            sleep(self.limits.pause.saturating_mul(failures)).await;
        }
    }

    /// Gets one span of a peer. The outer error is that of the disk.
    async fn span(
        &self,
        peer: &Client,
        outline: &mut Option<Arc<Outline>>,
        span: std::ops::Range<usize>,
        got: &mut usize,
    ) -> Result<Result<(), PeerError>, FetchError> {
        let outline = match outline {
            Some(outline) => Arc::clone(outline),
            None => match self.outline(peer).await {
                Ok(known) => Arc::clone(outline.insert(known)),
                Err(fault) => return Ok(Err(fault)),
            },
        };
        let within = self.limits.group_within;
        let late = PeerError::Slow { within };
        let groups = span.start as u64..span.end as u64;
        let part = start(&outline, groups.start)..start(&outline, groups.end);
        let asked = ask::content(peer, self.id, part, outline.bytes());
        let mut source = match timeout(within, asked).await {
            Ok(Ok(source)) => source,
            Ok(Err(fault)) => return Ok(Err(fault)),
            Err(_) => return Ok(Err(late)),
        };
        for (group, at) in groups.zip(span.clone()) {
            // Another peer was faster with the rest.
            if self.change(|state| state.plan.holds(at..span.end)) {
                break;
            }
            let bytes = usize::try_from(outline.group_bytes(group)).unwrap_or(usize::MAX);
            let content = match timeout(within, source.take(bytes)).await {
                Ok(Ok(content)) if outline.holds(group, &content) => content,
                Ok(Ok(_)) => return Ok(Err(PeerError::WrongContent { group })),
                Ok(Err(fault)) => return Ok(Err(fault)),
                Err(_) => return Ok(Err(late)),
            };
            let (part, place) = (Arc::clone(&self.part), start(&outline, group));
            blocking(move || part.write_all_at(&content, place)).await.map_err(self.disk)?;
            *got += 1;
            let is_last = group + 1 == outline.groups();
            let is_new = self.change(|state| {
                if is_last {
                    state.bytes = outline.bytes();
                }
                state.plan.hold(at)
            });
            if is_new {
                self.progress.send_modify(|progress| progress.bytes += bytes as u64);
            }
        }
        Ok(Ok(()))
    }

    /// The outline of a peer, which has the groups of the proved one.
    async fn outline(&self, peer: &Client) -> Result<Arc<Outline>, PeerError> {
        let within = self.limits.group_within;
        let asked = timeout(within, ask::outline(peer, self.id, self.limits.max_bytes)).await;
        let outline = asked.map_err(|_| PeerError::Slow { within })??;
        let all_but_the_last = self.proof.groups().saturating_sub(1);
        let agrees = outline.groups() == self.proof.groups()
            && outline.agrees(&self.proof, all_but_the_last);
        if agrees { Ok(Arc::new(outline)) } else { Err(PeerError::Contradiction) }
    }
}
