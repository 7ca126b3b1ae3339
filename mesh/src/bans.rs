//! Bans: whom the node does not dial for a while, and, if an operator says so, does not let in.
//!
//! ```text
//!   operator's command ──ban, unban──▶ ┌──────┐ ──until────▶ dial schedule, handshake
//!   misbehaviour       ──ban─────────▶ │ Bans │
//!   store on disk      ──restore─────▶ └──────┘ ──bans───────▶ store on disk, output
//! ```
//!
//! # Invariants
//!
//! * Every ban ends, after [`LONGEST_BAN`] at the latest.
//! * At most [`MAX_BANS`] are known. Those for misbehaviour never push out an operator's, so a peer that misbehaves
//!   under a thousand names frees nobody whom an operator banned.
//! * A ban that is repeated lasts until the later of the two ends.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::{Duration, SystemTime},
};

use gossip::{Identity, Instant, IpRange, NodeAddress};

/// Bans at one time, at most. Chosen: more than an operator reads, and a hundred KiB.
pub const MAX_BANS: usize = 1_024;

/// Longest ban. Chosen: a year; what is banned for longer belongs into a firewall.
pub const LONGEST_BAN: Duration = gossip::LONGEST_LIMIT;

/// Longest reason, in characters; a longer one is cut. Chosen: one line of a terminal.
pub const MAX_REASON_CHARS: usize = 120;

/// The one that is banned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BanSubject {
    /// A node, wherever it is and on whatever transport.
    Identity(Identity),
    /// A network, or a single host in it, whoever speaks from there.
    Network(IpRange),
    /// An address that the node dials. Over WebSocket a peer without an identity has nothing else.
    Address(NodeAddress),
}

/// A text that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names nobody to ban: write a peer ID, an IP address, a network such as 192.0.2.0/24, or the address of a node"
)]
pub struct BanSubjectError {
    /// The text, cut to a bounded length.
    pub text: String,
}

impl FromStr for BanSubject {
    type Err = BanSubjectError;

    /// Reads a peer ID, an IP address, a network, or an address of a node. An IPv6 address without a prefix stands for
    /// its /64, of which a host has all addresses.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let identity = || text.parse().ok().map(Self::Identity);
        let host = || text.parse::<IpAddr>().ok().map(|ip| Self::Network(IpRange::of_host(ip)));
        let network = || text.parse().ok().map(Self::Network);
        let address = || text.parse().ok().map(Self::Address);
        identity()
            .or_else(host)
            .or_else(network)
            .or_else(address)
            .ok_or_else(|| BanSubjectError { text: text.chars().take(80).collect() })
    }
}

impl fmt::Display for BanSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(identity) => identity.fmt(f),
            // A single IPv6 address would be read as its /64.
            Self::Network(range) if range.first().is_ipv6() => {
                write!(f, "{}/{}", range.first(), range.prefix())
            }
            Self::Network(range) => range.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The one who bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BanCause {
    /// The node itself, because of what the peer did. It is not dialled; it may come by itself, since one malformed
    /// message may be somebody else's that it passed on.
    Misbehaviour,
    /// An operator, or the application that embeds the node. The peer is neither dialled nor let in.
    Operator,
}

impl BanCause {
    /// The name of the cause in stores and in output. Names stay as they are.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Misbehaviour => "misbehaviour",
            Self::Operator => "operator",
        }
    }
}

/// One ban, as it is shown and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The one that is banned.
    pub subject: BanSubject,
    /// The end of the ban.
    pub until: SystemTime,
    /// The one who banned.
    pub cause: BanCause,
    /// The reason in words, for an operator to read.
    pub reason: String,
}

/// There are [`MAX_BANS`] already, none of which gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_BANS} are banned already: unban some first, or use a firewall")]
pub struct TooManyBans;

#[derive(Debug)]
struct Sentence {
    until: Instant,
    cause: BanCause,
    reason: Box<str>,
}

/// All bans of a node.
#[derive(Debug)]
pub struct Bans {
    sentences: BTreeMap<BanSubject, Sentence>,
    /// The same moment on both clocks.
    origin: (Instant, SystemTime),
}

