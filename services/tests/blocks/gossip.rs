//! The responder against recorded exchanges.

use std::sync::Arc;

use bytes::Bytes;
use gossip::{
    Handler, Tag, Verdict,
    wire::{
        request::{self, RequestKey, open_answer},
        topics::Topics,
    },
};
use serde_json::Value;
use services::blocks::{
    BlockStore, Blocks, Capacity, MAX_REQUESTS, MemoryStore, Responder, StoredBlock,
};

use crate::fake::{Ledger, inbound, testdata, vectors};

/// The payload of the answer to a request.
async fn answer(responder: &Responder, payload: Bytes) -> Bytes {
    let Verdict::Respond(topics) = responder.handle(inbound(payload.clone(), 1)).await else {
        panic!("not answered");
    };
    request::answer(topics, RequestKey::of(&payload))
}

#[tokio::test]
async fn every_recorded_request_gets_the_recorded_answer() {
    let cases = vectors()["ue_cases"].as_array().unwrap().clone();
    let mut answered = 0;
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let capacity = match text("name") {
            // Longer than the tag allows: the connection ends before a handler sees it.
            "too_long_68" => continue,
            "over_memory_cap" => Capacity::new(0),
            _ => Capacity::default(),
        };
        let responder = Responder::new(capacity).store(Ledger::blocks());
        let payload = Bytes::from(hex::decode(text("ue_payload")).unwrap());
        let expected = hex::decode(text("reply_message")).unwrap();
        let expected = expected.strip_prefix(&Tag::TS.0[..]).unwrap();
        let given = answer(&responder, payload).await;
        assert_eq!(hex::encode(&given), hex::encode(expected), "{}", text("name"));
        answered += 1;
    }
    assert_eq!(answered, 18);
}

#[tokio::test]
async fn requests_of_real_nodes_get_the_answers_they_got_from_real_nodes() {
    let index: Value = serde_json::from_slice(&testdata("blocks/index.json")).unwrap();
    for case in index.as_array().unwrap() {
        let load = |key: &str| testdata(&format!("blocks/{}", case[key].as_str().unwrap()));
        let (asked, expected) = (Bytes::from(load("request")), Bytes::from(load("answer")));
        let store = MemoryStore::new(1 << 20);
        let round = case["round"].as_u64().unwrap();
        let (_, topics) = open_answer(&expected).unwrap();
        let block = |topics: &Topics| {
            let (block, cert) = (topics.get("blockData")?, topics.get("certData")?);
            Some(StoredBlock { block: block.clone(), cert: cert.clone() })
        };
        match block(&topics) {
            Some(block) => {
                assert_eq!(block.check(round), Ok(()));
                let body = Bytes::from(block.to_body());
                assert_eq!(StoredBlock::from_body(&body).as_ref(), Ok(&block));
                store.put(round, block).unwrap();
            }
            // The node had another one as its newest then, or none.
            None => store.put(case["latest"].as_u64().unwrap(), StoredBlock::default()).unwrap(),
        }
        let responder = Responder::new(Capacity::default()).store(Blocks::new(Arc::new(store)));
        assert_eq!(answer(&responder, asked).await, expected, "{}", case["request"]);
    }
}

#[tokio::test]
async fn a_node_without_blocks_says_so_in_a_way_that_ends_the_asking() {
    let responder = Responder::new(Capacity::default());
    let given = answer(&responder, testdata("blocks/2.ue.bin").into()).await;
    assert_eq!(given, testdata("blocks/2.ts.bin"), "latest is 0 there too");
}

#[tokio::test]
async fn what_is_answered_counts_until_it_was_written() {
    let capacity = Capacity::new(7);
    let responder = Responder::new(capacity.clone()).store(Ledger::blocks());
    let payload = Bytes::from(testdata("blocks/14.ue.bin"));
    let first = responder.handle(inbound(payload.clone(), 1)).await;
    assert_eq!(capacity.used(), 7);
    let Verdict::Respond(refused) = responder.handle(inbound(payload, 1)).await else {
        panic!("not answered");
    };
    assert_eq!(refused.get("Error").unwrap(), "block service memory over capacity");
    drop(first);
    assert_eq!(capacity.used(), 0);
}

#[tokio::test]
async fn what_comes_on_top_of_the_bound_is_not_answered() {
    let responder = Responder::new(Capacity::default()).store(Ledger::blocks());
    let payload = Bytes::from(testdata("blocks/14.ue.bin"));
    let asked: Vec<_> = (0..MAX_REQUESTS + 1).map(|_| inbound(payload.clone(), 1)).collect();
    let answers = asked.into_iter().map(|message| responder.handle(message));
    let answers = futures::future::join_all(answers).await;
    let dropped = answers.iter().filter(|verdict| **verdict == Verdict::Ignore).count();
    assert_eq!(dropped, 1);
}
