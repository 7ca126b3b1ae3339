//! A peer that writes raw bytes and parses the answers by hand.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// The result of one read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// More bytes arrived.
    Bytes,
    /// The connection was closed or reset.
    Over,
    /// The connection is open, and nothing arrived in time.
    Open,
}

/// A socket, and the bytes that were read but not used yet.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) got: Vec<u8>,
}

/// The head of an HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status line.
    pub(crate) status: String,
    /// Headers by lower-case name, with the values of repeated lines in order.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// Lower-case header names in the order they arrived.
    pub(crate) order: Vec<String>,
}

/// One WebSocket frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) masked: bool,
    /// The payload, unmasked.
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Connects from the loopback address `from`; all of 127.0.0.0/8 works.
    pub(crate) async fn connect_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, got: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The peer may have closed already; the test reads that from the other direction.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads once, waiting for at most `patience`.
    pub(crate) async fn read(&mut self, patience: Duration) -> End {
        let mut chunk = vec![0; 65_536];
        match timeout(patience, self.stream.read(&mut chunk)).await {
            Err(_) => End::Open,
            Ok(Ok(0) | Err(_)) => End::Over,
            Ok(Ok(count)) => {
                self.got.extend_from_slice(&chunk[..count]);
                End::Bytes
            }
        }
    }

    /// Reads until `take` finds an item at the start of the buffer, and removes it.
    async fn next<T>(&mut self, take: impl Fn(&[u8]) -> Option<(T, usize)>) -> Option<T> {
        loop {
            if let Some((value, len)) = take(&self.got) {
                self.got.drain(..len);
                return Some(value);
            }
            if self.read(super::PATIENCE).await != End::Bytes {
                return None;
            }
        }
    }

    /// Reads the head of the next answer; `None` if the connection ends first.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.next(|got| {
            let end = got.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            Some((parse_head(&String::from_utf8_lossy(&got[..end])), end))
        })
        .await
    }

    pub(crate) async fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        self.next(|got| Some((got.get(..len)?.to_vec(), len))).await
    }

    /// Reads the next frame; `None` if the connection ends first.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        self.next(parse_frame).await
    }

    /// Reads every frame up to the end of the connection.
    pub(crate) async fn frames(&mut self) -> (Vec<Frame>, End) {
        self.more_frames(super::PATIENCE).await
    }

    /// Reads frames, and then checks that the connection stays open; returns how the watch ended.
    pub(crate) async fn frames_of_open(
        &mut self,
        count: usize,
        watch: Duration,
    ) -> (Vec<Frame>, End) {
        let mut frames = Vec::new();
        while frames.len() < count {
            let Some(frame) = self.frame().await else { return (frames, End::Over) };
            frames.push(frame);
        }
        let (more, end) = self.more_frames(watch).await;
        frames.extend(more);
        (frames, end)
    }

    async fn more_frames(&mut self, patience: Duration) -> (Vec<Frame>, End) {
        let mut frames = Vec::new();
        loop {
            while let Some((frame, len)) = parse_frame(&self.got) {
                self.got.drain(..len);
                frames.push(frame);
            }
            match self.read(patience).await {
                End::Bytes => {}
                end => return (frames, end),
            }
        }
    }
}

pub(crate) fn parse_head(head: &str) -> Answer {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let (mut headers, mut order) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        order.push(name.to_lowercase());
        headers.entry(name.to_lowercase()).or_default().push(value.trim().to_owned());
    }
    Answer { status, headers, order }
}

fn parse_frame(got: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*got.first()?, *got.get(1)?);
    let masked = second & 0x80 != 0;
    let (len, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(got.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(got.get(2..10)?.try_into().unwrap()), 10),
        len => (u64::from(len), 2),
    };
    let mut key = [0; 4];
    if masked {
        key.copy_from_slice(got.get(at..at + 4)?);
        at += 4;
    }
    let end = at + usize::try_from(len).unwrap();
    let payload = got.get(at..end)?.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect();
    Some((Frame { first, masked, payload }, end))
}

/// Encodes a frame as a client sends it: masked.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
    out
}

/// A request for gossip as the recorded clients send it.
pub(crate) fn gossip_request(prefix: &str, extra: &str) -> String {
    format!(
        "GET /v1/test-v1/gossip HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{prefix}Noderandom: //////////////==\r\n\
         {prefix}Version: 2.2\r\n{prefix}Accept-Version: 2.2\r\n{extra}\r\n"
    )
}

/// Connects a client and upgrades it.
pub(crate) async fn upgraded(address: SocketAddr) -> Raw {
    upgrade(Raw::connect(address).await).await
}

/// Connects a client from the loopback address `from` and upgrades it.
pub(crate) async fn upgraded_from(from: Ipv4Addr, address: SocketAddr) -> Raw {
    upgrade(Raw::connect_from(from, address).await).await
}

async fn upgrade(mut raw: Raw) -> Raw {
    raw.send(gossip_request("X-Algorand-", "").as_bytes()).await;
    let answer = raw.answer().await.unwrap();
    assert!(answer.status.starts_with("HTTP/1.1 101 "), "{answer:?}");
    raw
}
