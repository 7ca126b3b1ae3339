//! The links of every node that is known by name: which of them is used, and which may take over.
//!
//! ```text
//!   transport ─claim─▶ Claim ─attach_claimed─▶ peer ─ends─▶ released ─▶ the best benched one is used again
//!                        └───────dropped──────────────────▶ released
//!   peers ──settle──▶ bench ──patience, or the holder answers──▶ closed
//!     ▲                 │
//!     └──── recalled ───┘ the holder ended
//! ```
//!
//! The rules are those of [`mesh::Ledger`]; here they are carried out.
//!
//! # Invariants
//!
//! * A claim lives as long as its link and no longer: it goes with the guard until the link is attached,
//!   and with the peer afterwards.
//! * Of the links of a node one is in the registry. Links that lost are benched: they are read, nothing
//!   new is written to them, and they are in no list of peers.
//! * No link is benched before the one that it lost against is attached.
//! * A newcomer that has proved less than the holder makes it answer a ping at most once in
//!   [`BELIEVED_FOR`](crate::doubt::BELIEVED_FOR), and ends it only if no answer comes.

use std::sync::Arc;

use gossip::{ClaimRule, DisconnectReason, Identity, LinkId};
use mesh::{Doubt, LinkClaim, Ruling, Standing, ledger::CLOSE_PATIENCE};
use runtime::time;

use crate::{
    contests::Complaint,
    doubt::Life,
    link::{Attached, FrameSink, FrameSource, Link, Stopping},
    links::Links,
    registry::{Benched, Registry},
};

/// The claim of a link to the identity of the node at its other end.
///
/// Dropping it gives the identity back, unless the link was attached with it.
#[must_use = "a claim that is dropped is given back"]
pub struct Claim {
    registry: Arc<Registry>,
    link: LinkId,
    identity: Identity,
    ruling: Ruling,
    is_attached: bool,
}

/// A refused newcomer's doubt about the link that holds its identity.
#[derive(Clone, Copy)]
struct Doubted {
    winner: LinkId,
    doubt: Doubt,
    standing: Standing,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("link", &self.link)
            .field("identity", &self.identity)
            .field("ruling", &self.ruling)
            .finish_non_exhaustive()
    }
}

impl Claim {
    /// Returns the ruling that was made when the identity was claimed. Later claims may have changed the holder.
    pub const fn ruling(&self) -> Ruling {
        self.ruling
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_attached {
            self.registry.release(self.link);
        }
    }
}

impl Links {
    /// Claims the identity of a link that is not attached yet. To be called once the identity is
    /// verified, not before.
    pub(crate) fn claim(&self, claim: LinkClaim) -> Claim {
        let registry = Arc::clone(&self.context.registry);
        let (link, identity) = (claim.link, claim.identity);
        let ruling = self.rule(claim);
        Claim { registry, link, identity, ruling, is_attached: false }
    }

    /// Attaches the link of a claim, as [`Links::attach`] does. If another link to the same node
    /// stays, this one is attached all the same and yields to it: the peer may have sent messages over it.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the node is; the connection is dropped.
    pub(crate) fn attach_claimed<S, R>(
        &self,
        mut claim: Claim,
        mut link: Link<S, R>,
    ) -> Result<Attached, Stopping>
    where
        S: FrameSink,
        R: FrameSource,
    {
        link.about.identity = Some(claim.identity);
        let attached = self.attach(claim.link, link)?;
        claim.is_attached = true;
        self.settle(&claim.identity, claim.link, claim.ruling);
        Ok(attached)
    }

    /// Claims the identity of a link that was attached without one, and carries out the ruling.
    pub(crate) fn verified(&self, claim: LinkClaim) {
        let (link, identity) = (claim.link, claim.identity);
        if self.context.registry.get(link).is_none() {
            return;
        }
        let ruling = self.rule(claim);
        self.identify(link, identity);
        if !self.context.registry.is_attached(link) {
            // The link ended before its claim existed, so nothing has released the claim.
            self.context.registry.release(link);
        }
        self.settle(&identity, link, ruling);
    }

    /// Returns the link that holds an identity, attached or about to be. `None` if no link does.
    pub(crate) fn holder(&self, identity: &Identity) -> Option<LinkId> {
        self.context.registry.ledger().holder(identity)
    }

    /// Returns the number of identities that some link holds. Meant for tests and metrics: it changes at any time.
    pub(crate) fn claimed(&self) -> usize {
        self.context.registry.ledger().len()
    }

    /// Resolves to `true` when the link of a claim is to be attached: at once if it holds its identity or both ends rank
    /// links; else the holder has to show within five seconds that it is not dead, if the claim is worth
    /// asking for it.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing has happened if the future is dropped.
    pub(crate) async fn prevails(&self, claim: &Claim) -> bool {
        match claim.ruling {
            Ruling::Keep | Ruling::Replace { .. } => true,
            Ruling::Refuse { .. } if self.profile.claims == ClaimRule::Ranked => true,
            Ruling::Refuse { winner, doubt, standing } => {
                self.resolve(claim.identity, Doubted { winner, doubt, standing }).await;
                self.holder(&claim.identity) == Some(claim.link)
            }
        }
    }

