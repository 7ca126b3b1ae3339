//! Carries the signals of one meeting between its host and the peer.
//!
//! # Invariants
//!
//! * A signal out of its order, of either end, ends the meeting.
//! * The queues to and from the host hold all signals that an end may send, so none of them waits for the host.
//! * The end of the peer's signals ends the meeting only if the peer has not described itself: the host may connect without
//!   further candidates.

use std::{convert::Infallible, future::pending, io};

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_util::codec::Framed;

use super::{
    MeetingError, MeetingRole,
    course::{Course, MAX_CANDIDATES},
    signal::{Signal, SignalCodec, SignalError, SignalFault},
};
use crate::given::transport::NotReached;

/// Capacity of the queues between a meeting and its host: a description and all candidates.
const SIGNALS: usize = MAX_CANDIDATES + 1;

/// The signals of one meeting, for its host.
#[derive(Debug)]
pub struct Signals {
    /// Sends those of the host.
    pub sender: SignalSender,
    /// Receives those of the peer.
    pub receiver: SignalReceiver,
}

/// Sends the signals of a host. Clones are the same.
#[derive(Clone, Debug)]
pub struct SignalSender(mpsc::Sender<Signal>);

impl SignalSender {
    /// Sends a signal without waiting: the description of this end first, then at most 64 candidates of 2 KiB.
    ///
    /// # Errors
    ///
    /// Too many were sent, or the meeting is over.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        self.0.try_send(signal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => io::Error::other("too many signals were sent"),
            mpsc::error::TrySendError::Closed(_) => io::ErrorKind::NotConnected.into(),
        })
    }
}

/// Receives the signals of the peer, in their order.
#[derive(Debug)]
pub struct SignalReceiver(mpsc::Receiver<Signal>);

impl SignalReceiver {
    /// Waits for the next signal; `None` when no more will come.
    ///
    /// # Cancel safety
    ///
    /// Safe: a signal that was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<Signal> {
        self.0.recv().await
    }
}

/// The other ends of the signals of a host.
#[derive(Debug)]
pub(super) struct HostSignals {
    to_host: mpsc::Sender<Signal>,
    from_host: mpsc::Receiver<Signal>,
}

/// The signals of one meeting, and their other ends.
pub(super) fn signals() -> (Signals, HostSignals) {
    let (sender, from_host) = mpsc::channel(SIGNALS);
    let (to_host, receiver) = mpsc::channel(SIGNALS);
    let signals = Signals { sender: SignalSender(sender), receiver: SignalReceiver(receiver) };
    (signals, HostSignals { to_host, from_host })
}

/// Carries signals until the host, whose end has this role, has connected.
///
/// # Errors
///
/// The host's error, a fault of the peer, or the end of its signals before it described itself.
///
/// # Cancel safety
///
/// Not safe: signals may have been lost.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin, T>(
    stream: &mut Framed<S, SignalCodec>,
    role: MeetingRole,
    host: impl Future<Output = io::Result<T>>,
    HostSignals { to_host, mut from_host }: HostSignals,
) -> Result<T, MeetingError> {
    let (mut to_peer, mut from_peer) = stream.split();
    let (mut said, mut heard) = (Course::of(role), Course::of(role.other()));
    let send = async {
        while let Some(signal) = from_host.recv().await {
            said.take(&signal).map_err(MeetingError::OfHost)?;
            match to_peer.send(signal).await {
                Ok(()) => {}
                Err(SignalError::Fault(fault)) => return Err(MeetingError::OfHost(fault)),
                // The reader hears of it too, and knows if anything is lost by it.
                Err(SignalError::Io(_)) => break,
            }
        }
        pending::<Result<Infallible, MeetingError>>().await
    };
    let receive = async {
        loop {
            match from_peer.next().await {
                Some(Ok(signal)) => {
                    heard.take(&signal)?;
                    // The send fails only if the host wants no more.
                    let _ = to_host.try_send(signal);
                }
                Some(Err(SignalError::Fault(fault))) => return Err(fault.into()),
                Some(Err(SignalError::Io(error))) if !heard.is_described() => {
                    return Err(MeetingError::Signals(error));
                }
                None if !heard.is_described() => {
                    return Err(MeetingError::Signals(io::ErrorKind::UnexpectedEof.into()));
                }
                Some(Err(SignalError::Io(_))) | None => break,
            }
        }
        drop(to_host);
        pending::<Result<Infallible, MeetingError>>().await
    };
    let connected = tokio::select! {
        biased;
        connected = host => connected.map_err(NotReached)?,
        Err(error) = send => return Err(error),
        Err(error) = receive => return Err(error),
    };
    // A host may be done as soon as it has said the last word, and the peer has to hear that too.
    from_host.close();
    while let Ok(signal) = from_host.try_recv() {
        said.take(&signal).map_err(MeetingError::OfHost)?;
        if to_peer.send(signal).await.is_err() {
            break;
        }
    }
    Ok(connected)
}

impl From<SignalFault> for MeetingError {
    fn from(fault: SignalFault) -> Self {
        Self::OfPeer(fault)
    }
}
