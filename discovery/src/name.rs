//! Names that DNS is asked for.
//!
//! # Invariants
//!
//! * A name has labels of letters, digits, hyphens and underscores, in lower case, without a dot at the end. It fits
//!   into a question together with the labels of a service.

use std::fmt;

/// Longest name, in bytes. Source: RFC 1035, section 2.3.4, 255 less the labels of a service.
const MAX_BYTES: usize = 190;

/// Longest label, in bytes. Source: RFC 1035, section 2.3.4.
const MAX_LABEL_BYTES: usize = 63;

/// A name that DNS can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(String);

impl DnsName {
    /// Reads a name, with or without a dot at its end; `None` if DNS cannot be asked for it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let well_formed = text.len() <= MAX_BYTES && text.split('.').all(is_label);
        well_formed.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The question for a service below the name, or for another label before it, with a dot at the end so that no
    /// search list of the system is applied.
    #[must_use]
    pub fn below(&self, labels: &str) -> String {
        format!("{labels}.{}.", self.0)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_labels_between_dots() {
        for (text, name) in [
            ("example.org", "example.org"),
            ("Example.ORG.", "example.org"),
            ("_dnsaddr.a-b", "_dnsaddr.a-b"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(DnsName::new(text).unwrap().as_str(), name, "{text}");
        }
        let long = format!("{}.org", "a".repeat(64));
        let endless = "abcdefg.".repeat(24);
        for text in ["", ".", "..", "a..b", "a.org..", "a b.org", "a/b", "ä.org", &long, &endless]
        {
            assert_eq!(DnsName::new(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_as_itself_and_fits_below_a_service(text in ".{0,240}") {
            if let Some(name) = DnsName::new(&text) {
                prop_assert_eq!(DnsName::new(name.as_str()), Some(name.clone()));
                prop_assert!(name.below("_a-profile-of-thirty-two-letters-archive._tcp").len() < 255);
            }
        }
    }
}
