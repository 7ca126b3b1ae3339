//! Fetching from several sources, some of which fail.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gossip::{
    GossipNode, NetworkId, RequestError,
    http::{HttpBody, HttpClient, HttpError, HttpRequest, HttpResponse, HttpService},
    wire::block::{self, BlockRequest},
};
use http::{Response, StatusCode};
use tandem_services::blocks::{
    BlockStore, Blocks, CONTENT_TYPE, Capacity, Failure, FetchLimits, Fetched, Fetcher, Gap,
    LEGACY_CONTENT_TYPE, MAX_BODY_BYTES, MemoryStore, RedbStore, Responder, Source, StoreError,
    Tally, Why, router, sample,
};
use tokio::time::{self, Instant};
use tower::ServiceExt;

use super::fake::FakeNode;

fn network() -> NetworkId {
    NetworkId::new("test-v1").unwrap()
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(64 << 20))
}

/// A client whose answers are made by a function of the path and the number of the request.
fn client<F, Fut>(answers: F) -> HttpClient
where
    F: Fn(String, usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<HttpResponse, HttpError>> + Send + 'static,
{
    let (answers, turn) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
    HttpClient::new(tower::service_fn(move |request: HttpRequest| {
        answers(request.uri().path().to_owned(), turn.fetch_add(1, Ordering::Relaxed))
    }))
}

/// The service of a store of samples.
fn archive(rounds: std::ops::Range<u64>) -> HttpService {
    let store = memory();
    let blocks: Vec<_> = rounds.map(|round| (round, sample::block(round))).collect();
    store.put_all(&blocks).unwrap();
    let responder = Responder::new(Capacity::default()).store(Blocks::new(store));
    HttpService::new(router(responder, network(), Vec::new()))
}

async fn serve(service: HttpService, path: &str) -> Result<HttpResponse, HttpError> {
    let request = http::Request::get(path).body(HttpBody::empty()).unwrap();
    Ok(service.oneshot(request).await.unwrap())
}

fn archive_client(rounds: std::ops::Range<u64>) -> HttpClient {
    let service = archive(rounds);
    client(move |path, _| {
        let service = service.clone();
        async move { serve(service, &path).await }
    })
}

fn broken() -> HttpError {
    HttpError::Broken { source: "killed".into() }
}

fn fetcher(store: &Arc<MemoryStore>) -> Fetcher {
    Fetcher::new(Blocks::new(store.clone()))
}

fn source(name: &str, client: HttpClient) -> Source {
    Source::http(name, client, network())
}

#[track_caller]
fn all(fetched: Result<Fetched, StoreError>) -> Tally {
    match fetched {
        Ok(Fetched::All(tally)) => tally,
        other => panic!("not all was fetched: {other:?}"),
    }
}

#[track_caller]
fn gaps(fetched: Result<Fetched, StoreError>) -> (Tally, Vec<Gap>) {
    match fetched {
        Ok(Fetched::Incomplete { tally, gaps }) => (tally, gaps),
        other => panic!("all was fetched: {other:?}"),
    }
}

#[track_caller]
fn holds(store: &dyn BlockStore, rounds: std::ops::Range<u64>) {
    for round in rounds {
        assert_eq!(store.get(round).unwrap(), Some(sample::block(round)), "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_dies_halfway_is_replaced_by_another() {
    let service = archive(0..1000);
    let dying = client(move |path, turn| {
        let service = service.clone();
        async move {
            match turn {
                0..250 => serve(service, &path).await,
                // Killed in the middle of a body, then gone.
                250 => {
                    let cut = [
                        Ok(http_body::Frame::data(Bytes::from_static(b"\x82\xa5blo"))),
                        Err(broken()),
                    ];
                    let cut = http_body_util::StreamBody::new(futures::stream::iter(cut));
                    let response = Response::builder().header("content-type", CONTENT_TYPE);
                    Ok(response.body(HttpBody::new(cut)).unwrap())
                }
                _ => Err(broken()),
            }
        }
    });
    let store = memory();
    let fetcher = fetcher(&store)
        .source(source("dying", dying))
        .source(source("steady", archive_client(0..1000)));
    let progress = fetcher.progress();
    let tally = all(fetcher.fetch(0..=999).await);
    holds(&*store, 0..1000);
    let progress = *progress.borrow();
    assert_eq!((progress.wanted, progress.stored, progress.missing), (1000, 1000, 0));
    assert_eq!(progress, tally.progress);
    let [dying, steady] = &tally.sources[..] else { panic!("two sources") };
    assert_eq!((dying.blocks, dying.blocks + steady.blocks), (250, 1000));
    assert!(matches!(dying.last, Some(Failure::Http { .. })), "{:?}", dying.last);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_takes_up_where_another_ended() {
    let store = memory();
    for round in [3, 4, 700] {
        store.put(round, sample::block(round)).unwrap();
    }
    let fetcher = fetcher(&store).source(source("a", archive_client(0..1000)));
    let tally = all(fetcher.fetch(0..=999).await);
    assert_eq!((tally.progress.present, tally.progress.stored), (3, 997));
    let again = all(fetcher.fetch(0..=999).await);
    assert_eq!((again.progress.present, again.progress.stored), (1000, 0));
    assert_eq!(again.sources[0].blocks, 0);
    let (empty_from, empty_to) = (1, 0);
    let none = all(fetcher.fetch(empty_from..=empty_to).await);
    assert_eq!(none.progress.wanted, 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_history_is_found_without_asking_for_all_that_could_be() {
    let store = memory();
    let asked = Arc::new(AtomicUsize::new(0));
    let (service, counts) = (archive(0..100), asked.clone());
    let counting = client(move |path, _| {
        counts.fetch_add(1, Ordering::Relaxed);
        let service = service.clone();
        async move { serve(service, &path).await }
    });
    let fetcher = fetcher(&store).source(source("a", counting));
    let (tally, gaps) = gaps(fetcher.fetch(0..=u64::MAX).await);
    holds(&*store, 0..100);
    assert_eq!(tally.progress.stored, 100);
    let [Gap { first: 100, last: u64::MAX, why: Why::Unavailable { latest: Some(99) } }] =
        &gaps[..]
    else {
        panic!("{gaps:?}");
    };
    assert!(asked.load(Ordering::Relaxed) < 700, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn sources_with_parts_of_a_history_make_a_whole_one() {
    let store = memory();
    let fetcher = fetcher(&store)
        .source(source("old", archive_client(0..400)))
        .source(source("middle", archive_client(300..600)))
        .source(source("new", archive_client(550..1000)));
    all(fetcher.fetch(0..=999).await);
    holds(&*store, 0..1000);
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_the_middle_is_named_and_what_is_behind_it_is_got() {
    let store = memory();
    let fetcher = fetcher(&store)
        .source(source("old", archive_client(0..400)))
        .source(source("new", archive_client(410..1000)));
    let (_, gaps) = gaps(fetcher.fetch(0..=999).await);
    holds(&*store, 0..400);
    holds(&*store, 410..1000);
    let [Gap { first: 400, last: 409, why: Why::Unavailable { latest: Some(999) } }] = &gaps[..]
    else {
        panic!("{gaps:?}");
    };
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_for_time_gets_it() {
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
        let store = memory();
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (service, noted) = (archive(0..5), times.clone());
        let busy = client(move |path, turn| {
            noted.lock().unwrap().push(Instant::now());
            let service = service.clone();
            async move {
                if turn < 5 {
                    let response = Response::builder().status(status).header("retry-after", "7");
                    return Ok(response.body(HttpBody::empty()).unwrap());
                }
                serve(service, &path).await
            }
        });
        let began = Instant::now();
        let tally = all(fetcher(&store).source(source("busy", busy)).fetch(0..=4).await);
        assert_eq!(tally.sources[0].failures, 0);
        let times = times.lock().unwrap();
        let waits = times.iter().filter(|&&time| time != began);
        assert!(waits.clone().all(|&time| time == began + Duration::from_secs(7)), "{times:?}");
        assert_eq!(waits.count(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_always_busy_ends_the_fetch() {
    let store = memory();
    let busy = client(|_, _| async {
        let response = Response::builder().status(503).header("retry-after", "999999999");
        Ok(response.body(HttpBody::empty()).unwrap())
    });
    let began = Instant::now();
    let (tally, gaps) = gaps(fetcher(&store).source(source("busy", busy)).fetch(0..=99).await);
    assert!(matches!(gaps[..], [Gap { first: 0, last: 99, why: Why::NoSource }]), "{gaps:?}");
    assert!(matches!(tally.sources[0].last, Some(Failure::Busy)));
    assert_eq!(began.elapsed(), Duration::from_secs(9 * 30));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_comes_back_is_used_again() {
    let store = memory();
    let service = archive(0..1000);
    let began = Instant::now();
    let restarting = client(move |path, turn| {
        let service = service.clone();
        async move {
            let down = Duration::from_millis(1)..Duration::from_secs(3);
            if turn % 100 == 50 {
                time::sleep(Duration::from_millis(1)).await;
            }
            if down.contains(&began.elapsed()) {
                Err(broken())
            } else {
                serve(service, &path).await
            }
        }
    });
    let tally = all(fetcher(&store).source(source("only", restarting)).fetch(0..=999).await);
    assert!(tally.sources[0].failures > 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    holds(&*store, 0..1000);
}

/// The outcome with a source that always answers the same.
#[track_caller]
fn fails_with(expected: fn(&Failure) -> bool, answer: fn() -> HttpResponse) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let store = memory();
        let wrong = client(move |_, _| async move { Ok(answer()) });
        let (_, gaps) = gaps(fetcher(&store).source(source("wrong", wrong)).fetch(7..=7).await);
        let [Gap { first: 7, last: 7, why: Why::Failed { last } }] = &gaps[..] else {
            panic!("{gaps:?}");
        };
        assert!(expected(last), "{last:?}");
        assert_eq!(store.latest().unwrap(), None);
    });
}

fn body_of(content_type: &[&str], round: u64) -> HttpResponse {
    let response = Response::new(HttpBody::full(sample::block(round).to_body()));
    content_type.iter().fold(response, |mut response, name| {
        response.headers_mut().append("content-type", name.parse().unwrap());
        response
    })
}

#[test]
fn another_block_is_refused_with_a_reason() {
    let no_type = |failure: &Failure| matches!(failure, Failure::ContentType);
    fails_with(no_type, || body_of(&[], 7));
    fails_with(no_type, || body_of(&["text/plain"], 7));
    fails_with(no_type, || body_of(&[CONTENT_TYPE, CONTENT_TYPE], 7));
    fails_with(no_type, || body_of(&["application/x-algorand-block-v1; charset=utf-8"], 7));
    fails_with(|failure| matches!(failure, Failure::Block { .. }), || body_of(&[CONTENT_TYPE], 8));
    fails_with(
        |failure| matches!(failure, Failure::Status { status } if status.as_u16() == 500),
        || Response::builder().status(500).body(HttpBody::empty()).unwrap(),
    );
    fails_with(
        |failure| matches!(failure, Failure::Body { .. }),
        || {
            let response = Response::builder().header("content-type", CONTENT_TYPE);
            response.body(HttpBody::full(vec![0; MAX_BODY_BYTES + 1])).unwrap()
        },
    );
}

#[tokio::test(start_paused = true)]
async fn both_content_types_are_taken() {
    for name in [CONTENT_TYPE, LEGACY_CONTENT_TYPE] {
        let store = memory();
        let old = client(move |_, _| async move { Ok(body_of(&[name], 7)) });
        all(fetcher(&store).source(source("a", old)).fetch(7..=7).await);
        holds(&*store, 7..8);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stands_still_is_given_up_at_the_deadline() {
    let store = memory();
    let still = client(|_, _| async { std::future::pending().await });
    let began = Instant::now();
    let steady = source("steady", archive_client(0..40));
    all(fetcher(&store).source(source("still", still)).source(steady).fetch(0..=39).await);
    assert_eq!(began.elapsed(), Duration::from_secs(4));
    holds(&*store, 0..40);
}

#[tokio::test(start_paused = true)]
async fn peers_are_asked_by_messages_and_a_peer_that_leaves_is_replaced() {
    let node = FakeNode::new();
    let answers = |payload: Bytes, _| async move {
        let round = BlockRequest::parse(&payload).unwrap().round;
        time::sleep(Duration::from_millis(5)).await;
        let sample = sample::block(round);
        Ok::<_, RequestError>(block::found(sample.block, sample.cert))
    };
    let (leaves, stays) = (node.connect(1, answers), node.connect(2, answers));
    let handle: Arc<dyn GossipNode> = node.clone();
    let store = memory();
    let fetcher = fetcher(&store)
        .source(Source::gossip("leaves", handle.clone(), leaves))
        .source(Source::gossip("stays", handle, stays));
    let mut progress = fetcher.progress();
    let leaving = async {
        progress.wait_for(|progress| progress.stored > 100).await.unwrap();
        node.disconnect(leaves);
    };
    let (fetched, ()) = futures::future::join(fetcher.fetch(0..=999), leaving).await;
    let tally = all(fetched);
    holds(&*store, 0..1000);
    assert!(matches!(tally.sources[0].last, Some(Failure::Request { .. })), "{tally:?}");
    assert!(tally.sources[1].blocks > tally.sources[0].blocks);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_no_source_had_a_moment_ago_is_asked_for_once_more() {
    let node = FakeNode::new();
    let missed = Mutex::new(BTreeSet::new());
    let relay = node.connect(1, move |payload: Bytes, _turn| {
        let round = BlockRequest::parse(&payload).unwrap().round;
        let first = missed.lock().unwrap().insert(round);
        let sample = sample::block(round);
        std::future::ready(Ok::<_, RequestError>(if first && round % 10 == 5 {
            block::unavailable(0)
        } else {
            block::found(sample.block, sample.cert)
        }))
    });
    let store = memory();
    let one = FetchLimits::default().with_parallel(NonZeroUsize::MIN);
    let relay = Source::gossip("relay", node.clone() as Arc<dyn GossipNode>, relay);
    all(fetcher(&store).source(relay).limits(one).fetch(0..=599).await);
    holds(&*store, 0..600);
}

#[tokio::test]
async fn requests_at_once_are_bounded_in_all_and_by_source() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let sources = [(), ()].map(|()| {
        let (service, running, most) = (archive(0..300), running.clone(), most.clone());
        let own = Arc::new(AtomicUsize::new(0));
        client(move |path, _| {
            let (service, running, most, own) =
                (service.clone(), running.clone(), most.clone(), own.clone());
            async move {
                most[0].fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                most[1].fetch_max(own.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Lets the others begin.
                tokio::task::yield_now().await;
                let answer = serve(service, &path).await;
                running.fetch_sub(1, Ordering::SeqCst);
                own.fetch_sub(1, Ordering::SeqCst);
                answer
            }
        })
    });
    let store = memory();
    let bound = |bound| NonZeroUsize::new(bound).unwrap();
    let limits = FetchLimits::default().with_parallel(bound(5)).with_per_source(bound(3));
    let fetcher = sources.into_iter().fold(fetcher(&store).limits(limits), |fetcher, client| {
        fetcher.source(source("a", client))
    });
    all(fetcher.fetch(0..=299).await);
    assert_eq!(most.each_ref().map(|most| most.load(Ordering::SeqCst)), [5, 3]);
}

#[tokio::test(start_paused = true)]
async fn without_sources_everything_is_a_gap_and_a_full_store_ends_the_fetch() {
    let store = memory();
    let (_, gaps) = gaps(fetcher(&store).fetch(3..=u64::MAX).await);
    assert!(matches!(gaps[..], [Gap { first: 3, last: u64::MAX, why: Why::NoSource }]), "{gaps:?}");
    let small = Arc::new(MemoryStore::new(10_000));
    let fetched = fetcher(&small).source(source("a", archive_client(0..100))).fetch(0..=99).await;
    assert!(matches!(fetched, Err(StoreError::Full { .. })), "{fetched:?}");
}

#[tokio::test]
async fn a_fetch_into_a_file_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocks.redb");
    {
        let store = Arc::new(RedbStore::open(&path, &network()).unwrap());
        let fetcher = Fetcher::new(Blocks::new(store));
        all(fetcher.source(source("a", archive_client(0..1000))).fetch(0..=999).await);
    }
    holds(&RedbStore::open(&path, &network()).unwrap(), 0..1000);
}
