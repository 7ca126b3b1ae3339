//! Looking for nodes at DNS servers in this process: good ones, and ones that lie, drown, stall and rave.
#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use discovery::{
    AskError, Bootstrap, DnsLimits, DnsSettings, DnsSource, Dnssec, Looked, Server, Wanted,
};
use gossip::{NetworkId, NetworkProfile};
use hickory_server::proto::{
    op::{Message, ResponseCode},
    rr::Record,
};
use mesh::{AddressSource, Role};
use runtime::Random;
use testkit::dns::{DnsServer, Scripted, cname, srv, txt};
use tokio::time::Instant;

const RELAYS: &str = "_tandem._tcp.a.example.";
const ARCHIVES: &str = "_tandem-archive._tcp.a.example.";
const TREE: &str = "_dnsaddr.a.example.";

/// Short enough that a test of silence is quick; an answer on loopback takes a moment even beside a busy machine.
fn limits() -> DnsLimits {
    DnsLimits::default()
        .with_question_timeout(Duration::from_secs(2))
        .with_look_timeout(Duration::from_secs(4))
}

fn source(text: &str, servers: &[SocketAddr], wanted: Wanted) -> DnsSource {
    settings(text, servers, wanted, Dnssec::Off, limits())
}

fn settings(
    text: &str,
    servers: &[SocketAddr],
    wanted: Wanted,
    dnssec: Dnssec,
    limits: DnsLimits,
) -> DnsSource {
    let service = NetworkProfile::TANDEM.dns;
    let network = NetworkId::new("test-v1").unwrap();
    let mut list = Bootstrap::parse(text, &network, &service).unwrap();
    let settings = DnsSettings::new(service)
        .with_servers(servers.iter().copied().map(Server::At).collect())
        .with_wanted(wanted)
        .with_dnssec(dnssec)
        .with_limits(limits);
    DnsSource::new(list.remove(0), settings, Random::seeded(1))
}

async fn look(source: &DnsSource) -> Looked {
    let began = Instant::now();
    let looked = source.look().await;
    assert!(began.elapsed() < 2 * limits().look_timeout, "{:?}", began.elapsed());
    assert!(looked.next >= Duration::from_secs(1) && looked.next <= limits().latest, "{looked:?}");
    looked
}

