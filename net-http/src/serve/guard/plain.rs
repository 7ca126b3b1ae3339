//! The check of a head in its plainest form, in one pass: nearly every request has it.
//!
//! # Invariants
//!
//! * A head that is found plain passes the whole check (`head.rs`) too, with the same length and without a body. All other
//!   heads are left to that check.

use super::{byte_set::ByteSet, host::is_host};

/// Longest head that is looked at, in bytes. Chosen: a byte costs a few instructions here, and the parser takes many at once,
/// which pays beyond about this.
const MAX_BYTES: usize = 1024;

/// Largest number of header lines, below the bound of the whole check.
const MAX_LINES: usize = 64;

/// The bytes that may be in the name of a header here.
static NAME: ByteSet = ByteSet::alphanumeric_and(b"-_");

/// The bytes that may be in the target of a request here.
static TARGET: ByteSet = ByteSet::alphanumeric_and(b"/-._~?=&%+,:;@!$'()*");

/// Splits `bytes` at the first one that is not in `set`.
fn split<'a>(bytes: &'a [u8], set: &ByteSet) -> Option<(&'a [u8], &'a [u8])> {
    let end = bytes.iter().position(|byte| !set.contains(*byte))?;
    bytes.split_at_checked(end)
}

/// Returns the length of the head at the start of `bytes` if it is plain: HTTP/1.1, a path, one host, no body, no upgrade,
/// no wish for trailers, and no byte that is unusual.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_uppercase())?;
    let (method, rest) = bytes.split_at_checked(end)?;
    let rest = rest.strip_prefix(b" ").filter(|rest| rest.first() == Some(&b'/'))?;
    let (_target, rest) = split(rest, &TARGET)?;
    let mut rest = rest.strip_prefix(b" HTTP/1.1\r\n")?;
    if method.is_empty() || method == b"CONNECT" {
        return None;
    }
    let mut host = None;
    for _ in 0..MAX_LINES {
        if let Some(behind) = rest.strip_prefix(b"\r\n") {
            let len = bytes.len() - behind.len();
            return (host.is_some_and(is_host) && len <= MAX_BYTES).then_some(len);
        }
        let (name, line) = split(rest, &NAME)?;
        let line = line.strip_prefix(b":")?;
        let line = line.strip_prefix(b" ").unwrap_or(line);
        let end = line.iter().position(|byte| !matches!(byte, b' '..=b'~'))?;
        let (value, behind) = line.split_at_checked(end)?;
        rest = behind.strip_prefix(b"\r\n")?;
        match name.len() {
            0 => return None,
            2 if name.eq_ignore_ascii_case(b"te") => return None,
            // The parser trims a value, and this does not: a blank in a host is none here.
            4 if name.eq_ignore_ascii_case(b"host") => match host {
                None => host = Some(value),
                Some(_) => return None,
            },
            7 if name.eq_ignore_ascii_case(b"upgrade") => return None,
            14 if name.eq_ignore_ascii_case(b"content-length") => return None,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{
        super::head::{Judged, Length, parse},
        *,
    };
    use crate::serve::limits::UpgradeOffer;

    /// Pieces of heads, of which many make one that is nearly plain.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let known: &[&[u8]] = &[
            b"GET ",
            b"POST ",
            b"CONNECT ",
            b"get ",
            b"/",
            b"/a?b=%20",
            b"*",
            b"http://h/",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b" HTTP/1.1\n",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"Host: h\r\n",
            b"host:h:80\r\n",
            b"HOST: \r\n",
            b"Host: a b\r\n",
            b"Host: h \r\n",
            b"User-Agent: a (b) c\r\n",
            b"Content-Length: 0\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Upgrade: x\r\n",
            b"TE: trailers\r\n",
            b"Referer: /\r\n",
            b"X_y: \x80\r\n",
            b"A:\r\n",
            b": b\r\n",
            b"A b: c\r\n",
            b"\0",
            b"A: b\r\n c\r\n",
            b"\r\n\r\n",
        ];
        prop_oneof![
            12 => select(known.iter().map(|piece| piece.to_vec()).collect::<Vec<_>>()),
            1 => vec(any::<u8>(), 1..4),
        ]
    }

    #[track_caller]
    fn check(bytes: &[u8]) -> Option<usize> {
        let len = length(bytes);
        if let Some(len) = len {
            let passes = Judged::Complete { len, body: Length::Known(0), version_at: None };
            for offer in [UpgradeOffer::Offered, UpgradeOffer::Refused] {
                assert_eq!(parse(bytes, offer), passes, "{}", bytes.escape_ascii());
            }
        }
        len
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn a_plain_head_passes_the_whole_check(pieces in vec(piece(), 0..12)) {
            check(&pieces.concat());
        }

        #[test]
        fn a_head_with_any_lines_passes_the_whole_check_if_it_is_plain(pieces in vec(piece(), 0..6)) {
            check(&[b"GET / HTTP/1.1\r\n", &pieces.concat()[..], b"\r\n"].concat());
        }
    }

    #[test]
    fn every_byte_at_every_place_is_left_to_the_whole_check_or_found_the_same() {
        let head = b"GET /a HTTP/1.1\r\nHost: h:80\r\nUser-Agent: x\r\n\r\nrest";
        assert_eq!(check(head), Some(head.len() - 4));
        for at in 0..head.len() {
            for byte in 0..=u8::MAX {
                let mut changed = head.to_vec();
                changed[at] = byte;
                check(&changed);
                changed.insert(at, byte);
                check(&changed);
            }
            assert_eq!(check(&head[..at.min(head.len() - 5)]), None);
        }
    }

    #[test]
    fn a_head_of_an_existing_node_is_plain() {
        let head = b"GET /v1/test-v1/block/7a HTTP/1.1\r\nHost: relay.example:4160\r\n\
            User-Agent: node/3.26 (commit; 1)\r\nX-Node_Test: 1\r\nAccept-Encoding: gzip\r\n\r\n";
        assert_eq!(check(head), Some(head.len()));
        let padded = [&head[..head.len() - 2], b"X: ", &[b'x'; MAX_BYTES], b"\r\n\r\n"].concat();
        assert_eq!(check(&padded), None, "longer ones are parsed");
    }
}
