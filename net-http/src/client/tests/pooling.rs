//! Pooling: connections are kept, bounded and replaced.

use futures::future::join_all;
use http::Response;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_second_request_goes_over_the_same_connection() {
    let mut bench = Bench::new(limits());
    let peer = async {
        let mut peer = bench.accept.next().await;
        for _ in 0..10 {
            peer.head().await;
            peer.say(HI).await;
        }
        peer
    };
    let calls = async {
        for _ in 0..10 {
            assert_eq!(text(bench.client.get("/").await.unwrap()).await, "hi");
        }
    };
    let (_peer, ()) = tokio::join!(peer, calls);
    assert_eq!((bench.opened(), bench.pool().idle(), bench.pool().free()), (1, 1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_connection_returns_to_the_pool_with_the_last_byte_of_the_body() {
    let mut bench = Bench::new(limits());
    let (mut peer, response) = tokio::join!(
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
            peer
        },
        bench.client.get("/")
    );
    let mut body = response.unwrap().into_body();
    assert_eq!(bench.pool().idle(), 0);
    peer.say("hi").await;
    let frame = http_body_util::BodyExt::frame(&mut body).await;
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "hi");
    assert_eq!((bench.pool().idle(), bench.pool().free()), (1, 4));
    let (again, ()) = tokio::join!(bench.client.get("/"), async {
        peer.head().await;
        peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    });
    assert_eq!(again.unwrap().status(), 204);
    assert_eq!((bench.opened(), bench.pool().idle()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn responses_without_a_body_keep_the_connection() {
    let mut bench = Bench::new(limits());
    let head = Request::head("/").body(HttpBody::empty()).unwrap();
    let (first, second, third, _peer) = tokio::join!(
        bench.client.send(head),
        bench.client.get("/2"),
        bench.client.get("/3"),
        async {
            // The calls are made at the same time, so each opens its own connection.
            let mut peers = Vec::new();
            for _ in 0..3 {
                let mut peer = bench.accept.next().await;
                let request = peer.head().await;
                peer.say(match request.as_bytes() {
                    [b'H', ..] => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
                    _ if request.contains("/2") => {
                        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n"
                    }
                    _ => "HTTP/1.1 204 No Content\r\n\r\n",
                })
                .await;
                peers.push(peer);
            }
            peers
        }
    );
    let first = first.unwrap();
    assert_eq!(first.headers()["content-length"], "1000");
    assert_eq!(text(first).await, "");
    assert_eq!(
        (second.unwrap().status(), third.unwrap().status()),
        (304.try_into().unwrap(), 204.try_into().unwrap())
    );
    assert_eq!(bench.pool().idle(), 3);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_in_time() {
    let mut bench = Bench::new(limits());
    let (mut peer, response) = tokio::join!(
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            time::sleep(Duration::from_millis(1700)).await;
            peer.say(HI).await;
            peer
        },
        bench.client.get("/")
    );
    text(response.unwrap()).await;
    let began = time::Instant::now();
    assert_eq!(peer.rest().await, Some(Vec::new()));
    assert_eq!(began.elapsed().as_millis(), TCP_IDLE.as_millis());
    settle().await;
    assert_eq!((bench.pool().idle(), bench.alive()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stale_connection_is_replaced_and_the_request_sent_once() {
    let mut bench = Bench::new(limits());
    let peers = async {
        let mut first = bench.accept.next().await;
        first.head().await;
        first.say(HI).await;
        // The caller sends the next request before its connection's task has noticed.
        drop(first);
        let mut second = bench.accept.next().await;
        let head = second.head().await;
        second.say(HI).await;
        (head, second)
    };
    let calls = async {
        assert_eq!(text(bench.client.get("/first").await.unwrap()).await, "hi");
        assert_eq!(text(bench.client.get("/second").await.unwrap()).await, "hi");
    };
    let ((head, _second), ()) = tokio::join!(peers, calls);
    assert!(head.starts_with("GET /second "));
    assert_eq!((bench.opened(), bench.pool().idle(), bench.pool().free()), (2, 1, 4));
}

/// Uses a connection once, and then has the peer send `said` and close it after `second` has arrived. Returns
/// the result of `second`, and whether it was sent again on a new connection.
async fn lost_on_a_kept_connection(
    second: Request<HttpBody>,
    said: &str,
) -> (Result<HttpResponse, HttpError>, bool) {
    let mut bench = Bench::new(limits());
    let peers = async {
        let mut first = bench.accept.next().await;
        first.head().await;
        first.say(HI).await;
        first.head().await;
        first.say(said).await;
        drop(first);
        let mut second = bench.accept.next().await;
        second.head().await;
        second.say(HI).await;
        std::future::pending::<()>().await;
    };
    let calls = async {
        assert_eq!(text(bench.client.get("/first").await.unwrap()).await, "hi");
        bench.client.send(second).await
    };
    let response = tokio::select! {
        biased;
        () = peers => unreachable!("it waits for ever"),
        response = calls => response,
    };
    if response.is_err() {
        assert_eq!(bench.pool().free(), 4);
    }
    (response, bench.pipes.opened.load(SeqCst) == 2)
}

// Every server closes kept connections at some time, and the close may cross a request.
#[tokio::test(start_paused = true)]
async fn an_idempotent_request_that_crosses_the_end_of_a_kept_connection_is_sent_again() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let request = Request::builder().method(method).uri("/second");
        let request = request.header("x-mark", "7").body(HttpBody::empty()).unwrap();
        let (response, again) = lost_on_a_kept_connection(request, "").await;
        assert_eq!(response.unwrap().status(), 200, "{method}");
        assert!(again, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_acted_on_is_not_sent_again() {
    let post = || Request::post("/second").body(HttpBody::empty()).unwrap();
    let put = || Request::put("/second").body(HttpBody::full("body")).unwrap();
    for request in [post(), put()] {
        let what = format!("{request:?}");
        let (response, again) = lost_on_a_kept_connection(request, "").await;
        let error = response.unwrap_err();
        assert!(matches!(error, HttpError::Broken { .. }), "{what}: {error:?}");
        assert!(error.may_have_reached() && !again, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_response_does_not_cause_a_second_request() {
    let get = Request::get("/second").body(HttpBody::empty()).unwrap();
    let (response, again) = lost_on_a_kept_connection(get, "no HTTP\r\n\r\n").await;
    assert!(matches!(response, Err(HttpError::Protocol { .. })), "{response:?}");
    assert!(!again);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_twice_may_have_reached_the_peer() {
    let mut bench = Bench::new(limits());
    let peer = async {
        let mut first = bench.accept.next().await;
        first.head().await;
        first.say(HI).await;
        first.head().await;
        // No further connection is accepted.
        drop(bench.accept);
    };
    let calls = async {
        assert_eq!(text(bench.client.get("/first").await.unwrap()).await, "hi");
        bench.client.get("/second").await
    };
    let ((), response) = tokio::join!(peer, calls);
    assert!(response.unwrap_err().may_have_reached());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_every_connection_at_once_gets_no_request() {
    let mut bench = Bench::new(limits());
    let peers = async {
        loop {
            drop(bench.accept.next().await);
        }
    };
    let error = tokio::select! {
        biased;
        () = peers => return,
        response = bench.client.get("/") => response.unwrap_err(),
    };
    assert!(matches!(error, HttpError::Unreachable { .. } | HttpError::Broken { .. }), "{error:?}");
    assert!(bench.opened() <= 3);
    assert_eq!(bench.pool().free(), 4);
}

#[tokio::test(start_paused = true)]
async fn unsolicited_bytes_end_an_idle_connection() {
    let mut bench = Bench::new(limits());
    let (mut peer, response) = tokio::join!(
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say(HI).await;
            peer
        },
        bench.client.get("/")
    );
    text(response.unwrap()).await;
    peer.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged").await;
    settle().await;
    assert_eq!((bench.pool().idle(), bench.alive()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_the_request_ends_the_connection() {
    let mut bench = Bench::with(limits(), StreamUse::KeptAlive, 1024);
    let body = HttpBody::full(vec![b'x'; 1 << 20]);
    let upload = bench.client.send(Request::post("/").body(body).unwrap());
    let (mut peer, response) = tokio::join!(
        async {
            let mut peer = bench.accept.next().await;
            peer.head().await;
            peer.say("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            peer
        },
        upload
    );
    let response = response.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(text(response).await, "no");
    assert!(peer.rest().await.is_some_and(|rest| rest.len() < 1 << 20));
    settle().await;
    assert_eq!((bench.pool().idle(), bench.pool().free(), bench.alive()), (0, 4, 0));
}

#[tokio::test]
async fn a_thousand_callers_share_four_connections() {
    let bench = Bench::new(limits());
    let pool = bench.pool();
    let busy = Arc::new(AtomicUsize::new(0));
    let served = bench.serve(move |request| {
        let busy = Arc::clone(&busy);
        async move {
            assert!(busy.fetch_add(1, SeqCst) < 4);
            tokio::task::yield_now().await;
            busy.fetch_sub(1, SeqCst);
            Response::new(HttpBody::full(request.uri().to_string()))
        }
    });
    let calls = (0..1000).map(|caller| {
        let client = served.client.clone();
        async move {
            let path = format!("/{caller}");
            assert_eq!(text(client.get(&path).await.unwrap()).await, path);
        }
    });
    join_all(calls).await;
    assert_eq!((served.opened(), pool.idle(), pool.free()), (4, 4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_on_two_threads_all_succeed() {
    let bench = Bench::new(limits());
    let pool = bench.pool();
    let served = bench
        .serve(|request| async move { Response::new(HttpBody::full(request.uri().to_string())) });
    let callers = TaskSet::new(&CancellationToken::new());
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let (client, done) = (served.client.clone(), Arc::clone(&done));
        callers.spawn("caller", |_cancel| async move {
            for _ in 0..1250 {
                assert_eq!(text(client.get("/same").await.unwrap()).await, "/same");
                done.fetch_add(1, SeqCst);
            }
        });
    }
    time::timeout(PATIENCE, async {
        while !callers.is_empty() {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(done.load(SeqCst), 10_000);
    assert_eq!((served.opened(), pool.idle(), pool.free()), (4, 4, 4));
}

#[tokio::test(start_paused = true)]
async fn clients_of_one_name_share_connections() {
    let bench = Bench::new(limits());
    let served = bench.serve(|_request| async { Response::new(HttpBody::full("hi")) });
    for _ in 0..3 {
        let client = served.clients.client(target(&served.pipes, StreamUse::KeptAlive));
        assert_eq!(text(client.get("/").await.unwrap()).await, "hi");
    }
    assert_eq!(served.opened(), 1);
}
