//! Builds the profile of a network of one's own: its tags, their bounds and lanes, and the names of its protocols.
//!
//! # Invariants
//!
//! * A built profile has every tag that the protocol itself needs, so all of a node works with it.
//! * No two rules share a tag, and no bound is above [`MAX_MESSAGE_BYTES`].
//! * Two profiles with different names share no protocol and no header.

use super::{
    ClaimRule, DnsService, HeaderCase, IdentityRule, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES,
    NetworkProfile, ProposalRule, ReplyRule, StreamUse, TopicChoice, TopicScoring, protocol_tags,
};
use crate::{
    tag::{MAX_TAGS, Tag, TagRule, TagTable},
    wire::{features::VoteCompression, interest},
};

/// Longest name of a profile, in bytes. Chosen: the names of protocols and headers made from it stay short.
const MAX_NAME_BYTES: usize = 32;

/// The reason why a profile cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The name cannot be part of a protocol name and of a header.
    #[error(
        "{name:?} is no name for a profile: it has 1 to 32 lower-case letters, digits and hyphens, \
         and begins with a letter"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The name belongs to a profile in the box.
    #[error("{name:?} is the name of a profile that exists already")]
    TakenName {
        /// The name as given.
        name: String,
    },
    /// A tag is not two printable ASCII characters, or has the comma that separates tags in a message of interest.
    #[error("{tag} is no tag: a tag is two printable ASCII characters other than a comma")]
    BadTag {
        /// The tag.
        tag: Tag,
    },
    /// The protocol itself uses the tag.
    #[error("tag {tag} belongs to the protocol")]
    ReservedTag {
        /// The tag.
        tag: Tag,
    },
    /// Two rules have one tag.
    #[error("tag {tag} has two rules")]
    DuplicateTag {
        /// The tag.
        tag: Tag,
    },
    /// The bound of a tag is larger than any message may be.
    #[error("tag {tag} may have {bytes} bytes, and no message more than {max}")]
    TooLarge {
        /// The tag.
        tag: Tag,
        /// Its bound.
        bytes: usize,
        /// The largest bound there may be.
        max: usize,
    },
    /// There are too many tags for an interest.
    #[error(
        "{count} tags are too many: a network has at most {max}, those of the protocol included"
    )]
    TooManyTags {
        /// Number that was given.
        count: usize,
        /// Largest number allowed.
        max: usize,
    },
}

/// Collects the tags of a network of one's own.
///
/// ```
/// use gossip::{Lane, ProfileBuilder, Tag, TagRule};
/// # use tandem_gossip as gossip;
///
/// const VOTE: Tag = Tag(*b"vo");
/// const BLOCK: Tag = Tag(*b"bl");
///
/// let profile = ProfileBuilder::new("my-chain")
///     .tag(TagRule::new(VOTE, Lane::Priority, 16 * 1024))
///     .tag(TagRule::new(BLOCK, Lane::Bulk, 2 * 1024 * 1024))
///     .build()?;
/// assert_eq!(profile.stream_protocol, "/my-chain/gossip/1.0.0");
/// # Ok::<_, gossip::ProfileError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a profile exists only once it is built"]
pub struct ProfileBuilder {
    name: String,
    rules: Vec<TagRule>,
    max_request: usize,
}

