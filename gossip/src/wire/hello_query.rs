//! The hello in the query of a URL: for pages in a browser, which can neither set headers nor read those of the answer.
//!
//! ```text
//!   page ── GET /v1/NETWORK/gossip?version=2.2&noderandom=…&identitychallenge=… ──▶ node
//!        ◀── 101, and as the first message the text version=2.2&genesis=…&identitychallenge=… ──
//! ```
//!
//! # Invariants
//!
//! * Both directions have one form, and the values are those of the headers, so the same checks apply to them.
//! * A value that counts stands once: of two, a proxy and a node could each believe another one.
//! * Nothing of a query is read beyond [`MAX_QUERY_BYTES`].

use form_urlencoded::{Serializer, parse};

use super::hello::{Header, Hello};
use crate::profile::NetworkProfile;

/// Longest query that is read, in bytes. Chosen: twice what the longest hello needs that a page can make, with the address it
/// dials, its name and its signature; half of what the head of a request may have.
pub const MAX_QUERY_BYTES: usize = 4096;

/// The reason why a query is no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// It is longer than [`MAX_QUERY_BYTES`].
    #[error("the query has {bytes} bytes, and a hello at most {MAX_QUERY_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A parameter of the hello stands in it twice.
    #[error("the query has {name} twice")]
    Repeated {
        /// The name of the parameter.
        name: &'static str,
    },
}

/// The values of a hello in a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryHello {
    /// One for each header at most.
    values: Vec<(Header, String)>,
}

impl Header {
    /// The name in a query, e.g. `noderandom`.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::AcceptVersion => "accept-version",
            Self::Genesis => "genesis",
            Self::IdentityChallenge => "identitychallenge",
            Self::Instance => "instancename",
            Self::Location => "location",
            Self::NodeRandom => "noderandom",
            Self::Features => "peer-features",
            Self::PriorityChallenge => "prioritychallenge",
            Self::TelemetryId => "telid",
            Self::Version => "version",
        }
    }
}

impl QueryHello {
    /// Reads a query, without its question mark. Parameters that are not of a hello are left out, so that a newer page can say
    /// more; so is what is no UTF-8, character by character.
    ///
    /// # Errors
    ///
    /// [`QueryError`] when the query is too long, or says something twice.
    pub fn read(query: &str) -> Result<Self, QueryError> {
        if query.len() > MAX_QUERY_BYTES {
            return Err(QueryError::TooLong { bytes: query.len() });
        }
        let mut hello = Self::default();
        for (name, value) in parse(query.as_bytes()) {
            let Some(header) = Header::ALL.into_iter().find(|known| known.parameter() == name)
            else {
                continue;
            };
            if hello.get(header).is_some() {
                return Err(QueryError::Repeated { name: header.parameter() });
            }
            hello.values.push((header, value.into_owned()));
        }
        Ok(hello)
    }

    /// The value of one header, as if it had been one.
    #[must_use]
    pub fn get(&self, header: Header) -> Option<&[u8]> {
        let value = self.values.iter().find(|(known, _)| *known == header);
        value.map(|(_, value)| value.as_bytes())
    }
}

/// The query, or the text of the answer, that says what `hello` says.
#[must_use]
pub fn encode(hello: &Hello, profile: &NetworkProfile) -> String {
    let mut query = Serializer::new(String::new());
    for (header, value) in hello.values(profile) {
        query.append_pair(header.parameter(), value);
    }
    query.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::priority::MAX_CHALLENGE_BYTES;

    const PROFILE: &NetworkProfile = &NetworkProfile::TANDEM;

    fn read(query: &str) -> Hello {
        let read = QueryHello::read(query).unwrap();
        Hello::read(|header| read.get(header))
    }

    #[test]
    fn a_parameter_is_the_name_of_its_header_in_lower_case() {
        for header in Header::ALL {
            let name = header.name(PROFILE).to_lowercase();
            assert_eq!(name, format!("x-tandem-{}", header.parameter()));
        }
    }

    #[test]
    fn a_query_is_read_as_a_browser_writes_it() {
        let hello =
            read("version=2.2&noderandom=AAECAwQFBgcICQ%3D%3D&instancename=a+page%21&colour=blue");
        assert_eq!((&*hello.version, &*hello.instance), ("2.2", "a page!"));
        assert_eq!(hello.node_random.as_deref(), Some("AAECAwQFBgcICQ=="));
    }

    #[test]
    fn nothing_is_said_twice_and_a_long_query_is_not_read() {
        for query in ["version=2.2&version=2.2", "version=&a=b&version=2.1"] {
            assert_eq!(QueryHello::read(query), Err(QueryError::Repeated { name: "version" }));
        }
        assert!(QueryHello::read("a=b&a=c").is_ok(), "what is not read may stand twice");
        let long = "a".repeat(MAX_QUERY_BYTES);
        assert!(QueryHello::read(&long).is_ok());
        let bytes = MAX_QUERY_BYTES + 1;
        assert_eq!(QueryHello::read(&format!("{long}a")), Err(QueryError::TooLong { bytes }));
    }

    proptest! {
        #[test]
        fn a_hello_is_read_as_it_was_written(
            texts in proptest::array::uniform5("[ -~]{1,80}"),
            absent in any::<[bool; 4]>(),
        ) {
            let [telemetry_id, instance, genesis, version, text] = texts;
            let some = |absent: bool| (!absent).then(|| text.clone());
            let hello = Hello {
                telemetry_id,
                instance,
                location: some(absent[0]),
                node_random: some(absent[1]),
                genesis,
                features: text.clone(),
                version,
                identity_challenge: some(absent[2]),
                priority_challenge: some(absent[3])
                    .map(|text| text.chars().take(MAX_CHALLENGE_BYTES).collect()),
            };
            let query = encode(&hello, PROFILE);
            prop_assert!(query.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(read(&query), hello);
        }

        #[test]
        fn no_query_causes_a_panic(query in any::<String>(), garbage: Vec<u8>) {
            let escaped: String = garbage.iter().map(|byte| format!("version=%{byte:x}&")).collect();
            for query in [query, escaped, String::from_utf8_lossy(&garbage).into_owned()] {
                if let Ok(read) = QueryHello::read(&query) {
                    let _: Hello = Hello::read(|header| read.get(header));
                }
            }
        }
    }
}
