//! The PROXY protocol, versions 1 and 2: the bytes with which a proxy tells whose connection it passes on.
//!
//! # Invariants
//!
//! * No byte behind the preamble is asked for, so nothing of the connection proper is lost.
//! * A preamble has at most [`MAX_BYTES`], whatever it announces.
//! * Both versions are read strictly: a preamble is exactly of one form, or it is refused.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The bytes that version 2 begins with. Source: PROXY protocol, section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The word that version 1 begins with. Source: PROXY protocol, section 2.1.
const WORD: &[u8] = b"PROXY ";

/// Longest line of version 1, in bytes, with its CRLF. Source: PROXY protocol, section 2.1.
const MAX_LINE_BYTES: usize = 107;

/// Shortest line of version 1: `PROXY UNKNOWN` and CRLF.
const MIN_LINE_BYTES: usize = 15;

/// Length of the fixed part of version 2, in bytes. Source: PROXY protocol, section 2.2.
const FIXED_BYTES: usize = 16;

/// Longest preamble, in bytes. Chosen: seven times what the protocol asks every receiver to take, for proxies that
/// add names of certificates.
pub(crate) const MAX_BYTES: usize = 4 * 1024;

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The proxy itself, such as for a health check; or one whose address is of a kind that says nothing here.
    Proxy,
    /// The client at this address.
    At(SocketAddr),
}

/// The result of looking at the bytes that were read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// At least so many more bytes belong to the preamble.
    Needs(usize),
    /// The preamble is complete; it is as long as the bytes that were read.
    Done(Client),
}

/// The reason why bytes are no preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PreambleError {
    /// The bytes are of neither version.
    #[error("it begins with neither version of the PROXY protocol")]
    Unknown,
    /// The preamble breaks a rule of its version.
    #[error("its PROXY preamble is malformed")]
    Malformed,
    /// The preamble is, or says that it is, longer than [`MAX_BYTES`].
    #[error("its PROXY preamble is longer than 4,096 bytes")]
    TooLong,
}

/// Looks at the first bytes of a connection, which have to be read in the steps that this asks for.
///
/// # Errors
///
/// [`PreambleError`] as soon as the bytes cannot be the start of a preamble.
pub(crate) fn look(bytes: &[u8]) -> Result<Step, PreambleError> {
    if bytes.is_empty() {
        // Both versions have so many; the first byte tells them apart.
        return Ok(Step::Needs(SIGNATURE.len()));
    }
    let common = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    if common(SIGNATURE) {
        version_2(bytes)
    } else if common(WORD) {
        version_1(bytes)
    } else {
        Err(PreambleError::Unknown)
    }
}

fn version_1(bytes: &[u8]) -> Result<Step, PreambleError> {
    if bytes.len() < MIN_LINE_BYTES {
        return Ok(Step::Needs(MIN_LINE_BYTES - bytes.len()));
    }
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        if bytes.contains(&b'\n') || bytes.len() >= MAX_LINE_BYTES {
            return Err(PreambleError::Malformed);
        }
        return Ok(Step::Needs(if bytes.ends_with(b"\r") { 1 } else { 2 }));
    };
    let line = std::str::from_utf8(line).map_err(|_| PreambleError::Malformed)?;
    if bytes.len() > MAX_LINE_BYTES || line.contains(['\r', '\n']) {
        return Err(PreambleError::Malformed);
    }
    let client = match line.strip_prefix("PROXY ").unwrap_or_default().split_once(' ') {
        Some(("TCP4", rest)) => addresses::<Ipv4Addr>(rest),
        Some(("TCP6", rest)) => addresses::<Ipv6Addr>(rest),
        // The rest of the line is to be ignored. Source: PROXY protocol, section 2.1.
        Some(("UNKNOWN", _)) => Some(Client::Proxy),
        None if line == "PROXY UNKNOWN" => Some(Client::Proxy),
        _ => None,
    };
    client.map(Step::Done).ok_or(PreambleError::Malformed)
}

