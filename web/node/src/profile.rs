//! A profile of one's own, as JavaScript describes it.
//!
//! # Invariants
//!
//! * A profile is built once for each description: it lives as long as the program.

use std::cell::RefCell;

use gossip::{Compression, Forwarding, Lane, NetworkProfile, ProfileBuilder, Route, Tag, TagRule};
use wasm_bindgen::prelude::*;

use crate::code::Code;

#[wasm_bindgen]
extern "C" {
    /// A profile, made whole by `tandem.js`.
    #[derive(Debug)]
    pub type RawProfile;

    #[wasm_bindgen(method, getter)]
    fn name(this: &RawProfile) -> String;
    /// Bytes of the largest request; undefined for the usual bound.
    #[wasm_bindgen(method, getter = maxRequestBytes)]
    fn max_request_bytes(this: &RawProfile) -> Option<f64>;
    #[wasm_bindgen(method, getter)]
    fn tags(this: &RawProfile) -> Vec<RawRule>;

    /// The rule of a tag, made whole by `tandem.js`.
    #[derive(Debug)]
    pub type RawRule;

    #[wasm_bindgen(method, getter)]
    fn tag(this: &RawRule) -> String;
    #[wasm_bindgen(method, getter)]
    fn lane(this: &RawRule) -> String;
    #[wasm_bindgen(method, getter = maxBytes)]
    fn max_bytes(this: &RawRule) -> f64;
    /// The topic on which it is published; undefined for none.
    #[wasm_bindgen(method, getter)]
    fn topic(this: &RawRule) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    fn compressed(this: &RawRule) -> bool;
    #[wasm_bindgen(method, getter)]
    fn forwarded(this: &RawRule) -> bool;
    #[wasm_bindgen(method, getter = sentByDefault)]
    fn sent_by_default(this: &RawRule) -> bool;
}

/// A description, to compare it with.
#[derive(Debug, PartialEq)]
struct Described {
    name: String,
    max_request: Option<usize>,
    rules: Vec<(TagRule, Option<String>)>,
}

thread_local! {
    static BUILT: RefCell<Vec<(Described, &'static NetworkProfile)>> = const { RefCell::new(Vec::new()) };
}

/// Builds a profile, or finds it.
pub(crate) fn read(raw: &RawProfile) -> Result<&'static NetworkProfile, JsValue> {
    let rules = raw.tags().iter().map(read_rule).collect::<Result<_, _>>()?;
    let max_request = raw.max_request_bytes().map(|bytes| read_bytes("maxRequestBytes", bytes));
    let described = Described { name: raw.name(), max_request: max_request.transpose()?, rules };
    let known = BUILT.with_borrow(|built| {
        built.iter().find(|(known, _)| *known == described).map(|(_, profile)| *profile)
    });
    if let Some(profile) = known {
        return Ok(profile);
    }
    let mut builder = ProfileBuilder::new(&*described.name);
    if let Some(bytes) = described.max_request {
        builder = builder.max_request(bytes);
    }
    for (rule, topic) in &described.rules {
        let route = match topic {
            // As long as the profile that names it.
            Some(topic) => Route::Topic(String::leak(topic.clone())),
            None => Route::Streams,
        };
        builder = builder.tag(TagRule { route, ..*rule });
    }
    let profile = builder.build().map_err(|error| Code::Profile.because(error))?;
    BUILT.with_borrow_mut(|built| built.push((described, profile)));
    Ok(profile)
}

/// The rule of a tag, and its topic.
fn read_rule(raw: &RawRule) -> Result<(TagRule, Option<String>), JsValue> {
    let text = raw.tag();
    let tag: Tag = text.parse().map_err(|error| Code::Profile.because(error))?;
    let lane = Lane::ALL.into_iter().find(|lane| lane.label() == raw.lane());
    let lane = lane.ok_or_else(|| {
        Code::Profile.because(format!("the lane of {tag} is \"priority\" or \"bulk\""))
    })?;
    let bytes = read_bytes(&format!("maxBytes of {tag}"), raw.max_bytes())?;
    let rule = TagRule {
        compression: if raw.compressed() { Compression::Zstd } else { Compression::None },
        forwarding: if raw.forwarded() { Forwarding::Gossip } else { Forwarding::HopLocal },
        sent_by_default: raw.sent_by_default(),
        ..TagRule::new(tag, lane, bytes)
    };
    Ok((rule, raw.topic()))
}

/// A number of bytes; the builder bounds it from above.
fn read_bytes(name: &str, bytes: f64) -> Result<usize, JsValue> {
    if bytes < 1.0 || bytes.fract() != 0.0 || !bytes.is_finite() {
        return Err(Code::Profile.because(format!("{name} is a number of bytes, at least 1")));
    }
    Ok(bytes as usize)
}
