//! The report at the end of a demo, for people and for programs.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use gossip::Lane;
use serde::Serialize;

use super::{
    account::{NodeAccount, Outage, Tally},
    body::Class,
    director::{Outcome, Plan},
    error::DemoError,
    ledger::{Arrivals, Ledger},
};
use crate::cli::json;

/// The report of a demo.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    seconds: u64,
    rate: f64,
    nodes: Vec<NodeReport>,
    lanes: Vec<LaneReport>,
    /// Messages that were sent.
    sent: u64,
    /// Messages handled, counted at each node.
    handled: u64,
    /// Over the time in which messages were handled, which is longer than `seconds` if they had to wait.
    handled_per_s: f64,
    mib_per_s: f64,
    lost: u64,
    duplicated: u64,
    chaos: Option<ChaosReport>,
}

#[derive(Clone, Debug, Serialize)]
struct NodeReport {
    node: String,
    sent: u64,
    heard: Vec<HeardReport>,
    missed_while_down: u64,
    died_with_sender: u64,
    lost: u64,
    duplicated: u64,
}

/// The messages of a class that a node heard, by transport.
#[derive(Clone, Debug, Serialize)]
struct HeardReport {
    class: &'static str,
    ws: u64,
    p2p: u64,
}

#[derive(Clone, Debug, Serialize)]
struct LaneReport {
    lane: &'static str,
    handled: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// The cost of the end of a node.
#[derive(Clone, Debug, Serialize)]
struct ChaosReport {
    node: String,
    /// From the kill until everybody heard the node again.
    down_ms: u64,
    missed_while_down: u64,
    missed: Vec<(&'static str, u64)>,
    /// Messages of the node that never left it, counted at each node that did not get them.
    died_with_it: u64,
    heard_again: u64,
}

impl Report {
    /// The report of a demo.
    pub(crate) fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let Outcome { account, ledger, outage } = outcome;
        let members = plan.topology.members();
        let nodes = members.iter().zip(&account.nodes).enumerate();
        // Messages that wait in queues are handled after the last was sent, at no higher rate for that.
        let seconds = ledger.handling_time().as_secs_f64().max(plan.seconds.max(1) as f64);
        let bytes: u64 = account
            .nodes
            .iter()
            .flat_map(|node| {
                Class::COUNTED.map(|class| node.heard.of(class) * class.bytes() as u64)
            })
            .sum();
        Self {
            seconds: plan.seconds,
            rate: plan.rate,
            nodes: nodes
                .map(|(place, (member, node))| {
                    NodeReport::new(member.name.clone(), place, node, ledger)
                })
                .collect(),
            lanes: Lane::ALL.into_iter().map(|lane| LaneReport::new(lane, ledger)).collect(),
            sent: ledger.sent(),
            handled: ledger.handled(),
            handled_per_s: tenth(ledger.handled() as f64 / seconds),
            mib_per_s: tenth(bytes as f64 / f64::from(1 << 20) / seconds),
            lost: account.lost(),
            duplicated: account.duplicated(),
            chaos: outage.map(|outage| {
                let name = members.get(outage.node).map(|member| member.name.clone());
                ChaosReport::new(name.unwrap_or_default(), outage, &account.nodes)
            }),
        }
    }

    /// One JSON object.
    pub(crate) fn json(&self) -> String {
        json(self)
    }

    /// An error if anything was lost or handled twice.
    pub(crate) const fn verdict(&self) -> Result<(), DemoError> {
        let Self { lost, duplicated, .. } = *self;
        if lost == 0 && duplicated == 0 {
            Ok(())
        } else {
            Err(DemoError::Unsound { lost, duplicated })
        }
    }

    fn node_table(&self) -> Table {
        let mut table = table();
        let mut header = vec!["node", "sent"];
        header.extend(Class::COUNTED.map(Class::name));
        if self.chaos.is_some() {
            header.push("missed while down");
        }
        header.extend(["lost", "twice"]);
        table.set_header(header);
        for node in &self.nodes {
            let mut row = vec![node.node.clone(), node.sent.to_string()];
            row.extend(node.heard.iter().map(HeardReport::cell));
            if self.chaos.is_some() {
                row.push(node.missed_while_down.to_string());
            }
            row.extend([node.lost.to_string(), node.duplicated.to_string()]);
            table.add_row(row);
        }
        align(&mut table);
        table
    }

