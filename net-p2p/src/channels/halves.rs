//! The two directions of a stream, and the flags that end them. Source: libp2p specifications, `webrtc/README.md`.
//!
//! # Invariants
//!
//! * Each flag is sent once. A FIN is answered as often as it comes, because the answer may be all that the peer waits for.
//! * A direction that has ended stays as it ended: nothing makes a reset stream look whole.

use super::message::Flag;

/// The direction in which this node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Open,
    /// The FIN was sent.
    Finished,
    /// The peer has everything.
    Acknowledged,
    /// This node has given up.
    Reset,
    /// The peer reads no more.
    Stopped,
}

/// The direction in which the peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Open,
    /// Everything has come.
    Finished,
    /// The peer has given up.
    Reset,
    /// This node reads no more.
    Stopped,
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
}

impl Default for Halves {
    fn default() -> Self {
        Self { sending: Sending::Open, receiving: Receiving::Open }
    }
}

impl Halves {
    /// Takes a flag of the peer, and returns the one that answers it.
    pub(super) fn receive(&mut self, flag: Flag) -> Option<Flag> {
        match flag {
            Flag::Fin => {
                if self.receiving != Receiving::Reset {
                    self.receiving = Receiving::Finished;
                }
                return Some(Flag::FinAck);
            }
            Flag::FinAck if self.sending == Sending::Finished => {
                self.sending = Sending::Acknowledged;
            }
            Flag::StopSending if self.sending == Sending::Open => self.sending = Sending::Stopped,
            Flag::Reset if self.receiving != Receiving::Finished => {
                self.receiving = Receiving::Reset;
            }
            Flag::FinAck | Flag::StopSending | Flag::Reset => {}
        }
        None
    }

    /// Notes that the peer has closed the channel: without a FIN, what it has sent is not whole.
    pub(super) fn close(&mut self) {
        if self.receiving != Receiving::Finished {
            self.receiving = Receiving::Reset;
        }
        self.sending = match self.sending {
            Sending::Open => Sending::Stopped,
            // The peer closes once it has sent its answer, which the closing may have overtaken.
            Sending::Finished => Sending::Acknowledged,
            ended => ended,
        };
    }

    /// Notes that bytes of the peer were thrown away, so that nothing makes the stream look whole.
    pub(super) fn lose(&mut self) {
        self.receiving = Receiving::Reset;
    }

    /// Ends what this node sends; returns the flag to send.
    pub(super) fn finish(&mut self) -> Option<Flag> {
        let is_open = self.sending == Sending::Open;
        is_open.then(|| {
            self.sending = Sending::Finished;
            Flag::Fin
        })
    }

