//! Topics, interests, requests and blocks against the recordings of existing nodes.

use crate::support;
use bytes::Bytes;
use serde_json::Value;
use tandem_gossip::{
    Interest, NetworkProfile, Tag, TagTable,
    wire::{
        block::{self, BlockAnswer, BlockRequest},
        digest, interest,
        request::{self, RequestKey},
        topics::Topics,
        varint,
    },
};

const TABLE: &TagTable = &NetworkProfile::ALGORAND.tags;

/// A list of topics as the vectors write it.
fn topics(list: &Value) -> Topics {
    let list = list.as_array().expect("topics are a list");
    list.iter().map(|topic| (support::bytes(topic, "key"), support::bytes(topic, "data"))).collect()
}

#[test]
fn topics_are_written_byte_for_byte() {
    support::each_case("topics", "encode", 9, |case| {
        let topics = topics(&case["topics"]);
        let encoded = support::bytes(case, "encoded");
        assert_eq!(topics.encode(), encoded);
        assert_eq!(Topics::decode(&encoded), Ok(topics));
    });
}

#[test]
fn topics_are_read_or_refused_with_the_recorded_text() {
    support::each_case("topics", "decode", 27, |case| {
        let decoded = Topics::decode(&support::bytes(case, "encoded"));
        match support::text(case, "verdict") {
            "ok" => assert_eq!(decoded, Ok(topics(&case["topics"]))),
            "error" => {
                assert_eq!(decoded.unwrap_err().to_string(), support::text(case, "error_text"));
            }
            other => panic!("verdict {other}"),
        }
    });
}

#[test]
fn block_requests_and_their_keys_are_those_of_existing_nodes() {
    support::each_case("topics", "block_requests", 8, |case| {
        let round = support::number(case, "round");
        let payload =
            request::seal(&BlockRequest { round }.topics(), support::number(case, "nonce"));
        assert_eq!(payload.len(), support::size(case, "payload_len"));
        assert_eq!([b"UE", &payload[..]].concat(), support::bytes(case, "ue_message"));
        assert_eq!(BlockRequest::parse(&payload), Ok(BlockRequest { round }));
        assert_eq!(digest::hash(&payload), support::array(case, "payload_hash"));

        let key = RequestKey::of(&payload);
        assert_eq!(key, RequestKey(support::number(case, "request_key")));
        assert_eq!(varint::padded(key.0), support::array(case, "request_hash_topic"));

        for sample in ["ts_message_ok_sample", "ts_message_not_available_sample"] {
            let message = support::bytes(case, sample);
            let answer = message.slice(Tag::BYTES..);
            let (found, topics) = request::open_answer(&answer).unwrap();
            assert_eq!(found, Some(key));
            assert_eq!(request::answer(topics, key), answer);
        }
    });
}

#[test]
fn interests_are_read_or_refused_as_recorded() {
    support::each_case("mi", "cases", 37, |case| {
        let payload = support::bytes(case, "mi_payload");
        let decoded = interest::decode(&payload, TABLE);
        match support::text(case, "verdict") {
            "ok" => assert_eq!(tags(decoded.unwrap()), case["tags"]),
            "error" => assert!(decoded.is_err()),
            other => panic!("verdict {other}"),
        }
        let over = payload.len() > TABLE.rule(Tag::MI).unwrap().max_payload;
        assert_eq!(over, support::flag(case, "over_wire_cap"));
    });
}

#[test]
fn interests_of_live_nodes_are_read() {
    let corpus = support::json("corpus/small-messages.json");
    let messages = corpus["MI"].as_array().unwrap();
    assert_eq!(messages.len(), 14);
    for message in messages {
        let payload = support::bytes(message, "payload");
        let decoded = interest::decode(&payload, TABLE).unwrap();
        assert_eq!(tags(decoded), message["tags"]);
        // The order of a live list is random; ours is that of the table, and nothing else differs.
        assert_eq!(interest::encode(decoded, TABLE).len(), payload.len());
    }
}

#[test]
fn our_default_interest_is_the_recorded_one() {
    let json = support::json("vectors/mi.json");
    let case = support::named(&json["cases"], "default_set");
    let ours = interest::encode(TABLE.default_interest(), TABLE);
    assert_eq!(ours, support::bytes(case, "mi_payload"));
}

/// The tags of an interest as the vectors write them: sorted by name.
fn tags(interest: Interest) -> Value {
    let mut names: Vec<String> = interest.tags(TABLE).map(|tag| tag.to_string()).collect();
    names.sort();
    Value::from(names)
}

/// The answers of a block service with the recorded stand-in ledger: blocks up to round 1000.
fn serve(payload: &Bytes) -> Topics {
    match BlockRequest::parse(payload) {
        Err(error) => block::refusal(&error),
        Ok(BlockRequest { round }) if round > 1000 => block::unavailable(1000),
        Ok(BlockRequest { round }) => block::found(stand_in_block(round), vec![0x80]),
    }
}

/// `{rnd: round}` in msgpack.
fn stand_in_block(round: u64) -> Vec<u8> {
    let mut block = b"\x81\xa3rnd".to_vec();
    match u8::try_from(round) {
        Ok(small) if small < 0x80 => block.push(small),
        _ => {
            block.push(0xcd);
            block.extend(u16::try_from(round).expect("a round up to 1000").to_be_bytes());
        }
    }
    block
}

#[test]
fn block_requests_are_answered_byte_for_byte() {
    // Not answers to a request: the ledger fails, the service is out of memory, the reader disconnects.
    let elsewhere = ["ledger_error", "over_memory_cap", "too_long_68"];
    let mut skipped = 0;
    support::each_case("block_service", "ue_cases", 19, |case| {
        let payload = support::bytes(case, "ue_payload");
        if elsewhere.contains(&support::text(case, "name")) {
            skipped += 1;
            return;
        }
        let answer = request::answer(serve(&payload), RequestKey::of(&payload));
        assert_eq!([b"TS", &answer[..]].concat(), support::bytes(case, "reply_message"));
    });
    assert_eq!(skipped, elsewhere.len());
}

#[test]
fn every_recorded_block_answer_is_understood() {
    support::each_case("block_service", "ue_cases", 19, |case| {
        let payload = support::bytes(case, "ue_payload");
        if case["name"] == "too_long_68" {
            let bound = TABLE.rule(Tag::UE).unwrap().max_payload;
            assert_eq!(payload.len(), bound + 1);
            return;
        }
        let reply = support::bytes(case, "reply_message").slice(Tag::BYTES..);
        let (key, topics) = request::open_answer(&reply).unwrap();
        assert_eq!(key, Some(RequestKey::of(&payload)));
        let expected = match (support::text(case, "name"), case["error_text"].as_str()) {
            ("block_missing", _) => BlockAnswer::Unavailable { latest: Some(1000) },
            ("ledger_error", _) => BlockAnswer::Unavailable { latest: None },
            (_, Some(text)) => BlockAnswer::Failed { text: text.to_owned() },
            (_, None) => BlockAnswer::Block {
                block: support::bytes(&case["topics"], "blockData"),
                cert: support::bytes(&case["topics"], "certData"),
            },
        };
        assert_eq!(BlockAnswer::decode(&topics), Ok(expected));
    });
}
