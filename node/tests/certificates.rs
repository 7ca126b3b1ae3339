//! Certificates of whole programs: peers over TLS by flags alone, and files that change while a node runs. Issue 10, 6.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[cfg(test)]
mod support;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use support::{Node, eventually, finish, scratch, tandem};

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