fn addresses(looked: &Looked, role: &Role) -> Vec<String> {
    let own = looked.addresses.iter().filter(|found| found.roles.contains(role));
    let mut texts: Vec<String> = own.map(|found| found.address.to_string()).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn relays_and_archives_are_found_by_their_services() {
    let server = DnsServer::start(vec![
        srv(RELAYS, 300, "R1.example.", 4160),
        srv(RELAYS, 200, "r2.example.", 4161),
        srv(ARCHIVES, 900, "r1.example.", 4160),
        txt(TREE, 900, "dnsaddr=/ip4/192.0.2.1/tcp/4190/p2p/QmA"),
    ])
    .await;
    let looked = look(&source("a.example", &[server.address], Wanted::Both)).await;
    let tree = "/ip4/192.0.2.1/tcp/4190/p2p/QmA";
    assert_eq!(addresses(&looked, &Role::relay()), [tree, "r1.example:4160", "r2.example:4161"]);
    assert_eq!(addresses(&looked, &Role::archival()), ["r1.example:4160"]);
    assert_eq!((looked.found, looked.missing.len()), (4, 0));
    // The shortest time of all records.
    assert_eq!(looked.next, Duration::from_secs(200));
    let looked = look(&source("a.example", &[server.address], Wanted::WebSocket)).await;
    assert_eq!(addresses(&looked, &Role::relay()), ["r1.example:4160", "r2.example:4161"]);
    let looked = look(&source("a.example", &[server.address], Wanted::Libp2p)).await;
    assert_eq!(addresses(&looked, &Role::relay()), [tree]);
}

#[tokio::test]
async fn a_backup_adds_to_the_primary_name_and_stands_in_for_it() {
    let text = "<network>.a?backup=<network>.b&dedup=<name>.(a|b)";
    let server = DnsServer::start(vec![
        srv("_tandem._tcp.test.a.", 300, "r1.a.", 1),
        srv("_tandem._tcp.test.b.", 300, "R1.B.", 1),
        srv("_tandem._tcp.test.b.", 300, "r2.b.", 1),
        txt("_dnsaddr.test.a.", 300, "dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/QmA"),
        txt("_dnsaddr.test.b.", 300, "dnsaddr=/ip4/192.0.2.2/tcp/1/p2p/QmA"),
        txt("_dnsaddr.test.b.", 300, "dnsaddr=/ip4/192.0.2.3/tcp/1/p2p/QmB"),
    ])
    .await;
    let source = source(text, &[server.address], Wanted::Both);
    let looked = look(&source).await;
    // Over WebSocket the first name counts, over libp2p the second one. Source: wire facts 8.8 and 10.4.
    let all = ["/ip4/192.0.2.2/tcp/1/p2p/QmA", "/ip4/192.0.2.3/tcp/1/p2p/QmB", "r1.a:1", "r2.b:1"];
    assert_eq!(addresses(&looked, &Role::relay()), all);
    server.replace(vec![srv("_tandem._tcp.test.b.", 300, "r9.b.", 1)]).await;
    let looked = look(&source).await;
    let trees = &all[..2];
    let mut left = trees.to_vec();
    left.push("r9.b:1");
    assert_eq!(addresses(&looked, &Role::relay()), left);
}

// Issue 10, 2: an empty result keeps the old list.
#[tokio::test]
async fn a_list_outlives_an_empty_answer_and_a_name_that_is_gone() {
    let server = DnsServer::start(vec![srv(RELAYS, 300, "r1.example.", 1)]).await;
    let source = source("a.example", &[server.address], Wanted::WebSocket);
    assert_eq!(addresses(&look(&source).await, &Role::relay()), ["r1.example:1"]);
    server.replace(vec![]).await;
    let looked = look(&source).await;
    assert_eq!(addresses(&looked, &Role::relay()), ["r1.example:1"]);
    assert_eq!(looked.found, 0);
    assert_eq!(looked.missing[0].reason, AskError::NoRecord);
    assert_eq!(looked.missing[0].name, RELAYS);
    assert!(looked.next <= limits().retry / 16);
    server.replace(vec![srv(RELAYS, 300, "r2.example.", 1)]).await;
    assert_eq!(addresses(&look(&source).await, &Role::relay()), ["r2.example:1"]);
}

#[tokio::test]
async fn a_source_says_why_it_has_no_answer_and_when_to_ask_again() {
    let server = DnsServer::start(vec![]).await;
    let source = source("a.example", &[server.address], Wanted::WebSocket);
    assert_eq!(source.id().to_string(), "dns:a.example");
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.cause.to_string(), format!("{RELAYS}: there is no record"));
    assert!(source.refresh() <= limits().retry / 16);
    server.replace(vec![srv(RELAYS, 300, "r1.example.", 1)]).await;
    assert_eq!(source.fetch().await.unwrap().len(), 1);
    assert_eq!(source.refresh(), Duration::from_secs(300));
}

#[tokio::test]
async fn an_alias_is_followed() {
    let server = DnsServer::start(vec![
        cname(RELAYS, 100, "b.example."),
        cname("b.example.", 90, "c.example."),
        srv("c.example.", 300, "r1.example.", 1),
    ])
    .await;
    let looked = look(&source("a.example", &[server.address], Wanted::WebSocket)).await;
    assert_eq!(addresses(&looked, &Role::relay()), ["r1.example:1"]);
    assert_eq!(looked.next, Duration::from_secs(90));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_has_nothing_or_is_silent() {
    let good = DnsServer::start(vec![srv(RELAYS, 300, "r1.example.", 1)]).await;
    let empty = DnsServer::start(vec![]).await;
    let silent = Scripted::start(|_| None).await;
    let refusing = Scripted::start(|question| {
        let mut answer = answer_to(question, vec![]);
        answer.metadata.response_code = ResponseCode::Refused;
        answer.to_vec().ok()
    })
    .await;
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    for first in [empty.address, silent.address, refusing.address, closed] {
        let servers = [first, good.address];
        let looked = look(&source("a.example", &servers, Wanted::WebSocket)).await;
        assert_eq!(addresses(&looked, &Role::relay()), ["r1.example:1"], "{looked:?}");
    }
    let alone = [silent.address];
    let looked = look(&source("a.example", &alone, Wanted::WebSocket)).await;
    assert_eq!(looked.missing[0].reason, AskError::TimedOut);
    assert!(looked.addresses.is_empty());
}

fn answer_to(question: &Message, records: Vec<Record>) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_queries(question.queries.iter().cloned());
    answer.add_answers(records);
    answer
}

