//! Answers that are no success, as problem JSON. Source: RFC 9457.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// Media type of a problem. Source: RFC 9457, 3.
const PROBLEM_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Any answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The words of the status.
    pub(crate) title: String,
    pub(crate) status: u16,
    /// One line for a person: what is wrong, and what to do.
    pub(crate) detail: String,
}

/// A refusal in words.
pub(super) fn refuse(status: StatusCode, detail: impl Into<String>) -> Response {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("Unknown").to_owned(),
        status: status.as_u16(),
        detail: detail.into(),
    };
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_TYPE);
    response
}