impl ProfileBuilder {
    /// Starts a profile without tags of its own. The names of its protocols, headers and services are made
    /// from `name`, so nodes of other profiles do not talk to it by accident.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), rules: Vec::new(), max_request: MAX_REQUEST_BYTES }
    }

    /// Adds a kind of message.
    pub fn tag(mut self, rule: TagRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Sets the largest request, in bytes on the wire. Default: [`MAX_REQUEST_BYTES`].
    pub fn max_request(self, bytes: usize) -> Self {
        Self { max_request: bytes, ..self }
    }

    /// Checks the profile and builds it.
    ///
    /// A profile lives as long as the program, as those in the box do: each call leaks the few hundred bytes
    /// of one. Build it once, at the start.
    ///
    /// # Errors
    ///
    /// [`ProfileError`] says which name, tag or bound is wrong; nothing is leaked then.
    pub fn build(self) -> Result<&'static NetworkProfile, ProfileError> {
        let Self { name, rules: own, max_request } = self;
        check_name(&name)?;
        let mut rules: Vec<TagRule> = protocol_tags(max_request).into();
        for rule in own {
            let TagRule { tag, max_payload, .. } = rule;
            if !tag.0.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',') {
                return Err(ProfileError::BadTag { tag });
            }
            let is_reserved = protocol_tags(max_request).iter().any(|reserved| reserved.tag == tag);
            if is_reserved || interest::GIVEN_UP.contains(&&tag.0) {
                return Err(ProfileError::ReservedTag { tag });
            }
            if rules.iter().any(|other| other.tag == tag) {
                return Err(ProfileError::DuplicateTag { tag });
            }
            check_bound(tag, max_payload)?;
            rules.push(rule);
        }
        check_bound(Tag::UE, max_request)?;
        if rules.len() > MAX_TAGS {
            return Err(ProfileError::TooManyTags { count: rules.len(), max: MAX_TAGS });
        }
        // A peer may list every tag, and a network may have more of them than those in the box.
        if let Some(interest) = rules.iter_mut().find(|rule| rule.tag == Tag::MI) {
            interest.max_payload = interest.max_payload.max(interest::payload_bytes(MAX_TAGS));
        }
        // The table is in order, as those in the box are.
        rules.sort_by_key(|rule| rule.tag);
        Ok(Box::leak(Box::new(NetworkProfile {
            header_prefix: leak(header_prefix(&name)),
            version: NetworkProfile::TANDEM.version,
            stream_protocol: leak(format!("/{name}/gossip/1.0.0")),
            legacy_stream_protocol: None,
            bulk_stream_protocol: Some(leak(format!("/{name}/bulk/1.0.0"))),
            http_protocol: NetworkProfile::TANDEM.http_protocol,
            http_service: leak(format!("/{name}-http/1.0.0")),
            http_streams: StreamUse::KeptAlive,
            header_case: HeaderCase::Lower,
            reply_rule: ReplyRule::Tokens,
            hello: NetworkProfile::TANDEM.hello,
            proposals: ProposalRule::AsAnnounced,
            identity: IdentityRule::Always,
            claims: ClaimRule::Ranked,
            votes: VoteCompression::Off,
            key_file: NetworkProfile::TANDEM.key_file,
            topics: TopicChoice::Free,
            topic_scoring: TopicScoring::Strong,
            dns: DnsService {
                relays: leak(format!("_{name}._tcp")),
                archives: leak(format!("_{name}-archive._tcp")),
                public: None,
                special: &[],
            },
            tags: TagTable::new(Vec::leak(rules)),
            name: leak(name),
        })))
    }
}

fn check_name(name: &str) -> Result<(), ProfileError> {
    let well_formed = name.len() <= MAX_NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !well_formed {
        return Err(ProfileError::BadName { name: name.to_owned() });
    }
    match NetworkProfile::named(name) {
        Some(_) => Err(ProfileError::TakenName { name: name.to_owned() }),
        None => Ok(()),
    }
}

fn check_bound(tag: Tag, bytes: usize) -> Result<(), ProfileError> {
    let max = MAX_MESSAGE_BYTES - Tag::BYTES;
    if bytes > max {
        return Err(ProfileError::TooLarge { tag, bytes, max });
    }
    Ok(())
}

/// `my-chain` becomes `X-My-Chain-`: headers are in canonical spelling.
fn header_prefix(name: &str) -> String {
    let mut prefix = "X-".to_owned();
    for word in name.split('-') {
        let (first, rest) = word.split_at(word.len().min(1));
        prefix.extend([&first.to_ascii_uppercase(), rest, "-"]);
    }
    prefix
}

