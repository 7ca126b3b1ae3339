//! Answers that need no HTTP library: a few bytes, then the end.

use crate::serve::metrics::Incident;

/// The reason why a connection ends after a few words. Source of the words: wire facts 1.6 and the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head is too long.
    TooLong,
    /// It is no HTTP.
    Malformed,
    /// It does not say for whom it is.
    NoHost,
    /// It can be read in two ways, or asks for what is not offered.
    Ambiguous,
    /// The connection got no permit.
    NoPermit,
}

impl Refusal {
    pub(crate) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::TooLong => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
                  Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                  431 Request Header Fields Too Large"
            }
            Self::Malformed | Self::Ambiguous => {
                b"HTTP/1.1 400 Bad Request\r\n\
                  Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                  400 Bad Request"
            }
            Self::NoHost => {
                b"HTTP/1.1 400 Bad Request: missing required Host header\r\n\
                  Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                  400 Bad Request: missing required Host header"
            }
            Self::NoPermit => {
                b"HTTP/1.1 503 Service Unavailable\r\n\
                  Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
                  Retry-After: 1\r\n\r\n\
                  503 Service Unavailable"
            }
        }
    }

    /// The counter of the refusal; `None` where it has been counted already.
    pub(crate) const fn incident(self) -> Option<Incident> {
        match self {
            Self::TooLong => Some(Incident::HeadTooLong),
            Self::Malformed => Some(Incident::Malformed),
            Self::NoHost => Some(Incident::NoHost),
            Self::Ambiguous => Some(Incident::Ambiguous),
            Self::NoPermit => None,
        }
    }
}
