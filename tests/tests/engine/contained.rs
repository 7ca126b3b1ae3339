//! A bug in the code that reads or writes one connection ends that connection and no other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{future::pending, io, time::Duration};

use broadcaster::{
    Attached, Broadcaster, Frame, FrameSink, FrameSource, LaneSinks, Limits, Link, LinkHooks,
    LinkInfo, MessageMemory, Received, Setup, SourceEnd,
};
use bytes::Bytes;
use gossip::{
    Admission, BoxFuture, Direction, DisconnectReason, LinkId, NetworkProfile, Outbound, PeerClass,
    Tag, Transport,
};
use runtime::Shutdown;
use std::sync::Arc;
use testkit::wait::{soon, until};
use tokio_util::sync::CancellationToken;

/// The place of the bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    Read,
    Control,
    Write,
    Close,
    Nowhere,
}

struct End {
    bug: Bug,
    read: bool,
}

impl FrameSource for End {
    async fn next_message(&mut self) -> Result<Received, SourceEnd> {
        if self.bug == Bug::Read {
            panic!("a bug in a decoder");
        }
        if self.read || self.bug != Bug::Control {
            return pending().await;
        }
        self.read = true;
        let wire = Bytes::from_static(b"NIwhatever");
        Ok(Received { tag: Tag::NI, wire, memory: MessageMemory::Uncharged })
    }
}

impl FrameSink for End {
    async fn write_batch(&mut self, _batch: &[Frame]) -> io::Result<()> {
        assert!(self.bug != Bug::Write, "a bug in an encoder");
        Ok(())
    }

    async fn close(&mut self, _reason: DisconnectReason) {
        assert!(self.bug != Bug::Close, "a bug in what closes");
    }
}

impl LinkHooks for End {
    fn control(&self, _: LinkId, _: Tag, _: &Bytes) -> Result<(), DisconnectReason> {
        panic!("a bug in what handles a message of the transport");
    }

    fn sign_of_life(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn attach(broadcaster: &Broadcaster, bug: Bug) -> Attached {
    let end = || End { bug, read: false };
    let link = Link {
        about: LinkInfo::new(Transport::Memory, Direction::Inbound, "memory".into()),
        sinks: LaneSinks::Shared(end()),
        sources: vec![end()],
        greeting: Vec::new(),
        hooks: Some(Arc::new(end())),
        codec: None,
        gauge: None,
    };
    broadcaster.attach(broadcaster.next_link_id(), link).unwrap()
}

// Issue 9, 11.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_link_only() {
    for bug in [Bug::Read, Bug::Control, Bug::Write, Bug::Close] {
        let root = CancellationToken::new();
        let setup = Setup::new(&NetworkProfile::TANDEM).limits(Limits::default());
        let broadcaster = Broadcaster::start(setup, &root);
        let (mut sound, mut ill) = (attach(&broadcaster, Bug::Nowhere), attach(&broadcaster, bug));
        let vote = |number: u8| Outbound::new(Tag::AV, vec![number; 100]);
        let reason = if bug == Bug::Close {
            broadcaster.disconnect(ill.peer, DisconnectReason::Requested);
            DisconnectReason::Requested
        } else {
            DisconnectReason::Internal
        };
        assert_eq!(broadcaster.broadcast(&vote(1)), Ok(Admission::Queued), "{bug:?}");
        assert_eq!(soon("the link ends", ill.ended()).await, reason, "{bug:?}");
        assert_eq!(broadcaster.metrics().disconnects(reason), 1, "{bug:?}");
        until("it is gone", || broadcaster.peers(PeerClass::Connected).len() == 1).await;
        // The other link still works.
        let sent = broadcaster.broadcast_and_wait(&vote(2)).await.unwrap();
        assert_eq!((sent.written, sent.given_up), (1, 0), "{bug:?}");
        assert_eq!(broadcaster.budget().used(), 0, "{bug:?}");
        assert_eq!(broadcaster.stop(Duration::from_secs(10)).await, Shutdown::Clean, "{bug:?}");
        assert_eq!(sound.ended().await, DisconnectReason::LocalShutdown);
    }
}

// Issue 9, 11.
#[tokio::test(start_paused = true)]
async fn durations_of_any_length_end_no_task() {
    for duration in [Duration::ZERO, Duration::MAX] {
        let limits = Limits::default()
            .with_write_timeout(duration)
            .with_close_timeout(duration)
            .with_priority_age(duration)
            .with_bulk_age(duration)
            .with_slow_age(duration)
            .with_priority_window(duration)
            .with_bulk_window(duration)
            .with_message_time(duration)
            .with_inbound_wait(duration)
            .with_handler_timeout(duration)
            .with_request_timeout(duration)
            .with_parking_time(duration);
        let setup = Setup::new(&NetworkProfile::TANDEM).limits(limits);
        let node = testkit::memory::MemoryNetwork::start(testkit::harness::network(), setup);
        let other = testkit::memory::MemoryNetwork::start(
            testkit::harness::network(),
            Setup::new(&NetworkProfile::TANDEM),
        );
        let mut link = node.connect(&other, testkit::memory::Shape::default()).unwrap();
        let broadcaster = node.broadcaster();
        for number in 0..10_u8 {
            let _ = broadcaster.broadcast(&Outbound::new(Tag::VB, vec![number; 100_000]));
            let _ = other.broadcaster().broadcast(&Outbound::new(Tag::VB, vec![number; 100_000]));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        link.cut();
        soon("the link ends", link.near.ended()).await;
        let (mut raw, mut attached) = node.scripted(testkit::memory::Shape::default()).unwrap();
        let _ = testkit::harness::RawPeer::begin(&mut raw, Tag::VB, 100_000).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(raw);
        soon("the scripted link ends", attached.ended()).await;
        assert!(broadcaster.task_count() > 0, "its tasks run");
        let stopped =
            tokio::time::timeout(Duration::from_secs(60), node.stop(Duration::from_secs(10)));
        // The stop resumes the panic of a task, which would fail the test here.
        let _ = stopped.await.unwrap();
        let _ = other.stop(Duration::from_secs(10)).await;
    }
}
