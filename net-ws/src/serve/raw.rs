//! The answer to sockets that are not worth an HTTP library: a few bytes, then the end.

use std::time::Duration;

use runtime::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

use super::Place;

/// Longest wait for a client that is being refused. Source: wire facts 1.6, row 2.
const PATIENCE: Duration = Duration::from_millis(500);

/// Deals with one connection too many of its host: the answer goes out only if the client ends its
/// half within [`PATIENCE`] of being accepted. Source: wire facts 1.6, row 2.
pub(super) async fn too_many(mut stream: Stream, place: Place, accepted: Instant) {
    let window = place.context.door.limits().rate.window;
    let deadline = accepted + PATIENCE;
    if time::timeout_at(deadline, discard(&mut stream)).await.is_err() {
        return;
    }
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Connection: close\r\nRetry-After: {}\r\n\r\n",
        window.as_secs().max(1)
    );
    // The place is given back when this returns, whether or not the client took the answer.
    let _ = time::timeout_at(deadline, send(&mut stream, answer.as_bytes())).await;
}

async fn send(stream: &mut Stream, answer: &[u8]) {
    if stream.write_all(answer).await.is_ok() {
        // A client that is gone needs no end of stream.
        let _ = stream.shutdown().await;
    }
}

async fn discard(stream: &mut Stream) {
    let mut discarded = [0; 2048];
    while stream.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
}
