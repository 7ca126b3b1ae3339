//! Tests of the text of a bootstrap.

use gossip::NetworkProfile;
use proptest::prelude::*;

use super::*;

const ALGORAND: &DnsService = &NetworkProfile::ALGORAND.dns;
const TANDEM: &DnsService = &NetworkProfile::TANDEM.dns;

fn parse(text: &str, network: &str, service: &DnsService) -> Result<Vec<Bootstrap>, String> {
    let network = NetworkId::new(network).unwrap();
    Bootstrap::parse(text, &network, service).map_err(|error| error.to_string())
}

fn names(text: &str, network: &str, service: &DnsService) -> Names {
    match parse(text, network, service).unwrap().remove(0) {
        Bootstrap::Names(names) => names,
        Bootstrap::Tree(name) => panic!("{name} is a tree"),
    }
}

// Source of the texts: wire facts 10.4.
#[test]
fn a_public_network_is_found_by_its_name() {
    let found = names("mainnet", "mainnet-v1.0", ALGORAND);
    assert_eq!(found.primary.as_str(), "mainnet.algorand.network");
    let backup = found.backup.unwrap();
    assert_eq!(backup.name.as_str(), "mainnet.algorand.net");
    let keys = ["r1.algorand-mainnet.network:4160", "R1.algorand-mainnet.net:4160"];
    assert_eq!(keys.map(|address| backup.key(address)), ["r1:4160", "r1:4160"]);
    assert_eq!(backup.key("r1.elsewhere.net:4160"), "r1.elsewhere.net:4160");
    let found = names("betanet", "betanet-v1.0", ALGORAND);
    assert_eq!(found.primary.as_str(), "betanet.algodev.network");
    assert!(found.backup.is_none());
}

#[test]
fn a_list_may_have_several_entries_of_either_kind() {
    let list = parse(" a.example ; /dnsaddr/<network>.example;;", "net-v2", TANDEM).unwrap();
    let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a.example", "/dnsaddr/net.example"]);
}

#[test]
fn a_text_that_cannot_be_used_is_told_with_what_can() {
    for (text, told) in [
        ("", "no name is given"),
        (" ; ;", "no name is given"),
        ("a b.example", "\"a b.example\" is no DNS name"),
        ("http://a.example", "\"http://a.example\" is no DNS name"),
        ("/dnsaddr/", "\"\" is no DNS name"),
        ("/dnsaddr/a.example/p2p/x", "\"a.example/p2p/x\" is no DNS name"),
        ("mainnet", "\"mainnet\" is no public network of this profile"),
        ("a.example?bakup=b.example", "\"bakup=b.example\" is no parameter"),
        ("a.example?backup=b.example&backup=c.example", "\"backup=c.example\" is no parameter"),
        ("a.example?backup", "\"backup\" is no parameter"),
        ("a.example?dedup=x", "dedup compares two lists"),
        ("a.example?backup=b.example&dedup=(", "\"(\" is no pattern"),
        ("a.example?backup=b.example&dedup=", "\"\" is no pattern"),
        ("a.example?backup=b.example&dedup=x<name>", "\"x<name>\" is no pattern"),
        ("a.example?backup=b.example&dedup=(a{1000}){1000}", "\"(a{1000}){1000}\" is no pattern"),
    ] {
        let error = parse(text, "net", TANDEM).unwrap_err();
        assert!(error.starts_with(told), "{text}: {error}");
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
    }
    let many = "a.example;".repeat(MAX_ENTRIES + 1);
    assert!(parse(&many, "net", TANDEM).unwrap_err().starts_with("the list is too long"));
    let error = parse("mainnet", "testnet-v1.0", ALGORAND).unwrap_err();
    assert_eq!(error, "\"mainnet\" leads to another network than testnet, the one this node is in");
    let error = parse("<network>.example", "a#b", TANDEM).unwrap_err();
    assert!(error.starts_with("\"a#b.example\" is no DNS name"), "{error}");
}

#[test]
fn of_two_lists_the_first_one_counts_and_the_second_one_adds() {
    let text = "a.example?backup=b.example&dedup=<name>.(a|b).example";
    let backup = names(text, "net", TANDEM).backup.unwrap();
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let first = list(&["R1.a.example:1", "r2.a.example:1", "r1.a.example:1"]);
    let second = list(&["r2.b.example:1", "r2.b.example:2", "r3.b.example:1"]);
    let both = merged(first, second, &backup);
    assert_eq!(both, ["r1.a.example:1", "r2.a.example:1", "r2.b.example:2", "r3.b.example:1"]);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,300}", network in "[!-.0-~]{1,64}") {
        let network = NetworkId::new(network).unwrap();
        for service in [ALGORAND, TANDEM] {
            if let Ok(list) = Bootstrap::parse(&text, &network, service) {
                prop_assert!((1..=MAX_ENTRIES).contains(&list.len()));
            }
        }
    }

    #[test]
    fn the_written_names_are_those_asked_for(
        labels in proptest::collection::vec("[a-z0-9]{1,10}", 2..5),
        other in "[a-z]{1,10}[.][a-z]{1,5}",
        pattern in "[a-z]{1,10}",
    ) {
        let name = labels.join(".");
        let found = names(&format!("{name}?backup={other}&dedup=<name>{pattern}"), "net", TANDEM);
        prop_assert_eq!(found.primary.as_str(), &name);
        let backup = found.backup.unwrap();
        prop_assert_eq!(backup.name.as_str(), &other);
        prop_assert_eq!(backup.key(&format!("1{pattern}2")), "12");
        let trees = parse(&format!("/dnsaddr/{name}"), "net", TANDEM).unwrap();
        let is_tree = matches!(&trees[..], [Bootstrap::Tree(tree)] if tree.as_str() == name);
        prop_assert!(is_tree);
    }

    #[test]
    fn a_merged_list_has_each_node_once(
        first in proptest::collection::vec("r[0-9][.][ab]:1", 0..12),
        second in proptest::collection::vec("r[0-9][.][ab]:1", 0..12),
    ) {
        let text = "a.example?backup=b.example&dedup=<name>[.][ab]";
        let backup = names(text, "net", TANDEM).backup.unwrap();
        let both = merged(first.clone(), second.clone(), &backup);
        let keys: std::collections::BTreeSet<_> =
            first.iter().chain(&second).map(|address| backup.key(address)).collect();
        prop_assert_eq!(both.len(), keys.len());
        let first_keys: Vec<_> = first.iter().map(|address| backup.key(address)).collect();
        for address in both {
            let key = backup.key(&address);
            prop_assert!(!first_keys.contains(&key) || first.contains(&address));
        }
    }
}
