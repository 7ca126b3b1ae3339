//! Sources of addresses: what they are called, how far they are trusted, and how they are asked.
//!
//! # Invariants
//!
//! * The name of a source is short and printable, so it can be stored, shown and compared.
//! * A source that fails changes nothing: its last answer stands.

use std::{error::Error, fmt, time::Duration};

use gossip::{BoxFuture, NodeAddress};

use super::roles::RoleSet;

/// Longest name of a source, in bytes; a longer one is cut. Chosen: a name in DNS has up to 253.
pub const MAX_SOURCE_BYTES: usize = 255;

/// The kind of a source. The order is that of trust: where places are short, a kind gives way to those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SourceKind {
    /// The configuration of this run: settings, flags, the program that embeds the node. Persistent.
    Configuration,
    /// An operator by command; in the store until an operator takes it out. Persistent.
    Operator,
    /// The application, about the members of the network, as long as they are members. Persistent, and not restored.
    Members,
    /// Records in DNS that the configuration names.
    Dns,
    /// This node's own experience: addresses that worked once, and that nobody lists any more.
    Store,
    /// Directories that anybody may write to: Kademlia, rendezvous.
    Directory,
    /// A peer that told of others.
    Peer,
    /// Announcements on the local network, which anybody there can forge: at most
    /// [`MAX_LOCAL`](super::MAX_LOCAL) addresses, none of which is kept or stored.
    /// Source: threats and goals, row 25.
    Local,
}

impl SourceKind {
    /// Every kind, the most trusted first.
    pub const ALL: [Self; 8] = [
        Self::Configuration,
        Self::Operator,
        Self::Members,
        Self::Dns,
        Self::Store,
        Self::Directory,
        Self::Peer,
        Self::Local,
    ];

    /// Returns `true` if addresses of this kind stay until the one who named them takes them back, and are dialled
    /// whatever the fan-out is.
    #[must_use]
    pub const fn is_persistent(self) -> bool {
        matches!(self, Self::Configuration | Self::Operator | Self::Members)
    }

    /// Returns `true` if a source of this kind is searched soon while the node has too few links. Names in DNS change
    /// rarely, and its servers answer everybody; a directory has other nodes to tell of as soon as there are some.
    #[must_use]
    pub const fn is_searched_in_need(self) -> bool {
        matches!(self, Self::Directory)
    }

    /// The name of the kind in stores and in output. Names stay as they are.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Operator => "operator",
            Self::Members => "members",
            Self::Dns => "dns",
            Self::Store => "store",
            Self::Directory => "directory",
            Self::Peer => "peer",
            Self::Local => "mdns",
        }
    }

    /// The kind of this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// A source of addresses: its kind, and a name if there are several of the kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId {
    kind: SourceKind,
    name: Box<str>,
}

impl SourceId {
    /// The only source of a kind.
    #[must_use]
    pub fn of(kind: SourceKind) -> Self {
        Self { kind, name: "".into() }
    }

    /// One of several sources of a kind, such as the name that is looked up in DNS, or the identity of a peer.
    ///
    /// Control characters become `?`, and all behind [`MAX_SOURCE_BYTES`] is cut.
    #[must_use]
    pub fn named(kind: SourceKind, name: &str) -> Self {
        let clean = name.chars().map(|letter| if letter.is_control() { '?' } else { letter });
        let mut cut = String::new();
        for letter in clean {
            if cut.len() + letter.len_utf8() > MAX_SOURCE_BYTES {
                break;
            }
            cut.push(letter);
        }
        Self { kind, name: cut.into() }
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The name; empty for the only source of its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SourceId {
    /// `dns:example.org`, or the kind alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.label())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, ":{}", self.name) }
    }
}

/// An address as one source lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The address.
    pub address: NodeAddress,
    /// The roles it is listed for.
    pub roles: RoleSet,
}

impl Listed {
    /// An address that is listed for these roles.
    #[must_use]
    pub fn new(address: NodeAddress, roles: impl IntoIterator<Item = super::Role>) -> Self {
        Self { address, roles: roles.into_iter().collect() }
    }
}

/// The reason why a source had no answer. It is shown to the operator, and changes nothing.
#[derive(Debug, thiserror::Error)]
#[error("{source_id} has no answer")]
pub struct SourceError {
    /// The source.
    pub source_id: SourceId,
    /// The cause, as the source's own library says it.
    #[source]
    pub cause: Box<dyn Error + Send + Sync>,
}

/// The time after which a source is asked again, unless it says otherwise. Source: wire facts 10.4 and 11.1: DNS is
/// asked at each tick of the mesh.
pub const REFRESH: Duration = Duration::from_secs(60);

/// A source of addresses that is asked from time to time.
///
/// The mesh loop asks each source once at the start and then every [`AddressSource::refresh`], soon when it
/// has no peer, and a directory soon while it has fewer than it wants; never twice at one time. Each answer replaces the last one
/// ([`Phonebook::replace`](super::Phonebook::replace)), except that an empty one and an error leave it as it is
/// (wire facts 10.4). A source bounds its own answer in number and its own wait in time; the loop gives up after
/// thirty seconds all the same.
///
/// A source that is told of changes instead of asking, as mDNS is, needs no `AddressSource`: it calls the loop's handle.
pub trait AddressSource: Send + Sync + 'static {
    /// The name under which its addresses are listed. Always the same.
    fn id(&self) -> SourceId;

    /// Asks for all addresses that the source has now.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when there is no answer.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time, which must leave nothing behind but a cache.
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Listed>, SourceError>>;

    /// Time from one answer to the next question. Default: [`REFRESH`].
    fn refresh(&self) -> Duration {
        REFRESH
    }
}

const _: Option<&dyn AddressSource> = None; // stays dyn-compatible

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_short_name_of_one_line() {
        let long = SourceId::named(SourceKind::Peer, &"ä\n".repeat(500));
        assert!(long.name().len() <= MAX_SOURCE_BYTES && long.name().starts_with("ä?"));
        let dns = SourceId::named(SourceKind::Dns, "example.org");
        assert_eq!(dns.to_string(), "dns:example.org");
        assert_eq!(SourceId::of(SourceKind::Configuration).to_string(), "configuration");
        for kind in SourceKind::ALL {
            assert_eq!(SourceKind::from_label(kind.label()), Some(kind));
        }
    }
}
