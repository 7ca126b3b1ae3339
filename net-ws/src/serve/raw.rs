//! Answers to sockets that are not worth an HTTP library: a few bytes, then the end.
//!
//! # Invariants
//!
//! * None of these takes longer than [`PATIENCE`] for writing and [`PATIENCE`] for reading.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{self, Instant},
};

use super::Place;

/// How long to wait for a client that is being refused. Source: wire facts 1.6, rows 2 and 3.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a head was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    TooLong,
    Malformed,
    NoHost,
}

/// Refuses a request head, and waits a moment so that the answer is not taken back by a reset.
pub(super) async fn refuse(mut stream: TcpStream, refusal: Refusal) {
    let reason = match refusal {
        Refusal::TooLong => "431 Request Header Fields Too Large",
        Refusal::Malformed => "400 Bad Request",
        Refusal::NoHost => "400 Bad Request: missing required Host header",
    };
    let answer = format!(
        "HTTP/1.1 {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{reason}"
    );
    // Whoever does not take the answer does without.
    let _ = time::timeout(PATIENCE, send(&mut stream, answer.as_bytes())).await;
    let _ = time::timeout(PATIENCE, discard(&mut stream)).await;
}

/// Deals with one connection too many of its host: the answer goes out only if the client ends its
/// half within [`PATIENCE`] of being accepted. Source: wire facts 1.6, row 2.
pub(super) async fn too_many(mut stream: TcpStream, place: Place, accepted: Instant) {
    let window = place.context.rate_window;
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

async fn send(stream: &mut TcpStream, answer: &[u8]) {
    if stream.write_all(answer).await.is_ok() {
        // A client that is gone needs no end of stream.
        let _ = stream.shutdown().await;
    }
}

async fn discard(stream: &mut TcpStream) {
    let mut discarded = [0; 2048];
    while stream.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
}
