//! Bare quinn: one connection and one stream for each receiver, and a queue per peer.

use bytes::Bytes;
use libp2p::identity::Keypair;
use quinn::{Endpoint, SendStream, WriteError};
use tokio::sync::mpsc;

use super::{
    by_hand::Batch,
    raw,
    stage::{Publish, Stage},
};
use crate::{
    error::Failure,
    meter::{Tally, WINDOW},
    receiver::{self, p2p::Opening, quic},
};

/// The form in which a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As the chunks that it consists of, which are not copied: the upper bound.
    Chunks,
    /// In one write, put together first.
    OneWrite,
}

/// Connects the receivers, and starts one task per connection.
pub(super) async fn start(stage: Stage, batch: Batch, form: Form) -> Result<Publish, Failure> {
    let hub = Endpoint::server(quic::server()?, "127.0.0.1:0".parse()?)?;
    let address = hub.local_addr()?;
    let mut queues = Vec::new();
    for receiver in 0..stage.peers {
        let accept = async {
            let connection = hub.accept().await.ok_or("the hub has ended")?.await?;
            let (near, mut first) = connection.accept_bi().await?;
            // The stream exists with its first byte.
            first.read_exact(&mut [0]).await?;
            Ok::<_, Failure>(near)
        };
        let dial = async {
            let key = Keypair::generate_ed25519();
            let mut far = quic::connect(&key, address, Opening::None, &stage.tasks).await?;
            tokio::io::AsyncWriteExt::write_all(&mut far, &[0]).await?;
            Ok::<_, Failure>(far)
        };
        let (near, far) = tokio::join!(accept, dial);
        let (near, far) = (near?, far?);
        let (mut tally, meter) = (Tally::new(&stage.meter, receiver), stage.meter.clone());
        stage.tasks.spawn("receiver", |_| async move {
            meter.ended(receiver::count_lengths(far, &mut tally).await);
        });
        let (queue, waiting) = mpsc::channel(2 * WINDOW);
        let meter = stage.meter.clone();
        stage.tasks.spawn("writer", move |_| async move {
            if let Err(error) = write(near, waiting, batch, form).await {
                meter.fail(error.to_string());
            }
        });
        queues.push(queue);
    }
    Ok(raw::to_all(queues))
}

async fn write(
    mut stream: SendStream,
    mut waiting: mpsc::Receiver<Bytes>,
    batch: Batch,
    form: Form,
) -> Result<(), WriteError> {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    while batch.fill(&mut waiting, &mut messages).await {
        match form {
            Form::Chunks => stream.write_all_chunks(&mut messages).await?,
            Form::OneWrite => {
                bytes.clear();
                messages.iter().for_each(|message| bytes.extend_from_slice(message));
                stream.write_all(&bytes).await?;
            }
        }
    }
    Ok(())
}
