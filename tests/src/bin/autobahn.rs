//! An echo peer over the frame codec that a node ships, for Autobahn's test suite; `tests/autobahn/check` runs it.
//!
//! ```text
//!   autobahn serve ADDRESS         echoes to every client until it is ended
//!   autobahn call ADDRESS          runs every case of the suite's server, and has it write its report
//! ```
//!
//! Gossip has binary messages only, so a node refuses text, which the suite is full of. This peer therefore has its own
//! assembly of messages; headers, masks, control frames and close frames are those of `net_tcp::frame`.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

use net_tcp::frame::{
    CloseEcho, Control, Data, Header, MAX_CONTROL_BYTES, MaskKey, OpCode, Part, Role, Violation,
    Within, apply_mask, close_payload, read_close, read_header, write_frame,
};
use net_tcp::websocket::request::accept_key;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The agent's name in the report.
const AGENT: &str = "tandem";
/// Longest message, in bytes. Source: `gossip::MAX_MESSAGE_BYTES`.
const MAX_MESSAGE: usize = gossip::MAX_MESSAGE_BYTES;
/// Payload of the frames of a client, in bytes, as the network's own sink has it. Source: wire facts 1.7.
const CLIENT_FRAME: usize = 4096;
/// Longest silence of the suite. Chosen: its cases take seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// The mask of a client's frames. The suite does not ask for a secret one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["serve", address] => serve(address),
        ["call", address] => call(address),
        _ => Err("write serve ADDRESS or call ADDRESS".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autobahn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str) -> Outcome<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            // A connection that breaks is a case of the suite, which judges it itself.
            let _: Outcome<()> = accept(&mut stream);
        });
    }
    Ok(())
}

fn accept(stream: &mut TcpStream) -> Outcome<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (head, early) = read_head(stream)?;
    let key = header(&head, "sec-websocket-key").ok_or("no key")?;
    let accept = accept_key(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )?;
    Echo::new(Role::Server, early).run(stream)?;
    Ok(())
}

/// Runs every case of the server at `address`.
fn call(address: &str) -> Outcome<()> {
    let count: u32 = String::from_utf8(talk(address, "/getCaseCount")?)?.trim().parse()?;
    for case in 1..=count {
        talk(address, &format!("/runCase?case={case}&agent={AGENT}"))?;
    }
    talk(address, &format!("/updateReports?agent={AGENT}"))?;
    println!("{count} cases");
    Ok(())
}

/// Dials, echoes until the end, and returns the last message.
fn talk(address: &str, path: &str) -> Outcome<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )?;
    let (head, early) = read_head(&mut stream)?;
    if header(&head, "sec-websocket-accept").as_deref() != Some(&accept_key(key.as_bytes())) {
        return Err(format!("{path}: not accepted: {head}").into());
    }
    let mut echo = Echo::new(Role::Client, early);
    match echo.run(&mut stream) {
        // The suite resets some connections.
        Ok(()) | Err(_) => Ok(echo.last),
    }
}

/// The head of a request or an answer, and what was read behind it.
fn read_head(stream: &mut TcpStream) -> Outcome<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes)?, rest));
        }
        read_more(stream, &mut bytes)?;
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(value.trim().to_owned())
}

fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            into.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}

/// One end of a connection that sends back every message.
struct Echo {
    role: Role,
    unread: Vec<u8>,
    /// The message whose last frame has not come yet.
    message: Option<Message>,
    /// The last whole message.
    last: Vec<u8>,
}

struct Message {
    kind: Data,
    bytes: Vec<u8>,
    /// Bytes that are known to be UTF-8.
    valid: usize,
}

/// The end of a connection: a close frame to send.
struct Close(Vec<u8>);

impl From<Violation> for Close {
    fn from(violation: Violation) -> Self {
        Self(violation.close_payload().to_vec())
    }
}

impl Message {
    /// Checks as much of a text as is there. `part` tells whether more may follow.
    fn check(&mut self, part: Part) -> Result<(), Close> {
        if self.kind != Data::Text {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            Err(error) if error.error_len().is_none() && part == Part::More => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(Close(close_payload(1007, "").to_vec())),
        }
        Ok(())
    }
}

