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

    /// The name without the version at its end: `mainnet` of `mainnet-v1.0`. DNS and the DHT know a network by it.
    /// Source: wire facts 8.7 and 10.4.
    #[must_use]
    pub fn label(&self) -> &str {
        let is_version = |text: &str| {
            let mut numbers = text.split('.');
            numbers.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        match self.0.rsplit_once("-v") {
            Some((label, version)) if !label.is_empty() && is_version(version) => label,
            _ => &self.0,
        }
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
    fn the_label_of_a_network_is_its_name_without_the_version() {
        for (name, label) in [
            ("mainnet-v1.0", "mainnet"),
            ("a-v1", "a"),
            ("a-v", "a-v"),
            ("a-v1.", "a-v1."),
            ("-v1", "-v1"),
            ("a-vault", "a-vault"),
            ("tandem", "tandem"),
        ] {
            assert_eq!(NetworkId::new(name).unwrap().label(), label);
        }
    }

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
