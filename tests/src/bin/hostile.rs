//! One of the attacks of the test kit against a node that runs, of whatever network: a node of one's own, since it is
//! meant to do harm.
//!
//! ```text
//!   hostile                                              prints the names of the attacks
//!   hostile ATTACK WS P2P NETWORK [PROFILE [SECONDS]]    attacks, and prints its counts as JSON at the end
//! ```
//!
//! WS is the `ip:port` of WebSocket, P2P the multiaddr of libp2p with `/p2p/ID`; the attacks come from addresses of
//! 127.0.0.0/8, so both are on this machine. PROFILE is `tandem` (default) or `algorand`, SECONDS is 10 by default.

use std::{error::Error, time::Duration};

use gossip::{NetworkId, NetworkProfile};
use serde_json::json;
use testkit::hostile::{Attack, Tally, Target};
use tokio::time::timeout;

type Failed = Box<dyn Error>;

const USAGE: &str = "hostile ATTACK WS P2P NETWORK [tandem|algorand [SECONDS]]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            Attack::ALL.iter().for_each(|attack| println!("{}", attack.name()));
            Ok(())
        }
        [attack, ws, p2p, network, rest @ ..] => {
            let (profile, seconds) = match rest {
                [] => ("tandem", "10"),
                [profile] => (*profile, "10"),
                [profile, seconds] => (*profile, *seconds),
                _ => return Err(USAGE.into()),
            };
            let profile = match profile {
                "tandem" => &NetworkProfile::TANDEM,
                "algorand" => &NetworkProfile::ALGORAND,
                other => return Err(format!("{other:?} is no profile: tandem or algorand").into()),
            };
            let named = Attack::named(attack);
            let attack = named
                .ok_or_else(|| format!("{attack:?} is no attack: call it alone for a list"))?;
            let target =
                Target::of(ws.parse()?, (*p2p).to_owned(), profile, NetworkId::new(*network)?);
            if !target.ws.ip().is_loopback() {
                return Err(
                    "the node must be on this machine, under an address of 127.0.0.0/8".into()
                );
            }
            run(attack, &target, Duration::try_from_secs_f64(seconds.parse()?)?).await;
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

async fn run(attack: Attack, target: &Target, lasting: Duration) {
    let tally = Tally::default();
    // An attack never ends by itself.
    let _elapsed = timeout(lasting, attack.run(target, attack.connections(), &tally)).await;
    let counts = tally.counts();
    let told = json!({
        "attack": attack.name(),
        "opened": counts.opened,
        "refused": counts.refused,
        "cut": counts.cut,
        "sent": counts.sent,
        "first_cut_s": counts.first_cut.map(|after| after.as_secs_f64()),
    });
    println!("{told}");
}
