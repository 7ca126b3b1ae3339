//! Handlers and validators that are functions of JavaScript.
//!
//! # Invariants
//!
//! * A function that throws, or whose promise is rejected, loses its message and nothing else.

use gossip::{ApplicationReason, BoxFuture, Handler, Inbound, Validation, Validator, Verdict};
use js_sys::{Array, Function, Promise, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::{shown, topics};

/// A handler: gets the tag, the body, the sender's link and identity, and returns a promise of the verdict.
#[derive(Debug)]
pub(crate) struct JsHandler(pub(crate) SendWrapper<Function>);

/// A validator: gets the same, and returns the judgement at once.
#[derive(Debug)]
pub(crate) struct JsValidator(pub(crate) SendWrapper<Function>);

fn call(function: &Function, message: &Inbound) -> Result<JsValue, JsValue> {
    let [link, identity] = shown::sender(message);
    let body = Uint8Array::from(&*message.body);
    function.call4(&JsValue::NULL, &message.tag.to_string().into(), &body, &link, &identity)
}

impl Handler for JsHandler {
    fn handle(&self, message: Inbound) -> BoxFuture<'_, Verdict> {
        let called = call(&self.0, &message);
        Box::pin(SendWrapper::new(async move {
            let Ok(promise) = called.map(|value| Promise::resolve(&value)) else {
                return Verdict::Ignore;
            };
            JsFuture::from(promise).await.map_or(Verdict::Ignore, |value| verdict(&value))
        }))
    }
}

/// A word, or the topics of an answer. `tandem.js` makes it, and gives nothing else.
fn verdict(value: &JsValue) -> Verdict {
    if let Some(pairs) = value.dyn_ref::<Array>() {
        return topics::read(pairs).map_or(Verdict::Ignore, Verdict::Respond);
    }
    match value.as_string().as_deref() {
        Some("relay") => Verdict::Relay,
        Some("disconnect") => Verdict::Disconnect(ApplicationReason::Requested),
        Some("bad") => Verdict::Disconnect(ApplicationReason::BadData),
        _ => Verdict::Ignore,
    }
}

impl Validator for JsValidator {
    fn validate(&self, message: &Inbound) -> Validation {
        match call(&self.0, message).ok().and_then(|value| value.as_string()).as_deref() {
            Some("accept") => Validation::Accept,
            Some("reject") => Validation::Reject,
            _ => Validation::Ignore,
        }
    }
}
