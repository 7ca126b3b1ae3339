//! Bytes that are lent to a stream for the time of one write.
//!
//! The writes of streams take borrowed bytes, so a stream has to copy what it keeps. One that is offered parts of bytes that are
//! lent at that moment can keep those.
//!
//! # Invariants
//!
//! * Bytes stand for a part only if they lie where the part lies, and they are alive while they are lent.

use std::{cell::Cell, io::IoSlice};

use bytes::Bytes;

thread_local! {
    /// The bytes that are lent in this thread.
    static LENT: Cell<Vec<Bytes>> = const { Cell::new(Vec::new()) };
}

/// Runs `write` with `chunks` as parts, while they are lent.
pub(crate) fn lend<T>(chunks: &[Bytes], write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
    let parts: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    LENT.set(chunks.to_vec());
    let result = write(&parts);
    drop(LENT.take());
    result
}

/// Takes the bytes that `parts` are of; `None` if they are not lent.
pub(crate) fn take(parts: &[IoSlice<'_>]) -> Option<Vec<Bytes>> {
    let lent = LENT.take();
    let is_same = |(chunk, part): (&Bytes, &IoSlice<'_>)| {
        chunk.as_ptr() == part.as_ptr() && chunk.len() == part.len()
    };
    let are_lent = lent.len() == parts.len() && lent.iter().zip(parts).all(is_same);
    are_lent.then_some(lent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_lent_only_during_the_write_and_only_as_they_are() {
        let chunks = [Bytes::from(vec![1; 10]), Bytes::from(vec![2; 20])];
        assert_eq!(lend(&chunks, take).as_deref(), Some(&chunks[..]));
        assert_eq!(lend(&chunks, |parts| take(&parts[..1])), None);
        let equal = vec![1; 10];
        assert_eq!(lend(&chunks, |parts| take(&[IoSlice::new(&equal), parts[1]])), None);
        assert_eq!(lend(&chunks, |parts| (take(parts), take(parts)).1), None);
        let parts = chunks.each_ref().map(|chunk| IoSlice::new(chunk));
        assert_eq!(take(&parts), None);
    }
}
