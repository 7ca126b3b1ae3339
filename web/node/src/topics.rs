//! The topics of requests and answers, as arrays of pairs: a key and its data, both bytes.

use gossip::wire::topics::Topics;
use js_sys::{Array, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};

use crate::code::Code;

/// Reads topics.
pub(crate) fn read(pairs: &Array) -> Result<Topics, JsValue> {
    let bytes = |value: JsValue| {
        let bytes: Result<Uint8Array, _> = value.dyn_into();
        bytes.map(|bytes| bytes.to_vec()).map_err(|_| Code::Topics.because("a topic is bytes"))
    };
    let mut topics = Topics::default();
    for pair in pairs.iter() {
        let pair = Array::from(&pair);
        topics.push(bytes(pair.get(0))?, bytes(pair.get(1))?);
    }
    topics.check().map_err(|error| Code::Topics.because(error))?;
    Ok(topics)
}

/// Writes topics.
pub(crate) fn write(topics: &Topics) -> Array {
    let pairs = topics.iter().map(|(key, data)| {
        let bytes = |bytes: &[u8]| JsValue::from(Uint8Array::from(bytes));
        JsValue::from(Array::of2(&bytes(key), &bytes(data)))
    });
    pairs.collect()
}
