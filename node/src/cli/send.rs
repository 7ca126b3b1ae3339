//! `tandem send`: one message to the peers of a running node.

use std::{io, process::ExitCode};

use bytes::Bytes;
use gossip::{MAX_MESSAGE_BYTES, wire::digest::Digest};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
};

use super::{args::SendArgs, failure::Failure, output};
use crate::admin::{
    Client,
    wire::{Published, Sent},
};

/// Sends a message and tells whom it reached.
pub(crate) async fn send(args: SendArgs) -> Result<ExitCode, Failure> {
    let body = body(&args).await?;
    if args.dry_run {
        // The command line has a tag then.
        let digest = args.tag.map(|tag| Digest::of(tag, &body).to_string());
        output::print(&digest.unwrap_or_default()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = Client::new(&args.target.data_dir()?);
    // The command line has one of both.
    let Some(tag) = args.tag else {
        let topic = args.topic.as_deref().unwrap_or_default();
        return publish(&client, &args, topic, body.into()).await;
    };
    let sent = client.send(tag, body.into()).await?;
    if args.json {
        output::print(&output::json(&sent)).await?;
    }
    if sent.peers == 0 {
        return Err(Failure::NobodyHeard);
    }
    if !args.json {
        output::print(&line(&sent)).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Publishes a message on a topic and tells to how many peers it went.
async fn publish(
    client: &Client,
    args: &SendArgs,
    topic: &str,
    body: Bytes,
) -> Result<ExitCode, Failure> {
    let published = client.publish(topic, body).await?;
    if args.json {
        output::print(&output::json(&published)).await?;
    }
    let Published { topic, bytes, peers } = published;
    let peers = match peers {
        0 => return Err(Failure::NobodySubscribed { topic }),
        peers => output::peers(peers),
    };
    if !args.json {
        output::print(&format!("published on {topic}, {bytes} bytes, to {peers}")).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The body to send, of at most as many bytes as any message may have.
async fn body(args: &SendArgs) -> Result<Vec<u8>, Failure> {
    let body = match (&args.file, args.text.as_deref()) {
        (Some(path), _) => {
            let failed = |source| Failure::Read { path: path.clone(), source };
            read(File::open(path).await.map_err(failed)?).await.map_err(failed)?
        }
        (None, Some("-")) => read(tokio::io::stdin())
            .await
            .map_err(|source| Failure::Read { path: "standard input".into(), source })?,
        (None, text) => text.unwrap_or_default().as_bytes().to_vec(),
    };
    let max = MAX_MESSAGE_BYTES - gossip::Tag::BYTES;
    if body.len() > max { Err(Failure::TooLong { max }) } else { Ok(body) }
}

/// Reads a little more than can be sent, so that it shows.
async fn read(source: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    source.take(MAX_MESSAGE_BYTES as u64).read_to_end(&mut body).await?;
    Ok(body)
}

fn line(sent: &Sent) -> String {
    let Sent { tag, bytes, digest, written, given_up, .. } = sent;
    let mut peers = output::peers(*written);
    if *given_up > 0 {
        peers.push_str(&format!(", and {given_up} did not take it"));
    }
    format!("sent {tag}, {bytes} bytes, digest {digest}, to {peers}")
}