/// Reads `SOURCE DESTINATION PORT PORT`.
fn addresses<Ip: FromStr + Into<IpAddr>>(text: &str) -> Option<Client> {
    let mut parts = text.split(' ');
    let mut ip = || parts.next()?.parse::<Ip>().ok();
    let (source, _destination) = (ip()?, ip()?);
    let mut port = || port(parts.next()?);
    let (source_port, _destination_port) = (port()?, port()?);
    parts.next().is_none().then(|| Client::At(SocketAddr::new(source.into(), source_port)))
}

/// A port in digits, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_number && is_plain)
}

fn version_2(bytes: &[u8]) -> Result<Step, PreambleError> {
    let Some((&[.., version, family, high, low], rest)) = bytes.split_first_chunk::<FIXED_BYTES>()
    else {
        return Ok(Step::Needs(FIXED_BYTES - bytes.len()));
    };
    if version >> 4 != 2 || family >> 4 > 3 || family & 0xf > 2 {
        return Err(PreambleError::Malformed);
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + len > MAX_BYTES {
        return Err(PreambleError::TooLong);
    }
    match (version & 0xf, family) {
        (0, _) => done(Client::Proxy, rest, len),
        (1, 0x11) => match rest.first_chunk::<12>() {
            Some(&[a, b, c, d, _, _, _, _, high, low, _, _]) => {
                let ip = Ipv4Addr::new(a, b, c, d);
                done(Client::At((ip, u16::from_be_bytes([high, low])).into()), rest, len)
            }
            None => incomplete(rest, len, 12),
        },
        (1, 0x21) => match rest.split_first_chunk::<16>() {
            Some((ip, [.., _, _])) if rest.len() >= 36 => {
                let port = [32, 33].map(|at| rest.get(at).copied().unwrap_or(0));
                let ip = Ipv6Addr::from(*ip);
                done(Client::At((ip, u16::from_be_bytes(port)).into()), rest, len)
            }
            _ => incomplete(rest, len, 36),
        },
        // Unspecified, or a socket of the proxy's machine. Datagrams do not come over TCP.
        (1, 0x00 | 0x31) => done(Client::Proxy, rest, len),
        _ => Err(PreambleError::Malformed),
    }
}

/// The client, once all announced bytes were read.
fn done(client: Client, rest: &[u8], len: usize) -> Result<Step, PreambleError> {
    match len.checked_sub(rest.len()) {
        Some(0) => Ok(Step::Done(client)),
        Some(missing) => Ok(Step::Needs(missing)),
        None => Err(PreambleError::Malformed),
    }
}

/// More bytes, if enough for the addresses are announced.
fn incomplete(rest: &[u8], len: usize, least: usize) -> Result<Step, PreambleError> {
    let missing = len.checked_sub(rest.len()).filter(|_| len >= least);
    missing.map(Step::Needs).ok_or(PreambleError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as a connection does: in the steps that are asked for.
    fn read(bytes: &[u8]) -> Result<(Client, usize), PreambleError> {
        let mut len = 0;
        loop {
            match look(&bytes[..len])? {
                Step::Done(client) => return Ok((client, len)),
                Step::Needs(more) => {
                    assert!(more > 0);
                    len += more;
                    if len > bytes.len() {
                        return Err(PreambleError::Unknown);
                    }
                }
            }
        }
    }

    fn at(text: &str) -> Client {
        Client::At(text.parse().unwrap())
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &len, body].concat()
    }

    #[test]
    fn lines_of_version_1_are_read() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443", at("192.0.2.1:56324")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", at("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::1 ::1 1 2", at("[2001:db8::1]:1")),
            ("PROXY UNKNOWN", Client::Proxy),
            ("PROXY UNKNOWN anything at all", Client::Proxy),
        ] {
            let preamble = format!("{line}\r\n");
            let sent = format!("{preamble}GET / HTTP/1.1\r\n");
            assert_eq!(read(sent.as_bytes()), Ok((client, preamble.len())), "{line}");
        }
    }

    #[test]
    fn lines_that_break_a_rule_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 1",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2",
            "PROXY TCP4 2001:db8::1 ::1 1 2",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2",
            "PROXY UNKNOWNS",
            "PROXY TCP4 host 198.51.100.1 1 2",
            "PROXY TCP4 192.0.2.1 \u{e9} 1 2",
        ] {
            let sent = format!("{line}\r\nGET / HTTP/1.1\r\n\r\n");
            assert_eq!(read(sent.as_bytes()), Err(PreambleError::Malformed), "{line}");
        }
        for bytes in ["GET / HTTP/1.1\r\n", "\x16\x03\x01", "PROXYTCP4", "proxy TCP4 1.1.1.1"] {
            assert_eq!(read(bytes.as_bytes()), Err(PreambleError::Unknown), "{bytes}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(read(long.as_bytes()), Err(PreambleError::Malformed));
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE_BYTES - 16));
        assert_eq!(read(longest.as_bytes()), Ok((Client::Proxy, MAX_LINE_BYTES)));
        assert_eq!(read(b"PROXY TCP4 1.1.1.1\n2.2.2.2 1 1\r\n"), Err(PreambleError::Malformed));
    }

    #[test]
    fn version_2_is_read_with_whatever_a_proxy_adds() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 1, 7, 80);
        for (command, family, body, client) in [
            (1, 0x11, &v4[..], at("192.0.2.1:56324")),
            (1, 0x21, &v6[..], at("[2001::7]:80")),
            (0, 0x00, &[], Client::Proxy),
            (0, 0x11, &v4[..], Client::Proxy),
            (1, 0x00, &[], Client::Proxy),
            (1, 0x31, &[0; 216], Client::Proxy),
        ] {
            for more in [0, 3, 1000] {
                let preamble = version_2(command, family, &[body, &vec![4; more]].concat());
                let sent = [&preamble[..], b"GET"].concat();
                assert_eq!(read(&sent), Ok((client, preamble.len())), "{command} {family} {more}");
            }
        }
        for (command, family, body) in
            [(1, 0x11, &v4[..11]), (1, 0x21, &v6[..35]), (1, 0x12, &v4[..]), (1, 0x41, &v4[..])]
        {
            let sent = [version_2(command, family, body), vec![0; 50]].concat();
            assert_eq!(read(&sent), Err(PreambleError::Malformed), "{command} {family}");
        }
        assert_eq!(read(&version_2(2, 0x11, &v4)), Err(PreambleError::Malformed));
        let long = version_2(0, 0, &vec![0; MAX_BYTES]);
        assert_eq!(read(&long), Err(PreambleError::TooLong));
    }

    proptest! {
        #[test]
        fn a_written_preamble_is_read(ip: std::net::Ipv4Addr, other: std::net::Ipv6Addr, port: u16) {
            let line = format!("PROXY TCP4 {ip} 127.0.0.1 {port} 1\r\n");
            let v4 = Client::At((ip, port).into());
            prop_assert_eq!(read(line.as_bytes()), Ok((v4, line.len())));
            let line = format!("PROXY TCP6 {other} ::1 {port} 1\r\n");
            let v6 = Client::At((other, port).into());
            prop_assert_eq!(read(line.as_bytes()), Ok((v6, line.len())));
            let [high, low] = port.to_be_bytes();
            let body = [&ip.octets()[..], &[127, 0, 0, 1, high, low, 0, 1]].concat();
            let bytes = version_2(1, 0x11, &body);
            prop_assert_eq!(read(&bytes), Ok((v4, bytes.len())));
            let body = [&other.octets()[..], &[0; 16], &[high, low, 0, 1]].concat();
            let bytes = version_2(1, 0x21, &body);
            prop_assert_eq!(read(&bytes), Ok((v6, bytes.len())));
        }

        #[test]
        fn no_bytes_cause_a_panic_or_a_preamble_beyond_the_bound(
            start in prop_oneof![Just(Vec::new()), Just(WORD.to_vec()), Just(SIGNATURE.to_vec())],
            tail in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok((_, len)) = read(&[start, tail].concat()) {
                prop_assert!(len <= MAX_BYTES);
            }
        }
    }
}