fn leak(text: String) -> &'static str {
    String::leak(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::Lane;

    const VOTE: Tag = Tag(*b"vo");

    fn vote(max_payload: usize) -> TagRule {
        TagRule::new(VOTE, Lane::Priority, max_payload)
    }

    #[test]
    fn the_names_of_a_profile_come_from_its_own() {
        let profile = ProfileBuilder::new("my-chain").tag(vote(100)).build().unwrap();
        assert_eq!(profile.header_prefix, "X-My-Chain-");
        assert_eq!(profile.stream_protocol, "/my-chain/gossip/1.0.0");
        assert_eq!(profile.bulk_stream_protocol, Some("/my-chain/bulk/1.0.0"));
        assert_eq!(profile.http_service, "/my-chain-http/1.0.0");
        assert_eq!(profile.tags.rule(VOTE).map(|rule| rule.max_payload), Some(100));
        assert_eq!(profile.tags.rule(Tag::AV), None, "votes of another network mean nothing here");
        for tag in [Tag::MI, Tag::MS, Tag::NI, Tag::TS, Tag::UE] {
            assert!(profile.tags.rule(tag).is_some(), "the protocol needs {tag}");
        }
    }

    #[track_caller]
    fn refused(builder: ProfileBuilder, expected: &ProfileError) {
        assert_eq!(builder.build().unwrap_err(), *expected);
    }

    #[test]
    fn a_name_that_cannot_be_part_of_a_protocol_is_refused() {
        for name in
            ["", "My-Chain", "my chain", "9chain", "-chain", "ketten/kette", &"x".repeat(33)]
        {
            refused(ProfileBuilder::new(name), &ProfileError::BadName { name: name.to_owned() });
        }
        for name in ["tandem", "algorand"] {
            refused(ProfileBuilder::new(name), &ProfileError::TakenName { name: name.to_owned() });
        }
    }

    #[test]
    fn tags_that_clash_or_exceed_a_message_are_refused() {
        let builder = ProfileBuilder::new("my-chain");
        refused(
            builder.clone().tag(vote(1)).tag(vote(2)),
            &ProfileError::DuplicateTag { tag: VOTE },
        );
        let ue = TagRule::new(Tag::UE, Lane::Bulk, 1);
        refused(builder.clone().tag(ue), &ProfileError::ReservedTag { tag: Tag::UE });
        let tag = Tag(*b"v ");
        let blank = TagRule::new(tag, Lane::Bulk, 1);
        refused(builder.clone().tag(blank), &ProfileError::BadTag { tag });
        let (bytes, max) = (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES - Tag::BYTES);
        refused(
            builder.clone().tag(vote(bytes)),
            &ProfileError::TooLarge { tag: VOTE, bytes, max },
        );
        refused(
            builder.clone().max_request(bytes),
            &ProfileError::TooLarge { tag: Tag::UE, bytes, max },
        );
        let many = (b'a'..=b'z').fold(builder, |builder, letter| {
            builder.tag(TagRule::new(Tag([b'a', letter]), Lane::Bulk, 1))
        });
        assert!(matches!(many.build(), Err(ProfileError::TooManyTags { max: 32, .. })));
    }

    // Issue 10, 10: a relay lists every tag to each of its peers, and was cut off as oversized by the first of them
    // where a network had more than fourteen.
    #[test]
    fn the_interest_in_every_tag_of_the_largest_table_fits_its_bound() {
        let own = MAX_TAGS - protocol_tags(1).len();
        let builder = (b'A'..).take(own).fold(ProfileBuilder::new("many"), |builder, letter| {
            builder.tag(TagRule::new(Tag([b'a', letter]), Lane::Bulk, 1))
        });
        let table = &builder.build().unwrap().tags;
        assert_eq!(table.rules().len(), MAX_TAGS);
        let all = interest::encode(table.default_interest(), table);
        assert!(all.len() <= table.rule(Tag::MI).unwrap().max_payload, "{}", all.len());
        assert_eq!(interest::decode(&all, table), Ok(table.default_interest()));
    }

    // Issue 10, 10: a peer that listed such a tag was cut off, or its wish for it was skipped.
    #[test]
    fn a_tag_that_no_interest_can_list_is_refused() {
        let with = |tag| ProfileBuilder::new("lists").tag(TagRule::new(tag, Lane::Bulk, 1));
        for tag in [Tag(*b",a"), Tag(*b"a,")] {
            refused(with(tag), &ProfileError::BadTag { tag });
        }
        for tag in [Tag(*b"pi"), Tag(*b"pj")] {
            refused(with(tag), &ProfileError::ReservedTag { tag });
        }
    }
}
