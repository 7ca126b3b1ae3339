//! Texts and files that people and peers name things with.

use gossip::{Identity, Keypair, NodeAddress};

/// An address that parses prints as one that parses to the same.
pub(crate) fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(address) = text.parse::<NodeAddress>() else { return };
    let printed = address.to_string();
    assert_eq!(printed.parse::<NodeAddress>().ok(), Some(address.clone()), "{printed:?}");
    assert!(!printed.chars().any(char::is_control), "{printed:?}");
    if let NodeAddress::WebSocket(address) = &address {
        let url = address.gossip_url("v1").to_string();
        assert!(!url.chars().any(|each| each.is_whitespace() || each.is_control()), "{url:?}");
    }
}

/// A peer ID that is read, from bytes or text, prints as one that is read again.
pub(crate) fn peer_id(data: &[u8]) {
    let of_text = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Identity>().ok());
    for identity in [of_text, Identity::from_peer_id_bytes(data)].into_iter().flatten() {
        assert_eq!(identity.to_string().parse::<Identity>().ok(), Some(identity));
        assert_eq!(Identity::from_peer_id_bytes(identity.peer_id_bytes()), Some(identity));
        assert!(identity.verify(data, &[0; 64]).is_err(), "nobody signed it");
    }
}

/// Any text is a key or none, without a panic.
pub(crate) fn key_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = Keypair::from_pem(text) {
        assert!(key.identity().ed25519().is_some());
    }
}
