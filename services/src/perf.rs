//! Throughput between two nodes: the `/perf/1.0.0` protocol of libp2p, over any byte stream.
//!
//! ```text
//!   caller ──▶ [bytes wanted: u64, big endian] [bytes given] end of the half
//!   server ◀── reads to the end, then ──▶ [bytes wanted] end of the half
//! ```
//!
//! # Invariants
//!
//! * No more than one buffer of 64 KiB is held at either end, whatever the other end announces.
//! * A server gives and takes no more than its [`PerfLimits`]; the caller's stream fails at the bound.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

/// The name of the protocol. Source: `perf/perf.md` of the libp2p specifications.
pub const PROTOCOL: &str = "/perf/1.0.0";

/// Bytes that are read or written at a time. Chosen: four frames of the
/// muxer.
const CHUNK: usize = 64 * 1024;

/// Bounds on what a caller may have a server do on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerfLimits {
    /// Most bytes that a caller may give, and want, each. Default: 1 GiB. Chosen: ten seconds of a gigabit a second.
    pub bytes: u64,
}

gossip::setters!(PerfLimits {
    with_bytes => bytes: u64,
});

impl Default for PerfLimits {
    fn default() -> Self {
        Self { bytes: 1 << 30 }
    }
}

/// Why a measurement came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerfError {
    /// The stream broke. The server ends it so if it was asked for more than it gives.
    #[error("the stream broke after {given} bytes were given and {taken} came")]
    Broken {
        /// Bytes sent until then.
        given: u64,
        /// Bytes received until then.
        taken: u64,
        /// The error of the stream.
        source: io::Error,
    },
    /// The exchange was not over in the time that the caller set.
    #[error("the exchange was not over after {after:?}")]
    TimedOut {
        /// The time.
        after: Duration,
    },
    /// A caller gave, or wanted, more than the server's bound.
    #[error("more than {most} bytes were given or wanted")]
    TooMuch {
        /// The bound.
        most: u64,
    },
    /// The server sent another number of bytes than was wanted.
    #[error("{taken} bytes came, and {wanted} were wanted")]
    Miscounted {
        /// Bytes that were wanted.
        wanted: u64,
        /// Bytes that came. A server that sends too many is not read to its end.
        taken: u64,
    },
}

/// The bytes of one exchange, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes from the caller to the server.
    pub upload: u64,
    /// Bytes from the server to the caller.
    pub download: u64,
}

/// The times that one exchange took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// From the first byte given until the server answered, which it does once it has read them all. One way back is
    /// in it.
    pub upload: Duration,
    /// From the server's first byte, or its end, to its last.
    pub download: Duration,
}

/// Serves one exchange: takes what the caller gives, then gives what it wanted. Returns what was exchanged.
///
/// # Errors
///
/// [`PerfError::Broken`] and [`PerfError::TooMuch`]. The stream is to be dropped then; the caller finds that bytes are
/// missing.
///
/// # Cancel safety
///
/// Dropping the future leaves the stream in the middle of the exchange.
pub async fn serve(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    limits: PerfLimits,
) -> Result<Exchange, PerfError> {
    let (mut given, mut taken) = (0, 0);
    let served = async {
        let wanted = stream.read_u64().await?;
        let mut buffer = vec![0; CHUNK];
        while wanted <= limits.bytes && taken <= limits.bytes {
            match stream.read(&mut buffer).await? {
                0 => {
                    give(stream, wanted, |bytes| given += bytes).await?;
                    stream.shutdown().await?;
                    return Ok(Some(wanted));
                }
                read => taken += read as u64,
            }
        }
        Ok(None)
    };
    match served.await {
        Ok(Some(download)) => Ok(Exchange { upload: taken, download }),
        Ok(None) => Err(PerfError::TooMuch { most: limits.bytes }),
        Err(source) => Err(PerfError::Broken { given, taken, source }),
    }
}

