//! The check that every handler and validator of a node is reached by messages.
//!
//! # Invariants
//!
//! * Nothing here starts anything or leaves anything behind, so a configuration can be judged beside a node
//!   that runs.

use std::collections::BTreeSet;

use gossip::{NetworkProfile, Tag};

use crate::error::StartError;

/// The two things that a tag has one each of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Handler,
    Validator,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Validator => "validator",
        }
    }
}

/// Checks that every one of them is reached by messages.
pub(super) fn tags(
    profile: &NetworkProfile,
    role: Role,
    tags: impl Iterator<Item = Tag>,
) -> Result<(), StartError> {
    let mut seen = BTreeSet::new();
    for tag in tags {
        let role = role.name();
        if profile.tags.rule(tag).is_none() {
            let known: Vec<String> =
                profile.tags.rules().iter().map(|rule| rule.tag.to_string()).collect();
            return Err(StartError::UnknownTag { role, tag, known: known.join(", ") });
        }
        if !seen.insert(tag) {
            return Err(StartError::TwoForOneTag { role, tag });
        }
    }
    Ok(())
}
