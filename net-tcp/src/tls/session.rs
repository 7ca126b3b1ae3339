//! TLS sessions with servers: the handshake, and streams whose errors are told in plain words.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use gossip::WebSocketAddress;
use runtime::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use super::{failure::TlsFailed, trust::Trust};

/// The name that the certificate of the server at `address` must be valid for; `None` if no certificate can be valid
/// for the host.
#[must_use]
pub fn server_name(address: &WebSocketAddress) -> Option<String> {
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host).is_ok().then(|| host.to_owned())
}

/// A TLS session with a server.
#[derive(Debug)]
pub struct TlsSession {
    stream: TlsStream<Stream>,
    host: Arc<str>,
}

/// Makes a TLS session over a connection, with the server called `host`. SNI is sent if that is a name and no address.
///
/// # Errors
///
/// [`TlsFailed`], with the name of the server.
///
/// # Cancel safety
///
/// Not safe: a dropped future drops the connection.
pub async fn connect(trust: &Trust, host: &str, stream: Stream) -> Result<TlsSession, TlsFailed> {
    let failed = |error| TlsFailed::of(error, host);
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| failed(io::Error::other(error)))?;
    let config = trust.config().await.map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
    Ok(TlsSession { stream, host: host.into() })
}

impl AsyncRead for TlsSession {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // With TLS 1.3 the server judges the client's certificate only after the client has finished its handshake.
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        read.map_err(|error| TlsFailed::explain(error, &self.host))
    }
}

impl AsyncWrite for TlsSession {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
