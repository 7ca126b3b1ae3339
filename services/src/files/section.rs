//! A part of a file as the body of a message.
//!
//! # Invariants
//!
//! * It is as long as it says, or ends with an error: a file that was cut meanwhile is no whole body.
//! * It holds [`PIECE_BYTES`] at most, and reads only when it is asked for more.
//! * Files are read where blocking is allowed, never in a task.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use super::Transferred;

/// Bytes read at once. Chosen: long enough that the change of thread does not show, short enough for
/// hundreds of bodies at a time.
const PIECE_BYTES: u64 = 256 * 1024;

/// A part of a file as the body of a message.
#[derive(Debug)]
pub struct Section {
    file: Arc<File>,
    /// Bytes that have not been read.
    left: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    progress: Option<watch::Sender<Transferred>>,
}

impl Section {
    /// The bytes `part` of the file, counted from 0, the end left out.
    #[must_use]
    pub const fn new(file: Arc<File>, part: Range<u64>) -> Self {
        Self { file, left: part, reading: None, progress: None }
    }

    /// Says how far it was read.
    pub(super) fn watched(mut self, progress: watch::Sender<Transferred>) -> Self {
        self.progress = Some(progress);
        self
    }

    fn len(&self) -> u64 {
        self.left.end.saturating_sub(self.left.start)
    }
}

impl Body for Section {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.len() == 0 {
            return Poll::Ready(None);
        }
        let (at, bytes) = (this.left.start, this.len().min(PIECE_BYTES));
        let reading = this.reading.get_or_insert_with(|| {
            let file = this.file.clone();
            spawn_blocking(move || piece(&file, at, bytes))
        });
        let read = ready!(Pin::new(reading).poll(context));
        this.reading = None;
        match read.map_err(io::Error::other).flatten() {
            Ok(piece) => {
                this.left.start += bytes;
                if let Some(progress) = &this.progress {
                    progress.send_modify(|transferred| transferred.bytes += bytes);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => {
                this.left.start = this.left.end;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

fn piece(file: &File, at: u64, bytes: u64) -> io::Result<Bytes> {
    let mut piece = BytesMut::zeroed(usize::try_from(bytes).map_err(io::Error::other)?);
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use gossip::http::read_all;

    use super::*;

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn it_is_the_part_that_was_asked_for() {
        let content: Vec<u8> =
            (0..PIECE_BYTES * 2 + 9).map(|at| at as u8 ^ (at >> 9) as u8).collect();
        let file = file(&content);
        for part in [0..0, 0..1, 5..PIECE_BYTES + 5, 0..content.len() as u64] {
            let section = Section::new(file.clone(), part.clone());
            assert_eq!(section.size_hint().exact(), Some(part.end - part.start));
            let read = read_all(section, content.len()).await.unwrap();
            assert_eq!(read, content[part.start as usize..part.end as usize]);
        }
    }

    #[tokio::test]
    async fn a_file_that_was_cut_is_no_whole_body() {
        let section = Section::new(file(b"four"), 0..5);
        assert!(read_all(section, 100).await.is_err());
    }
}
