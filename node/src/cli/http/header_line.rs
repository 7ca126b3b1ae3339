//! A header on the command line of `tandem http`.

use http::{HeaderName, HeaderValue};

/// Reads a header as it stands in a request, `Name: value`.
pub(crate) fn parse_header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}
