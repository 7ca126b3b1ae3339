//! Gossip that is dialled over TLS, and certificates that cannot be trusted. Issue 10, 6.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use crate::common::{self, Node, Recipe, authority::Authority, soon, until};
use gossip::{Admission, DialOutcome, GossipNode, NetworkProfile, NodeAddress, Outbound, Tag};
use rcgen::CertificateParams;
use tandem_net_ws::{DialRefusal, TlsIdentity, read_certificates};

async fn server((cert, key): &(PathBuf, PathBuf)) -> Node {
    let tls = TlsIdentity::load(cert, key).unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM).listening().relaying();
    let tls_reread = Duration::from_millis(50);
    recipe.with(|config| (config.tls, config.tls_reread) = (Some(tls), tls_reread)).start().await
}

async fn dialler(authority: &Authority, address: &str) -> Node {
    let roots = read_certificates(&authority.root).unwrap();
    let peer: NodeAddress = address.parse().unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM);
    let recipe = recipe.with(|config| {
        config.tls_roots = roots;
        config.peers.push(peer);
    });
    recipe.start().await
}

fn vote(text: &str) -> Outbound {
    Outbound::new(Tag::AV, text.as_bytes().to_vec())
}

// Red: a peer given as https was refused with "asks for gossip over TLS, which is not supported yet".
#[tokio::test]
async fn gossip_flows_both_ways_over_tls_with_an_intermediate_certificate() {
    let authority = Authority::new();
    let listener = server(&authority.sign("good", &["localhost", "127.0.0.1"], |_| {})).await;
    let port = listener.address().port();
    for address in [format!("wss://localhost:{port}"), format!("https://127.0.0.1:{port}")] {
        let dialling = dialler(&authority, &address).await;
        dialling.until_peers(1).await;
        listener.until_peers(1).await;
        for exchange in 0..5 {
            let (out, back) =
                (format!("{address} out {exchange}"), format!("{address} back {exchange}"));
            for (node, text) in [(&dialling, &out), (&listener, &back)] {
                assert_eq!(node.network.broadcast(vote(text)), Ok(Admission::Queued));
            }
            let heard = |node: &Node, text: &str| {
                node.heard.all().iter().any(|message| message.body == text.as_bytes())
            };
            until("both votes", || heard(&listener, &out) && heard(&dialling, &back)).await;
        }
        dialling.stop().await;
        listener.until_peers(0).await;
    }
    listener.stop().await;
}

/// Dials a server with this certificate, and checks what is said of it.
async fn refused((names, change): (&[&str], impl FnOnce(&mut CertificateParams)), expected: &str) {
    let authority = Authority::new();
    let files = authority.sign("odd", names, change);
    told(&authority, &server(&files).await, DialRefusal::Certificate, expected).await;
}

async fn told(authority: &Authority, listener: &Node, why: DialRefusal, expected: &str) {
    let address = format!("https://localhost:{}", listener.address().port());
    let dialling = dialler(authority, &address).await;
    until("a refused dial", || dialling.network.metrics().dials_refused(why) > 0).await;
    let error = dialling.network.dials().pop().unwrap().last_error.unwrap();
    assert!(error.starts_with(expected), "{error}");
    // The HTTP client of the same node says the same.
    let client = dialling.network.http_client(&address.parse().unwrap()).unwrap();
    let error = soon(client.get("/")).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with(expected), "{cause}");
    dialling.stop().await;
}

fn ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * 86_400)
}

#[tokio::test]
async fn an_expired_certificate_is_told_with_its_date() {
    let expired = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (ago(30).into(), ago(2).into());
    };
    let expected = "the certificate of localhost has expired on ";
    refused((&["localhost"], expired), expected).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told_with_that_name() {
    let expected = "the certificate of localhost is for another name: relay.example";
    refused((&["relay.example"], |_: &mut CertificateParams| {}), expected).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = (dir.path().join("self.pem"), dir.path().join("self.key"));
    std::fs::write(&files.0, made.cert.pem()).unwrap();
    std::fs::write(&files.1, made.signing_key.serialize_pem()).unwrap();
    let listener = server(&files).await;
    let expected = "the certificate of localhost is signed by nobody whom this node trusts";
    told(&Authority::new(), &listener, DialRefusal::Certificate, expected).await;
}

