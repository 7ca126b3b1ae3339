//! Answers to sockets that get no HTTP: a few bytes written without a library, then the end.

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

/// Longest time in which a client that gets no HTTP may send what it has begun. Chosen: a request that was on its way is
/// read, so that the answer is not lost in a reset.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Refuses a connection without TLS where clients need a certificate.
pub(super) async fn wants_tls(mut stream: Stream, deadline: Instant) {
    let answer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 59\r\nConnection: close\r\n\r\n\
         this port takes TLS connections with a client certificate\r\n";
    let deadline = deadline.min(Instant::now() + LAST_WORDS);
    let refuse = async {
        send(&mut stream, answer.as_bytes()).await;
        discard(&mut stream).await;
    };
    // A client that does not read its answer, or goes on sending, gets a reset.
    let _ = time::timeout_at(deadline, refuse).await;
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
