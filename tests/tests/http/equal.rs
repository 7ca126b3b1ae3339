//! Comparison of the routes: the caller sees the same on each.

use std::collections::BTreeMap;

use gossip::http::read_all;
use http::{HeaderName, header};
use testkit::{http::route::Route, wait::soon};

use crate::{
    exchange::{Row, bodies, methods, statuses},
    scene::{MAX_BODY, Scene, answered},
};

/// Headers that belong to a connection, or to a moment.
const PASSING: [HeaderName; 2] = [header::CONNECTION, header::DATE];

/// An answer as its caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    /// Names and values, in their order within a name.
    headers: BTreeMap<String, Vec<String>>,
    /// Hash of the body.
    body: String,
}

async fn seen(scene: &Scene, row: Row) -> Seen {
    let response = answered(&scene.client, row.request).await;
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in response.headers() {
        if !PASSING.contains(name) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.entry(name.to_string()).or_default().push(value);
        }
    }
    let status = response.status().as_u16();
    let body = soon("the body comes", read_all(response.into_body(), MAX_BODY)).await;
    let body = blake3::hash(&body.expect("the body is whole")).to_hex().to_string();
    Seen { status, headers, body }
}

/// The answers to every row over one route.
async fn table(way: Route) -> Vec<(String, Seen)> {
    let scene = Scene::on(way).await;
    let mut table = Vec::new();
    for row in [methods(), statuses(), bodies()].into_iter().flatten() {
        let name = format!("{} {} {}", row.name, row.request.method(), row.request.uri());
        table.push((name, seen(&scene, row).await));
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_headers_and_bodies_are_the_same_on_every_way() {
    let [first, others @ ..] = Route::ALL;
    let expected = table(first).await;
    assert!(expected.len() > 30);
    let mut different = Vec::new();
    for way in others {
        for ((name, expected), (_, got)) in expected.iter().zip(table(way).await) {
            if got != *expected {
                different
                    .push(format!("{name}\n    {first:?}: {expected:?}\n    {way:?}: {got:?}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
