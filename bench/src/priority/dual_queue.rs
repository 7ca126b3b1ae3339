//! The baseline: a WebSocket with a queue per lane, one write per message and no low-water mark, as in existing
//! nodes. Written bulk waits in the kernel, in front of every vote.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use gossip::{BoxFuture, Tag};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config, client_async_with_config,
    tungstenite::{Error, Message},
};

use super::stage::{Contending, Stage};
use crate::{error::Failure, fanout::web_socket_config};

/// Capacity of the queue for votes. Chosen: five seconds of votes.
const PRIORITY_DEPTH: usize = 1_024;

/// Capacity of the queue for bulk: more messages than are ever offered.
const BULK_DEPTH: usize = 64;

/// A bulk message, and the signal that it has left the queue.
type Bulk = (Bytes, oneshot::Sender<()>);

/// The sending end.
#[derive(Debug)]
pub(super) struct DualQueue {
    priority: mpsc::Sender<Bytes>,
    bulk: mpsc::Sender<Bulk>,
}

/// Connects both ends.
pub(super) async fn start(stage: Stage) -> Result<DualQueue, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accept = async {
        let (near, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        Ok::<_, Failure>(accept_async_with_config(near, Some(web_socket_config())).await?)
    };
    let dial = async {
        let far = TcpStream::connect(address).await?;
        let url = format!("ws://{address}/");
        Ok::<_, Failure>(client_async_with_config(url, far, Some(web_socket_config())).await?)
    };
    let (near, far) = tokio::join!(accept, dial);
    let (near, (mut far, _)) = (near?, far?);
    let probe = stage.probe;
    stage.tasks.spawn("receiver", |_| async move {
        while let Some(Ok(message)) = far.next().await {
            let Message::Binary(message) = message else { continue };
            match message.strip_prefix(&Tag::AV.0) {
                Some(body) => probe.priority(body),
                None => probe.bulk(message.len() - Tag::BYTES),
            }
        }
    });
    let (priority, votes) = mpsc::channel(PRIORITY_DEPTH);
    let (bulk, others) = mpsc::channel(BULK_DEPTH);
    stage.tasks.spawn("writer", |_| async move {
        if let Err(error) = write(near, votes, others).await {
            eprintln!("the dual queue ends: {error}");
        }
    });
    Ok(DualQueue { priority, bulk })
}

async fn write(
    mut stream: WebSocketStream<TcpStream>,
    mut priority: mpsc::Receiver<Bytes>,
    mut bulk: mpsc::Receiver<Bulk>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            biased;
            Some(vote) = priority.recv() => stream.send(Message::Binary(vote)).await?,
            Some((message, left)) = bulk.recv() => {
                // The send fails only if the measurement is over.
                let _ = left.send(());
                stream.send(Message::Binary(message)).await?;
            }
            else => return Ok(()),
        }
    }
}

impl Contending for DualQueue {
    fn priority(&self, body: Bytes) -> Result<(), Failure> {
        let message = Bytes::from([&Tag::AV.0[..], &body].concat());
        Ok(self.priority.try_send(message).map_err(|error| error.to_string())?)
    }

    fn bulk(&self, body: Bytes) -> BoxFuture<'static, Result<(), Failure>> {
        let message = Bytes::from([&Tag::VB.0[..], &body].concat());
        let (left, done) = oneshot::channel();
        let offered = self.bulk.try_send((message, left)).map_err(|error| error.to_string());
        Box::pin(async move {
            offered?;
            Ok(done.await?)
        })
    }
}
