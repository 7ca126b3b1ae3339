//! A node that dials a listener of the test, which answers by hand.

use std::time::Duration;

use gossip::NetworkProfile;
use tandem_net_ws::WsConfig;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Node, PATIENCE, Recipe,
    raw::{End, Raw},
    soon,
};

/// A node that dials a listener of the test, and its first connection after the request was read.
pub(crate) struct Dialled {
    pub(crate) node: Node,
    pub(crate) listener: TcpListener,
    pub(crate) server: Raw,
    pub(crate) request: String,
}

impl Dialled {
    pub(crate) async fn by(change: impl FnOnce(&mut WsConfig)) -> Self {
        Self::redialling(Duration::from_millis(500), change).await
    }

    /// Dials an address that failed within `wait` again.
    pub(crate) async fn redialling(wait: Duration, change: impl FnOnce(&mut WsConfig)) -> Self {
        let recipe = Recipe::new(&NetworkProfile::ALGORAND).redialling(wait, wait);
        Self::of(recipe.with(change)).await
    }

    pub(crate) async fn of(recipe: Recipe) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = recipe.dialling(&[address]).start().await;
        Self::next(node, listener).await
    }

    pub(crate) async fn next(node: Node, listener: TcpListener) -> Self {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut server = Raw::over(stream);
        while !server.got.ends_with(b"\r\n\r\n") {
            assert_eq!(server.read(PATIENCE).await, End::Bytes);
        }
        let request = String::from_utf8(std::mem::take(&mut server.got)).unwrap();
        Self { node, listener, server, request }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.request.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.request))
    }

    pub(crate) fn accept_key(&self) -> String {
        derive_accept_key(self.header("Sec-WebSocket-Key").as_bytes())
    }

    /// A head that every node accepts, with the headers `more`.
    pub(crate) fn head(&self, more: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nX-Algorand-Version: 2.2\r\n\
             X-Algorand-Accept-Version: 2.2\r\nX-Algorand-Genesis: test-v1\r\n\
             X-Algorand-Noderandom: AAECAwQFBgcICQ==\r\n{more}\r\n",
            self.accept_key()
        )
    }

    pub(crate) fn head_of(&self, len: usize) -> String {
        let bare = self.head("X-Padding: \r\n").len();
        self.head(&format!("X-Padding: {}\r\n", "x".repeat(len - bare)))
    }

    pub(crate) async fn accepted() -> Self {
        let mut dialled = Self::by(|_| {}).await;
        let head = dialled.head("");
        dialled.server.send(head.as_bytes()).await;
        dialled.node.until_peers(1).await;
        dialled
    }
}
