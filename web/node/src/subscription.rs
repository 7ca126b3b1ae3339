//! One loop of JavaScript over the messages of some tags.
//!
//! # Invariants
//!
//! * The node asks its peers for the tags as long as the loop goes on.
//! * The task that hands messages over never waits for JavaScript, whose queue is bounded and drops the oldest.

use broadcaster::{Asked, Broadcaster};
use gossip::Tag;
use js_sys::{Function, Uint8Array};
use runtime::TaskSet;
use send_wrapper::SendWrapper;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::{CancellationToken, DropGuard};
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use crate::{code::Code, shown};

/// A running subscription; it ends when it is freed.
#[wasm_bindgen]
#[derive(Debug)]
pub struct RawSubscription {
    _asked: Asked,
    _ends: DropGuard,
}

/// Subscribes to messages of these tags, all tags if there are none. `deliver` gets the tag, the body, the number of the
/// sender's link and the sender's identity; and a number of messages alone that were lost before.
pub(crate) fn subscribe(
    broadcaster: &Broadcaster,
    tasks: &TaskSet,
    tags: Vec<Tag>,
    deliver: Function,
) -> Result<RawSubscription, JsValue> {
    let asked = broadcaster.ask_for(&tags).map_err(|error| Code::Tag.because(error))?;
    let mut messages = broadcaster.observe();
    let deliver = SendWrapper::new(deliver);
    let ends = CancellationToken::new();
    let ended = ends.clone();
    tasks.spawn("subscription", |cancel| async move {
        loop {
            let message = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = ended.cancelled() => return,
                message = messages.recv() => message,
            };
            // A queue of JavaScript takes everything, so nothing is thrown here.
            let _ = match message {
                Ok(message) if tags.is_empty() || tags.contains(&message.tag) => {
                    let body = Uint8Array::from(&*message.body);
                    let [link, identity] = shown::sender(&message);
                    deliver.call4(
                        &JsValue::NULL,
                        &message.tag.to_string().into(),
                        &body,
                        &link,
                        &identity,
                    )
                }
                Ok(_) => continue,
                Err(RecvError::Lagged(lost)) => deliver.call1(&JsValue::NULL, &shown::number(lost)),
                Err(RecvError::Closed) => return,
            };
        }
    });
    Ok(RawSubscription { _asked: asked, _ends: ends.drop_guard() })
}
