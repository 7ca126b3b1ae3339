//! The form of a `Host` header.

use super::byte_set::ByteSet;

/// The bytes that may be in a name.
static NAME: ByteSet = ByteSet::alphanumeric_and(b"-._~!$&'()*+,;=%");

/// Returns `true` if a value is a valid `Host`: a name or an address with an optional port, or empty. Source:
/// RFC 9112, section 3.2, and RFC 3986, section 3.2.2.
pub(super) fn is_host(value: &[u8]) -> bool {
    let in_name = |byte: &u8| NAME.contains(*byte);
    let in_literal = |byte: &u8| in_name(byte) || *byte == b':';
    let port = if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|byte| !in_literal(byte)) else { return false };
        let Some(port) = literal.get(end..).and_then(|rest| rest.strip_prefix(b"]")) else {
            return false;
        };
        if end == 0 {
            return false;
        }
        port
    } else {
        let end = value.iter().position(|byte| !in_name(byte)).unwrap_or(value.len());
        value.get(end..).unwrap_or_default()
    };
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}
