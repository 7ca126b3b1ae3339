//! `tandem trace`: the way of a message from node to node, asked of several nodes.
//!
//! # Invariants
//!
//! * All nodes are asked at once, and one that does not answer is told and hides nothing of the others.
//! * A token stands in no line that is printed.

use std::{process::ExitCode, time::Duration};

use futures::future;

use super::{args::TraceArgs, failure::Failure, output};
use crate::{
    admin::{
        ClientError, NamedNode,
        trace_tree::{self, Seen, tree},
        traced::{Summary, Traces, WatchOrder, Way},
    },
    log,
};

/// Time for which the nodes wait for a message, in seconds.
const WAIT_S: u64 = 600;

/// Messages of a node that are listed. Chosen: a screenful.
const MAX_LISTED: usize = 20;

/// Tells that a node did not answer.
fn note(node: &NamedNode, error: ClientError) {
    log::note(&format!("{}: {}", node.name, Failure::from(error).line()));
}

/// Shows the way of a message, or the messages whose way is kept.
pub(crate) async fn trace(args: TraceArgs) -> Result<ExitCode, Failure> {
    let nodes = nodes(&args).await?;
    let Some(digest) = args.digest else { return list(&nodes, &args).await };
    if args.watch {
        let order = WatchOrder { digest: digest.to_string(), wait_s: WAIT_S };
        let asked = future::join_all(nodes.iter().map(|node| node.client.watch(&order))).await;
        let watching = answers(&nodes, asked)?.len();
        let text = match watching {
            1 => "1 node keeps the way of this message for ten minutes from now".to_owned(),
            _ => format!("{watching} nodes keep the way of this message for ten minutes from now"),
        };
        output::print(&text).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let asked = future::join_all(nodes.iter().map(|node| node.client.trace(&digest))).await;
    let answered = answers(&nodes, asked)?;
    let ways: Vec<(&NamedNode, Way)> =
        answered.into_iter().filter_map(|(node, way)| Some((node, way?))).collect();
    if ways.is_empty() {
        return Err(Failure::NoTrace);
    }
    if args.json {
        let ways: Vec<&Way> = ways.iter().map(|(_, way)| way).collect();
        output::print(&output::json(&ways)).await?;
    } else {
        let seen = ways.iter().map(|(node, way)| Seen { name: &node.name, way });
        output::print(&tree(seen.collect())).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The nodes to ask.
async fn nodes(args: &TraceArgs) -> Result<Vec<NamedNode>, Failure> {
    let mut named = args.nodes.clone();
    if let Some(path) = &args.list {
        let failed = |source| Failure::Read { path: path.clone(), source };
        let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
        let lines = text.lines().map(str::trim);
        named.extend(
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned),
        );
    }
    if named.is_empty() && args.list.is_none() {
        named.push(args.target.data_dir()?.display().to_string());
    }
    if named.is_empty() {
        return Err(Failure::Usage { text: "the file names no node".to_owned() });
    }
    let node = |text: &String| {
        NamedNode::of(text).map_err(|error| Failure::Usage { text: error.to_string() })
    };
    named.iter().map(node).collect()
}

/// The answers that came, after a note about each node without one.
fn answers<T>(
    nodes: &[NamedNode],
    asked: Vec<Result<T, ClientError>>,
) -> Result<Vec<(&NamedNode, T)>, Failure> {
    let mut answers = Vec::new();
    for (node, asked) in nodes.iter().zip(asked) {
        match asked {
            Ok(answer) => answers.push((node, answer)),
            // A single node's failure is that of the command.
            Err(error) if nodes.len() == 1 => return Err(error.into()),
            Err(error) => note(node, error),
        }
    }
    if answers.is_empty() { Err(Failure::NobodyAnswered) } else { Ok(answers) }
}

/// Prints the messages whose way the nodes keep.
async fn list(nodes: &[NamedNode], args: &TraceArgs) -> Result<ExitCode, Failure> {
    let asked = future::join_all(nodes.iter().map(|node| node.client.traces())).await;
    let answered = answers(nodes, asked)?;
    if args.json {
        let traces: Vec<&Traces> = answered.iter().map(|(_, traces)| traces).collect();
        output::print(&output::json(&traces)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    for (node, Traces { one_in, traces, .. }) in &answered {
        let rate = match one_in {
            0 => "no message unasked".to_owned(),
            1 => "every message".to_owned(),
            one_in => format!("one message in {one_in}"),
        };
        output::print(&format!("{}: keeps the way of {rate}", node.name)).await?;
        for trace in traces.iter().take(MAX_LISTED) {
            output::print(&line(trace)).await?;
        }
        if traces.len() > MAX_LISTED {
            output::print(&format!("  and {} older ones", traces.len() - MAX_LISTED)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(trace: &Summary) -> String {
    let Summary { digest, tag, bytes, copies, handled_us, written, dropped, .. } = trace;
    let handled = handled_us.map_or_else(String::new, |us| {
        format!(", handled after {}", trace_tree::time(Duration::from_micros(us)))
    });
    format!(
        "  {digest} {tag} {bytes} B, {copies} copies{handled}, written to {written}, {dropped} drops"
    )
}
