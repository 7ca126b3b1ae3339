//! The messages of AutoNAT v2. Source: libp2p specifications, `autonat/autonat-v2.md`.

use prost::{Message, Oneof};

/// The result of a request.
pub(super) mod status {
    pub(in crate::reach::autonat) const REJECTED: i32 = 100;
    pub(in crate::reach::autonat) const REFUSED: i32 = 101;
    pub(in crate::reach::autonat) const OK: i32 = 200;
}

/// The result of a dial, if there was one.
pub(super) mod dial {
    pub(in crate::reach::autonat) const UNUSED: i32 = 0;
    pub(in crate::reach::autonat) const NOT_REACHED: i32 = 100;
    pub(in crate::reach::autonat) const NOT_ANSWERED: i32 = 101;
    pub(in crate::reach::autonat) const OK: i32 = 200;
}

/// A message on the stream of a request.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Envelope {
    #[prost(oneof = "Content", tags = "1, 2, 3, 4")]
    pub(super) content: Option<Content>,
}

/// The content of one.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Content {
    #[prost(message, tag = "1")]
    Request(Request),
    #[prost(message, tag = "2")]
    Response(Response),
    #[prost(message, tag = "3")]
    DataRequest(DataRequest),
    #[prost(message, tag = "4")]
    Data(Data),
}

/// The addresses to try, the preferred one first.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) addrs: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "2")]
    pub(super) nonce: u64,
}

/// The server wants to be sent so much before it dials a host that the request does not come from.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DataRequest {
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Response {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
    #[prost(uint32, tag = "2")]
    pub(super) index: u32,
    #[prost(int32, tag = "3")]
    pub(super) dial: i32,
}

/// A part of what a server wants to be sent.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Data {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) data: Vec<u8>,
}

/// On a connection that the server dialled: it is the one that was asked for.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DialBack {
    #[prost(fixed64, tag = "1")]
    pub(super) nonce: u64,
}

/// The answer to that; zero is agreement.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DialBackResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

impl From<Content> for Envelope {
    fn from(content: Content) -> Self {
        Self { content: Some(content) }
    }
}
