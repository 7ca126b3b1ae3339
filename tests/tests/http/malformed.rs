//! Malformed requests: each is refused or its connection closed at once, with the same verdict on every route,
//! and bytes that follow it are never answered.
//!
//! Threats and goals, row 29: a request that two programs read differently can smuggle another one past the
//! first of them.

use std::fmt::Write as _;

use futures::{StreamExt, stream};
use testkit::{
    http::{
        raw::{End, answers},
        route::Route,
        server::limits,
        service::Event,
    },
    wait::soon,
};

use crate::scene::{SLACK, Scene};

/// Number of streams tried at a time. Chosen: fewer than a peer may have.
const AT_ONCE: usize = 8;

/// The request that follows each malformed one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// The result of a malformed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// This status, and then the end of the connection.
    Refused(u16),
    /// The end of the connection without an answer.
    Closed,
    /// A result that must never occur; it is a value so that the failure shows it.
    Wrong(Wrong),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// The request was handled.
    Accepted(u16),
    /// Bytes followed the answer.
    SecondAnswer,
    /// The connection stayed open.
    Hangs,
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, verdict: Verdict) -> Case {
    Case { name, bytes: bytes.into(), verdict }
}

const BAD: Verdict = Verdict::Refused(400);
const TOO_LONG: Verdict = Verdict::Refused(431);
const NOT_FOUND: Verdict = Verdict::Refused(404);

