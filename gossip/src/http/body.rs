//! Bodies of requests and responses.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::UnsyncBoxBody};

use super::BoxError;

/// The body of a request or a response, whatever makes it.
///
/// It ends with an error, never early, when the connection it comes from ends before it does: a short
/// body is not taken for a whole one.
pub struct HttpBody(Kind);

enum Kind {
    /// Bytes that are there already; empty once they were read, or if there are none.
    Bytes(Bytes),
    Boxed(Boxed),
}

/// A body in a box. It is an enum of its own because [`HttpBody`] is no larger than its bytes then, and a request is
/// moved many times on its way.
enum Boxed {
    /// The body of an axum response, which is a box already.
    Axum(axum_core::body::Body),
    /// A stream.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl HttpBody {
    /// The body that `body` makes.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Every box less is an allocation and an indirect call less per request.
        if body.is_end_stream() {
            return Self::empty();
        }
        let mut body = Some(body);
        let any: &mut dyn Any = &mut body;
        if let Some(ours) = any.downcast_mut::<Option<Self>>() {
            return ours.take().unwrap_or_default();
        }
        if let Some(axum) = any.downcast_mut::<Option<axum_core::body::Body>>() {
            return axum
                .take()
                .map_or_else(Self::empty, |axum| Self(Kind::Boxed(Boxed::Axum(axum))));
        }
        match body {
            Some(body) => {
                let stream = body.map_err(Into::into).boxed_unsync();
                Self(Kind::Boxed(Boxed::Stream(stream)))
            }
            None => Self::empty(),
        }
    }

    /// A body of these bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    /// A body without bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Bytes(Bytes::new()))
    }
}

impl Default for HttpBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for HttpBody {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBody").field("size_hint", &self.size_hint()).finish_non_exhaustive()
    }
}

impl Body for HttpBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Boxed(Boxed::Axum(axum)) => {
                Pin::new(axum).poll_frame(context).map_err(axum_core::Error::into_inner)
            }
            Kind::Boxed(Boxed::Stream(stream)) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Boxed(Boxed::Axum(axum)) => axum.is_end_stream(),
            Kind::Boxed(Boxed::Stream(stream)) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Boxed(Boxed::Axum(axum)) => axum.size_hint(),
            Kind::Boxed(Boxed::Stream(stream)) => stream.size_hint(),
        }
    }
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is longer than the caller was ready to hold.
    #[error("the body is longer than {limit} bytes")]
    TooLong {
        /// The bound that the caller set, in bytes.
        limit: usize,
    },
    /// It broke off.
    #[error("the body broke off")]
    Broken {
        /// The error that ended it.
        source: BoxError,
    },
}

/// Reads a body to its end, `limit` bytes at most. Trailers are left out.
///
/// # Errors
///
/// [`BodyError`]. What was read until then is dropped.
///
/// # Cancel safety
///
/// None: what was read is lost with the future.
pub async fn read_all<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLong { limit }),
        Err(source) => Err(BodyError::Broken { source }),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http_body_util::StreamBody;

    use super::*;

    #[test]
    fn a_body_is_read_up_to_the_limit_and_no_further() {
        let read = |limit| block_on(read_all(HttpBody::full("four"), limit));
        assert_eq!(read(4).unwrap(), "four");
        assert!(matches!(read(3), Err(BodyError::TooLong { limit: 3 })));
        assert_eq!(block_on(read_all(HttpBody::empty(), 0)).unwrap(), "");
        assert!(HttpBody::full("").is_end_stream());
        assert_eq!(HttpBody::new(HttpBody::full("four")).size_hint().exact(), Some(4));
    }

    #[test]
    fn a_body_is_no_larger_than_its_bytes() {
        assert_eq!(size_of::<HttpBody>(), size_of::<Bytes>());
    }

    #[test]
    fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(BoxError::from("cut"))];
        let body = HttpBody::new(StreamBody::new(futures::stream::iter(frames)));
        let error = block_on(read_all::<HttpBody>(body, 100)).unwrap_err();
        assert!(matches!(error, BodyError::Broken { source } if source.to_string() == "cut"));
    }
}
