//! `tandem dht`, and the settings of the DHT.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::support::{Node, eventually, finish, scratch, tandem};
#[cfg(test)]
use serde_json::Value;

#[test]
fn a_node_finds_what_another_one_offers() {
    let folders = [scratch(), scratch()];
    let server = Node::start(folders[0].path(), &["--dht", "server", "--dht-provide", "archival"]);
    let address = server.p2p().to_owned();
    let client = Node::start(folders[1].path(), &["--dht", "client", "--peer", &address]);
    let find = |more: &[&str]| {
        let found = tandem()
            .args(["dht", "find", "archival", "--data-dir"])
            .arg(folders[1].path())
            .args(more)
            .output()
            .unwrap();
        assert!(found.status.success(), "{found:?}");
        String::from_utf8(found.stdout).unwrap()
    };
    eventually("the archive is found", || (find(&[]).trim_end() == address).then_some(()));
    let found: Value = serde_json::from_str(&find(&["--json", "--count", "1"])).unwrap();
    assert_eq!(found[0]["addresses"][0], address);
    client.stop();
    server.stop();
}

#[test]
fn settings_that_do_not_go_together_and_searches_without_a_dht_are_refused() {
    let folder = scratch();
    for (arguments, told) in [
        (&["--dht", "on"][..], "none of off, auto, client and server"),
        (&["--dht", "server", "--mode", "ws"], "the DHT is a part of libp2p"),
        (&["--dht-provide", "archival"], "set `dht` to server or auto"),
        (&["--dht", "client", "--dht-provide", "archival"], "set `dht` to server or auto"),
        (&["--dht", "server", "--dht-provide", "a b"], "a capability is"),
    ] {
        let ended = finish(tandem().arg("config").args(arguments));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    let node = Node::start(folder.path(), &[]);
    let find = |arguments: &[&str]| {
        finish(tandem().args(["dht", "find"]).args(arguments).arg("--data-dir").arg(folder.path()))
    };
    for (arguments, told) in [
        (&["archival"][..], "takes no part in the DHT"),
        (&["archival", "--count", "0"], "a number from 1 to 100"),
        (&["a/b"], "a capability is"),
    ] {
        let ended = find(arguments);
        assert!(ended.code != Some(0) && ended.stderr.contains(told), "{ended:?}");
    }
    node.stop();
}
