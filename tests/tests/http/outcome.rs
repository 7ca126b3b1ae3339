//! The result of a request in a form that can be compared.

use gossip::http::{HttpBody, HttpClient, HttpError, HttpResponse, read_all};
use http::Request;
use testkit::wait::soon;

use crate::scene::MAX_BODY;

/// Longest body that is kept as text, in bytes.
const SHORT_BODY: usize = 256;

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole answer.
    Answer {
        status: u16,
        /// A short text, or the hash of a longer body.
        body: String,
    },
    /// The head of an answer, and a body that broke off.
    BrokenBody { status: u16 },
    /// No answer.
    Failed { error: &'static str, may_have_reached: bool },
}

impl Outcome {
    /// An answer with a short text.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Answer { status, body: body.to_owned() }
    }

    /// An answer with a long body.
    pub(crate) fn hashed(status: u16, blake3: String) -> Self {
        Self::Answer { status, body: blake3 }
    }

    /// Sends a request, and returns its result.
    pub(crate) async fn of(client: &HttpClient, request: Request<HttpBody>) -> Self {
        let what = format!("{} {} comes to an end", request.method(), request.uri());
        soon(&what, async {
            match client.send(request).await {
                Ok(response) => Self::of_answer(response).await,
                Err(error) => {
                    Self::Failed { error: kind(&error), may_have_reached: error.may_have_reached() }
                }
            }
        })
        .await
    }

    async fn of_answer(response: HttpResponse) -> Self {
        let status = response.status().as_u16();
        match read_all(response.into_body(), MAX_BODY).await {
            Ok(body) if body.len() > SHORT_BODY => {
                Self::hashed(status, blake3::hash(&body).to_hex().to_string())
            }
            Ok(body) => Self::text(status, &String::from_utf8_lossy(&body)),
            Err(_) => Self::BrokenBody { status },
        }
    }
}

/// The name of an error.
pub(crate) fn kind(error: &HttpError) -> &'static str {
    match error {
        HttpError::Invalid { .. } => "invalid",
        HttpError::Stopped => "stopped",
        HttpError::Unreachable { .. } => "unreachable",
        HttpError::QueueTimeout { .. } => "queue timeout",
        HttpError::QueueFull { .. } => "queue full",
        HttpError::DeadlineUnsent => "deadline unsent",
        HttpError::Deadline => "deadline",
        HttpError::Broken { .. } => "broken",
        HttpError::Protocol { .. } => "protocol",
        HttpError::RequestBody { .. } => "request body",
        _ => "another one",
    }
}
