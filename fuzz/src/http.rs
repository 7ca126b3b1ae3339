//! The first look at HTTP requests, before the HTTP library sees them.

/// A head is judged without a panic, and never reaches beyond the bytes.
pub(crate) fn head(data: &[u8]) {
    net_http::fuzzing::head(data);
}

/// Both engines of the server answer any bytes with the same ones.
pub(crate) fn engines(data: &[u8]) {
    net_http::fuzzing::engines(data);
}

/// A chunked body ends at the same place however it is cut.
pub(crate) fn chunks(data: &[u8]) {
    net_http::fuzzing::chunks(data);
}
