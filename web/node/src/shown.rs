//! Peers as plain objects of JavaScript.

use gossip::{Inbound, PeerInfo};
use http::{HeaderMap, HeaderName, HeaderValue};
use js_sys::{Array, Object, Reflect};
use wasm_bindgen::JsValue;

/// An object with these properties.
pub(crate) fn object<const N: usize>(fields: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        // A new object takes any property.
        let _ = Reflect::set(&object, &name.into(), &value);
    }
    object.into()
}

/// A peer, as `Peer` in `tandem.d.ts`.
pub(crate) fn peer(peer: &PeerInfo) -> JsValue {
    let text = |text: String| JsValue::from(text);
    let millis = |time: std::time::Duration| JsValue::from(time.as_secs_f64() * 1000.0);
    object([
        ("id", number(peer.id.0)),
        ("peerId", peer.identity.map_or(JsValue::NULL, |identity| text(identity.to_string()))),
        ("transport", peer.transport.label().into()),
        ("direction", peer.direction.label().into()),
        ("address", text(peer.address.clone())),
        (
            "http",
            peer.http_address.as_ref().map_or(JsValue::NULL, |address| text(address.to_string())),
        ),
        ("queuedBytes", number(peer.queued_bytes as u64)),
        ("rttMs", peer.rtt.map_or(JsValue::NULL, millis)),
    ])
}

/// The sender of a message: the number of its link and its identity, each null if there is none.
pub(crate) fn sender(message: &Inbound) -> [JsValue; 2] {
    [
        message.from.map_or(JsValue::NULL, |link| number(link.0)),
        message.identity.map_or(JsValue::NULL, |identity| identity.to_string().into()),
    ]
}

/// Headers as pairs of texts of bytes, which `Headers` takes.
pub(crate) fn headers(headers: &HeaderMap) -> Array {
    let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value: String = text(value);
        JsValue::from(Array::of2(&name.as_str().into(), &value.into()))
    };
    headers.iter().map(pair).collect()
}

/// A count. JavaScript's numbers are exact up to 2^53, which no count here reaches.
pub(crate) fn number(count: u64) -> JsValue {
    JsValue::from(count as f64)
}
