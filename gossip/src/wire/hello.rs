//! The hello: headers in which both ends introduce themselves before the first message, on either transport.
//!
//! # Invariants
//!
//! * Names are written in the one spelling that every existing node understands: the first letter
//!   after each hyphen large, the rest small. libp2p looks them up letter by letter.
//! * Text of a peer is cut to a bound and printable before anything else sees it.
//! * Nothing of a peer is required here; what is missing is empty or `None`, and the transports decide.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::priority::MAX_CHALLENGE_BYTES;
use crate::profile::NetworkProfile;

/// Longest telemetry identifier and location kept of a peer, in characters. Source: wire facts 1.6.
pub const MAX_NAME_CHARS: usize = 255;

/// Longest instance name kept of a peer, in characters. Source: wire facts 1.6.
pub const MAX_INSTANCE_CHARS: usize = 511;

/// Stands for what cannot be printed. Source: wire facts 1.6, row 9.
const UNPRINTABLE: char = '\u{25af}';

/// The headers of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// One for each version understood.
    AcceptVersion,
    /// The network the node belongs to.
    Genesis,
    /// A message of the identity exchange.
    IdentityChallenge,
    /// Name of the node among those of its operator.
    Instance,
    /// Address at which the node says it can be reached.
    Location,
    /// Tells a node that it dialled itself.
    NodeRandom,
    /// The abilities of the node, see [`Features`](super::features::Features).
    Features,
    /// Asks for a proof of stake.
    PriorityChallenge,
    /// Identifier of the node in telemetry.
    TelemetryId,
    /// The version announced, or, in an answer, the version agreed on.
    Version,
}

impl Header {
    /// Every header, in the order of their names.
    pub const ALL: [Self; 10] = [
        Self::AcceptVersion,
        Self::Genesis,
        Self::IdentityChallenge,
        Self::Instance,
        Self::Location,
        Self::NodeRandom,
        Self::Features,
        Self::PriorityChallenge,
        Self::TelemetryId,
        Self::Version,
    ];

    /// The name on the wire, e.g. `X-Algorand-Noderandom`.
    #[must_use]
    pub fn name(self, profile: &NetworkProfile) -> String {
        let name = match self {
            Self::AcceptVersion => "Accept-Version",
            Self::Genesis => "Genesis",
            Self::IdentityChallenge => "Identitychallenge",
            Self::Instance => "Instancename",
            Self::Location => "Location",
            Self::NodeRandom => "Noderandom",
            Self::Features => "Peer-Features",
            Self::PriorityChallenge => "Prioritychallenge",
            Self::TelemetryId => "Telid",
            Self::Version => "Version",
        };
        format!("{}{name}", profile.header_prefix)
    }

    /// The name as texts for people spell it, e.g. `X-Algorand-NodeRandom`. Never a header.
    #[must_use]
    pub fn text_name(self, profile: &NetworkProfile) -> String {
        let name = match self {
            Self::IdentityChallenge => "IdentityChallenge",
            Self::Instance => "InstanceName",
            Self::NodeRandom => "NodeRandom",
            Self::PriorityChallenge => "PriorityChallenge",
            Self::TelemetryId => "TelId",
            _ => return self.name(profile),
        };
        format!("{}{name}", profile.header_prefix)
    }
}

/// The hello of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Identifier in telemetry. May be empty, and is sent all the same.
    pub telemetry_id: String,
    /// Name among the operator's nodes. May be empty, and is sent all the same.
    pub instance: String,
    /// Address at which the node can be reached. Left out by a node that does not listen.
    pub location: Option<String>,
    /// Random text of the process, see [`node_random`]. Required over WebSocket, left out over libp2p.
    pub node_random: Option<String>,
    /// The network.
    pub genesis: String,
    /// The features header.
    pub features: String,
    /// The version announced or agreed on.
    pub version: String,
    /// A message of the identity exchange.
    pub identity_challenge: Option<String>,
    /// Asks for a proof of stake. Only answers have it, and one longer than
    /// [`MAX_CHALLENGE_BYTES`] counts as missing: no node can answer it.
    pub priority_challenge: Option<String>,
}

impl Hello {
    /// The headers that say this, sorted by name. The version accepted is that of the profile.
    #[must_use]
    pub fn headers(&self, profile: &NetworkProfile) -> Vec<(String, String)> {
        let values = self.values(profile);
        values.map(|(header, value)| (header.name(profile), value.to_owned())).collect()
    }

