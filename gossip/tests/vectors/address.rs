//! Addresses against the recordings of existing nodes.

use crate::support;
use serde_json::Value;
use tandem_gossip::NodeAddress;

/// Addresses that existing nodes take and we refuse, and why.
const STRICTER: [(&str, &str); 8] = [
    ("::", "an IPv6 address needs brackets"),
    ("::1", "an IPv6 address needs brackets"),
    ("::1:4160", "an IPv6 address needs brackets"),
    ("1.2.3.4:70000", "there is no such port"),
    ("relay.example:99999", "there is no such port"),
    ("ftp://relay.example:4160", "that is no scheme of a node"),
    ("//relay.example:4160", "a slash starts a multiaddr"),
    ("//foo", "a slash starts a multiaddr"),
];

/// Texts that would end up in logs and in messages to peers. Refused too.
const WITH_PASSWORD: &str = "http://user:pw@relay.example:4160";

/// Existing nodes dial this without TLS. We do not: who writes wss wants TLS.
const WITH_TLS: &str = "wss://relay.example:4160";

/// Existing nodes carry the fragment along, which no server ever sees. We leave it out.
const WITH_FRAGMENT: &str = "http://relay.example:4160#frag";

/// The gossip URL of an address as a text, for a genesis that need not be a good network name.
fn gossip_url(address: &NodeAddress, genesis: &str) -> Option<String> {
    match address {
        NodeAddress::WebSocket(address) => Some(address.gossip_url(genesis).to_string()),
        NodeAddress::Multiaddr(_) => None,
    }
}

/// The recorded gossip URL, with what we do differently.
fn expected_url(case: &Value, key: &str) -> Option<String> {
    let recorded = case[key].as_str()?;
    Some(match support::text(case, "input") {
        WITH_TLS => recorded.replace("ws://", "wss://"),
        WITH_FRAGMENT => recorded.replace("#frag", ""),
        _ => recorded.to_owned(),
    })
}

#[test]
fn addresses_are_taken_or_refused_as_recorded() {
    let mut exceptions = STRICTER.map(|(input, _)| input).to_vec();
    exceptions.push(WITH_PASSWORD);
    support::each_case("addr", "cases", 61, |case| {
        let input = support::text(case, "input");
        let parsed = input.parse::<NodeAddress>();
        if let Some(index) = exceptions.iter().position(|exception| *exception == input) {
            exceptions.remove(index);
            assert_eq!(case["phonebook_entry_verdict"], "ok");
            assert!(parsed.is_err());
            return;
        }
        match support::text(case, "phonebook_entry_verdict") {
            "ok" => check_taken(&parsed.unwrap(), case),
            "error" => assert!(parsed.is_err(), "{input:?}"),
            other => panic!("verdict {other}"),
        }
    });
    assert!(exceptions.is_empty(), "every exception names a case");
}

#[track_caller]
fn check_taken(address: &NodeAddress, case: &Value) {
    assert_eq!(address.phonebook_entry(), support::text(case, "phonebook_entry"));
    let multiaddr = matches!(address, NodeAddress::Multiaddr(_));
    assert_eq!(multiaddr, support::flag(case, "is_multiaddr"));
    assert_eq!(!multiaddr, case["url_verdict"] == "ok");
    for (genesis, key) in
        [("test genesisID", "gossip_url_test_genesisID"), ("mainnet-v1.0", "gossip_url_mainnet")]
    {
        assert_eq!(gossip_url(address, genesis), expected_url(case, key));
    }
    assert_eq!(address.to_string().parse().as_ref(), Ok(address));
}