    /// Returns `true` once both ends know that nothing more comes, so that the channel can be closed without a loss. A peer
    /// whose channel is closed before it has said its own FIN may take that for a fault, as js-libp2p does.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.sending, Sending::Acknowledged | Sending::Reset | Sending::Stopped)
            && matches!(self.receiving, Receiving::Finished | Receiving::Reset)
    }

    /// Returns `true` if the peer knows that a stream is over which is: one that reads no more hears of no end.
    pub(super) const fn is_over_for_peer(&self) -> bool {
        !matches!(self.sending, Sending::Stopped)
    }

    /// Gives up what this node sends, unless it was finished; returns the flag to send.
    pub(super) fn reset(&mut self) -> Option<Flag> {
        let is_open = self.sending == Sending::Open;
        is_open.then(|| {
            self.sending = Sending::Reset;
            Flag::Reset
        })
    }

    /// Reads no more; returns the flag to send.
    pub(super) fn stop(&mut self) -> Option<Flag> {
        let is_open = self.receiving == Receiving::Open;
        is_open.then(|| {
            self.receiving = Receiving::Stopped;
            Flag::StopSending
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_that_both_ends_finish_is_over_at_both() {
        let [mut ours, mut theirs] = [Halves::default(); 2];
        let fin = ours.finish().unwrap();
        let answer = theirs.receive(fin).unwrap();
        assert_eq!((answer, ours.receive(answer)), (Flag::FinAck, None));
        assert_eq!(ours.sending, Sending::Acknowledged);
        assert!(!ours.is_over() && !theirs.is_over(), "the other direction is open");
        let answer = ours.receive(theirs.finish().unwrap()).unwrap();
        theirs.receive(answer);
        assert!(ours.is_over() && theirs.is_over());
        assert_eq!((ours.finish(), theirs.reset(), ours.stop()), (None, None, None));
    }

    #[test]
    fn a_reset_is_no_end_of_what_was_sent_before() {
        let mut halves = Halves::default();
        assert_eq!(halves.receive(Flag::Reset), None);
        assert_eq!(halves.receive(Flag::Fin), Some(Flag::FinAck));
        assert_eq!(halves.receiving, Receiving::Reset);
        let mut whole = Halves::default();
        whole.receive(Flag::Fin);
        whole.receive(Flag::Reset);
        assert_eq!(whole.receiving, Receiving::Finished, "all had come before");
    }

    #[test]
    fn a_channel_that_is_closed_without_a_fin_is_a_reset() {
        let mut halves = Halves::default();
        halves.close();
        assert_eq!((halves.receiving, halves.sending), (Receiving::Reset, Sending::Stopped));
        assert!(halves.is_over());
        let mut whole = Halves::default();
        whole.receive(Flag::Fin);
        whole.finish();
        whole.close();
        let ends = (whole.receiving, whole.sending);
        assert_eq!(ends, (Receiving::Finished, Sending::Acknowledged));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Finish,
        Reset,
        Stop,
        Deliver,
    }

    fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
        let step = prop_oneof![
            Just(Step::Finish),
            Just(Step::Reset),
            Just(Step::Stop),
            Just(Step::Deliver),
            Just(Step::Deliver)
        ];
        proptest::collection::vec((any::<bool>(), step), 0..24)
    }

    proptest! {
        // Two ends do anything, and hear of it late: once each has ended its direction, both are over, and a direction
        // counts as whole only if its sender has finished it.
        #[test]
        fn two_ends_agree_in_the_end(steps in steps()) {
            let mut ends = [Halves::default(); 2];
            let mut wires: [VecDeque<Flag>; 2] = Default::default();
            let finished = |halves: &Halves| matches!(halves.sending, Sending::Finished | Sending::Acknowledged);
            let deliver = |ends: &mut [Halves; 2], wires: &mut [VecDeque<Flag>; 2], from: usize| {
                let Some(flag) = wires[from].pop_front() else { return };
                if let Some(answer) = ends[1 - from].receive(flag) {
                    wires[1 - from].push_back(answer);
                }
            };
            for (is_other, step) in steps {
                let end = usize::from(is_other);
                let flag = match step {
                    Step::Finish => ends[end].finish(),
                    Step::Reset => ends[end].reset(),
                    Step::Stop => ends[end].stop(),
                    Step::Deliver => {
                        deliver(&mut ends, &mut wires, end);
                        None
                    }
                };
                wires[end].extend(flag);
            }
            for end in [0, 1] {
                let flag = ends[end].reset();
                wires[end].extend(flag);
            }
            while wires.iter().any(|wire| !wire.is_empty()) {
                deliver(&mut ends, &mut wires, 0);
                deliver(&mut ends, &mut wires, 1);
            }
            for end in [0, 1] {
                let (own, other) = (ends[end], ends[1 - end]);
                if own.receiving == Receiving::Finished {
                    prop_assert!(finished(&other));
                }
                if own.sending == Sending::Acknowledged {
                    prop_assert_eq!(other.receiving, Receiving::Finished);
                }
                // A sender that was asked to stop says nothing more.
                let is_told = other.sending != Sending::Stopped;
                prop_assert!(own.is_over() || !is_told, "{:?} and {:?}", own, other);
            }
        }
    }
}
