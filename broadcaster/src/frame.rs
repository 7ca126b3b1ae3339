//! One encoded message, shared by every queue it waits in.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use gossip::{
    Lane, LinkId, Tag,
    wire::{digest::Digest, vote},
};
use runtime::time::Instant;

use crate::{
    budget::Reservation,
    stamp::Stamp,
    trace::{TraceEvent, Traced},
};

/// The origin of a message, which decides how long it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This node's own, or of the connection itself.
    Own,
    /// Somebody else's, passed on: dropped once it is older than its lane's age limit.
    Forwarded,
}

/// One encoded message, tag included. Cloning is a reference-count increment.
#[derive(Clone, Debug)]
pub struct Frame {
    inner: Arc<Inner>,
}

/// Tells a frame from all others without keeping its message.
#[derive(Clone, Debug)]
pub struct FrameMark(Weak<Inner>);

impl FrameMark {
    /// Returns `true` if the mark is of this frame, or of a clone of it.
    #[must_use]
    pub fn is_of(&self, frame: &Frame) -> bool {
        // No other frame comes to lie here while there is a mark.
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&frame.inner))
    }

    /// Returns `true` once the frame and all of its clones are gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// The form of a vote for links that pack votes.
#[derive(Clone, Debug)]
pub(crate) enum PackedVote {
    /// Packed by itself.
    Stateless(Arc<Stateless>),
    /// The message cannot be packed, so it goes as it is.
    Plain,
    /// The message cannot be packed, and would be taken for a packed vote as it is.
    Misleading,
}

/// A vote packed by itself.
#[derive(Debug)]
pub(crate) struct Stateless {
    pub(crate) frame: Frame,
    /// The vote as it was read for the packers of all links, once one has needed it. `None` if it would come out of an
    /// unpacker as another one.
    pub(crate) vote: OnceLock<Option<vote::PackedVote>>,
    /// Its form on the links that pack it with the same references: most do, since they are sent the same votes. `None`
    /// in it if the budget had no room.
    pub(crate) shared: OnceLock<Option<(vote::References, Frame)>>,
}

impl Stateless {
    /// A vote that no link has packed against earlier ones yet.
    pub(crate) fn new(frame: Frame) -> Self {
        let (vote, shared) = (OnceLock::new(), OnceLock::new());
        Self { frame, vote, shared }
    }
}

#[derive(Debug)]
struct Inner {
    tag: Tag,
    lane: Lane,
    wire: Bytes,
    digest: Option<Digest>,
    submitted: Stamp,
    origin: Origin,
    sender: Option<LinkId>,
    /// A vote packed by itself, tag included, if it came in that form.
    came_packed: Option<Bytes>,
    /// Of a vote, once a link with packed votes has needed it.
    packed: OnceLock<PackedVote>,
    /// Of a compressed message, once a link to a peer that reads none has needed it; `None` in it if there was no room.
    plain: OnceLock<Option<Frame>>,
    /// Takes its steps, if its way is kept.
    traced: Option<Arc<Traced>>,
    /// Gives the bytes back to the node's budget when the last queue lets go.
    held: Option<Reservation>,
}

/// The parts of a frame.
#[derive(Debug)]
pub(crate) struct FrameParts {
    pub(crate) tag: Tag,
    pub(crate) lane: Lane,
    pub(crate) wire: Bytes,
    pub(crate) digest: Option<Digest>,
    pub(crate) origin: Origin,
    /// The link that a forwarded message came over; `None` for one from a topic, and for own ones.
    pub(crate) sender: Option<LinkId>,
    pub(crate) held: Option<Reservation>,
}

impl Frame {
    pub(crate) fn new(parts: FrameParts) -> Self {
        Self::submitted_at(Stamp::of(Instant::now()), parts)
    }

    fn submitted_at(submitted: Stamp, parts: FrameParts) -> Self {
        let FrameParts { tag, lane, wire, digest, origin, sender, held } = parts;
        let (came_packed, packed, plain) = (None, OnceLock::new(), OnceLock::new());
        Self {
            inner: Arc::new(Inner {
                tag,
                lane,
                wire,
                digest,
                submitted,
                origin,
                sender,
                came_packed,
                packed,
                plain,
                traced: None,
                held,
            }),
        }
    }

    /// A frame that nobody else holds yet, of a message whose way is kept if there is a `traced`.
    pub(crate) fn traced(mut self, traced: Option<Arc<Traced>>) -> Self {
        if traced.is_some()
            && let Some(inner) = Arc::get_mut(&mut self.inner)
        {
            inner.traced = traced;
        }
        self
    }

