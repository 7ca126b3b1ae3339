//! The name of a network.

use std::fmt;

/// The network a node belongs to, e.g. `mainnet-v1.0`. Nodes of different networks refuse each
/// other where the protocol lets them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkId(String);

/// A network name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network name {name:?} is not 1 to 64 printable ASCII characters without blank or slash")]
pub struct NetworkIdError {
    /// The name as given.
    pub name: String,
}

impl NetworkId {
    /// Checks and wraps a network name.
    ///
    /// # Errors
    ///
    /// [`NetworkIdError`] unless `name` is 1 to 64 printable ASCII characters. A slash is refused
    /// too, because the name is a segment of the gossip path.
    pub fn new(name: impl Into<String>) -> Result<Self, NetworkIdError> {
        let name = name.into();
        let well_formed = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if well_formed { Ok(Self(name)) } else { Err(NetworkIdError { name }) }
    }

    /// The name, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_name_is_a_short_path_segment() {
        for good in ["a", "mainnet-v1.0", &"x".repeat(64)] {
            assert_eq!(NetworkId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "has space", "a/b", "naïve", &"x".repeat(65)] {
            assert!(NetworkId::new(bad).is_err(), "{bad:?}");
        }
    }
}
