//! The key of a private network, and what such a network consists of.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};

/// First line of a key file. Source: go-libp2p, `core/pnet`.
const KIND: &str = "/key/swarm/psk/1.0.0/";

/// The key that the nodes of a private network share.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkKey([u8; 32]);

impl NetworkKey {
    /// The key itself.
    pub(crate) const fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

/// The key is not shown.
impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey")
    }
}

/// The reason why a text is no key of a private network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkKeyError {
    /// The first line is another one.
    #[error("its first line is not {KIND}")]
    Kind,
    /// The second line names no known encoding.
    #[error("its second line is neither /base16/ nor /base64/")]
    Encoding,
    /// The third line is not 32 bytes in that encoding.
    #[error("its third line is not 32 bytes in the encoding of the second")]
    Bytes,
}

/// Reads the format of go-libp2p's `swarm.key`.
impl FromStr for NetworkKey {
    type Err = NetworkKeyError;

    fn from_str(text: &str) -> Result<Self, NetworkKeyError> {
        let mut lines = text.lines().map(str::trim_end);
        if lines.next() != Some(KIND) {
            return Err(NetworkKeyError::Kind);
        }
        let encoding = lines.next().unwrap_or_default();
        let encoded = lines.next().unwrap_or_default();
        let bytes = match encoding {
            "/base16/" => base16(encoded),
            "/base64/" => BASE64_STANDARD.decode(encoded).ok(),
            _ => return Err(NetworkKeyError::Encoding),
        };
        let key = bytes.and_then(|bytes| bytes.try_into().ok());
        key.map(Self).ok_or(NetworkKeyError::Bytes)
    }
}

fn base16(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? * 16 + digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

/// Returns `true` if an address leads into a private network: over TCP or WebSocket, as far as the text says.
#[must_use]
pub fn is_private(address: &str) -> bool {
    !address.split('/').any(|part| part == "udp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_of_go_libp2p_is_read_and_other_texts_are_refused_with_the_line() {
        let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
        let read = |text: &str| text.parse::<NetworkKey>();
        let key = read(&format!("{KIND}\n/base16/\n{hex}\n")).unwrap();
        let same = BASE64_STANDARD.encode(key.0);
        assert_eq!(read(&format!("{KIND}\r\n/base64/\r\n{same}")).unwrap(), key);
        for (text, error) in [
            (String::new(), NetworkKeyError::Kind),
            (format!("{KIND}\n/bin/\n{hex}"), NetworkKeyError::Encoding),
            (format!("{KIND}\n/base16/\n{}", &hex[1..]), NetworkKeyError::Bytes),
            (format!("{KIND}\n/base16/\n{}", "é".repeat(32)), NetworkKeyError::Bytes),
            (format!("{KIND}\n/base16/\n"), NetworkKeyError::Bytes),
        ] {
            assert_eq!(read(&text), Err(error), "{text}");
        }
        assert_eq!(format!("{key:?}"), "NetworkKey");
    }

    #[test]
    fn only_tcp_and_web_sockets_are_private() {
        assert!(is_private("/ip4/1.2.3.4/tcp/1/ws") && !is_private("/ip4/1.2.3.4/udp/1/quic-v1"));
    }
}
