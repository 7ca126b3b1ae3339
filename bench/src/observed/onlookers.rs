//! A collector that reads the metrics, and a dashboard as its page asks the node, each once a second.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use crate::error::Failure;

/// Between two looks. Source: the page asks once a second; a collector that does so is a busy one.
const EVERY: Duration = Duration::from_secs(1);

/// The paths that the page of the dashboard asks for. Source: `web/dashboard/dashboard.js`.
const PATHS: [&str; 8] = [
    "/v1/node",
    "/v1/peers?limit=1000",
    "/metrics",
    "/v1/http",
    "/v1/dht",
    "/v1/topics",
    "/v1/latency",
    "/v1/traces",
];

/// The events that the page follows.
const EVENTS: &str = "/v1/events/stream";

/// Starts both; `looks` counts the answers.
pub(super) fn spawn(
    tasks: &TaskSet,
    (metrics, admin, token): (&str, &str, &str),
    looks: &Arc<AtomicU64>,
) -> Result<(), Failure> {
    let (metrics, admin) = (socket(metrics)?, socket(admin)?);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let counted = Arc::clone(looks);
    tasks.spawn("collector", move |_| async move {
        every_second(metrics, &["/metrics"], "", &counted).await
    });
    let (counted, header) = (Arc::clone(looks), bearer.clone());
    tasks.spawn("dashboard", move |_| async move {
        every_second(admin, &PATHS, &header, &counted).await
    });
    tasks.spawn("events", move |_| async move {
        // The stream lasts as long as the node.
        let _ = ask(admin, EVENTS, &bearer).await;
    });
    Ok(())
}

fn socket(url: &str) -> Result<SocketAddr, Failure> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    Ok(rest.split('/').next().unwrap_or_default().parse()?)
}

async fn every_second(at: SocketAddr, paths: &[&str], headers: &str, looks: &AtomicU64) {
    let mut ticks = time::interval(EVERY);
    loop {
        ticks.tick().await;
        for path in paths {
            if ask(at, path, headers).await.is_ok() {
                looks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Asks for a path, and reads the answer to its end.
async fn ask(at: SocketAddr, path: &str, headers: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(at).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut head) = (vec![0; 64 * 1024], Vec::new());
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read if head.len() < 16 => head.extend(&buffer[..read.min(16)]),
            _ => {}
        }
    }
    if head.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err("no answer".into()) }
}
