//! The exact bytes of a request.

use super::*;

const USER_AGENT: &str = "algod/5.1 (; commit=; 0) linux(amd64)";

fn client(bench: &Bench, host: &'static str, streams: StreamUse) -> HttpClient {
    let clients = Clients::new(limits(), USER_AGENT.to_owned(), &bench.stop);
    let host = HeaderValue::from_static(host);
    clients.client(Target { host, ..target(&bench.pipes, streams) })
}

/// Source: vectors p2p_http, client_request and client_stream_end.
#[tokio::test(start_paused = true)]
async fn the_only_request_of_a_stream_is_that_of_existing_nodes_and_closes_its_half() {
    let mut bench = Bench::with(limits(), StreamUse::OneRequest, 4096);
    let client = client(&bench, "", StreamUse::OneRequest);
    for _ in 0..2 {
        let (response, request) = tokio::join!(client.get("/v1/test-v1/block/1"), async {
            let mut peer = bench.accept.next().await;
            // The peer reads the end of the request before it answers.
            let request = peer.rest().await.unwrap();
            peer.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi").await;
            request
        });
        assert_eq!(
            String::from_utf8(request).unwrap(),
            "GET /v1/test-v1/block/1 HTTP/1.1\r\nHost: \r\nUser-Agent: algod/5.1 (; commit=; 0) \
             linux(amd64)\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(text(response.unwrap()).await, "hi");
    }
    assert_eq!(bench.opened(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_the_only_request_is_sent_whole_before_its_half_is_closed() {
    let mut bench = Bench::with(limits(), StreamUse::OneRequest, 1000);
    let body = "x".repeat(100_000);
    let request = Request::post("/").body(HttpBody::full(body.clone())).unwrap();
    let (response, request) = tokio::join!(bench.client.send(request), async {
        let mut peer = bench.accept.next().await;
        let request = peer.rest().await.unwrap();
        // Without a length, the response ends with the stream.
        peer.say("HTTP/1.1 200 OK\r\n\r\nlong").await;
        request
    });
    let request = String::from_utf8(request).unwrap();
    let (head, sent) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Length: 100000") && head.contains("Connection: close"));
    assert_eq!(sent, body);
    assert_eq!(text(response.unwrap()).await, "long");
    settle().await;
    assert_eq!((bench.pool().idle(), bench.alive()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_keeps_its_half_open() {
    let mut bench = Bench::new(limits());
    let client = client(&bench, "peer:80", StreamUse::KeptAlive);
    let (response, head) = tokio::join!(client.get("/a?b=c"), async {
        let mut peer = bench.accept.next().await;
        let head = peer.head().await;
        let more = time::timeout(Duration::from_secs(1), peer.0.read_u8()).await;
        assert!(more.is_err(), "{more:?}");
        peer.say(HI).await;
        head
    });
    text(response.unwrap()).await;
    assert_eq!(
        head,
        "GET /a?b=c HTTP/1.1\r\nhost: peer:80\r\nuser-agent: algod/5.1 (; commit=; 0) \
         linux(amd64)\r\n\r\n"
    );
}

#[tokio::test(start_paused = true)]
async fn redirects_are_handed_to_the_caller() {
    let mut bench = Bench::new(limits());
    let (response, ()) = tokio::join!(bench.client.get("/"), async {
        let mut peer = bench.accept.next().await;
        assert!(!peer.head().await.contains("accept-encoding"));
        peer.say("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
    });
    assert_eq!(response.unwrap().status(), 302);
    assert_eq!(bench.opened(), 1);
}
