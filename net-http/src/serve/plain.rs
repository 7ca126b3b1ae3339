//! Plain requests, read and answered without the HTTP library: nearly all are.
//!
//! ```text
//!   HeadGuard ─▶ plain head ─▶ handler ─▶ answer ─▶ HeadGuard
//!        └─▶ any other head: the rest of the connection is the HTTP library's
//! ```
//!
//! A plain request has no body, so what is left to do is to make a request of its head. The library would do more for it: it
//! copies the head once more, into a buffer of 8 KiB, and reads ahead of every answer.
//!
//! # Invariants
//!
//! * A head that is not plain is left to the library, untouched, and everything after it too.
//! * A request is answered before the next one is read.
//! * The request of a client whose connection failed is not handled any further.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use gossip::{
    StreamUse,
    http::{BoxError, HttpBody},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header::CONNECTION,
};
use http_body::Body;
use httparse::Status;
use runtime::CancelWatch;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{
    guard::{Found, HeadGuard, MAX_HEADERS},
    limits::Terms,
    portable::{After, Asked, ConnectionError, TURN, Unwritten, has_token, refusal},
};

/// The part of a connection that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// None: it has ended.
    Nothing,
    /// A head that is not plain is next.
    Requests,
}

/// The stop of a network, seen by one connection.
struct Stop {
    watch: CancelWatch,
    has_come: bool,
}

impl Stop {
    fn has_come(&mut self, context: &mut Context<'_>) -> bool {
        self.has_come = self.has_come || Pin::new(&mut self.watch).poll(context).is_ready();
        self.has_come
    }
}

/// Serves the plain requests of a connection, until it ends or a request of another form comes. After `cancel`, the request in
/// progress is answered, and then the connection closes.
///
/// # Cancel safety
///
/// Not safe: dropping the future drops the request in progress.
pub(super) async fn serve<Io, F, A, B, E>(
    guard: &mut HeadGuard<Io>,
    terms: Terms,
    cancel: &CancellationToken,
    answer: F,
) -> Result<Rest, ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<HttpBody>) -> A,
    A: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
    E: Into<BoxError>,
{
    let mut stop = Stop { watch: CancelWatch::new(cancel), has_come: false };
    let mut unwritten = Unwritten::default();
    let mut at_once = 0;
    loop {
        let found = poll_fn(|context| match guard.poll_found(context) {
            Poll::Pending if stop.has_come(context) => Poll::Ready(Ok(Found::End)),
            Poll::Pending => {
                at_once = 0;
                Poll::Pending
            }
            found => found,
        });
        let head = match found.await? {
            Found::Plain(head) => head,
            Found::Other => return Ok(Rest::Requests),
            Found::End => break,
        };
        let Some((request, asked)) = request(&head) else {
            let (asked, response) = refusal(terms.header_case);
            unwritten.write(guard, &asked, response, HeadGuard::poll_failure).await?;
            break;
        };
        let method = request.method().clone();
        let response = {
            let mut answering = pin!(answer(request));
            poll_fn(|context| match answering.as_mut().poll(context) {
                Poll::Ready(answered) => {
                    let answered = answered.map_err(|error| ConnectionError::Service(error.into()));
                    let after = if stop.has_come(context) { After::Closed } else { asked };
                    Poll::Ready(answered.map(|response| (response, after)))
                }
                Poll::Pending => guard.poll_failure(context).map(|error| Err(error.into())),
            })
            .await
        };
        let (response, after) = response?;
        let is_last = terms.streams == StreamUse::OneRequest;
        let after = if is_last { After::Closed } else { after };
        let (version, case) = (Version::HTTP_11, terms.header_case);
        let asked = Asked { method: &method, version, after, case };
        let written = unwritten.write(guard, &asked, response, HeadGuard::poll_failure);
        if written.await? == After::Closed {
            break;
        }
        at_once += 1;
        if at_once % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    guard.shutdown().await?;
    Ok(Rest::Nothing)
}

/// Makes a request of a plain head, which says what is to become of the connection; `None` if its target is no URI. Targets and
/// values share the memory of the head.
fn request(head: &Bytes) -> Option<(Request<HttpBody>, After)> {
    // Left uninitialized, because it is needed for every request.
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(Status::Complete(_)) = parsed.parse_with_uninit_headers(head, &mut fields) else {
        return None;
    };
    let mut request = Request::new(HttpBody::empty());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(parsed.path?.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    let mut says_more = false;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        says_more |= name == CONNECTION;
        headers.append(name, HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?);
    }
    let closes = says_more && has_token(&headers, "close");
    *request.headers_mut() = headers;
    Some((request, if closes { After::Closed } else { After::Kept }))
}
