//! Publish and subscribe: readings of sensors on a topic with a validator, which keeps everything else from spreading.
//!
//! A node counts what its validator rejects, and holds it against the peer that passed it on until it no longer hears it.

use std::{collections::BTreeMap, io::BufRead, thread, time::Duration};

use clap::Parser;
use examples::Failure;
use tandem::{
    Mode, NodeBuilder, OwnTopic, P2pEvent,
    gossip::{NetworkId, NodeAddress, TopicInbound, Validation, Verdict},
};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "/readings/1";

/// Publishes the lines of standard input, `SENSOR CELSIUS` each, and prints those of others.
#[derive(Debug, Parser)]
struct Arguments {
    /// A node to be connected with: a multiaddr with /p2p/ID.
    #[arg(long)]
    peer: Vec<NodeAddress>,
    /// Multiaddrs to listen on: TCP, and WebSocket with /ws at the end.
    #[arg(long, default_values = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"])]
    listen_p2p: Vec<String>,
    /// Readings, published or heard, after which to end.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
}

/// A reading that can be true, or the reason why it is none.
fn reading(body: &[u8]) -> Result<(&str, f32), &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "it is no text")?;
    let (sensor, celsius) = text.split_once(' ').ok_or("it has no temperature")?;
    let celsius = celsius.parse().map_err(|_| "its temperature is no number")?;
    let is_name = |name: &str| name.len() <= 32 && name.chars().all(|c| c.is_ascii_alphanumeric());
    match (is_name(sensor), (-90.0..=60.0).contains(&celsius)) {
        (false, _) => Err("its sensor has no plain name"),
        (_, false) => Err("it is nowhere so hot or so cold"),
        _ => Ok((sensor, celsius)),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let (heard, mut news) = mpsc::channel::<TopicInbound>(64);
    let (refuse, mut refused) = mpsc::channel(64);
    let readings = OwnTopic::new(TOPIC)
        .with_max_bytes(100)
        .with_validator(move |message: &TopicInbound| match reading(&message.body) {
            Ok(_) => Validation::Accept,
            Err(why) => {
                // It is counted by the node, whether or not there is room for it here.
                let _ = refuse.try_send((message.from, why));
                Validation::Reject
            }
        })
        .with_handler(move |message: TopicInbound| {
            let heard = heard.clone();
            async move {
                // At the end its receiver has gone.
                let _ = heard.send(message).await;
                Verdict::Ignore
            }
        });
    let builder = NodeBuilder::new(NetworkId::new("readings")?)
        .mode(Mode::Libp2p)
        .listen_p2p(arguments.listen_p2p)
        .topic(readings)
        .peers(arguments.peer);
    let node = builder.start(&CancellationToken::new()).await?;
    node.p2p_addresses().iter().for_each(|address| println!("listening {address}"));
    println!("ready");
    // Standard input blocks, and may end long before the node.
    let (sender, mut lines) = mpsc::channel::<String>(64);
    thread::spawn(move || {
        let all = std::io::stdin().lock().lines().map_while(Result::ok);
        all.take_while(|line| sender.blocking_send(line.clone()).is_ok()).count()
    });
    let (mut faults, mut every) = (BTreeMap::new(), time::interval(Duration::from_secs(1)));
    let mut left = arguments.count;
    while left > 0 {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break,
            Some(line) = lines.recv() => {
                // There may be no subscriber yet.
                while node.publish(TOPIC, line.clone()).await? == 0 {
                    time::sleep(Duration::from_millis(50)).await;
                }
                println!("published {}", line.escape_debug());
                left -= 1;
            }
            Some((from, why)) = refused.recv() => {
                println!("refused: {why}");
                faults.extend(from.map(|from| (from, f64::INFINITY)));
            }
            Some(message) = news.recv() => {
                if let (Ok((sensor, celsius)), Some(author)) = (reading(&message.body), message.author) {
                    println!("{sensor}: {celsius} °C, by {author}");
                    left -= 1;
                }
            }
            _ = every.tick() => for (peer, last) in &mut faults {
                let Some(now) = node.view().topic_score(peer) else { continue };
                if now.score + 1.0 < *last {
                    let count = node.p2p_metrics().map_or(0, |all| all.count(P2pEvent::TopicRefused));
                    println!("{count} refused, {peer} has the score {:.0}, muted: {}", now.score, now.is_muted);
                    *last = now.score;
                }
            },
        }
    }
    println!("stopped: {:?}", node.stop(Duration::from_secs(5)).await);
    Ok(())
}
