//! Which paths are gossip, and which are to be asked for in a cleaner form. Source: wire facts 1.1.

use std::fmt::Write;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the gossip service of the network of that name.
    Gossip { genesis: Vec<u8> },
    /// To the same place under a cleaner path.
    Moved { path: String },
    /// To whoever else serves that path.
    Other,
}

/// Finds the way for a path, as it stands in the request line, without the query.
pub(super) fn route(path: &str) -> Route {
    if !path.starts_with('/') {
        // The whole server, or a proxy's request.
        return Route::Other;
    }
    let Some(path) = decode(path) else { return Route::Other };
    let clean = clean(&path);
    if clean != path {
        return Route::Moved { path: encode(&clean) };
    }
    let mut segments = path.split(|&byte| byte == b'/').skip(1);
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(b"v1"), Some(genesis), Some(b"gossip"), None) if !genesis.is_empty() => {
            Route::Gossip { genesis: genesis.to_vec() }
        }
        _ => Route::Other,
    }
}

/// Undoes percent-encoding; `None` if it is broken.
fn decode(path: &str) -> Option<Vec<u8>> {
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
    use super::*;

    #[test]
    fn gossip_is_under_one_path_however_it_is_encoded() {
        let gossip = |genesis: &str| Route::Gossip { genesis: genesis.into() };
        assert_eq!(route("/v1/test-v1/gossip"), gossip("test-v1"));
        assert_eq!(route("/v1/test%2Dv1/%67ossip"), gossip("test-v1"));
        for other in ["/v1/a/gossip/", "/v2/a/gossip", "/v1/a%2Fb/gossip", "/", "*", "/v1/%zz", ""]
        {
            assert_eq!(route(other), Route::Other, "{other}");
        }
    }

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
            assert_eq!(route(path), Route::Moved { path: clean.to_owned() }, "{path}");
        }
    }
}
