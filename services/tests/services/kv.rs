//! The key-value service, by its client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use axum::body::Body;
use bytes::Bytes;
use futures::future::join_all;
use gossip::http::{HttpClient, HttpError, HttpService};
use http::{Method, Request, StatusCode};
use proptest::prelude::*;
use tandem_services::kv::{
    self, Client, KvError, MAX_BYTES, MAX_KEY_BYTES, MAX_KEYS, MAX_VALUE_BYTES,
};
use tower::ServiceExt;

fn client() -> Client {
    let service = HttpService::new(kv::router());
    Client::new(HttpClient::new(service.map_err(|source| HttpError::Broken { source })))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, KvError>) -> StatusCode {
    match answer {
        Err(KvError::Refused { status }) => status,
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn a_value_is_there_until_it_is_deleted() {
    let kv = client();
    assert_eq!(kv.value("a").await.unwrap(), None);
    let tag = kv.put("a", "1".into()).await.unwrap();
    let value = kv.value("a").await.unwrap().unwrap();
    assert_eq!((value.bytes, value.tag), (Bytes::from("1"), tag));
    kv.put("b/../c d%2f?#", Bytes::new()).await.unwrap();
    assert_eq!(kv.keys().await.unwrap(), ["a", "b/../c d%2f?#"]);
    assert!(kv.delete("a").await.unwrap());
    assert!(!kv.delete("a").await.unwrap());
    assert_eq!(kv.keys().await.unwrap(), ["b/../c d%2f?#"]);
}

#[tokio::test]
async fn a_value_is_replaced_only_where_it_is_the_one_that_was_read() {
    let kv = client();
    let first = kv.create("a", "1".into()).await.unwrap();
    assert!(matches!(kv.create("a", "2".into()).await, Err(KvError::Changed)));
    let second = kv.replace("a", "2".into(), first.clone()).await.unwrap();
    assert!(matches!(kv.replace("a", "3".into(), first.clone()).await, Err(KvError::Changed)));
    kv.delete("a").await.unwrap();
    assert!(matches!(kv.replace("a", "3".into(), second).await, Err(KvError::Changed)));
    let again = kv.create("a", "1".into()).await.unwrap();
    assert_ne!(again, first, "a version is used once");
}

#[tokio::test]
async fn sums_that_many_add_to_at_once_come_out_right() {
    let kv = client();
    kv.put("sum", "0".into()).await.unwrap();
    join_all((0..50).map(|_| async {
        loop {
            let value = kv.value("sum").await.unwrap().unwrap();
            let sum: u32 = str::from_utf8(&value.bytes).unwrap().parse().unwrap();
            match kv.replace("sum", (sum + 1).to_string().into(), value.tag).await {
                Ok(_) => break,
                Err(KvError::Changed) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }))
    .await;
    assert_eq!(kv.value("sum").await.unwrap().unwrap().bytes, "50");
}

#[tokio::test]
async fn keys_values_and_their_number_are_bounded() {
    let kv = client();
    let longest = "k".repeat(MAX_KEY_BYTES);
    kv.put(&longest, vec![1; MAX_VALUE_BYTES].into()).await.unwrap();
    assert_eq!(kv.value(&longest).await.unwrap().unwrap().bytes.len(), MAX_VALUE_BYTES);
    let too_long = kv.put(&format!("{longest}k"), Bytes::new()).await;
    assert_eq!(refused(too_long), StatusCode::URI_TOO_LONG);
    let too_long = kv.put("a", vec![1; MAX_VALUE_BYTES + 1].into()).await;
    assert_eq!(refused(too_long), StatusCode::PAYLOAD_TOO_LARGE);

    for key in 1..MAX_KEYS {
        kv.put(&key.to_string(), Bytes::new()).await.unwrap();
    }
    assert_eq!(refused(kv.put("new", Bytes::new()).await), StatusCode::INSUFFICIENT_STORAGE);
    kv.put("1", "old".into()).await.unwrap();
    assert_eq!(kv.keys().await.unwrap().len(), MAX_KEYS);
}

#[tokio::test]
async fn the_sum_of_all_bytes_is_bounded_and_freed_by_deleting() {
    let kv = client();
    let many = MAX_BYTES / (MAX_VALUE_BYTES + 4);
    for key in 0..many {
        kv.put(&format!("{key:04}"), vec![1; MAX_VALUE_BYTES].into()).await.unwrap();
    }
    let full = kv.put("0000x", vec![1; MAX_VALUE_BYTES].into()).await;
    assert_eq!(refused(full), StatusCode::INSUFFICIENT_STORAGE);
    kv.put("0000", vec![2; MAX_VALUE_BYTES].into()).await.unwrap();
    kv.delete("0001").await.unwrap();
    kv.put("0002x", vec![1; MAX_VALUE_BYTES - 1].into()).await.unwrap();
}

#[tokio::test]
async fn other_methods_are_refused() {
    for (method, path) in [(Method::POST, "/kv/a"), (Method::PUT, "/kv"), (Method::PATCH, "/kv/a")]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = kv::router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_key_of_one_character_or_more_is_a_key(keys: BTreeSet<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let kv = client();
            let keys: Vec<_> =
                keys.into_iter().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len())).collect();
            for key in &keys {
                kv.create(key, key.clone().into()).await.unwrap();
            }
            assert_eq!(kv.keys().await.unwrap(), keys);
            for key in &keys {
                assert_eq!(kv.value(key).await.unwrap().unwrap().bytes, key);
            }
        });
    }
}
