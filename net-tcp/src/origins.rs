//! Web origins: the sites whose pages may use this node.
//!
//! # Invariants
//!
//! * A browser tells the origin of a page, and no page can change it; any other program can say what it likes. So an origin
//!   keeps pages of strangers out, and proves nothing about a program.
//! * `null` is the origin of every page that has none, so it is never listed.

use std::{borrow::Cow, collections::BTreeSet, fmt, str::FromStr};

use http::{HeaderMap, HeaderValue, header, uri::Authority};

/// Longest origin, in bytes. Chosen: the longest name of a host, and room for a scheme and a port.
pub const MAX_ORIGIN_BYTES: usize = 288;

/// The origin of web pages, such as `https://app.example` or `http://127.0.0.1:8080`: scheme, host, and the port if it is not the
/// usual one, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageOrigin(String);

/// A text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no origin of pages: write a scheme and a host, such as https://app.example, with a port if it is not the usual one, and nothing behind it"
)]
pub struct PageOriginError {
    /// The text as given.
    text: String,
}

impl PageOrigin {
    /// The origin as a browser writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PageOrigin {
    type Err = PageOriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PageOriginError { text: text.chars().take(MAX_ORIGIN_BYTES).collect() };
        let origin = text.to_ascii_lowercase();
        let (scheme, authority) = origin.split_once("://").ok_or_else(wrong)?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let usual = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let parsed: Authority = authority.parse().map_err(|_| wrong())?;
        let port = parsed.port_u16();
        let is_whole = !authority.contains('@')
            && !parsed.host().is_empty()
            && port.is_some() == (authority.len() > parsed.host().len());
        if !is_scheme || !is_whole || text.len() > MAX_ORIGIN_BYTES || !text.is_ascii() {
            return Err(wrong());
        }
        // A browser leaves the usual port out.
        Ok(Self(match port.filter(|port| Some(*port) == usual) {
            Some(_) => format!("{scheme}://{}", parsed.host()),
            None => origin,
        }))
    }
}

/// The origins whose pages are let in. Default: none but those of this host itself, as far as that is sure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageOrigins {
    listed: BTreeSet<PageOrigin>,
    others: Others,
}

/// The rule for pages of origins that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Others {
    #[default]
    Refused,
    LetIn,
}

impl PageOrigins {
    /// Every page of every site, those without an origin included. For a node that serves the public: each origin has its bound.
    #[must_use]
    pub fn any() -> Self {
        Self { listed: BTreeSet::new(), others: Others::LetIn }
    }

    /// These, and one more.
    #[must_use]
    pub fn with(mut self, origin: PageOrigin) -> Self {
        self.listed.insert(origin);
        self
    }

    /// Returns `true` if no page of another site is let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.others == Others::Refused
    }

    /// Returns `true` if pages of this origin are let in. `origin` is the value of the header, however it came.
    #[must_use]
    pub fn lets_in(&self, origin: &HeaderValue) -> bool {
        let is_listed =
            |text: &str| text.parse().is_ok_and(|origin: PageOrigin| self.listed.contains(&origin));
        self.others == Others::LetIn || origin.to_str().is_ok_and(is_listed)
    }

    /// Returns `true` if the program that sent these headers is let in: it is no page, its origin is listed, or it is a page of
    /// this host itself, by a name that can be no other.
    #[must_use]
    pub fn let_in_client(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        self.lets_in(origin) || is_same_host(origin, headers) && is_sure_host(headers)
    }
}

/// The origin of the page that sent these headers, as text; `None` for a program that is no page. An origin that is longer than
/// [`MAX_ORIGIN_BYTES`] is none of a browser's, and is cut.
#[must_use]
pub fn origin_of(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let origin = headers.get(header::ORIGIN)?.as_bytes();
    Some(String::from_utf8_lossy(origin.get(..MAX_ORIGIN_BYTES).unwrap_or(origin)))
}

/// Returns `true` if `origin` names the host that the request was sent to.
#[must_use]
pub fn is_same_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((_, rest)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !authority.is_empty() && authority.as_bytes().eq_ignore_ascii_case(host)
}

