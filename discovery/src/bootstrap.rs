//! Reads where DNS leads to a network: the text that an operator writes.
//!
//! ```text
//!   example.org                                          SRV records below a name, and a tree of dnsaddr records
//!   a.example?backup=b.example&dedup=<name>.(a|b).example  the same, and a second name with the same nodes
//!   /dnsaddr/example.org                                 a tree of dnsaddr records alone
//!   mainnet                                              a public network of the profile, by its name
//! ```
//!
//! Entries stand between semicolons, and `<network>` stands for the name of the network without its version. Source:
//! wire facts 10.4.
//!
//! # Invariants
//!
//! * Nothing is looked up here, and no other name is asked for than those that were written.
//! * A pattern costs time in proportion to what it is applied to, and a bounded amount of memory.

use std::fmt;

use gossip::{DnsService, NetworkId};
use regex::{Regex, RegexBuilder};

use crate::name::DnsName;

/// Entries of one list, at most. Chosen: each one costs questions at every look.
pub const MAX_ENTRIES: usize = 16;

/// Longest text of a list, in bytes. Chosen: sixteen entries with patterns fit.
const MAX_BYTES: usize = 8 * 1024;

/// Bound of a compiled pattern, in bytes. Chosen: far more than a pattern of names needs.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// The place-holder for the name of the network.
const NETWORK: &str = "<network>";

/// The place-holder for the part of a name that stays, at the start of a pattern.
const NAME: &str = "<name>";

/// One entry: names under which DNS leads to nodes.
#[derive(Clone, Debug)]
pub enum Bootstrap {
    /// A name with SRV records for WebSocket and a tree of dnsaddr records for libp2p.
    Names(Names),
    /// A tree of dnsaddr records.
    Tree(DnsName),
}

/// A name, and another one that leads to the same nodes.
#[derive(Clone, Debug)]
pub struct Names {
    /// The name that counts where both know a node.
    pub primary: DnsName,
    /// The other one.
    pub backup: Option<Backup>,
}

/// A second name of the same nodes, in case that the first one cannot be asked.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The name.
    pub name: DnsName,
    /// The parts of addresses by which the two lists differ; `None` where they do not.
    pub differs: Option<Regex>,
}

/// The reason why a text cannot be used, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// There is no entry.
    #[error("no name is given: write for example example.org")]
    Empty,
    /// There is more than anybody needs.
    #[error("the list is too long: it has at most {MAX_ENTRIES} entries and {MAX_BYTES} bytes")]
    TooLong,
    /// The name of an entry is no name of DNS.
    #[error("{name:?} is no DNS name: write for example example.org or /dnsaddr/example.org")]
    BadName {
        /// The name, cut to a bounded length.
        name: String,
    },
    /// A word without dots that names no public network.
    #[error(
        "{name:?} is no public network of this profile: write a DNS name, for example example.org"
    )]
    UnknownNetwork {
        /// The word, cut to a bounded length.
        name: String,
    },
    /// The bootstrap of one network is asked for in another one, whose nodes would refuse this one.
    #[error("{name:?} leads to another network than {network}, the one this node is in")]
    OtherNetwork {
        /// The network that was asked for.
        name: String,
        /// The network of the node.
        network: String,
    },
    /// A parameter that there is not, or one that stands twice.
    #[error("{name:?} is no parameter, or stands twice: write backup=NAME and dedup=PATTERN")]
    BadParameter {
        /// The parameter, cut to a bounded length.
        name: String,
    },
    /// A pattern without a second list to compare with.
    #[error("dedup compares two lists: write backup=NAME beside it")]
    NoBackup,
    /// The pattern cannot be used.
    #[error("{pattern:?} is no pattern: write a regular expression, <name> at its start alone")]
    BadPattern {
        /// The pattern, cut to a bounded length.
        pattern: String,
    },
}

