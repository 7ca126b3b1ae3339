//! Outcomes: the part of the dial schedule that learns what became of dials and links.
//!
//! # Invariants
//!
//! * A link that ends within [`STABLE_AFTER`] is a failure of its address, whatever else is connected, unless this node
//!   let it go.
//! * Every delay is bounded by [`MAX_DELAY`], whatever a peer asks for.
//! * Calls that name an unknown address do nothing: it may have been removed while it was dialled.

use std::time::Duration;

use gossip::{DisconnectReason, Identity, Instant, NodeAddress, Transport};
use rand::Rng;

use super::{
    Acquaintance, BanCause, BanSubject, DialSchedule, Hold, MAX_DELAY, Place, random_part,
    transport_of,
};

/// Lifetime of a link from which on its address is dialled again without backoff.
///
/// Chosen: longer than a handshake and the ruling on duplicates take.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialFailure {
    /// No answer came, or not in time, or not in the protocol.
    Unreachable,
    /// The peer answered and does not want us now.
    Refused,
    /// The peer answered 429 and said when to come again. The address is left alone exactly that
    /// long, at most [`MAX_DELAY`]; no time at all counts as [`DialFailure::Refused`]. Source: wire
    /// facts 10.3.
    RetryAfter(Duration),
    /// The address is this node's own. It is left alone for [`MAX_DELAY`]. Source: threats and goals,
    /// row 5.
    Ourselves,
    /// The peer is this one, and another link to it stays. The address is left alone until
    /// [`DialSchedule::identity_gone`], if that identity is connected as far as the schedule was
    /// told; else it is retried with backoff.
    Duplicate(Identity),
}

impl DialSchedule {
    /// Records the round-trip time of a link over a transport, to a peer of this identity or at this address.
    pub fn observed(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        (transport, rtt): (Transport, Duration),
    ) {
        let of_it = identity.map(|identity| self.agenda.of_identity(&identity));
        let all = of_it.into_iter().flatten().chain(address.cloned());
        for address in all.filter(|address| transport_of(address) == transport) {
            self.book.observed(&address, rtt);
        }
    }

    /// This node lets a link go, to a peer of this identity or at this address. Its end is no failure of the address,
    /// which has shown that it works.
    pub fn let_go(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        now: Instant,
    ) {
        self.follow(now);
        let of_it = identity.map(|identity| self.agenda.of_identity(&identity));
        for address in of_it.into_iter().flatten().chain(address.cloned()) {
            if let Some(entry) = self.book.entries.get_mut(&address) {
                entry.is_let_go = matches!(entry.hold, Hold::Linked { .. });
            }
        }
    }

    /// A dial led to a link to `identity`, if that is known. An address may also be connected that
    /// was not due, because an operator asked for it.
    pub fn connected(&mut self, address: &NodeAddress, identity: Option<Identity>, now: Instant) {
        self.book.linked(address, identity, now);
    }

    /// A dial came to nothing, or a link just made was ended for this reason.
    pub fn failed(
        &mut self,
        address: &NodeAddress,
        why: DialFailure,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let delay = match why {
            DialFailure::RetryAfter(delay) if !delay.is_zero() => Some(delay),
            DialFailure::Ourselves => Some(MAX_DELAY),
            DialFailure::Duplicate(identity) => {
                self.book.found(address, identity);
                if self.is_connected(address) {
                    // A peer that calls every link a duplicate must not be dialled without backoff.
                    self.after_short_link(address, now, rng)
                } else {
                    // Possibly the peer alone knows of the other link: never retry in a tight loop.
                    Some(self.backoff(address, rng))
                }
            }
            DialFailure::Unreachable | DialFailure::Refused | DialFailure::RetryAfter(_) => {
                Some(self.backoff(address, rng))
            }
        };
        self.release(address, delay, now);
    }

    /// The link to an address ended. One that was stable is dialled again soon, any other with
    /// backoff; neither while its identity is connected by another link.
    pub fn ended(&mut self, address: &NodeAddress, now: Instant, rng: &mut impl Rng) {
        let Some(entry) = self.book.entries.get(address) else { return };
        let Hold::Linked { since } = entry.hold else { return };
        let is_let_go = entry.is_let_go;
        if is_let_go || is_stable(since, now) {
            self.book.works(address);
        }
        let mut delay = if is_let_go { None } else { self.after_short_link(address, now, rng) };
        if delay.is_none() && !self.is_connected(address) {
            delay = Some(random_part(self.limits.base, rng));
        }
        self.release(address, delay, now);
    }

