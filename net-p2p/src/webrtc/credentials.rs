//! The names and passwords by which both ends recognize each other's STUN messages, without an exchange before.
//!
//! The end that dials chooses them all, and tells them by the user name of its first message. Source: libp2p
//! specifications, `webrtc/webrtc-direct.md` (v1) and libp2p/specs#715 (v2).
//!
//! # Invariants
//!
//! * A user name of an unknown version, or with characters that ICE does not allow, is refused: no version is guessed.

use rand::Rng;

/// Shortest and longest name, in characters. Source: RFC 8839, 5.4.
const UFRAG_CHARACTERS: std::ops::RangeInclusive<usize> = 4..=256;

/// Shortest and longest password, in characters. Source: RFC 8839, 5.4.
const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 22..=256;

/// Length of what is drawn, in characters. Source: go-libp2p, `genUfrag`.
const DRAWN_CHARACTERS: usize = 32;

const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A version of the handshake of WebRTC Direct. An address does not say which of them its node has; ours answers both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebRtcVersion {
    /// One random text is the name and the password of both ends. Every implementation has it.
    #[default]
    V1,
    /// The end that dials has a name and a password of its own, as a browser draws them, and the password follows the
    /// prefix in the name of the other end.
    V2,
}

impl WebRtcVersion {
    const fn prefix(self) -> &'static str {
        match self {
            Self::V1 => "libp2p+webrtc+v1/",
            Self::V2 => "libp2p+webrtc+v2/",
        }
    }
}

/// The names of both ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Credentials {
    /// The name of the end that listens, which is its password as well.
    pub(super) listener: String,
    /// The name of the end that dials.
    pub(super) dialer: String,
}

fn is_of_ice(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

impl Credentials {
    /// Reads them from the user name of a message to the end that listens; `None` if this is none.
    pub(super) fn read(username: &str) -> Option<Self> {
        let (listener, dialer) = username.split_once(':')?;
        let named = [listener, dialer];
        if !named.iter().all(|name| UFRAG_CHARACTERS.contains(&name.len()) && is_of_ice(name)) {
            return None;
        }
        let is_known = if let Some(password) = listener.strip_prefix(WebRtcVersion::V2.prefix()) {
            PASSWORD_CHARACTERS.contains(&password.len())
        } else {
            listener.starts_with(WebRtcVersion::V1.prefix())
                && PASSWORD_CHARACTERS.contains(&listener.len())
        };
        is_known.then(|| Self { listener: listener.to_owned(), dialer: dialer.to_owned() })
    }

    /// Draws those of a dial.
    pub(super) fn draw(version: WebRtcVersion, random: &mut impl Rng) -> Self {
        let mut text = || -> String {
            let letter = |_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]);
            (0..DRAWN_CHARACTERS).map(letter).collect()
        };
        let listener = format!("{}{}", version.prefix(), text());
        let dialer = match version {
            WebRtcVersion::V1 => listener.clone(),
            WebRtcVersion::V2 => text(),
        };
        Self { listener, dialer }
    }

    /// The password of messages to the end that dials.
    pub(super) fn dialer_password(&self) -> &str {
        self.listener.strip_prefix(WebRtcVersion::V2.prefix()).unwrap_or(&self.listener)
    }

    /// The user name of messages to the end that listens.
    pub(super) fn username(&self) -> String {
        format!("{}:{}", self.listener, self.dialer)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn drawn_ones_are_read_as_they_were_drawn() {
        let mut random = StdRng::seed_from_u64(1);
        for version in [WebRtcVersion::V1, WebRtcVersion::V2] {
            let drawn = Credentials::draw(version, &mut random);
            assert_eq!(Credentials::read(&drawn.username()), Some(drawn.clone()));
            assert_eq!(drawn.listener == drawn.dialer, version == WebRtcVersion::V1);
        }
    }

    #[test]
    fn no_version_is_guessed() {
        let password = "p".repeat(22);
        let long = "l".repeat(257);
        for (username, is_read) in [
            (format!("libp2p+webrtc+v1/{password}:libp2p+webrtc+v1/{password}"), true),
            (format!("libp2p+webrtc+v2/{password}:name"), true),
            (format!("libp2p+webrtc+v3/{password}:name"), false),
            (format!("{password}:name"), false),
            ("libp2p+webrtc+v2/short:name".to_owned(), false),
            (format!("libp2p+webrtc+v2/{password}:nam"), false),
            (format!("libp2p+webrtc+v2/{password}"), false),
            (format!("libp2p+webrtc+v2/{password}:na me"), false),
            (format!("libp2p+webrtc+v2/{password}:n\r\nm"), false),
            (format!("libp2p+webrtc+v1/{long}:name"), false),
        ] {
            assert_eq!(Credentials::read(&username).is_some(), is_read, "{username}");
        }
    }
}
