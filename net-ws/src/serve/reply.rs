//! Answers of the gossip path, byte for byte those of existing nodes. Source: wire facts 1.6 and the vectors.

use gossip::http::HttpResponse;
use http::{HeaderValue, StatusCode, header};
use net_http::reply::{NO_SNIFF, PLAIN, text};
pub(super) use net_http::reply::{empty, refused};

/// The words for a page of another site.
pub(super) const FOREIGN: &str =
    "pages of this origin are not let in: the operator of the node has not listed it";

/// The answer to a request that does not ask for a WebSocket, or not for one of version 13.
pub(super) fn no_upgrade(status: StatusCode) -> HttpResponse {
    let headers = [
        (header::CONTENT_TYPE, PLAIN),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF),
    ];
    text(status, &format!("{}\n", status.canonical_reason().unwrap_or_default()), &headers)
}
