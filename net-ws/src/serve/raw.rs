//! The answer to sockets beyond the door's rate: a few bytes written without an HTTP library, then the end.

use std::time::Duration;

use runtime::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{self, Instant},
};

use super::Place;

/// Longest wait for the end of the client's half. Source: wire facts 1.6, row 2.
const PATIENCE: Duration = Duration::from_millis(500);

/// Refuses a connection of a host that connects too often. The answer is sent only if the client ends its
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
    // A failed or late answer changes nothing: the place is given back when this returns.
    let _ = time::timeout_at(deadline, send(&mut stream, answer.as_bytes())).await;
}

async fn send(stream: &mut Stream, answer: &[u8]) {
    if stream.write_all(answer).await.is_ok() {
        // Shutdown fails only if the client has closed already.
        let _ = stream.shutdown().await;
    }
}

async fn discard(stream: &mut Stream) {
    let mut discarded = [0; 2048];
    while stream.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
}
