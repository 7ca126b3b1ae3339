//! Calls of what others wrote in JavaScript, none of which can throw through the node.

use std::io;

use js_sys::{Array, Error, Function, Object, Promise, Reflect, Symbol};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// Longest text of an error that is kept, in characters. Chosen: two lines of a terminal.
const MAX_TEXT: usize = 200;

/// A property; undefined if reading it throws.
pub(crate) fn property(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).unwrap_or_default()
}

/// A property that is a function.
pub(crate) fn method(object: &JsValue, name: &str) -> Option<Function> {
    property(object, name).dyn_into().ok()
}

/// Calls a function on an object. What it throws is the error.
pub(crate) fn call(on: &JsValue, function: &Function, given: &[JsValue]) -> io::Result<JsValue> {
    let given: Array = given.iter().collect();
    Reflect::apply(function, on, &given).map_err(|thrown| failed(&thrown))
}

/// Calls a function on an object, and what it gives as a promise, which one value is too.
pub(crate) fn promised(
    on: &JsValue,
    function: &Function,
    given: &[JsValue],
) -> io::Result<JsFuture> {
    Ok(JsFuture::from(promise_of(&call(on, function, given)?)))
}

/// A promise of the host's own that settles as `value` does, or at once if that is none. `Promise.resolve` would pass
/// another's promise on, whose methods may be anything.
pub(crate) fn promise_of(value: &JsValue) -> Promise {
    Promise::new(&mut |settle, _| {
        // An error of the `then` of the value rejects the promise, and is not thrown here.
        let _ = settle.call1(&JsValue::UNDEFINED, value);
    })
}

/// Something that was thrown, as an error with its text.
pub(crate) fn failed(thrown: &JsValue) -> io::Error {
    let text = match thrown.dyn_ref::<Error>() {
        Some(error) => property(error, "message").as_string(),
        None => thrown.as_string(),
    };
    let text = text.filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| "the transport failed, and does not say why".to_owned());
    io::Error::other(text.chars().take(MAX_TEXT).collect::<String>())
}

/// An iterator of what an object gives one after the other: its asynchronous one, or itself if it is one.
#[derive(Debug)]
pub(crate) struct Pulls {
    iterator: Object,
    next: Function,
}

impl Pulls {
    /// The iterator of an object; `None` if it has none.
    pub(crate) fn of(iterable: &JsValue) -> Option<Self> {
        let begin = Reflect::get(iterable, &Symbol::async_iterator()).unwrap_or_default();
        let iterator = match begin.dyn_ref::<Function>() {
            Some(begin) => call(iterable, begin, &[]).ok()?,
            None => iterable.clone(),
        };
        let next = method(&iterator, "next")?;
        Some(Self { iterator: iterator.dyn_into().ok()?, next })
    }

    /// Asks for the next item.
    pub(crate) fn ask(&self) -> io::Result<JsFuture> {
        promised(&self.iterator, &self.next, &[])
    }

    /// The item that was asked for; `None` at the end.
    pub(crate) fn item(given: Result<JsValue, JsValue>) -> io::Result<Option<JsValue>> {
        let given = given.map_err(|thrown| failed(&thrown))?;
        if !given.is_object() {
            return Err(io::Error::other("the iterator of the transport gave no result"));
        }
        if property(&given, "done").is_truthy() {
            return Ok(None);
        }
        Ok(Some(property(&given, "value")))
    }

    /// Tells the iterator that nothing more is asked for.
    pub(crate) fn end(&self) {
        if let Some(end) = method(&self.iterator, "return") {
            // The promise of it brings nothing that anybody waits for.
            let _ = promised(&self.iterator, &end, &[]);
        }
    }
}
