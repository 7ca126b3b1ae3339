//! Lines that are written without the program ever waiting for whoever reads them.
//!
//! ```text
//!   offer ──room?──▶ [at most 1 MiB] ──▶ thread ──write──▶ descriptor
//!            └─ no: counted as lost
//! ```
//!
//! # Invariants
//!
//! * [`Lines::offer`] never waits and never fails: a line that does not fit, or could not be written, is
//!   dropped and counted. Once writing works again a line says how many are missing.
//! * Only whole lines are dropped, so what is written can be read line by line.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Bytes that may wait to be written. Chosen: some seconds of a chatty log, and little beside the byte
/// budget of a node.
pub(crate) const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Pause after a descriptor that does not block took nothing, or after a write failed. Chosen: nobody sees
/// lines come a tenth of a second late.
const RETRY: Duration = Duration::from_millis(100);

/// Writes whole lines to one descriptor. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Woken when there is something to write, and when it was written.
    changed: Condvar,
}

/// Lines that follow each other without a gap.
#[derive(Debug, Default)]
struct Batch {
    /// Lines that were dropped right before these.
    missing: u64,
    lines: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Batch>,
    waiting_bytes: usize,
    /// `true` while the thread holds lines that it has not written.
    writing: bool,
    /// Lines that were dropped, ever.
    lost: u64,
    /// Those of them that no batch tells of yet.
    untold: u64,
    /// `true` once the reader has gone.
    closed: bool,
}

impl Lines {
    /// Writes to a copy of a descriptor. `missing` makes the line that tells of lines that were dropped.
    pub(crate) fn to(descriptor: impl AsFd, missing: fn(u64) -> String) -> io::Result<Self> {
        let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
        Self::into_writer(file, missing)
    }

    fn into_writer(
        out: impl Write + Send + 'static,
        missing: fn(u64) -> String,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        // A thread, not a task: it may wait for its reader for ever, and ends with the process.
        thread::Builder::new().name("lines".to_owned()).spawn(move || writer.run(out, missing))?;
        Ok(Self { shared })
    }

    /// Writes lines, each with its newline, when the reader takes them.
    pub(crate) fn offer(&self, lines: &[u8]) {
        let mut state = self.shared.lock();
        if state.closed || state.waiting_bytes + lines.len() > MAX_WAITING_BYTES {
            state.lose(lines);
            return;
        }
        state.push(lines);
        self.shared.changed.notify_all();
    }

    /// Lines that were dropped.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lock().lost
    }

    /// `true` once the reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Waits until everything was written, for at most `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn push(&mut self, lines: &[u8]) {
        self.waiting_bytes += lines.len();
        match self.waiting.back_mut() {
            Some(batch) if self.untold == 0 => batch.lines.extend_from_slice(lines),
            _ => {
                let missing = std::mem::take(&mut self.untold);
                self.waiting.push_back(Batch { missing, lines: lines.to_vec() });
            }
        }
    }

    fn lose(&mut self, lines: &[u8]) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lost += count;
        self.untold += count;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: impl Write, missing: fn(u64) -> String) {
        loop {
            let batch = self.next();
            let told = match batch.missing {
                0 => Ok(()),
                lost => write_whole(&mut out, format!("{}\n", missing(lost)).as_bytes()),
            };
            let (untold, outcome) = match told {
                Ok(()) => (0, write_whole(&mut out, &batch.lines)),
                Err((error, _)) => (batch.missing, Err((error, 0))),
            };
            let mut state = self.lock();
            state.writing = false;
            if let Err((error, written)) = outcome {
                // Of a line that was begun nobody knows the rest, so it counts as lost too.
                state.untold += untold;
                state.lose(batch.lines.get(written..).unwrap_or_default());
                state.closed = error.kind() == ErrorKind::BrokenPipe;
            }
            self.changed.notify_all();
        }
    }

    /// Waits for lines to write, and takes them.
    fn next(&self) -> Batch {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.waiting.pop_front() {
                state.waiting_bytes -= batch.lines.len();
                state.writing = true;
                return batch;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes all of it, or says how much of it was written.
fn write_whole(out: &mut impl Write, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), written)),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the descriptor has made it one that does not block.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, PipeReader},
        time::Duration,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn missing(lost: u64) -> String {
        format!("{lost} lost")
    }

    fn pipe() -> (Lines, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        (Lines::into_writer(writer, missing).unwrap(), reader)
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (lines, reader) = pipe();
        for number in 0..1_000 {
            lines.offer(format!("{number}\n").as_bytes());
        }
        let read: Vec<String> = BufReader::new(reader).lines().take(1_000).flatten().collect();
        assert_eq!(read, (0..1_000).map(|number| number.to_string()).collect::<Vec<_>>());
        lines.flush(PATIENCE);
        assert_eq!(lines.lost(), 0);
    }

    #[test]
    fn unread_lines_are_dropped_and_counted_in_the_next_one() {
        let (lines, reader) = pipe();
        let line = format!("{}\n", "x".repeat(999));
        let offered = 3 * MAX_WAITING_BYTES as u64 / line.len() as u64;
        for _ in 0..offered {
            lines.offer(line.as_bytes());
        }
        let lost = lines.lost();
        assert!(lost > 0);
        let began = Instant::now();
        lines.flush(Duration::from_millis(10));
        assert!(began.elapsed() < PATIENCE, "nobody reads, so there is nothing to wait for");
        let (mut kept, mut told, mut after) = (0, 0, false);
        let mut read = BufReader::new(reader).lines().map_while(Result::ok);
        while kept + lost < offered {
            match read.next().unwrap().strip_suffix(" lost") {
                Some(lost) => told += lost.parse::<u64>().unwrap(),
                None => kept += 1,
            }
        }
        lines.offer(b"after\n");
        while !after {
            match read.next().unwrap().strip_suffix(" lost") {
                Some(lost) => told += lost.parse::<u64>().unwrap(),
                None => after = true,
            }
        }
        assert_eq!((told, lines.lost()), (lost, lost));
    }

    #[test]
    fn a_reader_that_has_gone_is_known() {
        let (lines, reader) = pipe();
        drop(reader);
        lines.offer(b"one\n");
        lines.flush(PATIENCE);
        assert!(lines.is_closed());
        lines.offer(b"two\n");
        assert_eq!(lines.lost(), 2);
    }

    #[test]
    fn a_disk_that_is_full_loses_lines_until_it_has_room() {
        struct Full(u32);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 | 2 => Err(ErrorKind::StorageFull.into()),
                    _ => Ok(bytes.len()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::into_writer(Full(0), missing).unwrap();
        for expected in [1, 2, 2] {
            lines.offer(b"a line\n");
            lines.flush(PATIENCE);
            assert_eq!(lines.lost(), expected);
        }
        assert!(!lines.is_closed());
    }
}