    /// The value of each header that says something, in the order of [`Header::ALL`].
    pub(super) fn values<'a>(
        &'a self,
        profile: &NetworkProfile,
    ) -> impl Iterator<Item = (Header, &'a str)> {
        let values = [
            (Header::AcceptVersion, Some(profile.version)),
            (Header::Genesis, Some(&*self.genesis)),
            (Header::IdentityChallenge, self.identity_challenge.as_deref()),
            (Header::Instance, Some(&*self.instance)),
            (Header::Location, self.location.as_deref().filter(|location| !location.is_empty())),
            (Header::NodeRandom, self.node_random.as_deref()),
            (Header::Features, Some(&*self.features)),
            (Header::PriorityChallenge, self.priority_challenge.as_deref()),
            (Header::TelemetryId, Some(&*self.telemetry_id)),
            (Header::Version, Some(&*self.version)),
        ];
        values.into_iter().filter_map(|(header, value)| Some((header, value?)))
    }

    /// Reads what a peer says. `first` gives the first value of a header, as bytes.
    ///
    /// An empty value counts as a missing one.
    #[must_use]
    pub fn read<'a>(first: impl Fn(Header) -> Option<&'a [u8]>) -> Self {
        let text = |header, max_chars| {
            let bytes = first(header).unwrap_or_default();
            // Four bytes make at most one character, so the rest cannot matter.
            let bytes = bytes.get(..4 * max_chars).unwrap_or(bytes);
            printable(bytes).chars().take(max_chars).collect::<String>()
        };
        let exact =
            |header| String::from_utf8_lossy(first(header).unwrap_or_default()).into_owned();
        let some = |value: String| Some(value).filter(|value| !value.is_empty());
        Self {
            telemetry_id: text(Header::TelemetryId, MAX_NAME_CHARS),
            instance: text(Header::Instance, MAX_INSTANCE_CHARS),
            location: some(text(Header::Location, MAX_NAME_CHARS)),
            node_random: some(exact(Header::NodeRandom)),
            genesis: exact(Header::Genesis),
            features: exact(Header::Features),
            version: exact(Header::Version),
            identity_challenge: some(exact(Header::IdentityChallenge)),
            priority_challenge: some(exact(Header::PriorityChallenge))
                .filter(|challenge| challenge.len() <= MAX_CHALLENGE_BYTES),
        }
    }
}

/// The text by which a process knows itself again, from bytes drawn once at its start.
#[must_use]
pub fn node_random(bytes: [u8; 10]) -> String {
    STANDARD.encode(bytes)
}

/// The peer speaks no version of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer speaks version {theirs:?}")]
pub struct VersionMismatch {
    /// The single version it announced, made printable; empty when it announced none.
    pub theirs: String,
}

impl VersionMismatch {
    /// The text of the refusal that a peer gets for this. Source: wire facts 1.6, row 9.
    #[must_use]
    pub fn refusal(&self, ours: &str) -> String {
        format!("Requested version {} not in [{ours}] mismatches server version", self.theirs)
    }
}

/// Checks that a peer speaks our version.
///
/// One of the `accept_versions`, each a header line of its own, or else `version`, must equal `ours`
/// letter by letter. A list within one line is one value.
///
/// # Errors
///
/// [`VersionMismatch`] when none does.
pub fn negotiate<'a>(
    accept_versions: impl Iterator<Item = &'a str>,
    version: Option<&str>,
    ours: &str,
) -> Result<(), VersionMismatch> {
    select(accept_versions, version, &[ours]).map(|_| ())
}

/// Which of our versions is spoken with a peer: the first of its `accept_versions` that is ours, or
/// else its `version`.
///
/// # Errors
///
/// [`VersionMismatch`] when the peer has none of ours.
pub fn select<'a, 'b>(
    mut accept_versions: impl Iterator<Item = &'a str>,
    version: Option<&str>,
    ours: &[&'b str],
) -> Result<&'b str, VersionMismatch> {
    let known = |theirs: &str| ours.iter().copied().find(|ours| *ours == theirs);
    let agreed = accept_versions.find_map(known).or_else(|| version.and_then(known));
    agreed.ok_or_else(|| VersionMismatch { theirs: printable(version.unwrap_or("").as_bytes()) })
}

/// The values of a dialler that the hello of the other end is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The version that it speaks.
    pub version: &'a str,
    /// The random text of its own hello.
    pub node_random: &'a str,
    /// The network that it belongs to.
    pub network: &'a str,
}

/// The reason why a dialler turns away from the node that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It speaks another version.
    #[error("the peer speaks another version of the protocol")]
    Version,
    /// It sent no random text.
    #[error("the peer sent no random text")]
    NoRandom,
    /// It is the dialler itself.
    #[error("it is this node")]
    Ourselves,
    /// It belongs to another network.
    #[error("the peer belongs to another network")]
    Network,
}

