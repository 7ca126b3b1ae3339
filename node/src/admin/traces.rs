//! The ways of messages through the node: those that are kept, and the choice of further ones.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use futures::future;
use gossip::{LinkId, PeerClass, Tag, wire::digest::Digest};
use serde::Deserialize;
use serde_json::json;
use tokio::time;

use super::{
    asked::Asked,
    context::{Context, Shared, bad, read_json},
    named_node::NamedNode,
    problem::refuse,
    route_table::Routes,
    trace_tree::{self, Seen},
    traced::{Missing, SampleOrder, Summary, Traces, Tree, TreeOrder, WatchOrder, Way},
};
use crate::log;

/// Longest order, in bytes. Chosen: a digest and two numbers, several times.
const MAX_ORDER_BYTES: usize = 1_024;

/// Messages of a page, at most, and if nobody says how many. Source: `Tracer::traces`.
const MAX_LISTED: usize = 256;

/// Nodes that are asked for one message. Chosen: a network that somebody runs, each with a connection of its own.
const MAX_NODES: usize = 32;

/// Longest time for their answers. Chosen: a person looks at a page meanwhile.
const TREE_TIME: Duration = Duration::from_secs(5);

const NO_TAG: &str = "a tag is two printable ASCII characters, such as TX";

const NOT_KEPT: &str =
    "the way of this message is not kept: it is not in the sample, was forgotten, or did not come";

/// Longest time for which a message is waited for. Source: `Tracer::want`.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// Adds the routes.
pub(super) fn routes(to: Routes) -> Routes {
    to.get("/v1/traces", traces)
        .put("/v1/traces", sample)
        .post("/v1/traces", watch)
        .get("/v1/traces/{digest}", trace)
        .post("/v1/traces/{digest}/tree", tree)
}

/// A digest as people write it.
pub(crate) fn digest(text: &str) -> Result<Digest, &'static str> {
    const WRONG: &str =
        "a digest is 64 hexadecimal digits, as tandem send and tandem listen show them";
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return Err(WRONG);
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| WRONG)?;
    }
    Ok(Digest(digest))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TracesQuery {
    /// Only messages with this tag.
    tag: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
}

async fn traces(
    State(context): Shared,
    Asked(query): Asked<TracesQuery>,
) -> Result<Json<Traces>, Response> {
    let TracesQuery { tag, limit, offset } = query;
    let limit = limit.unwrap_or(MAX_LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(bad(format!("the limit is a number from 1 to {MAX_LISTED}")));
    }
    let tag: Option<Tag> = tag.map(|tag| tag.parse().map_err(|_| bad(NO_TAG))).transpose()?;
    let tracer = context.broadcaster.tracer();
    let mut traces = tracer.traces();
    traces.retain(|trace| tag.is_none_or(|tag| trace.tag == tag));
    let total = traces.len();
    let traces = traces.iter().skip(offset).take(limit).map(Summary::of).collect();
    Ok(Json(Traces { one_in: tracer.one_in(), traces, total, offset }))
}

async fn trace(
    State(context): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Way>, Response> {
    let digest = named(path)?;
    match way(&context, &digest) {
        Some(way) => Ok(Json(way)),
        None => Err(refuse(StatusCode::NOT_FOUND, NOT_KEPT)),
    }
}

/// The digest that a path names.
fn named(path: Result<Path<String>, PathRejection>) -> Result<Digest, Response> {
    let Path(text) = path.map_err(|error| bad(error.body_text()))?;
    digest(&text).map_err(bad)
}

/// The way of a message through this node.
fn way(context: &Context, digest: &Digest) -> Option<Way> {
    let trace = context.broadcaster.tracer().trace(digest)?;
    let peers = context.node.peers(PeerClass::Connected);
    let addresses: HashMap<LinkId, String> =
        peers.into_iter().map(|peer| (peer.id, peer.address)).collect();
    let address = |link| addresses.get(&link).cloned();
    Some(Way::of(&trace, &context.peer_id, address))
}

/// Puts the ways of a message through this node and through others together. The others are those that the caller names, who
/// knows the tokens of this node and of theirs.
async fn tree(
    State(context): Shared,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<Tree>, Response> {
    let digest = named(path)?;
    let TreeOrder { nodes } = read_json(body, MAX_NODES * MAX_ORDER_BYTES).await?;
    if nodes.len() > MAX_NODES {
        return Err(bad(format!("at most {MAX_NODES} nodes are asked at a time")));
    }
    let nodes: Result<Vec<NamedNode>, _> = nodes.iter().map(|text| NamedNode::of(text)).collect();
    let nodes = nodes.map_err(|error| bad(error.to_string()))?;
    let ask =
        async |node: &NamedNode| match time::timeout(TREE_TIME, node.client.trace(&digest)).await {
            Ok(Ok(Some(way))) => Ok(way),
            Ok(Ok(None)) => Err("it does not keep the way of this message".to_owned()),
            Ok(Err(error)) => Err(log::in_one_line(&error)),
            Err(_elapsed) => Err(format!("it did not answer within {} s", TREE_TIME.as_secs())),
        };
    let asked = future::join_all(nodes.iter().map(ask)).await;
    let own = way(&context, &digest);
    let mut seen: Vec<Seen<'_>> = own.iter().map(|way| Seen { name: "this node", way }).collect();
    let mut missing = Vec::new();
    if own.is_none() {
        missing.push(Missing { node: "this node".to_owned(), error: NOT_KEPT.to_owned() });
    }
    for (node, answer) in nodes.iter().zip(&asked) {
        match answer {
            Ok(way) => seen.push(Seen { name: &node.name, way }),
            Err(error) => {
                missing.push(Missing { node: node.name.clone(), error: error.clone() });
            }
        }
    }
    if seen.is_empty() {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            "no node that answered keeps the way of this message",
        ));
    }
    let lines = trace_tree::tree(seen).lines().map(str::to_owned).collect();
    Ok(Json(Tree { lines, missing }))
}

/// Changes the rate of the sample, until the node stops.
async fn sample(State(context): Shared, body: Body) -> Result<Json<SampleOrder>, Response> {
    let SampleOrder { one_in } = read_json(body, MAX_ORDER_BYTES).await?;
    context.broadcaster.tracer().set_one_in(one_in);
    context.journal.note(&json!({"event": "trace_changed", "one_in": one_in}));
    Ok(Json(SampleOrder { one_in }))
}

/// Keeps the way of one message, should it come.
async fn watch(State(context): Shared, body: Body) -> Result<Json<()>, Response> {
    let WatchOrder { digest: text, wait_s } = read_json(body, MAX_ORDER_BYTES).await?;
    let (digest, wait) = (digest(&text).map_err(bad)?, Duration::from_secs(wait_s));
    if wait.is_zero() || wait > MAX_WAIT {
        return Err(bad(format!("it is waited for 1 to {} s", MAX_WAIT.as_secs())));
    }
    let wanted = context.broadcaster.tracer().want(digest, wait);
    wanted.map(Json).map_err(|error| refuse(StatusCode::CONFLICT, error.to_string()))
}
