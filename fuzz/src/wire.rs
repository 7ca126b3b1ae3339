//! The codecs of the gossip protocol.

use bytes::Bytes;
use gossip::{
    NetworkProfile,
    wire::{
        block::{BlockAnswer, BlockRequest},
        features::{Features, VoteCompression, parse_version},
        hello::Hello,
        hello_query::{self, MAX_QUERY_BYTES, QueryHello},
        identity::{self, Challenge},
        interest, metainfo, msgpack,
        priority::{self, PriorityResponse, Voter},
        proposal, request,
        topics::Topics,
        varint,
    },
};

/// Most bytes that a compressed proposal may become here.
const MOST: usize = 1 << 20;

/// Depth to which containers are walked.
const DEEPEST: usize = 64;

const PROFILES: [&NetworkProfile; 2] = [&NetworkProfile::TANDEM, &NetworkProfile::ALGORAND];

fn text(data: &[u8]) -> &str {
    let whole = std::str::from_utf8(data);
    whole.unwrap_or_else(|error| {
        std::str::from_utf8(&data[..error.valid_up_to()]).expect("it was found to be valid so far")
    })
}

/// Topics that decode are those that their encoding decodes to.
pub(crate) fn topics(data: &[u8]) {
    let Ok(found) = Topics::decode(&Bytes::copy_from_slice(data)) else { return };
    let encoded = found.encode();
    assert_eq!(encoded.len(), found.encoded_len());
    assert_eq!(Topics::decode(&encoded).as_ref(), Ok(&found));
}

/// Requests and answers are read without a panic; an answer carries the key that was put in.
pub(crate) fn request(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let key = request::RequestKey::of(data);
    if let Ok(block) = BlockRequest::parse(&payload) {
        let again = BlockRequest::parse(&block.topics().encode());
        assert_eq!(again.ok(), Some(block));
    }
    if let Ok((_, topics)) = request::open_answer(&payload) {
        // The result is that of a peer, which may be anything.
        let _ = BlockAnswer::decode(&topics);
        if topics.check().is_ok() {
            let sealed = request::answer(topics, key);
            if let Ok((found, _)) = request::open_answer(&sealed) {
                assert_eq!(found, Some(key));
            }
        }
    }
}

/// A body of meta-information is read without a panic, in every profile.
pub(crate) fn metainfo(data: &[u8]) {
    if let Some((header, body)) = data.split_first_chunk()
        && let Ok(len) = metainfo::body_len(*header)
    {
        assert!(len <= usize::from(u16::MAX));
        // A stream would read on for a body that is not whole.
        let _ = metainfo::decode_body(&body[..len.min(body.len())]);
    }
    let Ok(headers) = metainfo::decode_body(data) else { return };
    for profile in PROFILES {
        let hello = metainfo::to_hello(&headers, profile);
        // Either verdict is fine.
        let _ = metainfo::check_version(&headers, profile);
        if let Ok(encoded) = metainfo::encode(&metainfo::from_hello(&hello, profile)) {
            let (_, body) = encoded.split_at(metainfo::HEADER_BYTES);
            let read = metainfo::decode_body(body).expect("our own encoding is read");
            assert_eq!(metainfo::to_hello(&read, profile), hello);
        }
    }
}

/// An interest that decodes is the one that its encoding decodes to.
pub(crate) fn interest(data: &[u8]) {
    for profile in PROFILES {
        let table = &profile.tags;
        if let Ok(found) = interest::decode(&Bytes::copy_from_slice(data), table) {
            let again = interest::decode(&interest::encode(found, table), table);
            assert_eq!(again.ok(), Some(found));
        }
    }
}