impl Echo {
    fn new(role: Role, unread: Vec<u8>) -> Self {
        Self { role, unread, message: None, last: Vec::new() }
    }

    fn mask(&self) -> MaskKey {
        (self.role == Role::Client).then_some(MASK)
    }

    /// Echoes until either end closes.
    fn run(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        loop {
            match self.step(stream)? {
                Ok(()) => {}
                Err(Close(payload)) => {
                    self.write(stream, (Part::Last, OpCode::Control(Control::Close)), &payload)?;
                    return end(stream);
                }
            }
        }
    }

    /// Handles one frame, or waits for more bytes.
    fn step(&mut self, stream: &mut TcpStream) -> io::Result<Result<(), Close>> {
        let within = if self.message.is_some() { Within::Message } else { Within::Nothing };
        let header = match read_header(&self.unread, self.role, within) {
            Ok(Some(header)) => header,
            Ok(None) => return read_more(stream, &mut self.unread).map(Ok),
            Err(violation) => return Ok(Err(violation.into())),
        };
        let so_far = self.message.as_ref().map_or(0, |message| message.bytes.len());
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if so_far.saturating_add(len) > MAX_MESSAGE {
            return Ok(Err(Violation::TooBig.into()));
        }
        while self.unread.len() < header.size + len {
            read_more(stream, &mut self.unread)?;
        }
        let rest = self.unread.split_off(header.size + len);
        let mut payload = std::mem::replace(&mut self.unread, rest).split_off(header.size);
        apply_mask(&mut payload, header.mask, 0);
        match header.opcode {
            OpCode::Control(kind) => self.control(stream, kind, &payload),
            OpCode::Data(kind) => self.data(stream, (kind, &header), &payload),
        }
    }

    fn control(
        &mut self,
        stream: &mut TcpStream,
        kind: Control,
        payload: &[u8],
    ) -> io::Result<Result<(), Close>> {
        assert!(payload.len() <= MAX_CONTROL_BYTES, "the codec refuses longer ones");
        match kind {
            Control::Ping => {
                self.write(stream, (Part::Last, OpCode::Control(Control::Pong)), payload)?;
            }
            Control::Close => {
                return Ok(Err(match read_close(payload) {
                    Ok(CloseEcho(echo)) => Close(echo.to_vec()),
                    Err(violation) => violation.into(),
                }));
            }
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(Ok(()))
    }

    fn data(
        &mut self,
        stream: &mut TcpStream,
        (kind, header): (Data, &Header),
        payload: &[u8],
    ) -> io::Result<Result<(), Close>> {
        let mut message =
            self.message.take().unwrap_or(Message { kind, bytes: Vec::new(), valid: 0 });
        message.bytes.extend_from_slice(payload);
        if let Err(close) = message.check(header.part) {
            return Ok(Err(close));
        }
        if header.part == Part::More {
            self.message = Some(message);
            return Ok(Ok(()));
        }
        self.send(stream, message.kind, &message.bytes)?;
        self.last = message.bytes;
        Ok(Ok(()))
    }

    /// Sends a message: whole as a server, in pieces as a client.
    fn send(&self, stream: &mut TcpStream, kind: Data, message: &[u8]) -> io::Result<()> {
        let most = if self.role == Role::Client { CLIENT_FRAME } else { usize::MAX };
        let (mut kind, mut rest) = (kind, message);
        loop {
            let (piece, after) = rest.split_at(rest.len().min(most));
            let part = if after.is_empty() { Part::Last } else { Part::More };
            self.write(stream, (part, OpCode::Data(kind)), piece)?;
            if after.is_empty() {
                return Ok(());
            }
            (kind, rest) = (Data::Continue, after);
        }
    }

    fn write(
        &self,
        stream: &mut TcpStream,
        kind: (Part, OpCode),
        payload: &[u8],
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, self.mask(), kind, payload);
        stream.write_all(&bytes)
    }
}

/// Ends this end's half, and waits for the other's.
fn end(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    while stream.read(&mut [0; 4096])? > 0 {}
    Ok(())
}