/// A request without a body, with these headers.
fn get(headers: &str) -> String {
    format!("GET /hello HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
}

/// A request with these headers and this body.
fn post(headers: &str, body: &str) -> String {
    format!("POST /sink HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// A request with this request line.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: h\r\n\r\n")
}

/// Lengths that are missing, malformed or given twice.
fn lengths() -> Vec<Case> {
    let both = |headers: &str| post(headers, "0\r\n\r\n");
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "hello");
    let coding = |headers: &str| post(headers, "5\r\nhello\r\n0\r\n\r\n");
    vec![
        case("CL.TE", both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), BAD),
        case("TE.CL", both("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), BAD),
        case("CL.TE, no length", both("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), BAD),
        case("TE.TE", coding("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), BAD),
        case(
            "TE.TE, identity",
            coding("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            BAD,
        ),
        case("TE list", coding("Transfer-Encoding: chunked, identity\r\n"), BAD),
        case("TE chunked twice", coding("Transfer-Encoding: chunked, chunked\r\n"), BAD),
        case("TE identity", coding("Transfer-Encoding: identity\r\n"), BAD),
        case("TE gzip", coding("Transfer-Encoding: gzip, chunked\r\n"), BAD),
        case("TE unknown", coding("Transfer-Encoding: xchunked\r\n"), BAD),
        case("TE empty", coding("Transfer-Encoding:\r\n"), BAD),
        case("TE quoted", coding("Transfer-Encoding: \"chunked\"\r\n"), BAD),
        case("TE vertical tab", coding("Transfer-Encoding: \x0bchunked\r\n"), BAD),
        case("TE with NUL", coding("Transfer-Encoding: chunked\0\r\n"), BAD),
        case("TE space before colon", coding("Transfer-Encoding : chunked\r\n"), BAD),
        case("TE tab before colon", coding("Transfer-Encoding\t: chunked\r\n"), BAD),
        case("TE folded", coding("Transfer-Encoding:\r\n chunked\r\n"), BAD),
        case("TE behind a space", coding(" Transfer-Encoding: chunked\r\n"), BAD),
        case(
            "TE in HTTP/1.0",
            "POST /sink HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
        ),
        case("CL twice", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), BAD),
        case("CL twice, two", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), BAD),
        case("CL list", length("5, 5"), BAD),
        case("CL negative", length("-5"), BAD),
        case("CL with sign", length("+5"), BAD),
        case("CL hexadecimal", length("0x5"), BAD),
        case("CL in two words", length("5 5"), BAD),
        case("CL empty", length(""), BAD),
        case("CL exponent", length("5e0"), BAD),
        case("CL fraction", length("5.0"), BAD),
        case("CL foreign digit", length("٥"), BAD),
        case("CL past 64 bits", length("18446744073709551621"), BAD),
        case("CL of 1,000 digits", length(&"9".repeat(1_000)), BAD),
        case("CL space before colon", post("Content-Length : 5\r\n", "hello"), BAD),
    ]
}

/// Malformed header lines.
fn lines() -> Vec<Case> {
    vec![
        case("LF alone everywhere", "GET /hello HTTP/1.1\nHost: h\n\n", BAD),
        case("LF alone in one line", "GET /hello HTTP/1.1\r\nHost: h\nx-a: b\r\n\r\n", BAD),
        case("LF alone at the end", "GET /hello HTTP/1.1\r\nHost: h\r\n\n", BAD),
        case("CR alone everywhere", "GET /hello HTTP/1.1\rHost: h\r\r", BAD),
        case("CR alone in a value", get("x-a: b\rc\r\n"), BAD),
        case("NUL in a value", get("x-a: b\0c\r\n"), BAD),
        case("NUL in a name", get("x\0a: b\r\n"), BAD),
        case("NUL in the target", line("GET /hel\0lo HTTP/1.1"), BAD),
        case("control character in a value", get("x-a: \x01\r\n"), BAD),
        case("DEL in a value", get("x-a: \x7f\r\n"), BAD),
        case("folded line", get("x-a: b\r\n c\r\n"), BAD),
        case("line folded by a tab", get("x-a: b\r\n\tc\r\n"), BAD),
        case("no colon", get("x-a\r\n"), BAD),
        case("no name", get(": b\r\n"), BAD),
        case("space in a name", get("x a: b\r\n"), BAD),
        case("space before a colon", get("x-a : b\r\n"), BAD),
        case("foreign letter in a name", get("x-ä: b\r\n"), BAD),
        case("bracket in a name", get("x(a): b\r\n"), BAD),
        case("space before the first header", "GET /hello HTTP/1.1\r\n Host: h\r\n\r\n", BAD),
        case("no HTTP", "hello, is anybody there?\r\n\r\n", BAD),
        case("bytes", [&[0, 1, 2, 3, 0xff][..], SMUGGLED.as_bytes()].concat(), BAD),
    ]
}

/// Request lines that are malformed, or ask for a feature that is not offered.
fn first_lines() -> Vec<Case> {
    let absolute = |target: &str| line(&format!("GET {target} HTTP/1.1"));
    vec![
        case("bad method", line("G(T /hello HTTP/1.1"), BAD),
        case("no method", line(" /hello HTTP/1.1"), BAD),
        case("two spaces", line("GET  /hello HTTP/1.1"), BAD),
        case("space in the target", line("GET /hel lo HTTP/1.1"), BAD),
        case("no version", line("GET /hello"), BAD),
        case("version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
        case("version 1.2", line("GET /hello HTTP/1.2"), BAD),
        case("version 9.9", line("GET /hello HTTP/9.9"), BAD),
        case("version behind", line("GET /hello HTTP/1.1x"), BAD),
        case("version in small letters", line("GET /hello http/1.1"), BAD),
        case("no slash", line("GET hello HTTP/1.1"), BAD),
        case("another host", absolute("http://evil/hello"), BAD),
        case("another port", absolute("http://h:81/hello"), BAD),
        case("a host behind a user", absolute("http://h@evil/hello"), BAD),
        case("no host", absolute("http:///hello"), BAD),
        case("CONNECT", line("CONNECT h:80 HTTP/1.1"), BAD),
        case("CONNECT of a path", line("CONNECT /hello HTTP/1.1"), BAD),
        case("asterisk", line("GET * HTTP/1.1\r\nConnection: close"), NOT_FOUND),
    ]
}

/// Requests beyond a bound.
fn sizes() -> Vec<Case> {
    let many = |count| {
        (0..count).fold(String::new(), |mut all, number| {
            // Writing to a string cannot fail.
            let _ = write!(all, "x-{number}: y\r\n");
            all
        })
    };
    let long = |len| "x".repeat(len);
    vec![
        case("101 headers", get(&many(100)), TOO_LONG),
        case("400 headers", get(&many(400)), TOO_LONG),
        case("a head of 9 KiB", get(&format!("x-a: {}\r\n", long(9 * 1024))), TOO_LONG),
        case("a head of 1 MB", get(&format!("x-a: {}\r\n", long(1_000_000))), TOO_LONG),
        case(
            "a head without end",
            format!("GET /hello HTTP/1.1\r\nx-a: {}", long(9 * 1024)),
            TOO_LONG,
        ),
        case("a name of 9 KiB", get(&format!("{}: a\r\n", long(9 * 1024))), TOO_LONG),
        case("a target of 9 KiB", line(&format!("GET /{} HTTP/1.1", long(9 * 1024))), TOO_LONG),
        case("a method of 9 KiB", line(&format!("{} / HTTP/1.1", long(9 * 1024))), TOO_LONG),
        case("empty lines of 9 KiB", format!("{}{}", "\r\n".repeat(5_000), get("")), TOO_LONG),
    ]
}

/// Hosts that are missing or given twice.
fn hosts() -> Vec<Case> {
    let host = |value: &str| format!("GET /hello HTTP/1.1\r\nHost: {value}\r\n\r\n");
    vec![
        case("no Host", "GET /hello HTTP/1.1\r\n\r\n", BAD),
        case("two Hosts", get("Host: h\r\n"), BAD),
        case("two Hosts, two", get("Host: evil\r\n"), BAD),
        case("Host of two words", host("h evil"), BAD),
        case("Host list", host("h, evil"), BAD),
        case("Host with a path", host("h/evil"), BAD),
        case("Host with a user", host("u@h"), BAD),
        case("Host with a bad port", host("h:80:81"), BAD),
    ]
}

/// Malformed chunked bodies.
fn chunks() -> Vec<Case> {
    let long = |len| "x".repeat(len);
    vec![
        case("size is none", chunked("zz\r\nhello\r\n0\r\n\r\n"), BAD),
        case("no size", chunked("\r\nhello\r\n0\r\n\r\n"), BAD),
        case("negative size", chunked("-5\r\nhello\r\n0\r\n\r\n"), BAD),
        case("size with sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), BAD),
        case("size with 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), BAD),
        case("size behind a space", chunked(" 5\r\nhello\r\n0\r\n\r\n"), BAD),
        case("size past 64 bits", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), BAD),
        case("size with LF alone", chunked("5\nhello\r\n0\r\n\r\n"), BAD),
        case("size with CR alone", chunked("5\rhello\r\n0\r\n\r\n"), BAD),
        case("size with NUL", chunked("5\0\r\nhello\r\n0\r\n\r\n"), BAD),
        case("more than the size", chunked("5\r\nhello, world\r\n0\r\n\r\n"), BAD),
        case("less than the size", chunked("7\r\nhello\r\n0\r\n\r\n"), BAD),
        case("LF alone behind the data", chunked("5\r\nhello\n0\r\n\r\n"), BAD),
        case("LF in an extension", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), BAD),
        case(
            "an extension of 1 MB",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", long(1_000_000))),
            BAD,
        ),
        case(
            "many extensions",
            chunked(&format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", long(500)).repeat(100))),
            BAD,
        ),
        case("a trailer without colon", chunked("5\r\nhello\r\n0\r\nx-a\r\n\r\n"), BAD),
        case("a trailer with NUL", chunked("5\r\nhello\r\n0\r\nx-a: \0\r\n\r\n"), BAD),
        case("trailers of 1 MB", chunked(&format!("0\r\nx-a: {}\r\n\r\n", long(1_000_000))), BAD),
        case("many trailers", chunked(&format!("0\r\n{}\r\n", "x-a: b\r\n".repeat(2_000))), BAD),
        case("LF alone behind the last chunk", chunked("0\n\n"), BAD),
    ]
}

async fn verdict(scene: &Scene, case: &Case) -> Verdict {
    let mut stream = scene.reach.raw().await;
    // The server may close before it has read everything.
    let _ = soon("bytes are taken", async {
        stream.write(&case.bytes).await?;
        stream.write(SMUGGLED.as_bytes()).await
    })
    .await;
    let patience = limits().head_time + limits().stall + SLACK;
    let (bytes, end) = stream.rest(patience).await;
    let (answers, rest) = answers(&bytes, end);
    match (answers.as_slice(), end) {
        ([], End::Open) => Verdict::Wrong(Wrong::Hangs),
        ([], End::Closed) => Verdict::Closed,
        ([one], End::Open) if (400..500).contains(&one.status) => Verdict::Wrong(Wrong::Hangs),
        ([one], End::Closed) if rest.is_empty() => match one.status {
            400..500 => Verdict::Refused(one.status),
            other => Verdict::Wrong(Wrong::Accepted(other)),
        },
        _ => Verdict::Wrong(Wrong::SecondAnswer),
    }
}

pub(crate) async fn every_malformed_request_has_its_verdict(way: Route) {
    let scene = Scene::on(way).await;
    let cases: Vec<Case> = [lengths(), lines(), first_lines(), sizes(), hosts(), chunks()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 60, "issue 4 asks for 60");
    let scene = &scene;
    let tried = stream::iter(&cases).map(|case| async move { (case, verdict(scene, case).await) });
    let tried: Vec<_> = tried.buffered(AT_ONCE).collect().await;
    let wrong: Vec<String> = tried
        .iter()
        .filter(|(case, got)| case.verdict != *got)
        .map(|(case, got)| format!("{}: {got:?} instead of {:?}", case.name, case.verdict))
        .collect();
    assert!(
        wrong.is_empty(),
        "over {way:?}, {} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert_eq!(scene.seen().count(Event::Smuggled), 0, "a request within a request was served");
    assert_eq!(scene.text("/hello").await, "hi", "after all of them");
}
