//! The fuzz targets: each takes any bytes, and panics when a promise about them does not hold.
//!
//! ```text
//!   cargo fuzz run NAME ─▶ fuzz_targets/NAME.rs ─┐
//!   cargo test ─▶ every file of corpus/NAME ─────┴─▶ target
//! ```

#![forbid(unsafe_code)]

mod assembly;
mod found;
mod http;
mod names;
mod proxies;
mod votes;
mod wire;

/// A fuzz target: its name and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, sorted by name. Each has a folder in `corpus` and a file in `fuzz_targets`.
pub const TARGETS: &[Target] = &[
    ("address", names::address),
    ("dns_answer", found::dns_answer),
    ("features", wire::features),
    ("forwarded", proxies::forwarded),
    ("gossip_stream", assembly::gossip_stream),
    ("hello", wire::hello),
    ("hello_query", wire::hello_query),
    ("http_chunks", http::chunks),
    ("http_engines", http::engines),
    ("http_head", http::head),
    ("identity_exchange", wire::identity_exchange),
    ("interest", wire::interest),
    ("key_file", names::key_file),
    ("metainfo", wire::metainfo),
    ("msgpack", wire::msgpack),
    ("peer_id", names::peer_id),
    ("peer_store", found::peer_store),
    ("priority", wire::priority),
    ("proposal", wire::proposal),
    ("proxy_preamble", proxies::preamble),
    ("request", wire::request),
    ("topics", wire::topics),
    ("varint", wire::varint),
    ("vote", votes::vote),
    ("vote_stream", votes::vote_stream),
    ("websocket", assembly::websocket),
];

/// Runs the target of a name.
///
/// # Panics
///
/// If there is no such target, or a promise does not hold.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(each, _)| *each == name);
    let (_, target) = found.expect("a target has this name");
    target(data);
}
