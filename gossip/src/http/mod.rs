//! The contract of HTTP services: what serves a request, what sends one, and who asked.
//!
//! ```text
//!   caller ─▶ HttpClient ─▶ (TCP, TLS, libp2p stream) ─▶ HttpService with a Caller ─▶ handler
//! ```
//!
//! # Invariants
//!
//! * A service does not know what carried a request, unless it asks for the [`Caller`] of it.
//! * Bodies are streams of bytes in both directions; nothing here holds a whole one.

mod body;
mod caller;
mod client;
mod error;
mod service;

pub use body::{BodyError, HttpBody, read_all};
pub use caller::{Caller, NoCaller, Peer};
pub use client::{HttpClient, HttpRequest, HttpResponse, Timeout};
pub use error::{HttpAddressError, HttpError};
pub use service::HttpService;

use crate::handler::BoxFuture;

/// An error of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A shared function that answers requests.
type Answering<E> =
    dyn Fn(HttpRequest) -> BoxFuture<'static, Result<HttpResponse, E>> + Send + Sync;
