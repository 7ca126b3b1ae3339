//! Capabilities that nodes announce, and the keys they are found under.

use std::{fmt, str::FromStr};

use libp2p::kad::RecordKey;
use mesh::Role;
use sha2::{Digest, Sha256};

/// Longest name of a capability, in bytes. Chosen: the longest of today's networks has 17.
const MAX_BYTES: usize = 64;

/// Code and length of a SHA-256 multihash. Source: the multicodec table.
const SHA2_256: [u8; 2] = [0x12, 32];

/// Something that a node offers to others, by its name. Source: wire facts 8.7.
///
/// A name has 1 to 64 ASCII letters, digits and hyphens; case counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability(Box<str>);

/// A text that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a capability is 1 to 64 letters, digits and hyphens, as in `archival`")]
pub struct CapabilityError;

impl Capability {
    /// The node passes on the messages of others.
    #[must_use]
    pub fn gossip() -> Self {
        Self("gossip".into())
    }

    /// The node serves every block there ever was.
    #[must_use]
    pub fn archival() -> Self {
        Self("archival".into())
    }

    /// The node carries circuits for others. Chosen: go-libp2p announces its relays under no name in this table.
    #[must_use]
    pub fn circuits() -> Self {
        Self("circuit-relay".into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The role in the phonebook of the nodes that offer it: of `gossip` it is `relay`. `None` if the name is no name of
    /// a role.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        if *self == Self::gossip() { Some(Role::relay()) } else { self.0.parse().ok() }
    }

    /// The key of its provider records: the multihash of the name. Source: wire facts 8.7. Providers are stored under the
    /// hash in a content ID, not under the ID itself.
    pub(super) fn key(&self) -> RecordKey {
        let mut key = SHA2_256.to_vec();
        key.extend_from_slice(&Sha256::digest(self.0.as_bytes()));
        RecordKey::from(key)
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_name = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
        if is_name { Ok(Self(text.into())) } else { Err(CapabilityError) }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The multihash in a CIDv1 of base 32, whose codec is raw bytes.
    fn multihash(cid: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
        for letter in cid.strip_prefix('b').unwrap().bytes() {
            let value = ALPHABET.iter().position(|known| *known == letter).unwrap();
            bits = bits << 5 | u32::try_from(value).unwrap();
            count += 5;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
        }
        bytes.strip_prefix(&[1, 0x55]).unwrap().to_vec()
    }

    #[test]
    fn capabilities_are_found_under_the_keys_of_existing_nodes() {
        // Source: wire facts 8.7.
        let known = [
            ("archival", "bafkreihwb2nllubutatbk4txsibjzo5erpllqspkem55jsiewv5ayzf2ra"),
            ("catchpointStoring", "bafkreid3rtyilvqhfqca3hhnrjwxufl42roex7lmy5i6354ygvcw7iifl4"),
            ("gossip", "bafkreig5oorppr4yfrqqa27bfyn3wpumt2tln2f267gf4mdvcqav7qx5em"),
        ];
        for (name, cid) in known {
            let capability: Capability = name.parse().unwrap();
            assert_eq!(capability.key().to_vec(), multihash(cid), "{name}");
        }
    }

    #[test]
    fn a_capability_is_a_short_plain_name() {
        for bad in ["", "a b", "ä", "a_b", &"a".repeat(MAX_BYTES + 1)] {
            assert_eq!(bad.parse::<Capability>(), Err(CapabilityError), "{bad:?}");
        }
        assert_eq!(Capability::gossip().role(), Some(Role::relay()));
        assert_eq!(Capability::archival().role(), Some(Role::archival()));
        assert_eq!("catchpointStoring".parse::<Capability>().unwrap().role(), None);
    }
}
