//! A listener that demands certificates of its clients. Issue 10, 6.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use crate::common::{
    Node, Recipe,
    authority::Authority,
    raw::{self, Raw},
    soon, until,
};
use gossip::{Admission, GossipNode, NetworkProfile, NodeAddress, Outbound, Tag};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use tandem_net_ws::{
    CertificateError, DialRefusal, TlsError, TlsIdentity, TlsRefusal, read_certificates,
};

/// A node that serves those who have a certificate of `clients`, and the authority of its own certificate.
async fn demanding(clients: &Authority) -> (Node, Authority) {
    let own = Authority::new();
    let (cert, key) = own.sign("server", &["localhost"], |_| {});
    let tls = TlsIdentity::load_demanding(&cert, &key, &clients.root).unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM).listening().relaying();
    let node = recipe.with(|config| config.tls = Some(tls)).start().await;
    (node, own)
}

/// A node that dials another one over TLS, with a certificate if it has one.
async fn dialler(to: &Node, trusts: &Authority, client: Option<TlsIdentity>) -> Node {
    let peer: NodeAddress = format!("wss://localhost:{}", to.address().port()).parse().unwrap();
    let roots = read_certificates(&trusts.root).unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM).with(|config| {
        (config.tls_roots, config.tls_client) = (roots, client);
        config.peers.push(peer);
    });
    let again = Duration::from_millis(100);
    recipe.redialling(again, again).start().await
}

fn signed(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> TlsIdentity {
    let (cert, key) = by.sign("client", &["client.example"], change);
    TlsIdentity::load(&cert, &key).unwrap()
}

/// Dials with this certificate, and checks that neither gossip nor HTTP is served, and that both ends say why.
async fn is_refused(
    (listener, own): (&Node, &Authority),
    client: Option<TlsIdentity>,
    (why, told): (TlsRefusal, &str),
) {
    let refused = || listener.network.metrics().tls_refused(why);
    let before = refused();
    let dialling = dialler(listener, own, client).await;
    until(why.label(), || refused() > before).await;
    let metrics = dialling.network.metrics();
    until("a refused dial", || metrics.dials_refused(DialRefusal::Tls) > 0).await;
    let error = dialling.network.dials().pop().unwrap().last_error.unwrap();
    assert_eq!(error, told);
    let url = format!("https://localhost:{}", listener.address().port());
    let http = dialling.network.http_client(&url.parse().unwrap()).unwrap();
    assert!(soon(http.get("/")).await.is_err());
    assert_eq!((listener.peers().len(), dialling.peers().len()), (0, 0), "{why:?}");
    dialling.stop().await;
}

#[tokio::test]
async fn a_client_of_the_named_authority_is_served_and_no_other_one() {
    let clients = Authority::new();
    let (listener, own) = demanding(&clients).await;
    let at = (&listener, &own);
    let none = "localhost wants a certificate of this node, and none is configured";
    let wrong = "localhost does not accept the certificate of this node, or wants one";
    is_refused(at, None, (TlsRefusal::NoCertificate, none)).await;
    let strangers = signed(&Authority::new(), |_| {});
    is_refused(at, Some(strangers), (TlsRefusal::Certificate, wrong)).await;
    let expired = signed(&clients, |params| {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - 3 * day).into(), (now - day).into());
    });
    is_refused(at, Some(expired), (TlsRefusal::Certificate, wrong)).await;
    let of_a_server = signed(&clients, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    is_refused(at, Some(of_a_server), (TlsRefusal::Certificate, wrong)).await;

    let member = dialler(&listener, &own, Some(signed(&clients, |_| {}))).await;
    member.until_peers(1).await;
    let vote = Outbound::new(Tag::AV, "a vote of a member");
    assert_eq!(member.network.broadcast(vote), Ok(Admission::Queued));
    until("the vote", || listener.heard.summary() == ["AV:18"]).await;
    let url = format!("https://localhost:{}", listener.address().port());
    let http = member.network.http_client(&url.parse().unwrap()).unwrap();
    assert_eq!(soon(http.get("/")).await.unwrap().status(), 404);
    member.stop().await;
    listener.stop().await;
}

#[tokio::test]
async fn a_client_without_tls_is_told_that_it_needs_a_certificate() {
    let (listener, _own) = demanding(&Authority::new()).await;
    let mut plain = Raw::connect(listener.address()).await;
    plain.send(raw::gossip_request("X-Tandem-", "").as_bytes()).await;
    let answer = soon(plain.answer()).await.unwrap();
    assert_eq!(answer.status, "HTTP/1.1 400 Bad Request");
    let body = soon(plain.exactly(59)).await.unwrap();
    assert_eq!(body, b"this port takes TLS connections with a client certificate\r\n");
    assert_eq!(soon(plain.exactly(1)).await, None, "the connection ends");
    // A dialler tells its operator.
    let dialling =
        Recipe::new(&NetworkProfile::TANDEM).dialling(&[listener.address()]).start().await;
    let failed = || dialling.network.dials().pop().and_then(|dial| dial.last_error);
    until("a failed dial", || failed().is_some()).await;
    let error = failed().unwrap();
    assert!(error.contains("takes TLS connections with a client certificate"), "{error}");
    assert!(listener.network.metrics().tls_refused(TlsRefusal::Plain) >= 2);
    assert!(listener.peers().is_empty());
    dialling.stop().await;
    listener.stop().await;
}

#[tokio::test]
async fn another_authority_counts_for_new_connections_and_open_ones_stay() {
    let (first, second) = (Authority::new(), Authority::new());
    let (listener, own) = demanding(&first).await;
    let old = dialler(&listener, &own, Some(signed(&first, |_| {}))).await;
    old.until_peers(1).await;
    let tls = listener.network.tls().unwrap();
    assert!(!tls.reload().unwrap(), "nothing has changed");
    std::fs::write(&first.root, "no certificate").unwrap();
    let error = tls.reload().unwrap_err();
    assert!(
        matches!(error, TlsError::Certificates(CertificateError::NoCertificates { .. })),
        "{error}"
    );
    assert!(tls.is_stale());
    std::fs::copy(&second.root, &first.root).unwrap();
    assert!(listener.network.reload_certificates().unwrap());
    assert!(!tls.is_stale());
    let new = dialler(&listener, &own, Some(signed(&second, |_| {}))).await;
    new.until_peers(1).await;
    assert_eq!(old.peers().len(), 1, "the open connection stays");
    let wrong = "localhost does not accept the certificate of this node, or wants one";
    let late = dialler(&listener, &own, Some(signed(&first, |_| {}))).await;
    let failed = || late.network.dials().pop().and_then(|dial| dial.last_error);
    until("a failed dial", || failed().is_some()).await;
    assert_eq!(failed().unwrap(), wrong);
    for node in [old, new, late, listener] {
        node.stop().await;
    }
}

#[test]
fn an_unusable_file_of_authorities_is_named() {
    let own = Authority::new();
    let (cert, key) = own.sign("server", &["localhost"], |_| {});
    let load = |authorities: &Path| TlsIdentity::load_demanding(&cert, &key, authorities);
    for bad in [own.root.with_file_name("nowhere.pem"), key.clone()] {
        let error = load(&bad).unwrap_err();
        assert!(error.to_string().contains(&bad.display().to_string()), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert!(load(&own.root).unwrap().demands_certificates());
    assert!(!TlsIdentity::load(&cert, &key).unwrap().demands_certificates());
}
