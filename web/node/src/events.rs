//! The events of peers, handed to JavaScript as they come.

use broadcaster::PeerEvent;
use js_sys::Function;
use send_wrapper::SendWrapper;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use wasm_bindgen::JsValue;

use crate::shown;

/// Calls `tell` with the kind, the peer and the reason of each event, until the node closes.
pub(crate) async fn run(
    mut events: Receiver<PeerEvent>,
    tell: SendWrapper<Function>,
    cancel: CancellationToken,
) {
    loop {
        let Some(event) = cancel.run_until_cancelled(events.recv()).await else { return };
        let event = match event {
            Ok(event) => event,
            // The listener looks at the peers, which are as they are.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return cancel.cancelled().await,
        };
        let peer = shown::peer(event.peer());
        let (kind, reason) = match event {
            PeerEvent::Connected(_) => ("connected", JsValue::NULL),
            PeerEvent::Identified(_) => ("identified", JsValue::NULL),
            PeerEvent::Disconnected(_, reason) => ("disconnected", reason.label().into()),
            _ => continue,
        };
        // A listener that throws is its own affair: `tandem.js` reports it.
        let _ = tell.call3(&JsValue::NULL, &kind.into(), &peer, &reason);
    }
}
