//! Two ends without a network: who closes a channel, and streams that nobody reads.

use std::task::Waker;

use super::{super::pressure::LIMIT, *};
use crate::webrtc::{Sctp, chunks};

/// Type of the chunk that resets streams, and of its parameter that asks for it. Source: RFC 6525, 3 and 4.1.
const RECONFIG: u8 = 130;
const OUTGOING_RESET: &[u8] = &[0, 13];

/// Both ends of an association, the one that listens first.
struct Pair {
    ends: [Channels<Sctp>; 2],
    now: Instant,
    /// Requests of each end to reset streams.
    resets: [usize; 2],
}

const LISTENER: usize = 0;
const DIALER: usize = 1;

impl Pair {
    fn connected() -> Self {
        let ends = [Side::Listener, Side::Dialer].map(|side| Channels::new(side, Sctp::new(side)));
        let mut pair = Self { ends, now: Instant::now(), resets: [0; 2] };
        pair.ends[DIALER].association().start().unwrap();
        pair.exchange();
        assert!(pair.ends.iter_mut().all(|end| end.association().is_established()));
        pair
    }

    /// Delivers packets until there are none.
    fn exchange(&mut self) {
        let mut is_done = false;
        while !std::mem::replace(&mut is_done, true) {
            for from in [LISTENER, DIALER] {
                while let Some(packets) = self.ends[from].association().poll_transmit(self.now) {
                    for packet in packets {
                        is_done = false;
                        let asks = |(kind, value): &(u8, &[u8])| {
                            *kind == RECONFIG && value.starts_with(OUTGOING_RESET)
                        };
                        self.resets[from] += chunks(&packet).filter(asks).count();
                        let to = &mut self.ends[1 - from];
                        to.association().receive(packet, self.now).unwrap();
                        to.settle(self.now).unwrap();
                    }
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(50);
            for end in &mut self.ends {
                end.tick(self.now).unwrap();
            }
            self.exchange();
        }
    }

    /// A stream of the end that dials.
    fn stream(&mut self) -> [Key; 2] {
        let own = self.ends[DIALER].open().unwrap();
        self.exchange();
        [self.ends[LISTENER].accept().unwrap(), own]
    }

    fn write(&mut self, from: usize, key: Key, bytes: &[u8]) -> bool {
        let context = Context::from_waker(Waker::noop());
        let written = self.ends[from].write(key, &context, bytes);
        matches!(written, Poll::Ready(Ok(taken)) if taken == bytes.len())
    }

    fn read(&mut self, at: usize, key: Key) -> Poll<io::Result<usize>> {
        let context = Context::from_waker(Waker::noop());
        self.ends[at].read(key, &context, &mut [0; 16_384], self.now)
    }

    /// Writes until nothing more is taken, for a long time.
    fn fill(&mut self, from: usize, key: Key) {
        for _ in 0..40 {
            while self.write(from, key, &[7; 16_000]) {
                self.exchange();
            }
            self.pass(Duration::from_millis(50));
        }
    }
}

// Issue 13, 3: node-datachannel uses the ID of a channel again at once, and takes a second reset for that of the new channel.
#[test]
fn the_end_that_opened_a_channel_may_close_it_before_the_other_one_does() {
    let mut pair = Pair::connected();
    let [theirs, own] = pair.stream();
    pair.ends[LISTENER].finish(theirs);
    pair.ends[LISTENER].release(theirs, pair.now);
    // The opener has finished as well, and takes its time.
    pair.ends[DIALER].finish(own);
    pair.ends[DIALER].channels.get_mut(&own).unwrap().is_of_peer = true;
    pair.exchange();
    assert_eq!(pair.resets, [0, 0]);
    pair.pass(CLOSING);
    assert!(pair.resets[LISTENER] > 0);
    assert!(!pair.ends[LISTENER].channels.contains_key(&theirs));
}

// Issue 13, 3.
#[test]
fn a_stream_that_nobody_reads_is_reset_and_others_go_on() {
    for (from, to) in [(DIALER, LISTENER), (LISTENER, DIALER)] {
        let mut pair = Pair::connected();
        let (unread, read) = (pair.stream(), pair.stream());
        pair.fill(from, unread[from]);
        // The window has no room for it.
        pair.fill(from, read[from]);
        assert!(pair.ends[to].held() < 2 * 1024 * 1024, "{}", pair.ends[to].held());
        pair.pass(LIMIT * 2);
        let broken = pair.read(to, unread[to]);
        assert!(
            matches!(broken, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset)
        );
        assert!(!pair.write(from, unread[from], b"x"), "its writer has heard of it");
        let mut heard = 0;
        for _ in 0..200 {
            while pair.write(from, read[from], &[8; 16_000]) {}
            pair.exchange();
            while let Poll::Ready(Ok(bytes @ 1..)) = pair.read(to, read[to]) {
                heard += bytes;
                pair.exchange();
            }
        }
        assert!(heard > 2_000_000, "{heard} bytes were heard");
        assert_eq!(pair.ends[to].take_unread_resets(), 1);
        pair.pass(LINGER);
        assert!(pair.ends[to].held() < 100_000, "{}", pair.ends[to].held());
    }
}

#[test]
fn a_slow_reader_keeps_its_stream() {
    let mut pair = Pair::connected();
    let [theirs, own] = pair.stream();
    let mut heard = 0;
    pair.fill(DIALER, own);
    for _ in 0..40 {
        while pair.write(DIALER, own, &[8; 16_000]) {}
        pair.pass(Duration::from_millis(500));
        let Poll::Ready(Ok(bytes @ 1..)) = pair.read(LISTENER, theirs) else {
            panic!("the stream has ended after {heard} bytes")
        };
        heard += bytes;
    }
    assert_eq!(pair.ends[LISTENER].take_unread_resets(), 0);
}
