//! MI: which tags a peer wants to be sent.
//!
//! A list of topics with one entry, `tags`, whose data is the tags with commas between them. The set
//! replaces whatever was asked for before.
//!
//! # Invariants
//!
//! * An unknown tag is an error, except for two that were given up and are skipped.
//! * The empty set can be said: it is written as one of those two, since an empty list is an error.

use bytes::{Bytes, BytesMut};

use super::topics::{Topics, TopicsError};
use crate::tag::{Interest, Tag, TagTable};

/// Longest list of tags, in bytes. Source: wire facts 3.1. The bound of the MI tag is tighter.
pub const MAX_LIST_BYTES: usize = 1024;

/// The key of the list.
const KEY: &str = "tags";

/// Length of the payload that lists `tags` tags, at most 42 of them, in bytes: the number of topics, the length of the
/// key, the key, the length of the list, and the list. Source: wire facts 2.1, the bound of the MI tag.
#[must_use]
pub const fn payload_bytes(tags: usize) -> usize {
    1 + 1 + KEY.len() + 1 + (3 * tags).saturating_sub(1)
}

/// Tags that no longer exist and may still be listed. Source: wire facts 2.1 and 3.1.
pub(crate) const GIVEN_UP: [&[u8; 2]; 2] = [b"pi", b"pj"];

/// Why a payload is not an interest. Existing nodes disconnect on any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterestError {
    /// The payload is not a list of topics.
    #[error("the interest is not a list of topics")]
    Topics(#[from] TopicsError),
    /// There is no topic `tags`.
    #[error("the interest has no list of tags")]
    NoList,
    /// The list is longer than [`MAX_LIST_BYTES`].
    #[error("the list of tags has {bytes} bytes, {MAX_LIST_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Something between two commas is not two bytes long.
    #[error("the list of tags has an item of {bytes} bytes")]
    NotATag {
        /// Its length.
        bytes: usize,
    },
    /// A tag that the network does not have.
    #[error("the list of tags has the unknown tag {tag}")]
    UnknownTag {
        /// The tag.
        tag: Tag,
    },
}

/// The payload that asks for the tags of `interest`.
#[must_use]
pub fn encode(interest: Interest, table: &TagTable) -> Bytes {
    let mut list = BytesMut::with_capacity(3 * table.rules().len());
    for tag in interest.tags(table) {
        if !list.is_empty() {
            list.extend_from_slice(b",");
        }
        list.extend_from_slice(&tag.0);
    }
    if list.is_empty() {
        list.extend_from_slice(GIVEN_UP[0]);
    }
    Topics::new().with(KEY, list.freeze()).encode()
}

/// The tags that a payload asks for.
///
/// # Errors
///
/// The first thing that is wrong, in the order of the list.
pub fn decode(payload: &Bytes, table: &TagTable) -> Result<Interest, InterestError> {
    let topics = Topics::decode(payload)?;
    let list = topics.get(KEY).ok_or(InterestError::NoList)?;
    if list.len() > MAX_LIST_BYTES {
        return Err(InterestError::TooLong { bytes: list.len() });
    }
    let mut interest = Interest::NONE;
    for item in list.split(|&byte| byte == b',') {
        let name: &[u8; 2] =
            item.try_into().map_err(|_| InterestError::NotATag { bytes: item.len() })?;
        if GIVEN_UP.contains(&name) {
            continue;
        }
        let tag = Tag(*name);
        table.rule(tag).ok_or(InterestError::UnknownTag { tag })?;
        interest = interest.with(table, tag);
    }
    Ok(interest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::NetworkProfile;

    const TABLE: &TagTable = &NetworkProfile::ALGORAND.tags;

    #[test]
    fn the_whole_table_fits_the_bound_of_its_tag() {
        let all = TABLE.rules().iter().fold(Interest::NONE, |set, rule| set.with(TABLE, rule.tag));
        let bound = TABLE.rule(Tag::MI).unwrap().max_payload;
        assert!(encode(all, TABLE).len() <= bound);
        assert_eq!(encode(all, TABLE).len(), payload_bytes(TABLE.rules().len()));
        // With the two that were given up.
        assert_eq!(bound, payload_bytes(TABLE.rules().len() + 2));
    }

    #[test]
    fn nothing_at_all_can_be_asked_for() {
        assert_eq!(decode(&encode(Interest::NONE, TABLE), TABLE), Ok(Interest::NONE));
    }

    proptest! {
        #[test]
        fn every_interest_survives(bits in 0_u32..1 << 12) {
            let interest = Interest::from_bits(bits);
            prop_assert_eq!(decode(&encode(interest, TABLE), TABLE), Ok(interest));
        }

        #[test]
        fn no_list_causes_a_panic(list: Vec<u8>, payload: Vec<u8>) {
            let _: Result<_, _> = decode(&Topics::new().with(KEY, list).encode(), TABLE);
            let _: Result<_, _> = decode(&Bytes::from(payload), TABLE);
        }
    }
}