impl Hello {
    /// Checks the hello with which a node answered a dial. `accept_versions` are the versions that it accepts, each a header line
    /// of its own.
    ///
    /// # Errors
    ///
    /// [`Unfit`], the first that holds.
    pub fn check_answer<'a>(
        &self,
        accept_versions: impl Iterator<Item = &'a str>,
        own: Own<'_>,
    ) -> Result<(), Unfit> {
        negotiate(accept_versions, Some(&self.version), own.version)
            .map_err(|_mismatch| Unfit::Version)?;
        match self.node_random.as_deref() {
            None => Err(Unfit::NoRandom),
            Some(theirs) if theirs == own.node_random => Err(Unfit::Ourselves),
            Some(_) if self.genesis != own.network => Err(Unfit::Network),
            Some(_) => Ok(()),
        }
    }
}

/// Text of a peer, with every character, and every byte that is none, replaced that is not printable
/// ASCII.
#[must_use]
pub fn printable(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        let visible = |char: char| if matches!(char, ' '..='~') { char } else { UNPRINTABLE };
        out.extend(chunk.valid().chars().map(visible));
        out.extend(chunk.invalid().iter().map(|_| UNPRINTABLE));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROFILE: &NetworkProfile = &NetworkProfile::ALGORAND;

    #[test]
    fn headers_are_sorted_by_name_and_leave_out_what_is_not_there() {
        let hello = Hello { genesis: "test-v1".into(), version: "2.2".into(), ..Hello::default() };
        let headers = hello.headers(PROFILE);
        assert!(headers.is_sorted());
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "X-Algorand-Accept-Version",
                "X-Algorand-Genesis",
                "X-Algorand-Instancename",
                "X-Algorand-Peer-Features",
                "X-Algorand-Telid",
                "X-Algorand-Version",
            ]
        );
    }

    #[test]
    fn every_header_is_listed_in_the_order_of_its_name() {
        for profile in NetworkProfile::ALL {
            assert!(Header::ALL.map(|header| header.name(profile)).is_sorted());
        }
        assert_eq!(Header::NodeRandom.name(PROFILE), "X-Algorand-Noderandom");
        assert_eq!(Header::NodeRandom.text_name(PROFILE), "X-Algorand-NodeRandom");
        assert_eq!(Header::Version.text_name(PROFILE), "X-Algorand-Version");
    }

    #[test]
    fn long_text_of_a_peer_is_cut() {
        let long = "é".repeat(3000);
        let hello = Hello::read(|_| Some(long.as_bytes()));
        assert_eq!(hello.telemetry_id, "\u{25af}".repeat(255));
        assert_eq!(hello.location.unwrap().chars().count(), 255);
        assert_eq!(hello.instance.chars().count(), 511);
    }

    #[test]
    fn an_empty_value_is_a_missing_value() {
        let hello = Hello::read(|_| Some(b""));
        assert_eq!(hello, Hello::default());
        assert_eq!(hello, Hello::read(|_| None));
    }

    #[test]
    fn a_random_text_has_sixteen_characters() {
        assert_eq!(node_random([0xff; 10]), "/////////////w==");
        assert_eq!(node_random([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), "AAECAwQFBgcICQ==");
    }

    #[test]
    fn every_character_and_every_stray_byte_is_replaced_by_one_sign() {
        assert_eq!(printable("2.2é\u{1}x".as_bytes()), "2.2\u{25af}\u{25af}x");
        assert_eq!(printable(b"2.\xc3\xa9x\xff"), "2.\u{25af}x\u{25af}");
        assert_eq!(printable(b"a\xe2\x96"), "a\u{25af}\u{25af}");
    }

    proptest! {
        #[test]
        fn a_hello_is_read_as_it_was_written(
            text in "[ -~]{1,255}",
            absent in any::<[bool; 4]>(),
        ) {
            let some = |absent: bool| (!absent).then(|| text.clone());
            let hello = Hello {
                telemetry_id: text.clone(),
                instance: text.clone(),
                location: some(absent[0]),
                node_random: some(absent[1]),
                genesis: text.clone(),
                features: text.clone(),
                version: text.clone(),
                identity_challenge: some(absent[2]),
                priority_challenge: some(absent[3])
                    .map(|text| text.chars().take(MAX_CHALLENGE_BYTES).collect()),
            };
            let headers = hello.headers(PROFILE);
            let first = |header: Header| {
                let name = header.name(PROFILE);
                headers.iter().find(|(candidate, _)| *candidate == name).map(|(_, v)| v.as_bytes())
            };
            prop_assert_eq!(Hello::read(first), hello);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let text = printable(&bytes);
            prop_assert!(text.chars().all(|char| matches!(char, ' '..='~' | UNPRINTABLE)));
            let _: Hello = Hello::read(|_| Some(&bytes));
        }
    }
}
