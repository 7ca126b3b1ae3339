//! HTTP/1.1 over a guarded connection where hyper's server does not run: it asks the system for the time of day, of
//! which WebAssembly has none.
//!
//! ```text
//!   HeadGuard ─▶ head ─▶ Incoming ─▶ handler
//!       ◀── answer, its body ◀─────────┘
//! ```
//!
//! The guard has judged the heads and found the end of every body; this module makes requests of them, and writes answers. It
//! answers as hyper does: `net-http/tests/http` runs on every engine, and compares them byte by byte.
//!
//! # Invariants
//!
//! * A request is answered before the next one is read.
//! * Each connection holds two pieces of a request's body, and of an answer what [`Unwritten`] gathers.
//! * An answer that breaks off ends its connection without an orderly end, so a client never takes it for whole.

mod answer;
mod body;
mod head;
mod write;

use std::{
    future::{Future, pending},
    io,
    pin::pin,
    task::Poll,
};

use bytes::BytesMut;
use futures::future::Either;
use gossip::{
    HeaderCase, StreamUse,
    http::{BoxError, HttpBody},
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use runtime::time;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use self::{
    answer::TooShort,
    body::{Fed, Feeder},
    head::{Expect, Head, Unusable},
};
use super::{guard::HeadGuard, limits::Terms, reply};

pub(super) use answer::Asked;
pub(crate) use body::Incoming;
pub(super) use head::{After, has_token};
pub(super) use write::Unwritten;

/// Requests of a connection that are answered before other tasks get their turn. Chosen: as hyper does.
pub(super) const TURN: u32 = 16;

/// The end of a connection that did not end in an orderly way.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The byte stream failed.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// The service gave no answer.
    #[error("the service gave no answer")]
    Service(#[source] BoxError),
    /// The body of an answer failed.
    #[error("the body of the answer failed")]
    Body(#[source] BoxError),
    /// The body of an answer is shorter than its head declares.
    #[error(transparent)]
    TooShort(#[from] TooShort),
}

/// Serves a connection until it ends. After `cancel`, the request in progress is answered, and then the connection closes.
///
/// # Cancel safety
///
/// Not safe: dropping the future drops the stream and the request in progress.
pub(super) async fn serve<Io, F, A, B, E>(
    guard: HeadGuard<Io>,
    terms: Terms,
    cancel: &CancellationToken,
    answer: F,
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = bytes::Bytes, Error = BoxError> + Unpin,
    E: Into<BoxError>,
{
    let (reads, writes) = split(guard);
    let mut requests = Requests { io: reads, held: BytesMut::new() };
    let mut answers = Answers { io: writes, unwritten: Unwritten::default() };
    for served in 1_u32.. {
        let head = match requests.next(cancel).await? {
            Next::Head(head) => head,
            Next::End => break,
            Next::Unusable => {
                let (asked, response) = refusal(terms.header_case);
                answers.write(&asked, response).await?;
                break;
            }
        };
        let exchange = Exchange { terms, cancel };
        match exchange.run(*head, &mut requests, &mut answers, &answer).await? {
            After::Kept => {}
            After::Closed => break,
        }
        if served % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    answers.io.shutdown().await?;
    Ok(())
}

/// The item that comes next on a connection.
enum Next {
    Head(Box<Head>),
    /// A request that cannot be answered by the service.
    Unusable,
    End,
}

/// The reading side.
struct Requests<Io> {
    io: ReadHalf<HeadGuard<Io>>,
    /// Bytes of the next head.
    held: BytesMut,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Requests<Io> {
    /// Reads the next head.
    async fn next(&mut self, cancel: &CancellationToken) -> io::Result<Next> {
        loop {
            match head::take(&mut self.held) {
                Ok(Some(head)) => return Ok(Next::Head(Box::new(head))),
                Ok(None) => {}
                Err(Unusable) => return Ok(Next::Unusable),
            }
            let is_idle = self.held.is_empty();
            let read = self.fill();
            let read = match is_idle {
                true => cancel.run_until_cancelled(read).await,
                false => Some(read.await),
            };
            // The guard passes whole heads, so nothing is left of one at the end.
            if matches!(read.transpose()?, None | Some(0)) {
                return Ok(Next::End);
            }
        }
    }

    /// Reads bytes of the next head, which the guard gives out after the answer to the last one.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was read is held.
    async fn fill(&mut self) -> io::Result<usize> {
        self.held.reserve(1024);
        self.io.read_buf(&mut self.held).await
    }
}

/// The writing side.
struct Answers<Io> {
    io: WriteHalf<HeadGuard<Io>>,
    unwritten: Unwritten,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Answers<Io> {
    /// Writes an answer. The reading side notices a failure of the stream.
    async fn write<B>(
        &mut self,
        asked: &Asked<'_>,
        response: Response<B>,
    ) -> Result<After, ConnectionError>
    where
        B: Body<Data = bytes::Bytes, Error = BoxError> + Unpin,
    {
        self.unwritten.write(&mut self.io, asked, response, |_, _| Poll::Pending).await
    }
}

/// The answer to a request of which none can be made.
pub(super) fn refusal(case: HeaderCase) -> (Asked<'static>, Response<HttpBody>) {
    let asked =
        Asked { method: &Method::GET, version: Version::HTTP_11, after: After::Closed, case };
    (asked, reply::empty(StatusCode::BAD_REQUEST))
}

/// One request and its answer.
struct Exchange<'a> {
    terms: Terms,
    cancel: &'a CancellationToken,
}

impl Exchange<'_> {
    async fn run<Io, F, A, B, E>(
        self,
        head: Head,
        requests: &mut Requests<Io>,
        answers: &mut Answers<Io>,
        answer: &F,
    ) -> Result<After, ConnectionError>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
        F: Fn(Request<Incoming>) -> A,
        A: Future<Output = Result<Response<B>, E>>,
        B: Body<Data = bytes::Bytes, Error = BoxError> + Unpin,
        E: Into<BoxError>,
    {
        let Head { request, body, after, expect } = head;
        let (method, version) = (request.method().clone(), request.version());
        let (incoming, mut feeder, begun) = body::body(body, expect);
        let answering = answer(request.map(|()| incoming));
        let waits = Some(begun).filter(|_| expect == Expect::Continue);
        let answered = async {
            let mut answering = pin!(answering);
            let response = match waits {
                Some(begun) => answers.continue_once(begun, answering.as_mut()).await?,
                None => answering.await,
            };
            let response = response.map_err(|error| ConnectionError::Service(error.into()))?;
            let is_last = self.terms.streams == StreamUse::OneRequest || self.cancel.is_cancelled();
            let after = if is_last { After::Closed } else { after };
            let asked = Asked { method: &method, version, after, case: self.terms.header_case };
            answers.write(&asked, response).await
        };
        let after = {
            let (answered, reading) = (pin!(answered), pin!(read_along(&mut feeder, requests)));
            match futures::future::select(reading, answered).await {
                Either::Right((after, _reading)) => after?,
                Either::Left((Err(error), _answered)) => return Err(error.into()),
                Either::Left((Ok(never), _answered)) => match never {},
            }
        };
        // A handler that answered may still read the body.
        let rest = time::timeout(self.terms.stall, feeder.feed(&mut requests.io)).await;
        Ok(if rest == Ok(Fed::Whole) { after } else { After::Closed })
    }
}

/// Feeds the body of a request, and then waits for the failure of its connection, so that nobody handles the request of a
/// client that is gone.
///
/// # Cancel safety
///
/// Safe: what was read of the next request is held.
async fn read_along<Io: AsyncRead + AsyncWrite + Unpin>(
    feeder: &mut Feeder,
    requests: &mut Requests<Io>,
) -> io::Result<std::convert::Infallible> {
    if feeder.feed(&mut requests.io).await == Fed::Whole {
        // The guard withholds the next request, and the end of the input, until the answer was sent.
        requests.fill().await?;
    }
    pending().await
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Answers<Io> {
    /// Waits for an answer, and tells the client to go on when the handler asks for the body before.
    async fn continue_once<A: Future + Unpin>(
        &mut self,
        begun: oneshot::Receiver<()>,
        answering: A,
    ) -> io::Result<A::Output> {
        // The demand comes first: the body may be there already, and the answer with it.
        match futures::future::select(begun, answering).await {
            Either::Right((answered, _begun)) => Ok(answered),
            Either::Left((begun, answering)) => {
                if begun.is_ok() {
                    self.unwritten.put(b"HTTP/1.1 100 Continue\r\n\r\n");
                    self.unwritten.send(&mut self.io).await?;
                }
                Ok(answering.await)
            }
        }
    }
}