    /// A link to `identity` is in use on a transport, whoever dialled.
    pub fn identity_connected(&mut self, identity: Identity, transport: Transport) {
        self.identities.entry(identity).or_default().insert(transport);
    }

    /// No link to `identity` is in use on a transport any more: the addresses that waited for that are due soon,
    /// each after a small random delay, so that two nodes do not keep dialling each other at once.
    pub fn identity_gone(
        &mut self,
        identity: &Identity,
        transport: Transport,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some(linked) = self.identities.get_mut(identity) else { return };
        if !linked.remove(&transport) {
            return;
        }
        if linked.is_empty() {
            self.identities.remove(identity);
        }
        self.follow(now);
        for address in self.agenda.of_identity(identity) {
            let Some(entry) = self.book.entries.get_mut(&address) else { continue };
            // An address that was connected is dialled before strangers.
            entry.acquaintance = entry.acquaintance.min(Acquaintance::Familiar);
            if entry.hold == Hold::Free {
                let soon = now.checked_add(random_part(self.limits.base, rng));
                entry.retry_at = entry.retry_at.max(soon);
            }
        }
    }

    /// Notes why a link has ended, by the identity of the peer and by the address at which it was dialled, as far as they
    /// are known. A peer that broke the rules is banned for as long as the limits say: its identity, or, if it has none,
    /// the address. A learnt address whose peer was replaced by another one is left alone for a while.
    pub fn parted(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        reason: DisconnectReason,
        now: Instant,
    ) {
        self.punish(identity, address, reason, now);
        use DisconnectReason::{CliqueResolving, Idle, LeastPerforming};
        if !matches!(reason, LeastPerforming | CliqueResolving | Idle) {
            return;
        }
        let until = now.checked_add(self.limits.replaced_for.min(MAX_DELAY));
        self.follow(now);
        let of_it = identity.map(|identity| self.agenda.of_identity(&identity));
        for address in of_it.into_iter().flatten().chain(address.cloned()) {
            let Some(entry) = self.book.entries.get_mut(&address) else { continue };
            if entry.place != Place::Persistent {
                entry.retry_at = entry.retry_at.max(until);
            }
        }
    }

    fn punish(
        &mut self,
        identity: Option<Identity>,
        address: Option<&NodeAddress>,
        reason: DisconnectReason,
        now: Instant,
    ) {
        let time = match reason {
            DisconnectReason::Application(_) => self.limits.misbehaviour_ban,
            DisconnectReason::BadData | DisconnectReason::Flood => self.limits.malformed_ban,
            _ => return,
        };
        let by_address = || address.map(|address| BanSubject::Address(address.clone()));
        let Some(subject) = identity.map(BanSubject::Identity).or_else(by_address) else { return };
        let why = (BanCause::Misbehaviour, &*reason.to_string());
        // There is room unless operators took all of it, and then this peer is left to the back-off.
        let _ = self.bans.ban(subject, time, why, now);
    }

    fn release(&mut self, address: &NodeAddress, delay: Option<Duration>, now: Instant) {
        let until = delay.and_then(|delay| now.checked_add(delay.min(MAX_DELAY)));
        self.book.release(address, until, now);
    }

    /// Counts a link that has just ended as a failure, if it was short-lived, and says how long its address
    /// is left alone for that.
    fn after_short_link(
        &mut self,
        address: &NodeAddress,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        match self.book.entries.get(address)?.hold {
            Hold::Linked { since } if !is_stable(since, now) => Some(self.backoff(address, rng)),
            _ => None,
        }
    }

    /// Counts one more failure and draws a delay: full jitter, up to a bound that doubles.
    fn backoff(&mut self, address: &NodeAddress, rng: &mut impl Rng) -> Duration {
        let factor = 2_u32.saturating_pow(self.book.failed(address));
        let bound = self.limits.base.saturating_mul(factor).min(self.limits.cap).min(MAX_DELAY);
        random_part(bound, rng)
    }
}

/// Returns `true` if a link has lived long enough for its end to be no failure.
fn is_stable(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= STABLE_AFTER
}