#[tokio::test]
async fn a_chain_without_its_intermediate_is_told() {
    let authority = Authority::new();
    let files = authority.sign("short", &["localhost"], |_| {});
    let chain = std::fs::read_to_string(&files.0).unwrap();
    let alone = chain.strip_suffix(&authority.intermediate_pem).unwrap();
    std::fs::write(&files.0, alone).unwrap();
    let expected = "the certificate of localhost is signed by nobody whom this node trusts";
    told(&authority, &server(&files).await, DialRefusal::Certificate, expected).await;
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let plain = Recipe::new(&NetworkProfile::TANDEM).listening().start().await;
    let expected = "localhost does not speak TLS on this port";
    told(&Authority::new(), &plain, DialRefusal::Tls, expected).await;
}

/// OpenSSL's own server, which demands a certificate of its clients.
struct OpenSsl {
    child: Child,
    port: u16,
    lines: std::sync::mpsc::Receiver<String>,
}

impl OpenSsl {
    fn demanding(authority: &Authority, options: &[&str]) -> Option<Self> {
        let (cert, key) = authority.sign("openssl", &["localhost"], |_| {});
        // For a server name it has a context of its own, without a chain, so both authorities are trusted here.
        let roots = std::fs::read_to_string(&authority.root).unwrap();
        std::fs::write(&authority.root, roots + &authority.intermediate_pem).unwrap();
        // Line by line, although it writes to a pipe.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "openssl"]);
        // The port that the system picks is printed.
        command.args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-Verify",
            "3",
            "-verify_return_error",
        ]);
        command.args(["-naccept", "20"]).args(options);
        command.arg("-cert").arg(&cert).arg("-key").arg(&key);
        command.arg("-cert_chain").arg(&cert).arg("-CAfile").arg(&authority.root);
        command.arg("-cert2").arg(&cert).arg("-key2").arg(&key);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            eprintln!("openssl is not installed: it is not tested as a server");
            return None;
        };
        let (tell, lines) = std::sync::mpsc::channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).split(b'\n').map_while(Result::ok);
            for line in lines {
                let line = String::from_utf8_lossy(&line).into_owned();
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, port: 0, lines };
        let accepts = server.until("ACCEPT ");
        server.port = accepts.rsplit(':').next().unwrap().trim().parse().unwrap();
        Some(server)
    }

    /// The next line with this text.
    #[track_caller]
    fn until(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(common::PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("openssl never said {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_wanted_and_not_given_is_told() {
    let authority = Authority::new();
    let Some(openssl) = OpenSsl::demanding(&authority, &["-alpn", "http/1.1"]) else { return };
    let address = format!("wss://localhost:{}", openssl.port);
    let dialling = dialler(&authority, &address).await;
    let refused = || dialling.network.metrics().dials_refused(DialRefusal::Tls) > 0;
    until("a refused dial", refused).await;
    let error = dialling.network.dials().pop().unwrap().last_error.unwrap();
    assert_eq!(error, "localhost wants a certificate of this node, and none is configured");
    tokio::task::block_in_place(|| openssl.until("advertised by the client: http/1.1"));
    dialling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_and_the_server_name_reach_a_foreign_server() {
    let authority = Authority::new();
    let options = ["-servername", "localhost"];
    let Some(openssl) = OpenSsl::demanding(&authority, &options) else { return };
    let (cert, key) = authority.sign("client", &["client.example"], |_| {});
    let client = TlsIdentity::load(&cert, &key).unwrap();
    let peer: NodeAddress = format!("wss://localhost:{}", openssl.port).parse().unwrap();
    let roots = read_certificates(&authority.root).unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM).with(|config| {
        (config.tls_roots, config.tls_client) = (roots, Some(client));
        config.peers.push(peer);
    });
    let dialling = recipe.start().await;
    tokio::task::block_in_place(|| {
        openssl.until("Hostname in TLS extension: \"localhost\"");
        openssl.until("CN = client");
        openssl.until("GET /v1/test-v1/gossip HTTP/1.1");
        let host = openssl.until("Host: ");
        assert_eq!(host.trim_end(), format!("Host: localhost:{}", openssl.port));
    });
    dialling.stop().await;
}

// Issue 10, 6: certificate files were read at the start only.
#[tokio::test]
async fn a_renewed_certificate_is_used_and_open_connections_stay() {
    let authority = Authority::new();
    let files = authority.sign("first", &["localhost"], |_| {});
    let listener = server(&files).await;
    let address = format!("https://localhost:{}", listener.address().port());
    let first = dialler(&authority, &address).await;
    first.until_peers(1).await;

    let other = Authority::new();
    let renewed = other.sign("second", &["localhost"], |_| {});
    let tls = listener.network.tls().unwrap().clone();
    // The certificate first: until the key is there too, the two do not fit, and the old one stays.
    std::fs::copy(&renewed.0, &files.0).unwrap();
    until("the doubt is settled", || tls.is_stale()).await;
    assert_eq!((tls.times_taken(), tls.times_refused()), (0, 1));
    std::fs::copy(&renewed.1, &files.1).unwrap();
    until("the new certificate", || tls.times_taken() == 1).await;
    assert!(!tls.is_stale());

    let second = dialler(&other, &address).await;
    second.until_peers(1).await;
    assert_eq!(first.peers().len(), 1, "the open connection stays");
    std::fs::remove_file(&files.1).unwrap();
    until("the missing key is noticed", || tls.times_refused() == 2).await;
    let third = dialler(&other, &address).await;
    third.until_peers(1).await;
    for node in [first, second, third, listener] {
        node.stop().await;
    }
}

// Issue 10, 6: one host, configured once with TLS and once without.
#[tokio::test]
async fn one_host_with_tls_and_without_is_dialled_as_two_addresses_that_do_not_disturb_each_other()
{
    let plain = Recipe::new(&NetworkProfile::TANDEM).listening().start().await;
    let port = plain.address().port();
    let peer = |scheme: &str| format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM).with(|config| {
        config.peers = vec![peer("wss"), peer("ws")];
    });
    let again = Duration::from_millis(50);
    let dialling = recipe.redialling(again, again).start().await;
    dialling.until_peers(1).await;
    let state = |address: String| {
        let dials = dialling.network.dials();
        dials.into_iter().find(|dial| dial.address == address).unwrap()
    };
    let secure = || state(format!("https://127.0.0.1:{port}"));
    // The address without TLS stays connected, however often the other one fails.
    until("several refused dials", || secure().failures > 3).await;
    assert_eq!(secure().outcome, DialOutcome::Failed);
    assert_eq!(
        secure().last_error.unwrap(),
        "127.0.0.1 does not speak TLS on this port: write http:// for a plain connection"
    );
    let open = state(format!("127.0.0.1:{port}"));
    assert_eq!((open.outcome, open.failures, open.last_error), (DialOutcome::Connected, 0, None));
    assert_eq!(dialling.peers().len(), 1);
    dialling.stop().await;
    plain.stop().await;
}

// Issue 10, 6: a node with a certificate, whose both addresses are configured.
#[tokio::test]
async fn one_node_with_tls_and_without_keeps_one_link() {
    let authority = Authority::new();
    let listener = server(&authority.sign("good", &["127.0.0.1"], |_| {})).await;
    let port = listener.address().port();
    let dialling = dialler(&authority, &format!("wss://127.0.0.1:{port}")).await;
    dialling.until_peers(1).await;
    dialling
        .network
        .add_peer(&format!("ws://127.0.0.1:{port}").parse().unwrap())
        .expect("the address can be dialled");
    let outcomes = || {
        let dials = dialling.network.dials();
        dials.into_iter().map(|dial| dial.outcome).collect::<Vec<_>>()
    };
    until("both addresses lead to the link", || {
        let outcomes = outcomes();
        outcomes.contains(&DialOutcome::Connected)
            && outcomes.contains(&DialOutcome::ConnectedOtherwise)
    })
    .await;
    assert_eq!((dialling.peers().len(), listener.peers().len()), (1, 1));
    dialling.stop().await;
    listener.stop().await;
}