impl Bans {
    /// No bans. `now` and `wall` are the same moment on the two clocks.
    #[must_use]
    pub const fn new(now: Instant, wall: SystemTime) -> Self {
        Self { sentences: BTreeMap::new(), origin: (now, wall) }
    }

    /// Bans `subject` for as long as `duration`, at most [`LONGEST_BAN`].
    ///
    /// # Errors
    ///
    /// [`TooManyBans`] when there is no room. An operator's ban takes the place of one for misbehaviour, and one for
    /// misbehaviour that of another that ends sooner.
    pub fn ban(
        &mut self,
        subject: BanSubject,
        duration: Duration,
        (cause, reason): (BanCause, &str),
        now: Instant,
    ) -> Result<(), TooManyBans> {
        self.expire(now);
        let Some(until) = now.checked_add(duration.min(LONGEST_BAN)) else { return Ok(()) };
        if let Some(known) = self.sentences.get_mut(&subject) {
            if until > known.until {
                (known.until, known.reason) = (until, clean(reason));
            }
            known.cause = known.cause.max(cause);
            return Ok(());
        }
        if self.sentences.len() >= MAX_BANS {
            let out = self.soonest(cause, until).ok_or(TooManyBans)?;
            self.sentences.remove(&out);
        }
        self.sentences.insert(subject, Sentence { until, cause, reason: clean(reason) });
        Ok(())
    }

    /// Ends a ban. Returns `false` if there was none.
    pub fn unban(&mut self, subject: &BanSubject, now: Instant) -> bool {
        self.expire(now);
        self.sentences.remove(subject).is_some()
    }

    /// The end of the ban of `subject`; `None` if it is not banned.
    #[must_use]
    pub fn until(&self, subject: &BanSubject, now: Instant) -> Option<Instant> {
        self.sentences.get(subject).map(|sentence| sentence.until).filter(|until| *until > now)
    }

    /// Those whom an operator banned, each with the end of the ban: they are not let in either.
    pub(crate) fn shut_out(&self, now: Instant) -> impl Iterator<Item = (&BanSubject, Instant)> {
        let live = self.sentences.iter().filter(move |(_, known)| known.until > now);
        let by_operator = live.filter(|(_, known)| known.cause == BanCause::Operator);
        by_operator.map(|(subject, known)| (subject, known.until))
    }

    /// The end of the bans of the networks that an address is in; `None` if none of them is banned.
    fn until_from(&self, ip: IpAddr, now: Instant) -> Option<Instant> {
        // Networks stand together, in the order of the subjects.
        let networks = self.sentences.range(BanSubject::Network(IpRange::MIN)..);
        let networks = networks.map_while(|(subject, known)| match subject {
            BanSubject::Network(range) => Some((range, known.until)),
            _ => None,
        });
        let has_it = networks.filter(|(range, until)| *until > now && range.contains(ip));
        has_it.map(|(_, until)| until).max()
    }

    /// The end of the ban because of which an address must not be dialled: its own, that of the identity last found
    /// there, or that of a network which has the address it names by number.
    #[must_use]
    pub fn until_dial(
        &self,
        address: &NodeAddress,
        identity: Option<Identity>,
        now: Instant,
    ) -> Option<Instant> {
        if self.sentences.is_empty() {
            return None;
        }
        let own = self.until(&BanSubject::Address(address.clone()), now);
        let identity = identity.and_then(|who| self.until(&BanSubject::Identity(who), now));
        let network = ip_of(address).and_then(|ip| self.until_from(ip, now));
        own.max(identity).max(network)
    }

    /// Every ban that has not ended, in the order of the subjects.
    #[must_use]
    pub fn bans(&self, now: Instant) -> Vec<Ban> {
        let (instant, wall) = self.origin;
        let live = self.sentences.iter().filter(|(_, sentence)| sentence.until > now);
        live.filter_map(|(subject, sentence)| {
            Some(Ban {
                subject: subject.clone(),
                until: wall.checked_add(sentence.until.saturating_duration_since(instant))?,
                cause: sentence.cause,
                reason: sentence.reason.to_string(),
            })
        })
        .collect()
    }