/// Returns `true` if the host of a request is a number or this machine, so that it leads nowhere else: the owner of any other
/// name can make it lead to this node for a page of theirs, which is of the same host then (DNS rebinding).
#[must_use]
pub fn is_sure_host(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let number = name.trim_start_matches('[').trim_end_matches(']');
    number.parse::<std::net::IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_origin_is_written_as_a_browser_writes_it() {
        for (text, origin) in [
            ("https://App.example", Some("https://app.example")),
            ("https://app.example:443", Some("https://app.example")),
            ("http://app.example:443", Some("http://app.example:443")),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("chrome-extension://abcdef", Some("chrome-extension://abcdef")),
            ("https://app.example/", None),
            ("https://app.example?x", None),
            ("https://a@app.example", None),
            ("https://app.example:", None),
            ("https://app.example:99999", None),
            ("https://", None),
            ("app.example", None),
            ("null", None),
            ("*", None),
            ("https://\u{e9}.example", None),
        ] {
            let parsed = text.parse::<PageOrigin>().map(|origin| origin.to_string());
            assert_eq!(parsed.ok().as_deref(), origin, "{text}");
        }
    }

    #[test]
    fn only_listed_origins_are_let_in() {
        let listed = PageOrigins::default().with("https://a.example".parse().unwrap());
        let lets_in = |origins: &PageOrigins, origin: &'static str| {
            origins.lets_in(&HeaderValue::from_static(origin))
        };
        assert!(lets_in(&listed, "https://a.example"));
        for other in
            ["http://a.example", "https://a.example:8443", "https://b.a.example", "null", ""]
        {
            assert!(!lets_in(&listed, other), "{other}");
            assert!(lets_in(&PageOrigins::any(), other), "{other}");
            assert!(!lets_in(&PageOrigins::default(), other), "{other}");
        }
        assert!(PageOrigins::default().is_empty() && !listed.is_empty());
    }

    #[test]
    fn a_client_is_let_in_if_it_is_no_page_or_a_page_of_this_host_or_of_a_listed_origin() {
        let listed = PageOrigins::default().with("https://a.example".parse().unwrap());
        for (lines, is_let_in) in [
            (&[("host", "relay.example")][..], true),
            (&[("host", "relay.example"), ("origin", "https://a.example")], true),
            (&[("host", "relay.example"), ("origin", "https://relay.example")], false),
            (&[("host", "127.0.0.1:4001"), ("origin", "http://127.0.0.1:4001")], true),
            (&[("host", "127.0.0.1:4001"), ("origin", "http://evil.example")], false),
            (&[("host", "127.0.0.1:4001"), ("origin", "null")], false),
        ] {
            assert_eq!(listed.let_in_client(&headers(lines)), is_let_in, "{lines:?}");
        }
    }

    #[test]
    fn only_pages_of_this_host_are_of_the_same_host() {
        for (origin, is_same) in [
            ("http://a:1", true),
            ("https://A:1/path", true),
            ("http://b:1", false),
            ("http://a", false),
            ("::", false),
            ("null", false),
            ("http://", false),
            ("http://a:1@b", false),
        ] {
            let lines = headers(&[("host", "a:1")]);
            let origin = HeaderValue::from_static(origin);
            assert_eq!(is_same_host(&origin, &lines), is_same, "{origin:?}");
        }
    }

    #[test]
    fn a_name_that_somebody_owns_is_no_sure_host() {
        for host in ["127.0.0.1:4160", "[::1]:4160", "192.0.2.1", "localhost:4160", "LOCALHOST"] {
            assert!(is_sure_host(&headers(&[("host", host)])), "{host}");
        }
        for host in ["relay.example:4160", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert!(!is_sure_host(&headers(&[("host", host)])), "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic_and_an_origin_is_read_as_it_is_shown(text in ".{0,60}") {
            for text in [text.clone(), format!("https://{text}")] {
                if let Ok(origin) = text.parse::<PageOrigin>() {
                    prop_assert_eq!(origin.to_string().parse(), Ok(origin));
                }
            }
        }
    }
}
