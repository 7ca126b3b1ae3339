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
    // Issue 11, 8: what identify told.
    let mut peers = tandem();
    peers.args(["peers", "--verbose", "--data-dir"]).arg(folders[1].path());
    eventually("the server has said what it is", || {
        let told = finish(&mut peers).stdout;
        let is_whole = told.contains(" is tandem")
            && told.contains("sees this node at /ip4/127.0.0.1/tcp/")
            && told.contains("/tandem/kad/");
        is_whole.then_some(())
    });
    client.stop();
    server.stop();
}

// Issue 11, 5.
#[test]
fn a_value_is_put_by_one_node_and_got_by_another_one() {
    let folders = [scratch(), scratch()];
    let on = ["--dht", "server", "--dht-values", "on"];
    let one = Node::start(folders[0].path(), &on);
    let address = one.p2p().to_owned();
    let other = Node::start(folders[1].path(), &[&on[..], &["--peer", &address]].concat());
    let dht = |node: usize, arguments: &[&str]| {
        let mut command = tandem();
        command.arg("dht").args(arguments).arg("--data-dir").arg(folders[node].path());
        finish(&mut command)
    };
    let put = |arguments: &[&str]| {
        eventually("another node takes the value", || {
            let put = dht(0, arguments);
            (put.code == Some(0)).then(|| put.stdout.trim_end().to_owned())
        })
    };
    let key = put(&["put", "some words"]);
    assert!(key.starts_with("/content/"), "{key}");
    assert_eq!(dht(1, &["get", &key]).stdout, "some words");
    let key = put(&["put", "one", "--name", "head"]);
    assert_eq!(dht(1, &["get", &key]).stdout, "one");
    assert_eq!(put(&["put", "two", "--name", "head"]), key);
    assert_eq!(dht(1, &["get", &key]).stdout, "two");
    let absent = dht(1, &["get", "/content/00"]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(absent.stderr.contains("has a value of this key"), "{absent:?}");
    let peers = dht(1, &["peers"]);
    assert_eq!(peers.stdout, format!("{address}  connected"), "{peers:?}");
    let long = "x".repeat(5_000);
    for (arguments, told) in [
        (&["put", &long][..], "a value is 1 to 4096 bytes"),
        (&["put", ""], "a value is 1 to 4096 bytes"),
        (&["put", "x", "--name", "a/b"], "a name is 1 to 64"),
        (&["get", "no key"], "a key is /NAMESPACE/REST"),
        (&["get", "/app/one"], "no value of this namespace"),
    ] {
        let ended = dht(1, arguments);
        assert!(ended.code != Some(0) && ended.stderr.contains(told), "{ended:?}");
    }
    let announced = dht(0, &["provide", "snapshots"]);
    assert_eq!(announced.code, Some(0), "{announced:?}");
    eventually("the provider is found", || {
        (dht(1, &["find", "snapshots"]).stdout.trim_end() == address).then_some(())
    });
    other.stop();
    one.stop();
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
        (&["--dht-values", "on"], "there are values in the DHT alone"),
        (
            &[
                "--dht",
                "server",
                "--dht-values",
                "on",
                "--profile",
                "algorand",
                "--network",
                "n-v1",
            ],
            "the nodes of the profile algorand have no values",
        ),
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