    /// Takes back bans that were stored, and returns how many have not ended. Those beyond [`MAX_BANS`] are left out.
    pub fn restore(&mut self, bans: impl IntoIterator<Item = Ban>, now: Instant) -> usize {
        let (instant, wall) = self.origin;
        let wall = wall.checked_add(now.saturating_duration_since(instant));
        let mut restored = 0;
        for ban in bans.into_iter().take(2 * MAX_BANS) {
            let left = wall.and_then(|wall| ban.until.duration_since(wall).ok());
            let Some(left) = left.filter(|left| !left.is_zero()) else { continue };
            let taken = self.ban(ban.subject, left, (ban.cause, &ban.reason), now);
            restored += usize::from(taken.is_ok());
        }
        restored
    }

    /// The ban that gives way to one of this cause that ends at `until`.
    fn soonest(&self, cause: BanCause, until: Instant) -> Option<BanSubject> {
        let lesser =
            self.sentences.iter().filter(|(_, known)| known.cause == BanCause::Misbehaviour);
        let (subject, known) = lesser.min_by_key(|(_, known)| known.until)?;
        (cause > known.cause || until > known.until).then(|| subject.clone())
    }

    fn expire(&mut self, now: Instant) {
        self.sentences.retain(|_, sentence| sentence.until > now);
    }
}

/// The IP address that an address names by number.
pub(crate) fn ip_of(address: &NodeAddress) -> Option<IpAddr> {
    match address {
        NodeAddress::WebSocket(url) => url.host().trim_matches(['[', ']']).parse().ok(),
        NodeAddress::Multiaddr(text) => text.split('/').nth(2)?.parse().ok(),
    }
}

/// The IP address in the address of a peer as it is shown: `ip:port`, an IP address alone, or a multiaddr.
pub(crate) fn ip_in(shown: &str) -> Option<IpAddr> {
    let socket = || shown.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let multiaddr = || shown.split('/').nth(2)?.parse().ok();
    shown.parse().ok().or_else(socket).or_else(multiaddr)
}