#[tokio::test]
async fn garbage_is_no_answer_and_harms_nothing() {
    let good = DnsServer::start(vec![srv(RELAYS, 300, "r1.example.", 1)]).await;
    type Garble = fn(&Message) -> Vec<u8>;
    let garbles: [Garble; 5] = [
        |_| vec![0xff; 600],
        |_| Vec::new(),
        |question| {
            let mut bytes = answer_to(question, vec![]).to_vec().unwrap();
            bytes.truncate(bytes.len() - 3);
            bytes
        },
        // Counts of records that are not there.
        |question| {
            let mut bytes = answer_to(question, vec![]).to_vec().unwrap();
            bytes[6..12].fill(0xff);
            bytes
        },
        // A name that points at itself.
        |question| {
            let mut bytes = answer_to(question, vec![]).to_vec().unwrap();
            bytes[7] = 1;
            let here = u16::try_from(bytes.len()).unwrap() | 0xc000;
            bytes.extend(here.to_be_bytes());
            bytes.extend([0, 33, 0, 1, 0, 0, 1, 0, 0, 7]);
            bytes.extend([0, 1, 0, 1, 0, 1, 0xc0]);
            bytes
        },
    ];
    for garble in garbles {
        let raving = Scripted::start(move |question| Some(garble(question))).await;
        let servers = [raving.address, good.address];
        let looked = look(&source("a.example", &servers, Wanted::WebSocket)).await;
        assert_eq!(addresses(&looked, &Role::relay()), ["r1.example:1"]);
    }
}

#[tokio::test]
async fn records_that_nobody_asked_for_do_not_count() {
    let poisoned = |question: &Message, id: u16| {
        let mut answer = answer_to(question, vec![srv("_tandem._tcp.b.example.", 300, "bad.", 1)]);
        answer.add_answers([txt(RELAYS, 300, "dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/QmA")]);
        answer.add_additionals([srv(RELAYS, 300, "worse.", 1)]);
        answer.metadata.id = id;
        answer.to_vec().ok()
    };
    let other_name =
        Scripted::start(move |question| poisoned(question, question.metadata.id)).await;
    let source_ = source("a.example", &[other_name.address], Wanted::WebSocket);
    let looked = look(&source_).await;
    assert!(looked.addresses.is_empty(), "{looked:?}");
    let forged = Scripted::start(|question| {
        let mut answer = answer_to(question, vec![srv(RELAYS, 300, "bad.", 1)]);
        answer.metadata.id = question.metadata.id.wrapping_add(1);
        answer.to_vec().ok()
    })
    .await;
    let looked = look(&source("a.example", &[forged.address], Wanted::WebSocket)).await;
    assert!(looked.addresses.is_empty(), "{looked:?}");
}

#[tokio::test]
async fn targets_that_are_no_hosts_are_left_out() {
    let server = Scripted::start(|question| {
        let odd = hickory_server::proto::rr::Name::from_labels([&b"a\n\x1b[31m b"[..]]).unwrap();
        let mut record = srv(RELAYS, 300, "r1.example.", 1);
        record.data = hickory_server::proto::rr::RData::SRV(
            hickory_server::proto::rr::rdata::SRV::new(0, 0, 1, odd),
        );
        let none = srv(RELAYS, 300, ".", 1);
        let zero = srv(RELAYS, 300, "r2.example.", 0);
        let good = srv(RELAYS, 300, "r3.example.", 3);
        answer_to(question, vec![record, none, zero, good]).to_vec().ok()
    })
    .await;
    let looked = look(&source("a.example", &[server.address], Wanted::WebSocket)).await;
    assert_eq!(addresses(&looked, &Role::relay()), ["r3.example:3"], "{looked:?}");
    assert!(looked.unusable >= 3, "{looked:?}");
}

#[tokio::test]
async fn a_huge_answer_is_cut() {
    let many = (0..1_300).map(|port| srv(RELAYS, 300, "r.example.", 1 + port)).collect();
    let server = DnsServer::start(many).await;
    let looked = look(&source("a.example", &[server.address], Wanted::WebSocket)).await;
    assert_eq!(looked.addresses.len(), limits().addresses.get());
    assert!(looked.cut >= 1_300 - 256, "{}", looked.cut);
}

