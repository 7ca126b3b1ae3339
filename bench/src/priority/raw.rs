//! The capacity of the link: one plain TCP sender of bulk.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::stage::Stage;
use crate::error::Failure;

/// Connects both ends, and sends until the stage ends.
pub(super) async fn start(stage: Stage, bulk_bytes: usize) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
    let ((mut near, _), mut far) = (near?, far?);
    near.set_nodelay(true)?;
    stage.tasks.spawn("sender", |_| async move {
        let message = vec![0; bulk_bytes];
        while near.write_all(&message).await.is_ok() {}
    });
    stage.tasks.spawn("receiver", |_| async move {
        let mut message = vec![0; bulk_bytes];
        while far.read_exact(&mut message).await.is_ok() {
            stage.probe.bulk(bulk_bytes);
        }
    });
    Ok(())
}
