//! Checks of an application's topics before the network starts.
//!
//! # Invariants
//!
//! * No application can use a topic of the network itself: its messages would go to the wrong handlers.
//! * A topic whose messages name no author has IDs that need none.

use std::collections::BTreeSet;

use gossip::{NetworkProfile, Route};

use super::{MessageIds, OwnTopic, Signing};

/// Longest name of a topic, in bytes. Chosen: with author, sequence number and signature it fits the 256 bytes that are
/// kept free around a body.
const MAX_NAME_BYTES: usize = 128;

/// Largest number of topics. Source: threats and goals, row 16.
const MAX_TOPICS: usize = 32;

/// The reason why an application's topics cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is not valid.
    #[error("{name:?} is no name of a topic: write 1 to 128 bytes without control characters")]
    Malformed {
        /// The name as given, shortened to a bounded length.
        name: String,
    },
    /// The name belongs to a topic of the network itself.
    #[error("{name:?} is a topic of the network itself: choose another name")]
    Taken {
        /// The name as given.
        name: String,
    },
    /// The topic was given twice.
    #[error("the topic {name:?} is given twice: put its handlers into one")]
    Twice {
        /// The name as given.
        name: String,
    },
    /// There are too many topics.
    #[error("{count} topics are too many: a node has {max} of its own at most")]
    TooMany {
        /// Number that was given.
        count: usize,
        /// Largest number allowed.
        max: usize,
    },
    /// The bound on the length of messages is not in its range.
    #[error("messages of the topic {name:?} cannot be bounded to {bytes} bytes: choose 1 to {max}")]
    Bound {
        /// The name as given.
        name: String,
        /// The bound as given, in bytes.
        bytes: usize,
        /// The largest bound, in bytes.
        max: usize,
    },
    /// The IDs are made of the author, and messages name none.
    #[error(
        "messages of the topic {name:?} name no author, so their IDs cannot be made of it: choose IDs by content"
    )]
    NoAuthor {
        /// The name as given.
        name: String,
    },
}

/// Checks that a network with this profile can serve every one of these topics.
pub(crate) fn check(profile: &NetworkProfile, topics: &[OwnTopic]) -> Result<(), TopicError> {
    if topics.len() > MAX_TOPICS {
        return Err(TopicError::TooMany { count: topics.len(), max: MAX_TOPICS });
    }
    let mut seen = BTreeSet::new();
    for topic in topics {
        let name = topic.name().to_owned();
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(TopicError::Malformed { name: name.chars().take(200).collect() });
        }
        let is_taken = |route| matches!(route, Route::Topic(taken) if taken == name);
        if profile.tags.rules().iter().any(|rule| is_taken(rule.route)) {
            return Err(TopicError::Taken { name });
        }
        if !(1..=OwnTopic::MAX_BYTES).contains(&topic.max_bytes) {
            let (bytes, max) = (topic.max_bytes, OwnTopic::MAX_BYTES);
            return Err(TopicError::Bound { name, bytes, max });
        }
        if topic.signing == Signing::None && matches!(topic.ids, Some(MessageIds::Author)) {
            return Err(TopicError::NoAuthor { name });
        }
        if !seen.insert(name.clone()) {
            return Err(TopicError::Twice { name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn checked(topics: &[OwnTopic]) -> Result<(), TopicError> {
        check(&NetworkProfile::TANDEM, topics)
    }

    // Issue 11, 3.
    #[test]
    fn topics_that_cannot_be_served_are_refused_by_name() {
        let chat = || OwnTopic::new("chat");
        let name = || "chat".to_owned();
        assert_eq!(checked(&[chat(), OwnTopic::new("é/1")]), Ok(()));
        for bad in ["", "a\nb", &"x".repeat(129)] {
            let refused = checked(&[OwnTopic::new(bad)]);
            assert_eq!(refused, Err(TopicError::Malformed { name: bad.to_owned() }));
        }
        let taken = TopicError::Taken { name: "tandem/tx/1".to_owned() };
        assert_eq!(checked(&[OwnTopic::new("tandem/tx/1")]), Err(taken));
        assert_eq!(checked(&[chat(), chat()]), Err(TopicError::Twice { name: name() }));
        let max = OwnTopic::MAX_BYTES;
        for bytes in [0, max + 1] {
            let bound = TopicError::Bound { name: name(), bytes, max };
            assert_eq!(checked(&[chat().with_max_bytes(bytes)]), Err(bound));
        }
        let none = chat().with_signing(Signing::None);
        assert_eq!(checked(&[none.clone().with_ids(MessageIds::Content)]), Ok(()));
        let refused = checked(&[none.with_ids(MessageIds::Author)]);
        assert_eq!(refused, Err(TopicError::NoAuthor { name: name() }));
        let many: Vec<_> = (0..33).map(|number| OwnTopic::new(number.to_string())).collect();
        assert_eq!(checked(&many), Err(TopicError::TooMany { count: 33, max: 32 }));
    }
}
