//! Prepares a request for sending.

use gossip::http::{HttpError, HttpRequest};
use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT},
    uri::PathAndQuery,
};
use http_body::Body;

/// The reason why a request cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The method is `CONNECT`, and tunnels are not supported.
    #[error("CONNECT asks for a tunnel, which a client does not offer")]
    Tunnel,
    /// The path of the request, with the prefix of the target, is not a valid path.
    #[error("the prefix of the target and the path of the request make no path")]
    Path {
        /// The error of the parser.
        source: http::uri::InvalidUri,
    },
    /// `Content-Length` is not a single number, differs from the length of the body, or is combined with
    /// `Transfer-Encoding`.
    #[error("the content-length is not the length of the body")]
    Length,
}

/// The length of the body that the request's headers declare.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Headers added to every request to a target.
#[derive(Clone, Debug)]
pub(super) struct RequestDefaults {
    pub(super) host: HeaderValue,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) prefix: String,
}

impl RequestDefaults {
    /// Reduces the URI of a request to its path, and adds the missing headers.
    pub(super) fn apply(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        if request.method() == Method::CONNECT {
            return Err(HttpError::Invalid { source: RequestError::Tunnel.into() });
        }
        self.shorten(request)?;
        let given = Given::of(request.headers());
        check_length(request, given)?;
        *request.version_mut() = Version::HTTP_11;
        let bare = request.body().is_end_stream()
            && (request.method() == Method::POST
                || request.method() == Method::PUT
                || request.method() == Method::PATCH);
        let headers = request.headers_mut();
        if !given.host {
            headers.insert(HOST, self.host.clone());
        }
        if let Some(user_agent) = &self.user_agent
            && !given.user_agent
        {
            headers.insert(USER_AGENT, user_agent.clone());
        }
        if bare && !given.length && !headers.contains_key(TRANSFER_ENCODING) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(())
    }

    fn shorten(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let rooted = path.starts_with('/');
        let asterisk = path == "*" && request.method() == Method::OPTIONS;
        if self.prefix.is_empty() && uri.authority().is_none() && (rooted || asterisk) {
            return Ok(());
        }
        let mut whole = String::with_capacity(self.prefix.len() + 1 + path.len());
        whole.push_str(&self.prefix);
        if !rooted {
            whole.push('/');
        }
        whole.push_str(path);
        let path = PathAndQuery::try_from(whole).map_err(|source| HttpError::Invalid {
            source: RequestError::Path { source }.into(),
        })?;
        *request.uri_mut() = Uri::from(path);
        Ok(())
    }
}

/// The headers of a request that matter here, found in one pass: a look-up in the map costs as much for each.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    host: bool,
    user_agent: bool,
    length: bool,
}

impl Given {
    fn of(headers: &HeaderMap) -> Self {
        let mut given = Self::default();
        for name in headers.keys() {
            given.host |= *name == HOST;
            given.user_agent |= *name == USER_AGENT;
            given.length |= *name == CONTENT_LENGTH;
        }
        given
    }
}

/// Checks that the declared length can be that of the body.
fn check_length(request: &HttpRequest, given: Given) -> Result<(), HttpError> {
    if !given.length {
        return Ok(());
    }
    let lengths = request.headers().get_all(CONTENT_LENGTH).iter().count();
    let alone = lengths == 1 && !request.headers().contains_key(TRANSFER_ENCODING);
    let declared = declared_length(request.headers()).filter(|_length| alone);
    let exact = request.body().size_hint().exact();
    if declared.is_some_and(|declared| exact.is_none_or(|exact| exact == declared)) {
        return Ok(());
    }
    Err(HttpError::Invalid { source: RequestError::Length.into() })
}

