//! Pages that the program brings along: their files, for a browser that trusts them with nothing more than they need.
//!
//! # Invariants
//!
//! * A browser runs nothing else for the page, shows it in no other page, and asks no host but those that are named.

use std::borrow::Cow;

use axum::{
    Router,
    body::Bytes,
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};

/// A file of a page.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Its path, from the root on.
    pub(crate) path: Cow<'static, str>,
    /// Its kind of content.
    pub(crate) kind: &'static str,
    pub(crate) content: Bytes,
}

impl File {
    /// A file that is part of the program.
    pub(crate) fn of_program(path: &'static str, kind: &'static str, text: &'static str) -> Self {
        Self { path: Cow::Borrowed(path), kind, content: Bytes::from_static(text.as_bytes()) }
    }
}

/// The part of a policy that differs from page to page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy<'a> {
    /// The origins that the page asks beside its own, with spaces between them.
    pub(crate) connects: &'a str,
    pub(crate) runs: Runs,
}

/// The programs that a browser runs for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    JavaScript,
    /// WebAssembly too, which a browser compiles only where the policy says so.
    WebAssembly,
}

/// The content types of files.
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const STYLE: &str = "text/css; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const WASM: &str = "application/wasm";

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

/// The router of the files of a page.
pub(crate) fn router(files: impl IntoIterator<Item = File>, policy: Policy<'_>) -> Router {
    let router = files.into_iter().fold(Router::new(), |router, File { path, kind, content }| {
        let answer = move || std::future::ready(([(header::CONTENT_TYPE, kind)], content.clone()));
        router.route(&path, get(answer))
    });
    guarded(router, policy)
}

/// The routes, whose answers say what a browser may do with them. Source of the policy: Content Security Policy Level 3.
pub(crate) fn guarded(router: Router, Policy { connects, runs }: Policy<'_>) -> Router {
    let wasm = if runs == Runs::WebAssembly { " 'wasm-unsafe-eval'" } else { "" };
    let policy = format!(
        "default-src 'none'; script-src 'self'{wasm}; style-src 'self'; connect-src 'self' {connects}; img-src 'self'; \
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
