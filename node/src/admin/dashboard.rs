//! The dashboard: a page, its style and its script, for whoever can reach the admin port.
//!
//! # Invariants
//!
//! * The files hold nothing of the node; what they show, they ask for with the token that their reader names.

use axum::{Router, http::StatusCode};

use super::problem::refuse;
use crate::web_page::{self, File, HTML, Policy, Runs, SCRIPT, STYLE};

/// The router of the files.
pub(super) fn router() -> Router {
    let files = [
        File::of_program("/", HTML, include_str!("../../dashboard/index.html")),
        File::of_program("/dashboard.css", STYLE, include_str!("../../dashboard/dashboard.css")),
        File::of_program("/dashboard.js", SCRIPT, include_str!("../../dashboard/dashboard.js")),
    ];
    let policy = Policy { connects: "", runs: Runs::JavaScript };
    web_page::router(files, policy).method_not_allowed_fallback(|| async {
        refuse(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
    })
}
