//! The path that gossip is served under. Source: wire facts 1.1.

use net_http::serve::path::decode;

/// The network that `path` asks gossip of; `None` if it is no gossip path. `path` is that of the request
/// line, still percent-encoded and without the query.
pub(super) fn genesis_of(path: &str) -> Option<Vec<u8>> {
    let is_plain = !path.contains('%');
    if !path.starts_with('/') || (is_plain && !path.starts_with("/v1/")) {
        return None;
    }
    let path = decode(path)?;
    let mut segments = path.split(|&byte| byte == b'/').skip(1);
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(b"v1"), Some(genesis), Some(b"gossip"), None) if !genesis.is_empty() => {
            Some(genesis.to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_is_under_one_path_however_it_is_encoded() {
        for path in ["/v1/test-v1/gossip", "/v1/test%2Dv1/%67ossip", "/%761/test-v1/gossip"] {
            assert_eq!(genesis_of(path).as_deref(), Some(&b"test-v1"[..]), "{path}");
        }
        for other in ["/v1/a/gossip/", "/v2/a/gossip", "/v1/a%2Fb/gossip", "/", "*", "/v1/%zz", ""]
        {
            assert_eq!(genesis_of(other), None, "{other}");
        }
    }
}
