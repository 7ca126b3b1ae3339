//! The upper bound: one queue per peer, and vectored writes of the queued messages to a plain TCP socket.

use std::io::{self, IoSlice};

use bytes::Bytes;
use gossip::{Tag, wire::frame};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::stage::{Publish, Stage};
use crate::{
    error::Failure,
    meter::{Tally, WINDOW},
    receiver,
};

/// Largest number of messages per write. Chosen: the whole window.
const BATCH: usize = WINDOW;

/// The queue of one peer. It has room for the window, so it is never full.
pub(super) type Queue = mpsc::Sender<Bytes>;

/// Connects the receivers, and starts one task per connection.
pub(super) async fn start(stage: Stage) -> Result<Publish, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut queues = Vec::new();
    for receiver in 0..stage.peers {
        let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
        let ((near, _), far) = (near?, far?);
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_lengths(far, &mut tally).await);
        });
        let (queue, waiting) = mpsc::channel(2 * WINDOW);
        let meter = stage.meter.clone();
        stage.tasks.spawn("writer", |_| async move {
            if let Err(error) = write(near, waiting).await {
                meter.fail(error.to_string());
            }
        });
        queues.push(queue);
    }
    Ok(to_all(queues))
}

async fn write(mut stream: TcpStream, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|each| IoSlice::new(each)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let written = stream.write_vectored(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, written);
        }
        batch.clear();
    }
    Ok(())
}

/// Prepends length and tag to a body, and offers the message to every queue.
pub(super) fn to_all(queues: Vec<Queue>) -> Publish {
    Box::new(move |body| {
        let len = Tag::BYTES + body.len();
        let message = [&frame::encode_header(len)[..], &Tag::AV.0, &body].concat();
        let message = Bytes::from(message);
        for queue in &queues {
            queue.try_send(message.clone()).map_err(|_| "a queue is full or gone")?;
        }
        Ok(())
    })
}