impl Bootstrap {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// [`BootstrapError`] for the first entry that cannot be used.
    pub fn parse(
        text: &str,
        network: &NetworkId,
        service: &DnsService,
    ) -> Result<Vec<Self>, BootstrapError> {
        let entries: Vec<&str> =
            text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if text.len() > MAX_BYTES || entries.len() > MAX_ENTRIES {
            return Err(BootstrapError::TooLong);
        }
        if entries.is_empty() {
            return Err(BootstrapError::Empty);
        }
        let label = network.label();
        entries.into_iter().map(|entry| Self::entry(entry, label, service)).collect()
    }

    fn entry(entry: &str, network: &str, service: &DnsService) -> Result<Self, BootstrapError> {
        if let Some(name) = entry.strip_prefix("/dnsaddr/") {
            return Ok(Self::Tree(filled(name, network)?));
        }
        let is_word = !entry.contains(['.', '?', '/', '<']);
        let entry = if is_word { public(entry, network, service)? } else { entry };
        Ok(Self::Names(Names::parse(entry, network)?))
    }
}

impl Names {
    fn parse(entry: &str, network: &str) -> Result<Self, BootstrapError> {
        let (primary, parameters) = entry.split_once('?').unwrap_or((entry, ""));
        let primary = filled(primary, network)?;
        let (mut backup, mut pattern) = (None, None);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let refused = || BootstrapError::BadParameter { name: shown(parameter) };
            let (key, value) = parameter.split_once('=').ok_or_else(refused)?;
            let before = match key {
                "backup" => backup.replace(value),
                "dedup" => pattern.replace(value),
                _ => return Err(refused()),
            };
            if before.is_some() {
                return Err(refused());
            }
        }
        let backup = match (backup, pattern) {
            (None, None) => None,
            (None, Some(_)) => return Err(BootstrapError::NoBackup),
            (Some(name), pattern) => Some(Backup {
                name: filled(name, network)?,
                differs: pattern.map(|pattern| compiled(pattern, network)).transpose()?,
            }),
        };
        Ok(Self { primary, backup })
    }
}

impl Backup {
    /// The part of an address that is equal in both lists.
    #[must_use]
    pub fn key(&self, address: &str) -> String {
        let address = address.to_ascii_lowercase();
        match &self.differs {
            Some(pattern) => pattern.replace_all(&address, "").into_owned(),
            None => address,
        }
    }
}

/// The list of the first name, and of the second one what the first one does not have. Of one list, what has the same
/// key is the same node as well.
pub(crate) fn merged(primary: Vec<String>, second: Vec<String>, backup: &Backup) -> Vec<String> {
    let mut known = std::collections::BTreeSet::new();
    let all = primary.into_iter().chain(second).map(|address| address.to_ascii_lowercase());
    all.filter(|address| known.insert(backup.key(address))).collect()
}

/// The template of a public network that is asked for by its name.
fn public(word: &str, network: &str, service: &DnsService) -> Result<&'static str, BootstrapError> {
    let special = service.special.iter().find(|(name, _)| *name == word);
    let template = special.map(|(_, template)| *template).or(service.public);
    let template = template.ok_or_else(|| BootstrapError::UnknownNetwork { name: shown(word) })?;
    if word == network {
        Ok(template)
    } else {
        Err(BootstrapError::OtherNetwork { name: shown(word), network: network.to_owned() })
    }
}

/// A name with the network in its place.
fn filled(text: &str, network: &str) -> Result<DnsName, BootstrapError> {
    let name = text.replace(NETWORK, network);
    DnsName::new(&name).ok_or_else(|| BootstrapError::BadName { name: shown(&name) })
}

fn compiled(text: &str, network: &str) -> Result<Regex, BootstrapError> {
    let refused = || BootstrapError::BadPattern { pattern: shown(text) };
    let pattern = text.strip_prefix(NAME).unwrap_or(text);
    if pattern.contains(NAME) || pattern.is_empty() {
        return Err(refused());
    }
    let pattern = pattern.replace(NETWORK, &regex::escape(network));
    let mut builder = RegexBuilder::new(&pattern);
    builder.size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
    builder.build().map_err(|_| refused())
}

/// A text as an error repeats it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => fmt::Display::fmt(&names.primary, f),
            Self::Tree(name) => write!(f, "/dnsaddr/{name}"),
        }
    }
}

#[cfg(test)]
mod tests;
