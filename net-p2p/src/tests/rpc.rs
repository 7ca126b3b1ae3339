//! GossipSub RPCs encoded by hand, so that a test can send messages that the library never would.

/// Encodes a length-delimited field of a protobuf message.
pub(crate) fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    out.extend(varint(body.len()));
    out.extend_from_slice(body);
    out
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// Encodes one RPC as on the wire: its length, then its parts.
pub(crate) fn request(parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    [varint(body.len()), body].concat()
}

/// Encodes a message on a topic, without author and sequence number.
pub(crate) fn message(topic: &str, data: &[u8]) -> Vec<u8> {
    field(2, &[field(2, data), field(4, topic.as_bytes())].concat())
}

/// Encodes a subscription to a topic.
pub(crate) fn subscription(topic: &str) -> Vec<u8> {
    field(1, &[vec![1 << 3, 1], field(2, topic.as_bytes())].concat())
}
