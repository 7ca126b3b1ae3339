//! One measurement of one form.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use broadcaster::{LaneRates, Limits, Rate, Rates, Relaying, Setup, VoteForm};
use gossip::{
    NetworkProfile, NodeAddress, Tag,
    wire::{
        features::{Features, MAX_TABLE},
        vote::{self, PackedVote, VotePacker},
    },
};
use runtime::TaskSet;
use testkit::votes::mark_key;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Form, Pace, Plan, made::Voters};
use crate::{
    error::Failure,
    meter::{BLOCK, Meter, Tally},
    node::{Http, NETWORK, Node},
    receiver::{self, ws},
    transport::Transport,
};

/// Name of the relay's threads, by which their processor time is told apart.
const RELAY: &str = "votes-relay";

/// Time before a measurement starts: every key of the voters has come by then.
const WARM_UP: Duration = Duration::from_millis(500);

/// Length of every vote before it is packed, tag included, in bytes.
const PLAIN_BYTES: f64 = 630.0;

/// Longest time for the set-up.
const SETUP_TIME: Duration = Duration::from_secs(60);

/// Longest time for a turn to stop.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Measures one form.
pub(super) fn run(plan: Plan) -> Result<Pace, Failure> {
    let relaying =
        Builder::new_multi_thread().worker_threads(1).thread_name(RELAY).enable_all().build()?;
    let around = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let pace = around.block_on(measure(plan, &relaying));
    around.shutdown_timeout(TEARDOWN);
    relaying.shutdown_timeout(TEARDOWN);
    pace
}

async fn measure(plan: Plan, relaying: &Runtime) -> Result<Pace, Failure> {
    let meter = Meter::new(plan.peers);
    let tasks = TaskSet::new(&CancellationToken::new());
    let stop = tasks.token().clone();
    let started = relaying
        .spawn(async move { start(plan.form, &stop).await.map_err(|error| error.to_string()) });
    let relay = time::timeout(SETUP_TIME, started).await???;
    let NodeAddress::WebSocket(address) = relay.address()? else {
        return Err("a WebSocket network has another kind of address".into());
    };
    let address: SocketAddr = format!("{}:{}", address.host(), address.port()).parse()?;
    let features = Features::announcing(plan.form.setting());
    for receiver in 0..plan.peers {
        let far = ws::connect_with(address, NETWORK, receiver, features).await?;
        let (mut tally, meter) = (Tally::new(&meter, receiver), Arc::clone(&meter));
        tasks.spawn("receiver", move |_| async move {
            meter.ended(receiver::count_votes(far, plan.form.counted(), &mut tally).await);
        });
    }
    let sender = ws::connect_with(address, NETWORK, plan.peers, features).await?;
    relay.connected(plan.peers + 1).await?;
    let sending = Arc::clone(&meter);
    tasks.spawn("sender", move |_| async move {
        if let Err(error) = send_all(sender, plan, &sending).await {
            sending.fail(error.to_string());
        }
    });
    time::sleep(WARM_UP).await;
    let read = || (Instant::now(), relay_seconds(), meter.total());
    let (began, cpu_before, before) = read();
    time::sleep(plan.time).await;
    let (ended, cpu_after, after) = read();
    let bytes = length(&relay, plan.form);
    let failure = meter.failure().map(str::to_owned);
    meter.fail("the measurement is over");
    let _ = tasks.stop(TEARDOWN).await;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    let count = (after - before) as f64 / plan.peers as f64;
    if count == 0.0 {
        return Err("nothing was delivered".into());
    }
    Ok(Pace {
        votes_per_s: count / (ended - began).as_secs_f64(),
        cpu_us_per_vote: (cpu_after? - cpu_before?) * 1e6 / count,
        bytes,
    })
}

/// A relay whose peers may send as fast as they can.
async fn start(form: Form, parent: &CancellationToken) -> Result<Node, Failure> {
    let all = Rate::new(10_000_000, 10_000_000);
    let limits = Limits::default().with_rates(Rates::default().with_gossip(LaneRates::each(all)));
    let setup = Setup::new(&NetworkProfile::TANDEM)
        .votes(form.setting())
        .limits(limits)
        .relaying(Relaying::Accepted);
    Node::start(Transport::Ws, setup, None, Http::default(), parent).await
}

/// Mean length of a message to a peer, in bytes, from what packing has saved.
fn length(relay: &Node, form: Form) -> f64 {
    let votes = relay.broadcaster.metrics().votes();
    let form = match form {
        Form::Plain => return PLAIN_BYTES,
        Form::Stateless => VoteForm::Stateless,
        Form::Stateful => VoteForm::Stateful,
    };
    PLAIN_BYTES - votes.bytes_saved(form) as f64 / votes.votes_sent(form) as f64
}

/// Processor time of the relay's threads, in seconds.
fn relay_seconds() -> Result<f64, Failure> {
    let mut nanos = 0_u64;
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread may end meanwhile.
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        if name.trim_end() == RELAY {
            let times = fs::read_to_string(path.join("schedstat"))?;
            nanos += times.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(nanos as f64 / 1e9)
}

/// Sends votes for as long as the window and the rate allow.
async fn send_all(mut to: TcpStream, plan: Plan, meter: &Meter) -> Result<(), Failure> {
    let mut voters = Voters::new(plan.voters);
    let mut packer = VotePacker::new(MAX_TABLE.into()).ok_or("there is no such table")?;
    let key = mark_key();
    let (mut packed, mut payload, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    let mut drained = vec![0; 64 * 1024];
    let began = Instant::now();
    let mut sent = 0_u32;
    loop {
        meter.next_block().await?;
        batch.clear();
        for _ in 0..BLOCK {
            voters.put_next(&mut packed);
            payload.clear();
            match plan.form {
                Form::Plain => vote::unpack(&packed, &mut payload)?,
                Form::Stateless => payload.extend(&packed),
                Form::Stateful => {
                    packer.pack(&PackedVote::read(packed.clone().into(), &key)?, &mut payload);
                }
            }
            put_frame(plan.form.counted().tag, &payload, &mut batch)?;
            sent += 1;
            if plan.rate > 0 {
                // One by one, as votes of a network come.
                to.write_all(&std::mem::take(&mut batch)).await?;
                let due = began + Duration::from_secs_f64(f64::from(sent) / f64::from(plan.rate));
                time::sleep_until(due).await;
            }
        }
        to.write_all(&batch).await?;
        // The relay's message of interest, and pings: nobody waits for an answer within a turn.
        while let Ok(1..) = to.try_read(&mut drained) {}
    }
}

/// Appends a message as a client frames it, masked with zeros.
fn put_frame(tag: Tag, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
    let len = Tag::BYTES + payload.len();
    match u8::try_from(len) {
        Ok(short @ ..126) => out.extend([0x82, 0x80 | short]),
        _ => {
            out.extend([0x82, 0xfe]);
            out.extend(u16::try_from(len)?.to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(tag.0);
    out.extend(payload);
    Ok(())
}