    fn lane_table(&self) -> Table {
        let mut table = table();
        table.set_header(["lane", "handled", "p50", "p99", "max"]);
        for lane in &self.lanes {
            let ms = |ms: f64| format!("{ms:.1} ms");
            table.add_row([
                lane.lane.to_owned(),
                lane.handled.to_string(),
                ms(lane.p50_ms),
                ms(lane.p99_ms),
                ms(lane.max_ms),
            ]);
        }
        align(&mut table);
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.node_table(), self.lane_table())?;
        if let Some(chaos) = &self.chaos {
            let ChaosReport { node, down_ms, missed, died_with_it, heard_again, .. } = chaos;
            let missed: Vec<String> =
                missed.iter().map(|(class, count)| format!("{count} {class}")).collect();
            writeln!(
                f,
                "{node} was killed and was back after {:.1} s. Missed while down: {}. Of its own, \
                 {died_with_it} deliveries died with it. Heard again: {heard_again}.",
                *down_ms as f64 / 1e3,
                missed.join(", "),
            )?;
        }
        let Self { sent, handled, seconds, handled_per_s, mib_per_s, lost, duplicated, .. } = self;
        write!(
            f,
            "{sent} messages sent in {seconds} s and {handled} handled: {handled_per_s:.0} a second, \
             {mib_per_s:.1} MiB/s. Lost: {lost}. Duplicated: {duplicated}."
        )
    }
}

impl NodeReport {
    fn new(name: String, place: usize, node: &NodeAccount, ledger: &Ledger) -> Self {
        let heard = Class::COUNTED.into_iter().map(|class| {
            let Arrivals { ws, p2p } = ledger.arrivals(place, class);
            HeardReport { class: class.name(), ws, p2p }
        });
        Self {
            node: name,
            sent: node.sent.total(),
            heard: heard.collect(),
            missed_while_down: node.missed_while_down.total(),
            died_with_sender: node.died_with_sender.total(),
            lost: node.lost.total(),
            duplicated: node.duplicated.total() + node.unknown.total(),
        }
    }
}

impl HeardReport {
    fn cell(&self) -> String {
        match (self.ws, self.p2p) {
            (0, 0) => "0".to_owned(),
            (ws, 0) => format!("{ws} ws"),
            (0, p2p) => format!("{p2p} p2p"),
            (ws, p2p) => format!("{ws} ws + {p2p} p2p"),
        }
    }
}

impl LaneReport {
    fn new(lane: Lane, ledger: &Ledger) -> Self {
        let latency = ledger.latency(lane);
        let ms = |micros: u64| micros as f64 / 1e3;
        Self {
            lane: lane.label(),
            handled: latency.len(),
            p50_ms: ms(latency.value_at_quantile(0.5)),
            p99_ms: ms(latency.value_at_quantile(0.99)),
            max_ms: ms(latency.max()),
        }
    }
}

impl ChaosReport {
    fn new(node: String, outage: Outage, nodes: &[NodeAccount]) -> Self {
        let missed = nodes.get(outage.node).map_or(Tally::default(), |node| node.missed_while_down);
        Self {
            node,
            down_ms: outage.back_ns.saturating_sub(outage.killed_ns) / 1_000_000,
            missed_while_down: missed.total(),
            missed: Class::COUNTED.map(|class| (class.name(), missed.of(class))).to_vec(),
            died_with_it: nodes.iter().map(|node| node.died_with_sender.total()).sum(),
            heard_again: nodes.iter().map(|node| node.heard_again.total()).sum(),
        }
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table
}

/// Numbers to the right.
fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use gossip::Transport;

    use super::*;
    use crate::demo::{
        account::Account,
        body::Stamp,
        director::Opening,
        journal::{Deed, Record},
        topology::Topology,
    };

    // Messages that wait in queues until long after the load has ended do not make the node faster.
    #[test]
    fn the_rate_is_over_the_time_in_which_messages_were_handled() {
        const SECOND: u64 = 1_000_000_000;
        let topology: Topology = "ws=2".parse().unwrap();
        let mut ledger = Ledger::new(topology.members().len());
        for number in 0..30 {
            let sent_ns = (1 + u64::from(number) / 10) * SECOND;
            let stamp = Stamp { class: Class::Vote, sender: 0, life: 0, number, sent_ns };
            let heard = Deed::Heard(Transport::WebSocket);
            ledger.take(0, Record { deed: Deed::Sent, stamp, at_ns: sent_ns });
            let at_ns = if number == 29 { 16 * SECOND } else { sent_ns + 1 };
            ledger.take(1, Record { deed: heard, stamp, at_ns });
        }
        let account = Account::of(&ledger, topology.members().len(), None);
        let outcome = Outcome { account, ledger, outage: None };
        let plan = Plan {
            topology,
            seconds: 3,
            rate: 1.0,
            victim: None,
            views: Vec::new(),
            opening: Opening::ByAddress,
            web_node: None,
        };
        let report = Report::new(&plan, &outcome);
        assert_eq!((report.handled, report.handled_per_s), (30, 2.0));
    }
}
