//! An upper bound of the bytes that a QUIC connection keeps in memory.
//!
//! quinn keeps received bytes until a stream is read, and sent bytes until they are acknowledged, and tells neither
//! number. What it tells is how many bytes have come and gone in all, so the bound follows from these.
//!
//! # Invariants
//!
//! * Received bytes count from the last moment at which every stream was read to its end. At most a window of them
//!   count, since the peer may not send more.
//! * Written bytes count for the interval in which they were written and the one after. While a writer waits for room,
//!   no older ones are let go. At most a window of them count, or what counted before the window became smaller.

/// The counters of a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Bytes received in datagrams.
    pub(super) received: u64,
    /// Bytes that streams have written.
    pub(super) written: u64,
    /// Streams with bytes that were not read.
    pub(super) unread_streams: usize,
    /// `true` if every stream was read to its end since the last reading.
    pub(super) was_empty: bool,
    /// `true` if a stream waited for room since the last reading.
    pub(super) was_blocked: bool,
}

/// The bound, from one reading to the next.
#[derive(Debug)]
pub(super) struct Gauge {
    receive_window: usize,
    send_window: usize,
    largest_send_window: usize,
    /// Written bytes that counted at the last reading.
    unsent: usize,
    last: Reading,
    /// Bytes received when every stream was read to its end.
    empty_at: u64,
    /// Bytes written that are certainly gone.
    gone: u64,
}

impl Gauge {
    /// The gauge of a connection with these windows, in bytes.
    pub(super) fn new(receive_window: usize, send_window: usize) -> Self {
        Self {
            receive_window,
            send_window,
            largest_send_window: send_window,
            unsent: 0,
            last: Reading::default(),
            empty_at: 0,
            gone: 0,
        }
    }

    /// Sets the window for written bytes, at most the one that the connection began with. Returns it if it is another
    /// one than before.
    pub(super) fn resize(&mut self, send_window: usize) -> Option<usize> {
        let window = send_window.min(self.largest_send_window);
        let before = std::mem::replace(&mut self.send_window, window);
        (window != before).then_some(window)
    }

    /// Takes a reading, and returns the most bytes that the connection may keep.
    pub(super) fn measure(&mut self, now: Reading) -> usize {
        if now.unread_streams == 0 {
            self.empty_at = now.received;
        } else if now.was_empty {
            self.empty_at = self.last.received;
        }
        if !now.was_blocked {
            self.gone = self.last.written;
        }
        self.last = now;
        let within =
            |bytes: u64, window: usize| usize::try_from(bytes).unwrap_or(usize::MAX).min(window);
        let most = self.send_window.max(self.unsent);
        self.unsent = within(now.written.saturating_sub(self.gone), most);
        within(now.received.saturating_sub(self.empty_at), self.receive_window) + self.unsent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_bytes_count_up_to_the_window_until_all_is_read() {
        let mut gauge = Gauge::new(1_000, 1_000);
        let unread = |received| Reading { received, unread_streams: 1, ..Reading::default() };
        assert_eq!(gauge.measure(unread(300)), 300);
        assert_eq!(gauge.measure(unread(700)), 700);
        assert_eq!(gauge.measure(unread(90_000)), 1_000);
        // Read in between, and more has come since.
        let again = Reading { was_empty: true, ..unread(90_400) };
        assert_eq!(gauge.measure(again), 400);
        let read = Reading { received: 90_400, ..Reading::default() };
        assert_eq!(gauge.measure(read), 0);
    }

    #[test]
    fn written_bytes_count_until_the_interval_after_and_while_a_writer_waits() {
        let mut gauge = Gauge::new(1_000, 1_000);
        let wrote = |written| Reading { written, ..Reading::default() };
        assert_eq!(gauge.measure(wrote(300)), 300);
        assert_eq!(gauge.measure(wrote(300)), 0);
        let blocked = |written| Reading { was_blocked: true, ..wrote(written) };
        assert_eq!(gauge.measure(blocked(800)), 500);
        assert_eq!(gauge.measure(blocked(5_000)), 1_000);
        assert_eq!(gauge.measure(wrote(5_000)), 0);
    }

    #[test]
    fn a_smaller_window_counts_once_what_was_written_before_is_gone() {
        let mut gauge = Gauge::new(1_000, 1_000);
        let reading = |written, was_blocked| Reading { written, was_blocked, ..Reading::default() };
        assert_eq!(gauge.measure(reading(900, false)), 900);
        assert_eq!((gauge.resize(300), gauge.resize(300)), (Some(300), None));
        assert_eq!(gauge.measure(reading(900, true)), 900, "they may still wait");
        assert_eq!(gauge.measure(reading(1_500, false)), 600);
        assert_eq!(gauge.measure(reading(2_500, true)), 600);
        assert_eq!(gauge.measure(reading(2_500, false)), 0);
        assert_eq!(gauge.measure(reading(9_000, true)), 300);
        assert_eq!(gauge.resize(9_000), Some(1_000), "as at the beginning");
    }
}
