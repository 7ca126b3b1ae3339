//! The handshake of libp2p streams: the headers of the WebSocket handshake as one msgpack map.
//!
//! ```text
//!   u16 big endian: length │ map: name ──▶ array of values
//! ```
//!
//! # Invariants
//!
//! * The length is 16 bits, so no body is longer than [`MAX_BODY_BYTES`]; the reader bounds what it
//!   keeps by names and values as well.
//! * Names are looked up letter by letter, in the spelling of [`Header::name`].
//! * Neither the genesis nor a random text is required here. Source: wire facts 8.4.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    hello::{self, Header, Hello, VersionMismatch},
    msgpack::{self, MsgpackError, Reader},
};
use crate::profile::NetworkProfile;

/// Length of what precedes the body, in bytes.
pub const HEADER_BYTES: usize = 2;

/// Longest body, in bytes. Source: wire facts 8.4.
pub const MAX_BODY_BYTES: usize = 65_535;

/// Most names of one map. Source: wire facts 8.4.
pub const MAX_NAMES: usize = 64;

/// Most values of one name. Source: wire facts 8.4.
pub const MAX_VALUES: usize = 16;

/// The headers of a peer: every name with its values.
pub type Headers = BTreeMap<String, Vec<String>>;

/// Why headers cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// The body is not a map of arrays of strings.
    #[error("the handshake is not a map of headers")]
    Msgpack(#[from] MsgpackError),
    /// More than [`MAX_NAMES`] headers.
    #[error("the handshake has {names} headers, {MAX_NAMES} are allowed")]
    TooManyNames {
        /// Number of them.
        names: usize,
    },
    /// More than [`MAX_VALUES`] values of one header.
    #[error("a header of the handshake has {values} values, {MAX_VALUES} are allowed")]
    TooManyValues {
        /// Number of them.
        values: usize,
    },
    /// A header was to be written twice.
    #[error("the header {name} is there twice")]
    Repeated {
        /// Its name.
        name: String,
    },
    /// The body does not fit a length of 16 bits.
    #[error("the handshake has {bytes} bytes, {MAX_BODY_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The body is empty, which is no map.
    #[error("the handshake is empty")]
    Empty,
}

/// The handshake message for these headers, length included.
///
/// # Errors
///
/// [`MetainfoError`] when a reader would refuse it, or a name is there twice.
pub fn encode(headers: &[(String, Vec<String>)]) -> Result<Vec<u8>, MetainfoError> {
    let sorted: BTreeSet<_> = headers.iter().collect();
    let mut body = Vec::with_capacity(256);
    check_names(headers.len())?;
    msgpack::put_map(&mut body, headers.len());
    let mut previous = None;
    for (name, values) in sorted {
        if previous.replace(name) == Some(name) {
            return Err(MetainfoError::Repeated { name: name.clone() });
        }
        check_values(values.len())?;
        msgpack::put_str(&mut body, name);
        msgpack::put_array(&mut body, values.len());
        values.iter().for_each(|value| msgpack::put_str(&mut body, value));
    }
    let length = u16::try_from(body.len())
        .map_err(|_| MetainfoError::TooLong { bytes: body.len() })?
        .to_be_bytes();
    body.splice(..0, length);
    Ok(body)
}

/// The length of the body that follows.
///
/// # Errors
///
/// [`MetainfoError::Empty`] for a length of zero.
pub fn body_len(header: [u8; HEADER_BYTES]) -> Result<usize, MetainfoError> {
    match usize::from(u16::from_be_bytes(header)) {
        0 => Err(MetainfoError::Empty),
        bytes => Ok(bytes),
    }
}

/// Reads the body of a handshake message.
///
/// Bytes after the map are ignored, a repeated name keeps its last values, and what is not UTF-8 is
/// replaced by U+FFFD: so it matches no name or version of ours.
///
/// # Errors
///
/// The first thing that is wrong, in the order of the bytes.
pub fn decode_body(body: &[u8]) -> Result<Headers, MetainfoError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(MetainfoError::TooLong { bytes: body.len() });
    }
    let mut reader = Reader::new(body);
    let names = reader.map()?;
    check_names(usize::try_from(names).unwrap_or(usize::MAX))?;
    let mut headers = Headers::new();
    for _ in 0..names {
        let name = text(&mut reader)?;
        let count = reader.array()?;
        check_values(usize::try_from(count).unwrap_or(usize::MAX))?;
        let values: Result<Vec<String>, _> = (0..count).map(|_| text(&mut reader)).collect();
        headers.insert(name, values?);
    }
    Ok(headers)
}