/// A reason in one line of bounded length.
fn clean(reason: &str) -> Box<str> {
    let letters = reason.chars().take(MAX_REASON_CHARS);
    letters.map(|letter| if letter.is_control() { ' ' } else { letter }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(number: u32) -> BanSubject {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        BanSubject::Identity(Identity::from_ed25519(key))
    }

    fn bans() -> (Bans, Instant) {
        let now = Instant::now();
        (Bans::new(now, SystemTime::UNIX_EPOCH + 1_000 * SECOND), now)
    }

    #[test]
    fn a_ban_ends_at_its_time_and_may_be_ended_before() {
        let (mut bans, now) = bans();
        for number in [1, 2] {
            bans.ban(node(number), 10 * SECOND, (BanCause::Operator, "a\nb"), now).unwrap();
        }
        let shut_out = |at| bans.shut_out(at).any(|(subject, _)| *subject == node(1));
        assert!(shut_out(now + 9 * SECOND) && !shut_out(now + 10 * SECOND));
        assert!(bans.unban(&node(2), now) && !bans.unban(&node(2), now));
        let shown = bans.bans(now);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].until, SystemTime::UNIX_EPOCH + 1_010 * SECOND);
        assert_eq!(shown[0].reason, "a b");
        bans.ban(node(3), Duration::MAX, (BanCause::Operator, ""), now).unwrap();
        assert_eq!(bans.until(&node(3), now), Some(now + LONGEST_BAN));
    }

    #[test]
    fn a_repeated_ban_lasts_until_the_later_end_and_stays_an_operators() {
        let (mut bans, now) = bans();
        bans.ban(node(1), 60 * SECOND, (BanCause::Operator, "spam"), now).unwrap();
        bans.ban(node(1), SECOND, (BanCause::Misbehaviour, "again"), now).unwrap();
        let shown = bans.bans(now).remove(0);
        assert_eq!((shown.cause, &*shown.reason), (BanCause::Operator, "spam"));
        assert_eq!(bans.until(&node(1), now), Some(now + 60 * SECOND));
    }

    #[test]
    fn misbehaviour_under_many_names_frees_nobody_whom_an_operator_banned() {
        let (mut bans, now) = bans();
        bans.ban(node(0), SECOND, (BanCause::Operator, ""), now).unwrap();
        for number in 1..3_000 {
            let lasts = Duration::from_millis(2_000 + u64::from(number));
            bans.ban(node(number), lasts, (BanCause::Misbehaviour, ""), now).unwrap();
        }
        assert_eq!(bans.bans(now).len(), MAX_BANS);
        assert!(bans.until(&node(0), now).is_some() && bans.until(&node(1), now).is_none());
        let sooner = bans.ban(node(9_999), SECOND, (BanCause::Misbehaviour, ""), now);
        assert_eq!(sooner, Err(TooManyBans));
        for number in 10_000..12_000 {
            let taken = bans.ban(node(number), SECOND, (BanCause::Operator, ""), now);
            assert_eq!(taken.is_ok(), number < 10_000 + 1_023, "{number}");
        }
    }

    #[test]
    fn an_address_is_not_dialled_because_of_itself_its_node_or_its_host() {
        for (subject, address) in [
            ("a.example:1", "a.example:1"),
            ("192.0.2.1", "192.0.2.1:4160"),
            ("192.0.2.1", "http://192.0.2.1"),
            ("192.0.2.1", "/ip4/192.0.2.1/tcp/1"),
            ("2001:db8::1", "[2001:db8::2]:1"),
            ("192.0.2.0/24", "192.0.2.255:1"),
            ("0.0.0.0/0", "192.0.2.255:1"),
            ("2001:db8::/32", "/ip6/2001:db8:1::1/tcp/1"),
            ("2001:db8::1/128", "[2001:db8::1]:1"),
        ] {
            let (mut bans, now) = bans();
            let subject: BanSubject = subject.parse().unwrap();
            bans.ban(subject.clone(), SECOND, (BanCause::Operator, ""), now).unwrap();
            let address = address.parse().unwrap();
            assert_eq!(bans.until_dial(&address, None, now), Some(now + SECOND), "{subject}");
            assert_eq!(bans.until_dial(&address, None, now + SECOND), None);
            assert_eq!(bans.until_dial(&"b.example:1".parse().unwrap(), None, now), None);
        }
        let (mut bans, now) = bans();
        bans.ban(node(1), SECOND, (BanCause::Misbehaviour, ""), now).unwrap();
        let BanSubject::Identity(one) = node(1) else { unreachable!() };
        let address = "b.example:1".parse().unwrap();
        assert!(bans.until_dial(&address, Some(one), now).is_some());
    }

    #[test]
    fn the_host_of_a_peer_is_read_from_its_address_as_shown() {
        for (shown, ip) in [
            ("192.0.2.1:5", Some("192.0.2.1")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("[2001:db8::1]:5", Some("2001:db8::1")),
            ("/ip6/2001:db8::1/tcp/4190", Some("2001:db8::1")),
            ("/dns4/a.example/tcp/1", None),
            ("a.example:1", None),
            ("", None),
        ] {
            assert_eq!(ip_in(shown), ip.map(|ip| ip.parse().unwrap()), "{shown}");
        }
    }

    #[test]
    fn a_subject_prints_as_it_is_read() {
        for (text, printed) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            // As earlier versions stored a host.
            ("2001:db8::", "2001:db8::/64"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::1/128", "2001:db8::1/128"),
            ("a.example:1", "a.example:1"),
            ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1"),
            ("https://a/", "https://a"),
        ] {
            let subject: BanSubject = text.parse().unwrap();
            assert_eq!(subject.to_string(), printed);
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        let subject = node(7);
        assert_eq!(subject.to_string().parse(), Ok(subject));
        for text in ["nobody", "192.0.2.1/24", "192.0.2.0/33", "/24", ""] {
            assert!(text.parse::<BanSubject>().is_err(), "{text}");
        }
    }

    #[test]
    fn stored_bans_go_on_and_those_that_ended_do_not_come_back() {
        let (mut old, now) = bans();
        for (number, lasts) in [(1, 10), (2, 100)] {
            old.ban(node(number), lasts * SECOND, (BanCause::Operator, "x"), now).unwrap();
        }
        let later = now + 5 * SECOND;
        let mut new = Bans::new(later, SystemTime::UNIX_EPOCH + 1_050 * SECOND);
        assert_eq!(new.restore(old.bans(now), later), 1);
        assert_eq!(new.until(&node(2), later), Some(later + 50 * SECOND));
    }
}
