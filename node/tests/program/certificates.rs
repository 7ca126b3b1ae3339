//! Certificates of whole programs: peers over TLS by flags alone, and files that change while a node runs. Issue 10, 6.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
use std::{fs, path::Path, process::Command};

use crate::support::{Node, eventually, finish, run, scratch, tandem};
use serde_json::Value;

/// Makes a certificate for this machine with its key, in files of this folder; `None` where openssl is missing.
fn certificate(dir: &Path) -> Option<[String; 2]> {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:::1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &cert]);
    if openssl.output().is_ok_and(|made| made.status.success()) {
        return Some([cert, key]);
    }
    eprintln!("not tested: openssl is not installed");
    None
}

fn health(node: &Node) -> Value {
    let asked = finish(tandem().args(["http", &format!("{}/health", node.ws())]));
    serde_json::from_str(&asked.stdout).unwrap()
}

#[test]
fn a_peer_over_tls_is_kept_and_a_broken_certificate_is_told() {
    let (dir, other) = (scratch(), scratch());
    let Some([cert, key]) = certificate(dir.path()) else { return };
    let files = ["--tls-cert", &cert, "--tls-key", &key, "--mode", "ws"];
    let listener = Node::start(&dir.path().join("d"), &files);
    let (_, port) = listener.ws().rsplit_once(':').unwrap();
    let peer = format!("wss://localhost:{port}");
    let dialling =
        Node::start(&other.path().join("d"), &["--mode", "ws", "--peer", &peer, "--tls-ca", &cert]);
    let event = dialling.event("peer_connected");
    assert_eq!(event["direction"], "out", "{event}");
    assert_eq!(health(&listener)["state"], "serving");

    let good = fs::read(&cert).unwrap();
    fs::write(&cert, "no certificate").unwrap();
    let told = eventually("the broken certificate is told", || {
        let health = health(&listener);
        (health["state"] == "degraded").then_some(health)
    });
    assert_eq!(told["reasons"], serde_json::json!(["certificate_stale"]));
    let metrics = finish(&mut listener.command("metrics")).stdout;
    assert!(metrics.contains("tandem_tls_reloads_total{outcome=\"refused\"} 1\n"), "{metrics}");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &good).unwrap();
    // The old certificate serves on, and the link stays.
    let url = format!("https://localhost:{port}/health");
    let asked = finish(tandem().args(["http", &url, "--cacert"]).arg(&ca));
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert_eq!(health(&listener)["peers"]["ws"], 1);
    fs::write(&cert, &good).unwrap();
    eventually("the node is well again", || {
        (health(&listener)["state"] == "serving").then_some(())
    });
}

// Issue 10, 6: files were read again after ten seconds only, and a hangup ended the node.
#[test]
fn certificates_are_read_again_at_a_command_and_at_a_hangup() {
    let (dir, renewed, bare) = (scratch(), scratch(), scratch());
    let (Some([cert, key]), Some([new_cert, new_key])) =
        (certificate(dir.path()), certificate(renewed.path()))
    else {
        return;
    };
    let files = ["--tls-cert", &cert, "--tls-key", &key, "--mode", "ws", "--log", "info"];
    let node = Node::start(&dir.path().join("d"), &files);
    let (_, port) = node.ws().rsplit_once(':').unwrap();
    let url = format!("https://localhost:{port}/health");
    let serves =
        |trusted: &str| finish(tandem().args(["http", &url, "--cacert", trusted])).code == Some(0);
    let reload = || finish(&mut node.command("reload"));
    assert_eq!(reload().stdout, "the certificates have not changed");
    let first = dir.path().join("first.pem").display().to_string();
    fs::copy(&cert, &first).unwrap();
    fs::copy(&new_cert, &cert).unwrap();
    fs::copy(&new_key, &key).unwrap();
    assert_eq!(reload().code, Some(0));
    assert!(serves(&new_cert) && !serves(&first));

    fs::write(&cert, "no certificate").unwrap();
    let refused = reload();
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains(&cert) && refused.stderr.lines().count() == 1, "{refused:?}");
    assert_eq!(health(&node)["reasons"], serde_json::json!(["certificate_stale"]));
    assert!(serves(&new_cert), "the old one serves on");
    fs::copy(&new_cert, &cert).unwrap();
    node.process.signal("HUP");
    eventually("the node is well again", || (health(&node)["state"] == "serving").then_some(()));
    let log = node.stop();
    let hangups = log.iter().filter(|line| line.contains("hangup: the c")).count();
    assert_eq!(hangups, 1, "{log:?}");

    let bare = Node::start(&bare.path().join("d"), &["--mode", "ws"]);
    let told = finish(&mut bare.command("reload"));
    assert_eq!((told.code, told.stdout.as_str()), (Some(0), "the node has no certificates"));
}

// Issue 10, 6.
#[test]
fn a_node_that_demands_certificates_by_its_settings_serves_nobody_without() {
    let (dir, client, stranger) = (scratch(), scratch(), scratch());
    let (Some([cert, key]), Some([client_cert, client_key])) =
        (certificate(dir.path()), certificate(client.path()))
    else {
        return;
    };
    let alone = finish(run(&dir.path().join("d")).args(["--tls-client-ca", &client_cert]));
    assert_eq!(alone.code, Some(2), "{alone:?}");
    assert!(alone.stderr.contains("`tls_cert` is needed with it"), "{alone:?}");
    let files = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &client_cert];
    let listener = Node::start(&dir.path().join("d"), &[&files[..], &["--mode", "ws"]].concat());
    let (_, port) = listener.ws().rsplit_once(':').unwrap();
    let peer = format!("wss://localhost:{port}");
    let dialling = ["--mode", "ws", "--peer", &peer, "--tls-ca", &cert];
    let without = Node::start(&stranger.path().join("d"), &dialling);
    let event = without.event("peer_unreachable");
    let error = event["error"].as_str().unwrap();
    assert_eq!(error, "localhost wants a certificate of this node, and none is configured");
    let own = ["--tls-client-cert", &client_cert, "--tls-client-key", &client_key];
    let with = Node::start(&client.path().join("d"), &[&dialling[..], &own].concat());
    assert_eq!(with.event("peer_connected")["direction"], "out");
    let metrics = finish(&mut listener.command("metrics")).stdout;
    let refused =
        metrics.lines().find(|line| line.contains("tls_refused_total{reason=\"no_certificate\"}"));
    assert!(!refused.unwrap().ends_with(" 0"), "{refused:?}");
}