/// The headers to write for `hello`.
#[must_use]
pub fn from_hello(hello: &Hello, profile: &NetworkProfile) -> Vec<(String, Vec<String>)> {
    let headers = hello.headers(profile).into_iter();
    headers.map(|(name, value)| (name, vec![value])).collect()
}

/// Reads the hello out of the headers of a peer. Only the first value of a name counts.
#[must_use]
pub fn to_hello(headers: &Headers, profile: &NetworkProfile) -> Hello {
    Hello::read(|header| first(headers, header, profile).map(str::as_bytes))
}

/// Checks that a peer with these headers speaks the version of the profile.
///
/// # Errors
///
/// [`VersionMismatch`] when it does not.
pub fn check_version(headers: &Headers, profile: &NetworkProfile) -> Result<(), VersionMismatch> {
    let accepted = headers.get(&Header::AcceptVersion.name(profile));
    let accepted = accepted.into_iter().flatten().map(String::as_str);
    hello::negotiate(accepted, first(headers, Header::Version, profile), profile.version)
}

fn first<'a>(headers: &'a Headers, header: Header, profile: &NetworkProfile) -> Option<&'a str> {
    headers.get(&header.name(profile))?.first().map(String::as_str)
}

fn text(reader: &mut Reader<'_>) -> Result<String, MsgpackError> {
    Ok(String::from_utf8_lossy(reader.bytes()?).into_owned())
}

const fn check_names(names: usize) -> Result<(), MetainfoError> {
    if names > MAX_NAMES { Err(MetainfoError::TooManyNames { names }) } else { Ok(()) }
}

const fn check_values(values: usize) -> Result<(), MetainfoError> {
    if values > MAX_VALUES { Err(MetainfoError::TooManyValues { values }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(name: &str, values: usize) -> (String, Vec<String>) {
        (name.to_owned(), vec!["v".to_owned(); values])
    }

    #[track_caller]
    fn survives(headers: &[(String, Vec<String>)]) {
        let message = encode(headers).unwrap();
        let (length, body) = message.split_first_chunk().unwrap();
        assert_eq!(body_len(*length), Ok(body.len()));
        assert_eq!(decode_body(body), Ok(headers.iter().cloned().collect()));
    }

    #[test]
    fn headers_at_every_bound_survive() {
        let many: Vec<_> = (0..MAX_NAMES).map(|n| header(&format!("N{n}"), MAX_VALUES)).collect();
        survives(&many);
        // One map, one name of one letter, one array, and a value with a header of three bytes.
        let longest = "x".repeat(MAX_BODY_BYTES - 1 - 2 - 1 - 3);
        survives(&[("K".into(), vec![longest.clone()])]);
        let bytes = MAX_BODY_BYTES + 1;
        let too_long = [("K".to_owned(), vec![longest + "x"])];
        assert_eq!(encode(&too_long), Err(MetainfoError::TooLong { bytes }));
    }

    #[test]
    fn the_writer_refuses_what_the_reader_refuses() {
        let many: Vec<_> = (0..65).map(|n| header(&format!("N{n}"), 1)).collect();
        assert_eq!(encode(&many), Err(MetainfoError::TooManyNames { names: 65 }));
        let error = MetainfoError::TooManyValues { values: 17 };
        assert_eq!(encode(&[header("A", 17)]), Err(error));
        let error = MetainfoError::Repeated { name: "A".into() };
        assert_eq!(encode(&[header("A", 1), header("B", 1), header("A", 2)]), Err(error));
        assert_eq!(body_len([0, 0]), Err(MetainfoError::Empty));
    }

    #[test]
    fn a_hello_survives_in_both_profiles() {
        for profile in NetworkProfile::ALL {
            let hello = Hello {
                genesis: "test-v1".into(),
                features: "ppzstd".into(),
                version: profile.version.into(),
                location: Some("relay.example:4160".into()),
                ..Hello::default()
            };
            let message = encode(&from_hello(&hello, profile)).unwrap();
            let headers = decode_body(&message[HEADER_BYTES..]).unwrap();
            assert_eq!(check_version(&headers, profile), Ok(()));
            assert_eq!(to_hello(&headers, profile), hello);
        }
    }

    proptest! {
        #[test]
        fn all_headers_survive(
            headers in prop::collection::btree_map(".{0,40}", prop::collection::vec(".{0,20}", 0..=16), 0..=64)
        ) {
            survives(&headers.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _: Result<_, _> = decode_body(&bytes);
            let map = [&[0x81, 0xa1, b'K'][..], &bytes].concat();
            let _: Result<_, _> = decode_body(&map);
        }
    }
}