/// The headers of the only request on a connection, in the order of existing nodes. Source: vectors p2p_http,
/// client_request.
pub(super) fn only_request(given: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(given.len() + 1);
    for name in [HOST, USER_AGENT] {
        for value in given.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    for (name, value) in given {
        if ![HOST, USER_AGENT, CONNECTION].contains(name) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

#[cfg(test)]
mod tests {
    use gossip::http::HttpBody;
    use http::Request;

    use super::*;

    fn dressed(prefix: &str, request: HttpRequest) -> Result<HttpRequest, HttpError> {
        let defaults = RequestDefaults {
            host: HeaderValue::from_static("here:80"),
            user_agent: Some(HeaderValue::from_static("tandem")),
            prefix: prefix.to_owned(),
        };
        let mut request = request;
        defaults.apply(&mut request).map(|()| request)
    }

    fn get(uri: &str) -> HttpRequest {
        Request::get(uri).body(HttpBody::empty()).unwrap()
    }

    #[track_caller]
    fn path(prefix: &str, uri: &str, expected: &str) {
        let request = dressed(prefix, get(uri)).unwrap();
        assert_eq!(request.uri().to_string(), expected);
        assert_eq!(request.uri().authority(), None);
    }

    #[test]
    fn an_address_is_reduced_to_its_path() {
        path("", "/a?b=c", "/a?b=c");
        path("", "http://elsewhere:99/a?b=c", "/a?b=c");
        path("", "http://elsewhere", "/");
        path("", "elsewhere:99", "/");
        path("/pre/fix", "/a?b", "/pre/fix/a?b");
        path("/pre", "https://elsewhere/", "/pre/");
        path("/pre", "http://elsewhere?q", "/pre/?q");
    }

    #[test]
    fn an_invalid_path_is_refused() {
        let error = dressed("/a b", get("/")).unwrap_err();
        assert!(matches!(&error, HttpError::Invalid { .. }) && !error.may_have_reached());
        let long = format!("/{}", "x".repeat(65_000));
        assert!(matches!(dressed(&long, get(&long)), Err(HttpError::Invalid { .. })));
        let tunnel = Request::connect("a:1").body(HttpBody::empty()).unwrap();
        assert!(matches!(dressed("", tunnel), Err(HttpError::Invalid { .. })));
    }

    #[test]
    fn a_length_that_cannot_be_right_is_refused() {
        let with = |lengths: &[&str], body: &'static str| {
            let mut request = Request::post("/");
            for length in lengths {
                request = request.header(CONTENT_LENGTH, *length);
            }
            dressed("", request.body(HttpBody::full(body)).unwrap()).is_ok()
        };
        assert!(with(&[], "four") && with(&["4"], "four") && with(&["0"], ""));
        for lengths in [&["3"][..], &["5"], &["-4"], &["four"], &["4", "4"], &["4", "5"]] {
            assert!(!with(lengths, "four"), "{lengths:?}");
        }
        let both = Request::post("/").header(CONTENT_LENGTH, "4");
        let both = both.header(TRANSFER_ENCODING, "chunked").body(HttpBody::full("four")).unwrap();
        assert!(matches!(dressed("", both), Err(HttpError::Invalid { .. })));
    }

    #[test]
    fn missing_headers_are_added() {
        let request = dressed("", get("/")).unwrap();
        assert_eq!(request.headers()[HOST], "here:80");
        assert_eq!(request.headers()[USER_AGENT], "tandem");
        assert_eq!(request.headers().len(), 2);

        let given = Request::get("/").header(HOST, "given").header(USER_AGENT, "mine");
        let request = dressed("", given.body(HttpBody::empty()).unwrap()).unwrap();
        assert_eq!(request.headers()[HOST], "given");
        assert_eq!(request.headers()[USER_AGENT], "mine");

        let post = Request::post("/").body(HttpBody::empty()).unwrap();
        assert_eq!(dressed("", post).unwrap().headers()[CONTENT_LENGTH], "0");
        let post = Request::post("/").body(HttpBody::full("x")).unwrap();
        assert!(!dressed("", post).unwrap().headers().contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn the_only_request_of_a_connection_ends_with_connection_close() {
        let given = Request::get("/").header("x-a", "1").header(CONNECTION, "keep-alive");
        let given = given.header("x-a", "2").body(HttpBody::empty()).unwrap();
        let headers = only_request(dressed("", given).unwrap().headers());
        let lines: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            lines,
            [
                ("host", "here:80"),
                ("user-agent", "tandem"),
                ("x-a", "1"),
                ("x-a", "2"),
                ("connection", "close")
            ]
        );
    }
}
