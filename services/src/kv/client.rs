//! The key-value service of one peer.

use bytes::Bytes;
use gossip::http::{BodyError, HttpBody, HttpClient, HttpError, HttpResponse, read_all};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};

use super::{MAX_KEY_BYTES, MAX_KEYS, MAX_VALUE_BYTES};

/// Longest list of keys read, in bytes: each key escaped, in quotes and with a comma.
const KEYS_BYTES: usize = MAX_KEYS * (6 * MAX_KEY_BYTES + 3) + 2;

/// The keys and values of one peer. A cheap handle.
///
/// # Cancel safety
///
/// A call that is dropped may have reached the peer: its value may have been put or deleted.
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient,
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub bytes: Bytes,
    /// The entity tag, for [`Client::replace`].
    pub tag: HeaderValue,
}

/// The reason for which a request to a key-value service failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// There is no answer.
    #[error("the peer does not answer")]
    NoAnswer {
        /// The reason.
        source: HttpError,
    },
    /// The value is another one meanwhile, or is not there.
    #[error("the value is another one meanwhile")]
    Changed,
    /// The peer refused.
    #[error("the peer answers {status}")]
    Refused {
        /// The status.
        status: StatusCode,
    },
    /// The answer cannot be read.
    #[error("the answer of the peer cannot be read")]
    Answer {
        /// The reason.
        source: BodyError,
    },
    /// The answer is not what a key-value service says.
    #[error("the answer of the peer is not that of a key-value service")]
    NotKv,
}

impl Client {
    /// The keys and values of the peer that `http` asks.
    #[must_use]
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`KvError`] when the peer does not answer, refuses, or answers something else.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped request changes nothing.
    pub async fn value(&self, key: &str) -> Result<Option<Value>, KvError> {
        let response = match self.ask(Method::GET, key, Bytes::new(), HeaderMap::new()).await {
            Err(KvError::Refused { status: StatusCode::NOT_FOUND }) => return Ok(None),
            response => response?,
        };
        let tag = response.headers().get(header::ETAG).cloned().ok_or(KvError::NotKv)?;
        let bytes = read_all(response.into_body(), MAX_VALUE_BYTES).await;
        Ok(Some(Value { bytes: bytes.map_err(|source| KvError::Answer { source })?, tag }))
    }

    /// Puts a value in place of any other one, and returns its tag.
    ///
    /// # Errors
    ///
    /// [`KvError`] when the peer does not answer, refuses, or answers something else.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the peer may or may not have made the change when the future was dropped.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<HeaderValue, KvError> {
        tag(&self.ask(Method::PUT, key, value, HeaderMap::new()).await?)
    }

    /// Puts a value if the key is new, and returns its tag.
    ///
    /// # Errors
    ///
    /// [`KvError::Changed`] if the key is there; [`KvError`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::put`].
    pub async fn create(&self, key: &str, value: Bytes) -> Result<HeaderValue, KvError> {
        let unless = one(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        tag(&self.ask(Method::PUT, key, value, unless).await?)
    }

    /// Puts a value in place of the one with `tag`, and returns the new tag.
    ///
    /// # Errors
    ///
    /// [`KvError::Changed`] if that value is not there any more; [`KvError`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::put`].
    pub async fn replace(
        &self,
        key: &str,
        value: Bytes,
        tag: HeaderValue,
    ) -> Result<HeaderValue, KvError> {
        self::tag(&self.ask(Method::PUT, key, value, one(header::IF_MATCH, tag)).await?)
    }

    /// Deletes a key; `false` if it was not there.
    ///
    /// # Errors
    ///
    /// [`KvError`] when the peer does not answer, refuses, or answers something else.
    ///
    /// # Cancel safety
    ///
    /// As [`Client::put`].
    pub async fn delete(&self, key: &str) -> Result<bool, KvError> {
        match self.ask(Method::DELETE, key, Bytes::new(), HeaderMap::new()).await {
            Err(KvError::Refused { status: StatusCode::NOT_FOUND }) => Ok(false),
            response => response.map(|_| true),
        }
    }

    /// The keys in order.
    ///
    /// # Errors
    ///
    /// [`KvError`] when the peer does not answer, refuses, or answers something else.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped request changes nothing.
    pub async fn keys(&self) -> Result<Vec<String>, KvError> {
        let response = self.http.get("/kv").await.map_err(|source| KvError::NoAnswer { source })?;
        let keys = read_all(checked(response)?.into_body(), KEYS_BYTES).await;
        let keys = keys.map_err(|source| KvError::Answer { source })?;
        serde_json::from_slice(&keys).map_err(|_| KvError::NotKv)
    }

    async fn ask(
        &self,
        method: Method,
        key: &str,
        value: Bytes,
        headers: HeaderMap,
    ) -> Result<HttpResponse, KvError> {
        let request = Request::builder().method(method).uri(path(key)).body(HttpBody::full(value));
        let request = request.map_err(|source| HttpError::Invalid { source: source.into() });
        let sent = match request {
            Ok(mut request) => {
                request.headers_mut().extend(headers);
                self.http.send(request).await
            }
            Err(error) => Err(error),
        };
        checked(sent.map_err(|source| KvError::NoAnswer { source })?)
    }
}

/// The path of a key: whatever has a meaning in a path is percent-encoded.
fn path(key: &str) -> String {
    let mut path = String::from("/kv/");
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

fn one(name: HeaderName, value: HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(name, value)])
}

fn tag(response: &HttpResponse) -> Result<HeaderValue, KvError> {
    response.headers().get(header::ETAG).cloned().ok_or(KvError::NotKv)
}

fn checked(response: HttpResponse) -> Result<HttpResponse, KvError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::PRECONDITION_FAILED => Err(KvError::Changed),
        status => Err(KvError::Refused { status }),
    }
}