    /// A frame that nobody else holds yet, of a vote that came in this form if there is one.
    pub(crate) fn come_packed(mut self, packed: Option<Bytes>) -> Self {
        if packed.is_some()
            && let Some(inner) = Arc::get_mut(&mut self.inner)
        {
            inner.came_packed = packed;
        }
        self
    }

    /// The form that a vote came in, if that is the one packed by itself: tag and payload.
    pub(crate) fn came_packed(&self) -> Option<&Bytes> {
        self.inner.came_packed.as_ref()
    }

    /// Takes the message's steps, if its way is kept.
    #[inline]
    pub(crate) fn way(&self) -> Option<&Traced> {
        self.inner.traced.as_deref()
    }

    /// Notes what happens to the message now, with no peer, if its way is kept.
    pub(crate) fn trace(&self, event: TraceEvent) {
        if let Some(traced) = self.way() {
            traced.note(event, None);
        }
    }

    /// The same message in another form.
    pub(crate) fn recoded(&self, tag: Tag, wire: Bytes, held: Option<Reservation>) -> Self {
        let Inner { lane, submitted, origin, sender, .. } = *self.inner;
        Self::submitted_at(
            submitted,
            FrameParts { tag, lane, wire, digest: None, origin, sender, held },
        )
    }

    /// The same message in another form, in the memory of `spare` unless somebody else holds that too.
    pub(crate) fn recoded_in(&self, spare: Option<Self>, tag: Tag, wire: Bytes) -> Self {
        let Some(mut frame) = spare else { return self.recoded(tag, wire, None) };
        let Some(inner) = Arc::get_mut(&mut frame.inner) else {
            return self.recoded(tag, wire, None);
        };
        let Inner { lane, submitted, origin, sender, .. } = *self.inner;
        (inner.tag, inner.lane, inner.wire) = (tag, lane, wire);
        (inner.submitted, inner.origin, inner.sender) = (submitted, origin, sender);
        frame
    }

    /// Lets go of everything that a message holds, for [`Frame::recoded_in`]; `None` if somebody else holds the frame.
    pub(crate) fn into_spare(mut self) -> Option<Self> {
        // Asking for the only hold on it costs two atomic operations, and most frames are held by many links.
        if Arc::strong_count(&self.inner) > 1 {
            return None;
        }
        let inner = Arc::get_mut(&mut self.inner)?;
        (inner.wire, inner.digest, inner.held) = (Bytes::new(), None, None);
        (inner.traced, inner.came_packed) = (None, None);
        inner.packed.take();
        inner.plain.take();
        Some(self)
    }

    /// Returns whether the message is charged to the node's budget.
    pub(crate) fn is_charged(&self) -> bool {
        self.inner.held.is_some()
    }

    /// The place of its packed form.
    pub(crate) fn packed(&self) -> &OnceLock<PackedVote> {
        &self.inner.packed
    }

    /// The place of its form without compression.
    pub(crate) fn plain(&self) -> &OnceLock<Option<Self>> {
        &self.inner.plain
    }

    /// Returns a mark of the frame. While there is one, the frame's memory is not used for another one.
    #[must_use]
    pub fn mark(&self) -> FrameMark {
        FrameMark(Arc::downgrade(&self.inner))
    }

    /// A frame outside any budget, for messages of the connection itself and for tests.
    #[must_use]
    pub fn control(tag: Tag, lane: Lane, payload: &[u8]) -> Self {
        let mut wire = Vec::with_capacity(Tag::BYTES + payload.len());
        wire.extend_from_slice(&tag.0);
        wire.extend_from_slice(payload);
        let (wire, origin) = (Bytes::from(wire), Origin::Own);
        Self::new(FrameParts { tag, lane, wire, digest: None, origin, sender: None, held: None })
    }

    /// Returns the tag of the message.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.inner.tag
    }

    /// Returns the lane that the message travels in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.inner.lane
    }

    /// Returns the whole message as it goes on the wire, tag included.
    #[must_use]
    pub fn wire(&self) -> &Bytes {
        &self.inner.wire
    }

    /// The digest by which a peer may say that it has the message already; large messages have one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.inner.digest.as_ref()
    }

    /// The time at which the message was submitted, by which its age is counted.
    pub(crate) fn submitted(&self) -> Stamp {
        self.inner.submitted
    }

    /// Returns the origin of the message.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.inner.origin
    }

    /// Returns the link that a forwarded message came over; `None` for one from a topic, and for own ones.
    pub(crate) fn sender(&self) -> Option<LinkId> {
        self.inner.sender
    }
}
