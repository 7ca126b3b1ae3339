//! The dashboard: a page, its style and its script, for whoever can reach the admin port.
//!
//! # Invariants
//!
//! * The files hold nothing of the node; what they show, they ask for with the token that their reader names.
//! * A browser runs nothing else for the page, shows it in no other page, and asks no other host.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};

use super::problem::refuse;

/// The headers of each file. Source of their values: Content Security Policy Level 3; Fetch.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // The next version of the program has other files under the same names.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// The router of the files.
pub(super) fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(move || std::future::ready(([(header::CONTENT_TYPE, kind)], text)))
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("../../dashboard/index.html")))
        .route(
            "/dashboard.css",
            file("text/css; charset=utf-8", include_str!("../../dashboard/dashboard.css")),
        )
        .route(
            "/dashboard.js",
            file("text/javascript; charset=utf-8", include_str!("../../dashboard/dashboard.js")),
        )
        .layer(middleware::map_response(guarded))
        .method_not_allowed_fallback(|| async {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
        })
}

async fn guarded(response: Response) -> Response {
    (HEADERS, response).into_response()
}