#[tokio::test]
async fn a_tree_is_followed_to_its_leaves_and_circles_end() {
    let server = DnsServer::start(vec![
        txt(TREE, 300, "dnsaddr=/dnsaddr/eu.a.example"),
        txt(TREE, 300, "dnsaddr=/dnsaddr/us.a.example/p2p/QmB"),
        txt(TREE, 300, "dnsaddr=/dnsaddr/gone.a.example"),
        txt(TREE, 300, "v=spf1 -all"),
        txt("_dnsaddr.eu.a.example.", 300, "dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/QmA"),
        txt("_dnsaddr.eu.a.example.", 300, "dnsaddr=/dnsaddr/A.example"),
        txt("_dnsaddr.eu.a.example.", 300, "dnsaddr=/dnsaddr/eu.a.example"),
        txt("_dnsaddr.us.a.example.", 300, "dnsaddr=/ip4/192.0.2.2/tcp/1/p2p/QmB"),
        txt("_dnsaddr.us.a.example.", 300, "dnsaddr=/ip4/192.0.2.3/tcp/1/p2p/QmC"),
    ])
    .await;
    let looked = look(&source("/dnsaddr/a.example", &[server.address], Wanted::Both)).await;
    let leaves = ["/ip4/192.0.2.1/tcp/1/p2p/QmA", "/ip4/192.0.2.2/tcp/1/p2p/QmB"];
    assert_eq!(addresses(&looked, &Role::relay()), leaves, "{looked:?}");
    assert_eq!(looked.unusable, 2);
    assert_eq!(looked.missing.len(), 1);
}

#[tokio::test]
async fn an_endless_tree_ends_at_its_bounds() {
    // Each name leads to one that is asked for next, and has an address of its own.
    let endless = Scripted::start(|question| {
        let owner = question.queries[0].name().clone();
        let first = String::from_utf8_lossy(owner.iter().nth(1)?).into_owned();
        let number: u64 = first.trim_start_matches('n').parse().unwrap_or(0);
        let next = format!("dnsaddr=/dnsaddr/n{}.a.example", number + 1);
        let own = format!("dnsaddr=/ip4/192.0.2.1/tcp/{}/p2p/QmA", 1 + number % 60_000);
        let records = [next, own].map(|text| {
            let mut record = txt(TREE, 300, &text);
            record.name = owner.clone();
            record
        });
        answer_to(question, records.into()).to_vec().ok()
    })
    .await;
    let deep = source("/dnsaddr/n0.a.example", &[endless.address], Wanted::Libp2p);
    let looked = look(&deep).await;
    assert_eq!(looked.addresses.len(), limits().depth.get());
    assert_eq!(looked.cut, 1);

    let mut wide: Vec<Record> = Vec::new();
    for number in 0..60 {
        wide.push(txt(TREE, 300, &format!("dnsaddr=/dnsaddr/w{number}.example")));
        let address = format!("dnsaddr=/ip4/192.0.2.1/tcp/{}/p2p/QmA", 1 + number);
        wide.push(txt(&format!("_dnsaddr.w{number}.example."), 300, &address));
    }
    let server = DnsServer::start(wide).await;
    let few = limits().with_questions(NonZeroUsize::new(11).unwrap());
    let source = settings("a.example", &[server.address], Wanted::Libp2p, Dnssec::Off, few);
    let looked = look(&source).await;
    assert_eq!((looked.addresses.len(), looked.cut), (10, 50), "{looked:?}");
}

#[tokio::test]
async fn with_dnssec_only_proved_answers_count() {
    let folder = tempfile::tempdir().unwrap();
    let (anchor, other) = (folder.path().join("anchor"), folder.path().join("other"));
    let records = || vec![srv(RELAYS, 300, "r1.example.", 1)];
    let signed = DnsServer::signed(records(), &anchor).await;
    let _other = DnsServer::signed(records(), &other).await;
    let unsigned = DnsServer::start(records()).await;
    let cases = [
        (signed.address, Dnssec::Off, 1),
        (signed.address, Dnssec::From(anchor.clone()), 1),
        (signed.address, Dnssec::From(other), 0),
        (signed.address, Dnssec::Required, 0),
        (signed.address, Dnssec::From(folder.path().join("missing")), 0),
        (unsigned.address, Dnssec::From(anchor), 0),
        (unsigned.address, Dnssec::Required, 0),
    ];
    for (server, dnssec, found) in cases {
        let shown = format!("{server} {dnssec:?}");
        let source = settings("a.example", &[server], Wanted::WebSocket, dnssec, limits());
        let looked = look(&source).await;
        assert_eq!(looked.addresses.len(), found, "{shown}: {looked:?}");
        assert_eq!(looked.missing.is_empty(), found == 1, "{shown}: {looked:?}");
    }
}
