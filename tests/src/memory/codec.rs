//! A codec for tests of links: a vote is sent as its difference from the vote before.
//!
//! Both ends must see every vote once and in the same order, so a link that reorders, drops or repeats anything
//! is detected at once.

use std::sync::Arc;

use broadcaster::{Decoded, Decoder, Encoder, Frame, LinkCodec};
use bytes::Bytes;
use gossip::{DisconnectReason, Lane, Tag};

/// Encodes votes as differences, in messages with the tag VP: the length of the equal start, and the rest.
#[derive(Debug, Default)]
struct Difference {
    last: Bytes,
}

/// Creates the codec of one link.
#[must_use]
pub fn difference() -> LinkCodec {
    let (encoder, decoder) = (Box::<Difference>::default(), Box::<Difference>::default());
    LinkCodec { encoder, decoder, opening: None }
}

/// Creates a codec for each link of a node.
pub type MakeCodec = Arc<dyn Fn() -> LinkCodec + Send + Sync>;

impl Encoder for Difference {
    fn encode(&mut self, frames: &[Frame], out: &mut Vec<Frame>) {
        out.extend(frames.iter().map(|frame| self.difference(frame)));
    }
}

impl Difference {
    fn difference(&mut self, frame: &Frame) -> Frame {
        if frame.tag() != Tag::AV {
            return frame.clone();
        }
        let wire = frame.wire().clone();
        let pairs = self.last.iter().zip(&wire);
        let same = u8::try_from(pairs.take_while(|(a, b)| a == b).count()).unwrap_or(u8::MAX);
        let rest = wire.get(usize::from(same)..).unwrap_or_default();
        let coded = if same > 1 {
            Frame::control(Tag::VP, Lane::Priority, &[&[same], rest].concat())
        } else {
            frame.clone()
        };
        self.last = wire;
        coded
    }
}

impl Decoder for Difference {
    fn decode(&mut self, tag: Tag, wire: &Bytes) -> Result<Decoded, DisconnectReason> {
        match tag {
            Tag::AV => {
                self.last = wire.clone();
                Ok(Decoded::AsItCame)
            }
            Tag::VP => {
                let (&same, rest) = wire
                    .get(Tag::BYTES..)
                    .and_then(<[u8]>::split_first)
                    .ok_or(DisconnectReason::BadData)?;
                let stays = self.last.get(..usize::from(same)).ok_or(DisconnectReason::BadData)?;
                self.last = Bytes::from([stays, rest].concat());
                Ok(Decoded::Message { wire: self.last.clone(), packed: None })
            }
            _ => Ok(Decoded::AsItCame),
        }
    }
}