/// Walks a value; false if it is deeper than this goes.
fn walk(reader: &mut msgpack::Reader<'_>, depth: usize) -> Result<bool, msgpack::MsgpackError> {
    if depth == DEEPEST {
        return Ok(false);
    }
    let mut copy = reader.clone();
    if let Ok(found) = reader.container() {
        let count = match found {
            msgpack::Container::Map(len) => u64::from(len) * 2,
            msgpack::Container::Array(len) => u64::from(len),
            msgpack::Container::Nil => 0,
        };
        for _ in 0..count {
            if !walk(reader, depth + 1)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let bytes = copy.bytes()?;
    assert!(bytes.len() <= u32::MAX as usize);
    *reader = copy;
    Ok(true)
}

/// Containers and strings are walked without a panic, and no further than the bytes go.
pub(crate) fn msgpack(data: &[u8]) {
    let mut reader = msgpack::Reader::new(data);
    // Either outcome is fine.
    let _ = walk(&mut reader, 0);
    let mut reader = msgpack::Reader::new(data);
    let _ = reader.map();
    let _ = reader.fixed::<32>();
}

/// A compressed proposal becomes no more than it may, and what was compressed comes back.
pub(crate) fn proposal(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    if let Ok(body) = proposal::decompress(&payload, MOST) {
        assert!(body.len() <= MOST);
    }
    let packed = Bytes::from(proposal::compress(data));
    assert!(proposal::is_compressed(&packed));
    assert_eq!(proposal::decompress(&packed, data.len()).as_deref(), Ok(data));
}

/// Features and versions of a header are read without a panic, and announced ones are understood again.
pub(crate) fn features(data: &[u8]) {
    let text = text(data);
    let (version, header) = text.split_once('\n').unwrap_or(("2.2", text));
    let found = Features::parse(header, version);
    let again = Features::parse(&found.to_header(), version);
    assert_eq!(again.to_header(), found.to_header());
    let _ = parse_version(version);
    if let Some(size) = found.shared_table(Features::announcing(VoteCompression::Stateful(2_048))) {
        assert!((16..=2_048).contains(&size) && size.is_power_of_two());
    }
}

/// A hello is read from any headers, and the texts that people get to see can be printed.
pub(crate) fn hello(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let hello = Hello::read(|header| lines.get(header as usize).copied());
    let shown = [Some(&hello.telemetry_id), Some(&hello.instance), hello.location.as_ref()];
    for text in shown.into_iter().flatten() {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    for profile in PROFILES {
        assert!(hello.headers(profile).iter().all(|(name, _)| !name.is_empty()));
    }
}

/// A hello in a query is the one that is read again once it was written, and no query that is too long is read.
pub(crate) fn hello_query(data: &[u8]) {
    let query = text(data);
    let Ok(read) = QueryHello::read(query) else { return };
    assert!(query.len() <= MAX_QUERY_BYTES);
    let hello = Hello::read(|header| read.get(header));
    for profile in PROFILES {
        let written = hello_query::encode(&hello, profile);
        assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
        // Letters that cannot be printed take more room in a query than in the hello itself.
        if let Ok(again) = QueryHello::read(&written) {
            assert_eq!(Hello::read(|header| again.get(header)), hello);
        }
    }
}

/// Messages of the identity exchange that nobody signed prove nothing.
pub(crate) fn identity_exchange(data: &[u8]) {
    let challenge = Challenge([7; 32]);
    let text = text(data);
    if let Ok(seen) = identity::read_request_header(text) {
        assert!(seen.key.ed25519().is_some());
    }
    assert!(identity::read_response_header(text, &challenge).is_err());
    let mut exchange = identity::ListenerIdentity::Anonymous;
    let _ = exchange.verify(data);
    assert!(matches!(exchange, identity::ListenerIdentity::Anonymous));
}

/// A priority response that is read is written in a form that reads the same, and proves nothing that nobody signed.
pub(crate) fn priority(data: &[u8]) {
    let Ok(response) = PriorityResponse::decode(data) else { return };
    // Bytes that are not UTF-8 are replaced by longer text, which may not fit a challenge any more.
    if response.challenge.len() <= priority::MAX_CHALLENGE_BYTES {
        assert_eq!(PriorityResponse::decode(&response.encode()).as_ref(), Ok(&response));
    }
    let voter = Voter { vote_key: [9; 32], key_dilution: 10 };
    assert!(response.verify(&response.challenge, &voter).is_err());
}

/// A varint that is read is written as no more bytes than were read.
pub(crate) fn varint(data: &[u8]) {
    let Some((value, read)) = varint::get(data) else { return };
    assert!(read <= data.len());
    let mut written = Vec::new();
    varint::put(value, &mut written);
    assert!(written.len() <= read && written.len() == varint::encoded_len(value));
    assert_eq!(varint::get(&written), Some((value, written.len())));
    assert_eq!(varint::get(&varint::padded(value)).map(|(value, _)| value), Some(value));
}
