//! Roles that an address is listed for.
//!
//! # Invariants
//!
//! * A role is a short name of plain characters, so that it can be shown, stored and compared as text.
//! * A set holds at most [`MAX_ROLES`] of them, whatever a source says.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// Roles of one address, at most. Chosen: the two that networks of today have, and six of one's own.
pub const MAX_ROLES: usize = 8;

/// Longest name of a role, in bytes. Chosen: a label of a name in DNS has at most twice as many.
pub const MAX_ROLE_BYTES: usize = 32;

/// The part that the node at an address plays.
///
/// Any name of one to [`MAX_ROLE_BYTES`] letters of lower case, digits and hyphens is a role. Two are known to the
/// networks of today. Source: wire facts 10.1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Role(Box<str>);

/// A text that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is 1 to 32 characters of a-z, 0-9 and the hyphen, as in `relay`")]
pub struct RoleError;

impl Role {
    /// The node passes on the messages of others: the mesh is made of such nodes.
    #[must_use]
    pub fn relay() -> Self {
        Self("relay".into())
    }

    /// The node serves every block there ever was.
    #[must_use]
    pub fn archival() -> Self {
        Self("archival".into())
    }

    /// The name of the role.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_role = (1..=MAX_ROLE_BYTES).contains(&text.len()) && text.bytes().all(is_plain);
        if is_role { Ok(Self(text.into())) } else { Err(RoleError) }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of at most [`MAX_ROLES`] roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleSet(BTreeSet<Role>);

impl RoleSet {
    /// The set of no role.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a role. Returns `false` if it is not in the set afterwards, because the set is full.
    pub fn insert(&mut self, role: Role) -> bool {
        let has_place = self.0.len() < MAX_ROLES || self.0.contains(&role);
        if has_place {
            self.0.insert(role);
        }
        has_place
    }

    /// Returns `true` if the role is in the set.
    #[must_use]
    pub fn contains(&self, role: &Role) -> bool {
        self.0.contains(role)
    }

    /// The roles, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.0.iter()
    }

    /// Returns `true` if the set holds no role.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Role> for RoleSet {
    /// Collects roles; those beyond [`MAX_ROLES`] are left out.
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let mut set = Self::new();
        for role in roles {
            // A role without a place is left out, as promised.
            let _ = set.insert(role);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_short_plain_name() {
        for good in ["relay", "archival", "x", "zone-7", &"a".repeat(MAX_ROLE_BYTES)] {
            assert_eq!(good.parse::<Role>().unwrap().to_string(), good);
        }
        for bad in ["", "Relay", "a b", "ä", "a_b", &"a".repeat(MAX_ROLE_BYTES + 1)] {
            assert_eq!(bad.parse::<Role>(), Err(RoleError), "{bad:?}");
        }
    }

    #[test]
    fn a_set_takes_so_many_roles_and_no_more() {
        let role = |number: usize| format!("r{number}").parse::<Role>().unwrap();
        let mut set: RoleSet = (0..20).map(role).collect();
        assert_eq!(set.iter().count(), MAX_ROLES);
        assert!(!set.insert(role(19)) && set.insert(role(0)));
    }
}
