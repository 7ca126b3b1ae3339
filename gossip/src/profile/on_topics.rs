//! A network whose nodes carry some tags on topics in place of streams.
//!
//! # Invariants
//!
//! * Only gossip is carried on topics, never what belongs to one connection.
//! * A tag that has a topic keeps it.

use super::{NetworkProfile, TopicChoice};
use crate::tag::{Forwarding, Route, Tag, TagRule, TagTable};

/// The reason why a tag cannot be carried on a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagTopicError {
    /// The network says how each tag travels.
    #[error(
        "in a network of the profile {profile} {tag} goes its fixed way: others would not hear it on a topic"
    )]
    Fixed {
        /// The tag as given.
        tag: Tag,
        /// Name of the profile.
        profile: &'static str,
    },
    /// The network has no such tag, or its messages belong to one connection.
    #[error("{tag} is no gossip of this network: use some of {known}")]
    NoGossip {
        /// The tag as given.
        tag: Tag,
        /// The tags that there are.
        known: String,
    },
}

impl NetworkProfile {
    /// Checks that each of `tags` can be carried on a topic.
    ///
    /// # Errors
    ///
    /// [`TagTopicError`] for the first one that cannot.
    pub fn check_on_topics(&self, tags: &[Tag]) -> Result<(), TagTopicError> {
        let gossip = self.tags.gossip();
        for &tag in tags {
            if !gossip.contains(&self.tags, tag) {
                let known: Vec<String> =
                    gossip.tags(&self.tags).map(|tag| tag.to_string()).collect();
                return Err(TagTopicError::NoGossip { tag, known: known.join(", ") });
            }
            if self.topics == TopicChoice::Fixed {
                return Err(TagTopicError::Fixed { tag, profile: self.name });
            }
        }
        Ok(())
    }

    /// The same profile with `tags` on topics of their own, each named after the profile and the tag: `tandem/AV/1`. All
    /// nodes of a network have to agree on it. A message that is too large for a topic still goes over streams.
    ///
    /// A profile lives as long as the program: each call with tags leaks the few hundred bytes of one.
    ///
    /// # Errors
    ///
    /// [`TagTopicError`] for the first tag that cannot be carried on a topic; nothing is leaked then.
    pub fn on_topics(&'static self, tags: &[Tag]) -> Result<&'static Self, TagTopicError> {
        self.check_on_topics(tags)?;
        if tags.is_empty() {
            return Ok(self);
        }
        let moved = |rule: &TagRule| match rule.route {
            Route::Streams if rule.forwarding == Forwarding::Gossip && tags.contains(&rule.tag) => {
                let name = String::leak(format!("{}/{}/1", self.name, rule.tag));
                TagRule { route: Route::Topic(name), ..*rule }
            }
            _ => *rule,
        };
        let rules: Vec<TagRule> = self.tags.rules().iter().map(moved).collect();
        Ok(Box::leak(Box::new(Self { tags: TagTable::new(Vec::leak(rules)), ..*self })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Issue 11, 3.
    #[test]
    fn tags_move_to_topics_of_their_own_where_the_network_lets_them() {
        let tandem = &NetworkProfile::TANDEM;
        assert_eq!(tandem.on_topics(&[]), Ok(tandem), "nothing is asked for");
        let moved = tandem.on_topics(&[Tag::AV, Tag::PP, Tag::TX]).unwrap();
        let route = |tag| moved.tags.rule(tag).unwrap().route;
        assert_eq!(route(Tag::AV), Route::Topic("tandem/AV/1"));
        assert_eq!(route(Tag::PP), Route::Topic("tandem/PP/1"));
        assert_eq!(route(Tag::TX), Route::Topic("tandem/tx/1"), "it had one before");
        assert_eq!(route(Tag::VB), Route::Streams);
        assert_eq!((moved.name, moved.stream_protocol), (tandem.name, tandem.stream_protocol));
        let fixed = TagTopicError::Fixed { tag: Tag::AV, profile: "algorand" };
        assert_eq!(NetworkProfile::ALGORAND.on_topics(&[Tag::AV]), Err(fixed));
        assert_eq!(NetworkProfile::ALGORAND.on_topics(&[]), Ok(&NetworkProfile::ALGORAND));
        let known = "AV, PP, SP, TX, VB".to_owned();
        let refused = TagTopicError::NoGossip { tag: Tag::MI, known };
        assert_eq!(tandem.on_topics(&[Tag::MI]), Err(refused));
    }
}