    fn rule(&self, claim: LinkClaim) -> Ruling {
        let (link, identity) = (claim.link, claim.identity);
        let (ruling, is_of_another_session) = {
            let mut ledger = self.context.registry.ledger();
            let is_of_another_session = ledger.is_of_another_session(&claim);
            (ledger.claim(claim), is_of_another_session)
        };
        match ruling {
            Ruling::Refuse { winner, .. } => {
                tracing::debug!(%link, %winner, %identity, "another link to this node stays");
            }
            Ruling::Replace { .. } if is_of_another_session => self.contested(identity),
            Ruling::Replace { .. } | Ruling::Keep => {}
        }
        ruling
    }

    /// Counts that a link of another session took an identity over, or was refused although its rival is alive. A node
    /// that comes back does the former, and two nodes with one key do either for as long as both run.
    fn contested(&self, identity: Identity) {
        self.context.metrics.contested();
        if let Some(contest) = self.contests.note(identity, time::Instant::now()) {
            let Complaint { contests, left_out } = contest;
            tracing::warn!(
                %identity,
                contests,
                left_out,
                "two nodes seem to run with one key, and only one of them can be connected"
            );
        }
    }

    /// Returns `true` if an identity seems to be that of two nodes, by what happened of late.
    pub(crate) fn is_contested(&self) -> bool {
        self.contests.is_any(time::Instant::now())
    }

    /// Benches the links to a node that lost, if the one they lost against is attached.
    fn settle(&self, identity: &Identity, newcomer: LinkId, ruling: Ruling) {
        for benched in self.context.registry.bench(identity) {
            let doubted = match ruling {
                Ruling::Refuse { winner, doubt, standing } if benched.loser.id == newcomer => {
                    Some((*identity, Doubted { winner, doubt, standing }))
                }
                _ => None,
            };
            self.wait_out(benched, doubted);
        }
    }

    /// Hands over what waits for a link that was benched, and closes it when its time is over. A link
    /// that was `doubted` has to answer a ping first.
    fn wait_out(&self, benched: Benched, doubted: Option<(Identity, Doubted)>) {
        let Benched { loser, winner, patience } = benched;
        let registry = &self.context.registry;
        let (left, hop_local) = registry.part(loser.lanes.drain());
        registry.give(&loser, hop_local);
        registry.hand_over(&loser, left, winner);
        if patience.is_zero() && doubted.is_none() {
            return loser.end_benched();
        }
        let links = self.clone();
        self.tasks.spawn("bench", |_cancel| async move {
            let over = async {
                if let Some((identity, doubted)) = doubted {
                    links.resolve(identity, doubted).await;
                }
                time::sleep(patience).await;
            };
            tokio::select! {
                biased;
                () = loser.leaves_bench() => {}
                () = over => loser.end_benched(),
            }
        });
    }

    /// Pings the link that holds an identity, and ends it as silent unless it answers in time. Returns at once.
    pub(crate) fn probe(&self, identity: &Identity) {
        let holder = self.holder(identity).and_then(|holder| self.context.registry.get(holder));
        if holder.as_ref().is_none_or(|holder| holder.doubt.is_raised()) {
            return;
        }
        let links = self.clone();
        self.tasks.spawn("probe", |_cancel| async move {
            if let Some(holder) = holder {
                // A link that answers stays, and one that does not has ended.
                let _ = links.doubt(holder.id, Standing::Equal).await;
            }
        });
    }

    /// Resolves a newcomer's doubt about the link that holds its identity.
    async fn resolve(&self, identity: Identity, doubted: Doubted) {
        let Doubted { winner, doubt, standing } = doubted;
        let life = self.doubt(winner, standing).await;
        if (doubt, life) == (Doubt::Rivals, Some(Life::Shown)) {
            self.contested(identity);
        }
    }

    /// Ends a link as silent unless it shows a sign of life in time. `None` if it ends otherwise, or cannot be asked.
    async fn doubt(&self, link: LinkId, by: Standing) -> Option<Life> {
        let holder = self.context.registry.get(link)?;
        let hooks = holder.hooks.as_ref()?;
        if by == Standing::Lower && holder.doubt.was_dispelled_lately(time::Instant::now()) {
            return Some(Life::Shown);
        }
        let ping = holder.doubt.raise(|| hooks.sign_of_life(), CLOSE_PATIENCE, &self.writing.pulse);
        tokio::select! {
            biased;
            () = holder.cancel.cancelled() => None,
            life = ping => {
                if life == Life::Shown {
                    holder.doubt.dispel(time::Instant::now());
                } else {
                    holder.doubt.confirm();
                    self.context.registry.end(&holder, DisconnectReason::Silent);
                }
                Some(life)
            }
        }
    }
}
