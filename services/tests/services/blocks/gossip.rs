//! The responder against recorded exchanges.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use gossip::{
    Handler, Tag, Verdict,
    wire::{
        request::{self, RequestKey, open_answer},
        topics::Topics,
    },
};
use serde_json::Value;
use tandem_services::blocks::{
    Access, BlockStore, Blocks, Capacity, MAX_REQUESTS, MemoryStore, Responder, StoreError,
    StoredBlock,
};

use super::fake::{Ledger, inbound, testdata, vectors};

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
async fn an_answer_counts_until_it_was_written() {
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

/// A store that answers nothing while somebody holds the gate.
struct Gated(Arc<Mutex<()>>);

impl BlockStore for Gated {
    fn access(&self) -> Access {
        Access::Blocking
    }

    fn latest(&self) -> Result<Option<u64>, StoreError> {
        drop(self.0.lock());
        Ok(None)
    }

    fn get(&self, _round: u64) -> Result<Option<StoredBlock>, StoreError> {
        drop(self.0.lock());
        Ok(None)
    }

    fn contains(&self, _round: u64) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn put_all(&self, _blocks: &[(u64, StoredBlock)]) -> Result<(), StoreError> {
        Err(StoreError::Full { limit: 0 })
    }
}

#[tokio::test]
async fn a_request_beyond_the_bound_is_not_answered() {
    let gate = Arc::new(Mutex::new(()));
    let store = Blocks::new(Arc::new(Gated(Arc::clone(&gate))));
    let responder = Responder::new(Capacity::default()).store(store);
    let payload = Bytes::from(testdata("blocks/14.ue.bin"));
    let mut asked: Vec<_> =
        (0..=MAX_REQUESTS).map(|_| responder.handle(inbound(payload.clone(), 1))).collect();
    let closed = gate.lock().unwrap();
    let at_once: Vec<_> = asked.iter_mut().map(|answer| answer.now_or_never()).collect();
    drop(closed);
    let (last, first) = at_once.split_last().unwrap();
    assert_eq!(*last, Some(Verdict::Ignore));
    assert!(first.iter().all(Option::is_none), "{first:?}");
    asked.pop();
    for answer in asked {
        assert!(matches!(answer.await, Verdict::Respond(_)));
    }
}
