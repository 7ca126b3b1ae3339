//! A listener of JavaScript.
//!
//! # Invariants
//!
//! * At most one connection is accepted in a millisecond, so that a listener that always has one leaves the host its turns.
//! * After something that is no connection, the listener ends.

use std::{io, time::Duration};

use futures::{StreamExt, stream};
use js_sys::{Array, Object};
use net_p2p::{Accepted, ByteListener, Multiaddr};
use runtime::time;
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue};

use super::{
    call::{Pulls, property},
    close,
    connection::Connection,
};

/// Pause after a connection. Chosen: the shortest that the host knows.
const PAUSE: Duration = Duration::from_millis(1);

/// Most addresses of a listener. Chosen: more than a machine has interfaces.
const MAX_ADDRESSES: u32 = 64;

/// A listener, which is closed when it is dropped.
struct Listening {
    object: Object,
    pulls: Pulls,
    is_over: bool,
}

impl Drop for Listening {
    fn drop(&mut self) {
        close(&self.object);
        self.pulls.end();
    }
}

/// Takes an object with `addresses` and `accepted`.
pub(super) fn of(object: Object) -> io::Result<ByteListener> {
    let Some(pulls) = Pulls::of(&property(&object, "accepted")) else {
        close(&object);
        return Err(io::Error::other("a listener of the transport has no iterator accepted"));
    };
    let listening = Listening { object, pulls, is_over: false };
    let told = property(&listening.object, "addresses").dyn_into::<Array>().unwrap_or_default();
    let addresses = (0..told.length().min(MAX_ADDRESSES)).map(|at| address(&told.get(at)));
    let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
    let accepted = stream::unfold(listening, |mut listening| async move {
        if listening.is_over {
            return None;
        }
        match accept(&listening.pulls).await.transpose()? {
            Ok(accepted) => {
                time::sleep(PAUSE).await;
                Some((Ok(accepted), listening))
            }
            Err(error) => {
                listening.is_over = true;
                Some((Err(error), listening))
            }
        }
    });
    Ok(ByteListener { addresses, accepted: SendWrapper::new(accepted).boxed() })
}

/// Waits for a connection; `None` at the end.
async fn accept(pulls: &Pulls) -> io::Result<Option<Accepted>> {
    let Some(accepted) = Pulls::item(pulls.ask()?.await)? else { return Ok(None) };
    let connection = property(&accepted, "connection").dyn_into::<Object>();
    let connection = connection
        .map_err(|_| io::Error::other("the listener of the transport gave no connection"))?;
    let stream = Box::new(Connection::new(connection)?);
    let local = address(&property(&accepted, "local"))?;
    let from = address(&property(&accepted, "remote"))?;
    Ok(Some(Accepted { stream, local, from }))
}

/// Reads a multiaddr.
fn address(given: &JsValue) -> io::Result<Multiaddr> {
    let text = given.as_string().unwrap_or_default();
    text.parse().map_err(|_| io::Error::other("the transport gave an address that is no multiaddr"))
}
