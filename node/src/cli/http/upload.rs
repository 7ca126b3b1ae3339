//! The body of a request, as the command line gives it.

use bytes::Bytes;
use gossip::http::HttpBody;
use http_body_util::StreamBody;
use tokio::{fs::File, io::AsyncRead};
use tokio_util::io::ReaderStream;

use crate::cli::Failure;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The body that `-d` asks for: a text, `@FILE`, or `@-` for standard input.
pub(super) async fn body(data: &str) -> Result<HttpBody, Failure> {
    match data.strip_prefix('@') {
        None => Ok(HttpBody::full(Bytes::copy_from_slice(data.as_bytes()))),
        Some("-") => Ok(stream(tokio::io::stdin())),
        Some(path) => {
            let opened = File::open(path).await;
            Ok(stream(opened.map_err(|source| Failure::Read { path: path.into(), source })?))
        }
    }
}

fn stream(source: impl AsyncRead + Send + 'static) -> HttpBody {
    use futures::StreamExt;
    let chunks = ReaderStream::with_capacity(source, CHUNK_BYTES);
    HttpBody::new(StreamBody::new(chunks.map(|chunk| chunk.map(http_body::Frame::data))))
}