/// Makes one exchange with a server, and takes its time. `moved` is told of every piece, in bytes.
///
/// # Errors
///
/// [`PerfError::Broken`] and [`PerfError::Miscounted`].
///
/// # Cancel safety
///
/// Dropping the future leaves the stream in the middle of the exchange; it is to be dropped as well.
pub async fn measure(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    exchange: Exchange,
    mut moved: impl FnMut(u64),
) -> Result<Measured, PerfError> {
    let (mut given, mut taken) = (0, 0);
    let wanted = exchange.download;
    let measured = async {
        let started = Instant::now();
        stream.write_u64(wanted).await?;
        let told = |bytes| {
            given += bytes;
            moved(bytes);
        };
        give(stream, exchange.upload, told).await?;
        stream.shutdown().await?;
        let mut buffer = vec![0; CHUNK];
        let mut answered = None;
        loop {
            let read = stream.read(&mut buffer).await? as u64;
            let now = Instant::now();
            let first = *answered.get_or_insert(now);
            taken += read;
            moved(read);
            if read == 0 || taken > wanted {
                return Ok(Measured { upload: first - started, download: now - first });
            }
        }
    };
    match measured.await {
        Ok(measured) if taken == wanted => Ok(measured),
        Ok(_) => Err(PerfError::Miscounted { wanted, taken }),
        Err(source) => Err(PerfError::Broken { given, taken, source }),
    }
}

/// Writes so many bytes, and tells of each piece.
async fn give(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: u64,
    mut told: impl FnMut(u64),
) -> io::Result<()> {
    let piece = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let written = stream.write(&piece[..most]).await? as u64;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left -= written;
        told(written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    /// Runs a server and a caller on one pipe.
    async fn exchanged(
        limits: PerfLimits,
        exchange: Exchange,
    ) -> (Result<Exchange, PerfError>, Result<Measured, PerfError>, u64) {
        let (mut near, mut far) = duplex(10_000);
        let mut moved = 0;
        let server = async move { serve(&mut far, limits).await };
        let caller = measure(&mut near, exchange, |bytes| moved += bytes);
        let (served, measured) = tokio::join!(server, caller);
        (served, measured, moved)
    }

    #[tokio::test]
    async fn both_ends_count_the_same_bytes() {
        for (upload, download) in [(0, 0), (1, 0), (0, 1), (200_000, 65_536), (65_537, 1_000_000)] {
            let exchange = Exchange { upload, download };
            let (served, measured, moved) = exchanged(PerfLimits::default(), exchange).await;
            assert_eq!(served.unwrap(), exchange);
            measured.unwrap();
            assert_eq!(moved, upload + download);
        }
    }

    #[tokio::test]
    async fn more_than_the_bound_fails_at_both_ends() {
        let limits = PerfLimits::default().with_bytes(1_000);
        // A pipe has no reset: its reader cannot tell a server that gave up from one that gives nothing.
        for (upload, download) in [(1_001, 1), (0, 1_001), (0, u64::MAX), (5_000_000, 0)] {
            let (served, measured, _) = exchanged(limits, Exchange { upload, download }).await;
            assert!(matches!(served, Err(PerfError::TooMuch { most: 1_000 })), "{served:?}");
            assert!(measured.is_err(), "{measured:?}");
        }
        let most = Exchange { upload: 1_000, download: 1_000 };
        assert_eq!(exchanged(limits, most).await.0.unwrap(), most);
    }

    #[tokio::test]
    async fn a_server_that_gives_another_number_of_bytes_is_found_out() {
        for sent in [9, 11, 1_000_000] {
            let (mut near, mut far) = duplex(1_000);
            let server = async move {
                let mut wanted = Vec::new();
                far.read_to_end(&mut wanted).await.unwrap();
                // The caller leaves when it has seen enough.
                let _ = far.write_all(&vec![0; sent]).await;
            };
            let exchange = Exchange { upload: 0, download: 10 };
            let caller = async move { measure(&mut near, exchange, |_| ()).await };
            let ((), measured) = tokio::join!(server, caller);
            assert!(matches!(measured, Err(PerfError::Miscounted { wanted: 10, .. })), "{sent}");
        }
    }

    proptest! {
        // A caller that sends anything at all gets an end or an error, and no more than it asked for.
        #[test]
        fn any_bytes_are_served_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut near, mut far) = duplex(100_000);
                near.write_all(&bytes).await.unwrap();
                near.shutdown().await.unwrap();
                let limits = PerfLimits::default().with_bytes(50_000);
                let served = serve(&mut far, limits).await;
                prop_assert_eq!(served.is_ok(), bytes.len() >= 8 && bytes[..6] == [0; 6]
                    && u16::from_be_bytes([bytes[6], bytes[7]]) <= 50_000);
                Ok(())
            })?;
        }
    }
}
