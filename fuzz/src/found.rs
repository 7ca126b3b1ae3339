//! Addresses from outside: answers of DNS servers, and rows of the file of known peers.

use discovery::{decode_ban, decode_record, encode_ban, encode_record, fuzzing};
use gossip::NodeAddress;
use mesh::BanSubject;

/// The addresses in an answer can be dialled as far as text can tell, and hold nothing that a terminal acts on.
pub(crate) fn dns_answer(data: &[u8]) {
    let (hosts, leaves) = fuzzing::addresses(data);
    for host in hosts {
        assert!(matches!(host.parse::<NodeAddress>(), Ok(NodeAddress::WebSocket(_))), "{host:?}");
    }
    for leaf in leaves {
        let printed = leaf.to_string();
        assert!(printed.contains("/p2p/"), "{printed:?}");
        assert!(!printed.chars().any(char::is_control), "{printed:?}");
        assert_eq!(printed.parse::<NodeAddress>().ok(), Some(leaf));
    }
}

/// A row that is read is written as one that reads as the same. The first byte splits key and value.
pub(crate) fn peer_store(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked((*length).into()) else { return };
    let Ok(key) = std::str::from_utf8(key) else { return };
    if let Ok(address) = key.parse::<NodeAddress>()
        && let Some(record) = decode_record(address.clone(), value)
    {
        assert_eq!(decode_record(address, &encode_record(&record)), Some(record));
    }
    if let Ok(subject) = key.parse::<BanSubject>()
        && let Some(ban) = decode_ban(subject.clone(), value)
    {
        assert_eq!(decode_ban(subject, &encode_ban(&ban)), Some(ban));
    }
}
