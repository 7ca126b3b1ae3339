//! The clean form of a path, to which requests with another form are redirected. Source: wire facts 1.1 and
//! 9.1: the same rules hold on sockets and streams.

use std::fmt::Write;

/// Returns the clean form of `path`, percent-encoded; `None` if `path` is clean already or malformed.
#[must_use]
pub fn elsewhere(path: &str) -> Option<String> {
    if !path.starts_with('/') || is_plain(path) {
        // `*`, a proxy's target, or the path of nearly every request.
        return None;
    }
    let decoded = decode(path)?;
    let clean = clean(&decoded);
    (clean != decoded).then(|| encode(&clean))
}

/// Decodes percent-encoding; `None` if it is malformed.
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

/// Returns `true` if a path has no percent-encoding, no empty segment and no segment that starts with a dot.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    // No early exit, so that the compiler can vectorize the loops.
    let has_percent = bytes.iter().fold(false, |found, &byte| found | (byte == b'%'));
    !pairs.fold(has_percent, |found, (&before, &byte)| {
        found | ((before == b'/') & ((byte == b'/') | (byte == b'.')))
    })
}

/// Removes empty segments and resolves dot segments. A trailing slash stays.
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

/// Percent-encodes the characters that are not allowed in a path.
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
        fn a_redirect_leads_to_a_clean_path(path in "/[a-z./%0-9]{0,20}") {
            if let Some(clean) = elsewhere(&path) {
                prop_assert_eq!(elsewhere(&clean), None);
            }
        }
    }
}
