//! Refusals that are written without an HTTP library, after which the connection ends.

use crate::serve::metrics::Incident;

/// The reason for a refusal. Source of the texts: wire facts 1.6 and the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head is too long.
    TooLong,
    /// The head is not HTTP.
    Malformed,
    /// The head has no `Host`.
    NoHost,
    /// The head can be read in two ways, or asks for a feature that is not offered.
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

    /// The counter of the refusal; `None` if it was counted elsewhere.
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
