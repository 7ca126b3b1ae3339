//! Pages that the program brings along: their files, for a browser that trusts them with nothing more than they need.
//!
//! # Invariants
//!
//! * A browser runs nothing else for the page, shows it in no other page, and asks no host but those that are named.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};

/// A file of a page: its path, its kind of content, and the content.
pub(crate) type File = (&'static str, &'static str, &'static str);

/// The content types of files.
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const STYLE: &str = "text/css; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The headers of each file but the policy. Source of their values: Fetch.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // The next version of the program has other files under the same names.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// The router of the files of a page, which asks its own host and those of `connects`, origins with spaces between them.
pub(crate) fn router(files: impl IntoIterator<Item = File>, connects: &str) -> Router {
    let router = files.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(move || std::future::ready(([(header::CONTENT_TYPE, kind)], text))))
    });
    guarded(router, connects)
}

/// The routes, whose answers say what a browser may do with them. Source of the policy: Content Security Policy Level 3.
pub(crate) fn guarded(router: Router, connects: &str) -> Router {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {connects}; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Addresses are printable; a policy that were not would forbid everything.
    let policy = HeaderValue::try_from(policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    router.layer(middleware::map_response(move |response: Response| {
        let policy = policy.clone();
        async move { ([(header::CONTENT_SECURITY_POLICY, policy)], HEADERS, response).into_response() }
    }))
}
