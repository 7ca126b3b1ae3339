//! tokio-tungstenite as the other implementation, as client and as server.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]
// A test that cannot go on has failed.
#![allow(clippy::unwrap_used)]

use crate::common::{HOUR, Node, Recipe, soon, until};
use futures::{Sink, SinkExt, Stream, StreamExt};
use gossip::{Admission, GossipNode, NetworkProfile, Outbound, Tag};
use http::{HeaderName, HeaderValue};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Error, Message, Utf8Bytes,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

const HEADERS: [(&str, &str); 4] = [
    ("x-tandem-version", "2.2"),
    ("x-tandem-genesis", "test-v1"),
    ("x-tandem-noderandom", "AAECAwQFBgcICQ=="),
    ("x-tandem-peer-features", "ppzstd"),
];

async fn client_of(node: &Node) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(node.address()).await.unwrap();
    let url = format!("ws://{}/v1/test-v1/gossip", node.address());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in HEADERS {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    client_async(request, stream).await.unwrap().0
}

// The library's callback fixes this type.
#[allow(clippy::result_large_err)]
fn answer(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Exchanges messages of every size, whole and fragmented, with pings between them, and closes cleanly.
async fn converse<S>(node: &Node, other: &mut S)
where
    S: Sink<Message, Error = Error> + Stream<Item = Result<Message, Error>> + Unpin,
{
    node.until_peers(1).await;
    for len in [1, 124, 4_094, 4_095, 70_000, 1_000_000] {
        let body: Vec<u8> = (0..len).map(|index| u8::try_from(index % 253).unwrap()).collect();
        let message = [&b"TX"[..], &body].concat();
        let outbound = Outbound::new(Tag::TX, body.clone());
        assert_eq!(node.network.broadcast(outbound), Ok(Admission::Queued));
        let heard = soon(other.next()).await.unwrap().unwrap();
        assert_eq!(heard, Message::binary(message), "{len}");

        let back: Vec<u8> = body.iter().map(|byte| !byte).collect();
        let before = node.heard.all().len();
        other.send(Message::binary([&b"TX"[..], &back].concat())).await.unwrap();
        until("the message", || node.heard.all().len() > before).await;
        assert_eq!(node.heard.all().last().unwrap().body, back, "{len}");

        let pieces = [&b"VB"[..], &back].concat();
        let cut = pieces.len() / 3;
        for (index, piece) in
            [&pieces[..cut], &pieces[cut..2 * cut], &pieces[2 * cut..]].into_iter().enumerate()
        {
            let data = if index == 0 { Data::Binary } else { Data::Continue };
            let frame = Frame::message(piece.to_vec(), OpCode::Data(data), index == 2);
            other.send(Message::Frame(frame)).await.unwrap();
            other.send(Message::Ping(vec![7].into())).await.unwrap();
            assert_eq!(soon(other.next()).await.unwrap().unwrap(), Message::Pong(vec![7].into()));
        }
        until("the pieces", || node.heard.all().len() > before + 1).await;
        assert_eq!(node.heard.all().last().unwrap().body, back, "{len} in pieces");
    }
    let farewell = CloseFrame { code: CloseCode::Away, reason: Utf8Bytes::from_static("bye") };
    other.send(Message::Close(Some(farewell))).await.unwrap();
    match soon(other.next()).await.unwrap().unwrap() {
        Message::Close(Some(echo)) => {
            assert_eq!((echo.code, echo.reason.as_str()), (CloseCode::Away, ""));
        }
        other => panic!("{other:?}"),
    }
    assert!(soon(other.next()).await.is_none(), "the stream is over");
    node.until_peers(0).await;
}

#[tokio::test]
async fn tungstenite_talks_to_our_listener() {
    let node = Recipe::new(&NetworkProfile::TANDEM).listening().start().await;
    let mut client = soon(client_of(&node)).await;
    converse(&node, &mut client).await;
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn our_dialler_talks_to_tungstenite() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let recipe = Recipe::new(&NetworkProfile::TANDEM).dialling(&[address]);
    let node = recipe.redialling(HOUR, HOUR).start().await;
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let mut server = soon(accept_hdr_async(stream, answer)).await.unwrap();
    converse(&node, &mut server).await;
    drop(server);
    node.stop().await;
}
