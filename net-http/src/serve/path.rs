//! The clean form of a path, to which requests for other forms of it are sent. Source: wire facts 1.1 and 9.1, where the same rules
//! hold for sockets and streams.

use std::fmt::Write;

/// The clean form of `path`, percent-encoded; `None` if it is clean, or broken.
#[must_use]
pub fn elsewhere(path: &str) -> Option<String> {
    if !path.starts_with('/') || is_plain(path) {
        // The whole server, a proxy's request, or what nearly everybody asks for.
        return None;
    }
    let decoded = decode(path)?;
    let clean = clean(&decoded);
    (clean != decoded).then(|| encode(&clean))
}

/// Undoes percent-encoding; `None` if it is broken.
#[must_use]
pub fn decode(path: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        out.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = after;
    }
    Some(out)
}

/// A path is plain if it has no percent-encoding, and no empty segment or dot at the start of one.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let plain = byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        plain
    })
}

/// The path without empty segments and without dots. A slash at its end stays.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut out = vec![b'/'];
    out.extend(segments.join(&b'/'));
    if path.ends_with(b"/") && out.len() > 1 {
        out.push(b'/');
    }
    out
}

/// Percent-encodes what may not stand in a path.
fn encode(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unclean_path_is_moved() {
        for (path, clean) in [
            ("//v1/test-v1/gossip", "/v1/test-v1/gossip"),
            ("/v1//gossip", "/v1/gossip"),
            ("/a/../b/./c//", "/b/c/"),
            ("/../..", "/"),
            ("//evil.example/", "/evil.example/"),
            ("/a%20b//c%0d%0a", "/a%20b/c%0D%0A"),
        ] {
            assert_eq!(elsewhere(path).as_deref(), Some(clean), "{path}");
        }
        for path in ["/", "/a/b", "/a/b/", "/a/.b", "/a..", "*", "", "/%zz", "/%2", "/a%20b"] {
            assert_eq!(elsewhere(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_moved_is_moved_once(path in "/[a-z./%0-9]{0,20}") {
            if let Some(clean) = elsewhere(&path) {
                prop_assert_eq!(elsewhere(&clean), None);
            }
        }
    }
}
