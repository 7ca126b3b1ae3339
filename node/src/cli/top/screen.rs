//! The things on the screen: the node, its lanes, its drops and a table of its peers.
//!
//! # Invariants
//!
//! * It fits into 80 cells and 24 lines, and uses more where there is more.
//! * Every text of a peer or of the node has gone through [`printable`].

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use super::{
    quantiles::{self, Times},
    table::{Column, Order, age, milliseconds, rate, short},
};
use crate::{
    admin::{
        report::Latency,
        wire::{Lane, Peer, Status, micros},
    },
    printable::printable,
};

/// Something that the person at the terminal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    Key(KeyCode, KeyModifiers),
    Resized,
}

/// The answer of a node.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) peers: Vec<Peer>,
    pub(super) latency: Latency,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    status: Status,
    peers: Vec<Peer>,
    latency: Latency,
    /// Times of messages of the priority and of the bulk lane: handled, and sent.
    times: [[Times; 2]; 2],
    /// Drops of all peers by reason at the last answer, and their number a second since the one before.
    drops: BTreeMap<String, u64>,
    drop_rates: Vec<(String, f64)>,
    answered: Instant,
    /// The reason why there was no answer, if there was none.
    lost: Option<String>,
    column: Column,
    order: Order,
    /// The peer that is described below the table; none before there was one.
    chosen: Option<u64>,
    /// Peers above the first that is shown.
    scrolled: usize,
    /// Peers that were shown last.
    shown: usize,
}

fn drops_of(peers: &[Peer]) -> BTreeMap<String, u64> {
    let mut drops = BTreeMap::new();
    for (reason, count) in peers.iter().flat_map(|peer| &peer.drops) {
        *drops.entry(reason.clone()).or_default() += count;
    }
    drops
}

fn sum(peers: &[Peer], lane: fn(&Peer) -> &Lane) -> Lane {
    peers.iter().map(lane).fold(Lane::default(), |sum, lane| Lane {
        queued_messages: sum.queued_messages + lane.queued_messages,
        queued_bytes: sum.queued_bytes + lane.queued_bytes,
        received_messages_per_s: sum.received_messages_per_s + lane.received_messages_per_s,
        received_bytes_per_s: sum.received_bytes_per_s + lane.received_bytes_per_s,
        sent_messages_per_s: sum.sent_messages_per_s + lane.sent_messages_per_s,
        sent_bytes_per_s: sum.sent_bytes_per_s + lane.sent_bytes_per_s,
        ..sum
    })
}

impl Screen {
    pub(super) fn new(Answer { status, peers, latency }: Answer) -> Self {
        let mut screen = Self {
            drops: drops_of(&peers),
            status,
            peers,
            latency,
            times: [[None; 2]; 2],
            drop_rates: Vec::new(),
            answered: Instant::now(),
            lost: None,
            column: Column::Peer,
            order: Order::Usual,
            chosen: None,
            scrolled: 0,
            shown: 0,
        };
        screen.sort();
        screen
    }

    /// Shows a new answer.
    pub(super) fn show(&mut self, Answer { status, peers, latency }: Answer) {
        self.times = [
            quantiles::since(&self.latency.priority, &latency.priority),
            quantiles::since(&self.latency.bulk, &latency.bulk),
        ];
        self.latency = latency;
        let (drops, now) = (drops_of(&peers), Instant::now());
        let elapsed = now.duration_since(self.answered).as_secs_f64().max(0.001);
        let since = |(reason, count): (&String, &u64)| {
            let before = self.drops.get(reason).copied().unwrap_or(0);
            (reason.clone(), count.saturating_sub(before) as f64 / elapsed)
        };
        self.drop_rates = drops.iter().map(since).collect();
        self.drop_rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        (self.status, self.peers, self.drops) = (status, peers, drops);
        (self.answered, self.lost) = (now, None);
        self.sort();
    }

    /// Says that there was no answer; what was known stays.
    pub(super) fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    fn sort(&mut self) {
        // Equal ones stay in the order of their numbers.
        Column::Peer.sort(&mut self.peers, Order::Usual);
        self.column.sort(&mut self.peers, self.order);
    }

    /// Does what a key says; breaks at one that ends the program.
    pub(super) fn press(&mut self, pressed: Pressed) -> ControlFlow<()> {
        let Pressed::Key(code, modifiers) = pressed else { return ControlFlow::Continue(()) };
        let is_control = modifiers.contains(KeyModifiers::CONTROL);
        let page = self.shown.max(1);
        match code {
            KeyCode::Char('c') if is_control => return ControlFlow::Break(()),
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('o') => {
                self.order = match self.order {
                    Order::Usual => Order::TurnedRound,
                    Order::TurnedRound => Order::Usual,
                };
            }
            KeyCode::Left => self.column = self.beside(Column::ALL.len() - 1),
            KeyCode::Right => self.column = self.beside(1),
            KeyCode::Down => self.choose(self.place() + 1),
            KeyCode::Up => self.choose(self.place().saturating_sub(1)),
            KeyCode::PageDown => self.choose(self.place() + page),
            KeyCode::PageUp => self.choose(self.place().saturating_sub(page)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(self.peers.len()),
            KeyCode::Char(letter) if !is_control => {
                let by = Column::ALL.into_iter().find(|column| column.key() == Some(letter));
                self.column = by.unwrap_or(self.column);
            }
            _ => {}
        }
        self.sort();
        ControlFlow::Continue(())
    }

    /// The place of the chosen peer in the table; the first if it has left.
    fn place(&self) -> usize {
        self.peers.iter().position(|peer| Some(peer.peer) == self.chosen).unwrap_or(0)
    }

    fn choose(&mut self, place: usize) {
        let place = place.min(self.peers.len().saturating_sub(1));
        self.chosen = self.peers.get(place).map(|peer| peer.peer);
    }

    /// The column so many places to the right, round the end.
    fn beside(&self, places: usize) -> Column {
        let at = Column::ALL.iter().position(|column| *column == self.column).unwrap_or(0);
        Column::ALL.into_iter().cycle().nth(at + places).unwrap_or(self.column)
    }

    /// Draws everything.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let rows = [6, 0, 3, 1].map(|lines| match lines {
            0 => Constraint::Min(2),
            lines => Constraint::Length(lines),
        });
        let [head, table, peer, keys] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        self.draw_table(frame, table);
        frame.render_widget(Paragraph::new(self.peer()), peer);
        let text =
            "q quit  capital letter, left or right: sort  o the other way round  up, down: peer";
        let dim = Style::new().add_modifier(Modifier::DIM);
        frame.render_widget(Paragraph::new(text).style(dim), keys);
    }

    /// The chosen peer, in three lines.
    fn peer(&self) -> Vec<Line<'static>> {
        let Some(peer) = self.peers.get(self.place()) else { return Vec::new() };
        let agent = peer.agent.as_deref().map(printable).unwrap_or_default();
        let drops: Vec<String> = peer
            .drops
            .iter()
            .map(|(reason, count)| format!("{} {}", printable(reason), short(*count as f64)))
            .collect();
        let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
        let identity = peer.peer_id.as_deref().map_or_else(|| "no identity".to_owned(), printable);
        vec![
            Line::from(format!("#{} {identity} {agent}", peer.peer)),
            Line::from(printable(&peer.address)),
            Line::from(format!("drops {drops}")),
        ]
    }

    fn head(&self) -> Vec<Line<'static>> {
        let Status { version, network, mode, state, reasons, uptime_ms, dials, .. } = &self.status;
        let over = |name: &str| self.peers.iter().filter(|peer| peer.transport == name).count();
        let connected = dials.iter().filter(|dial| dial.outcome.starts_with("connected")).count();
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let title = format!("tandem {version} {mode} {}", printable(network));
        let wrong = if reasons.is_empty() {
            String::new()
        } else {
            format!(" ({})", printable(&reasons.join(", ")))
        };
        let state = format!("  {}{wrong}  up {}", state.label(), age(*uptime_ms));
        let peers = format!(
            "peers {}: ws {}, p2p {}; {connected} of {} configured connected",
            self.peers.len(),
            over("ws"),
            over("p2p"),
            dials.len(),
        );
        let drops: Vec<String> = self
            .drop_rates
            .iter()
            .filter(|(_, rate)| *rate > 0.0)
            .take(4)
            .map(|(reason, rate)| format!("{} {}/s", printable(reason), short(*rate)))
            .collect();
        let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
        let last = match &self.lost {
            Some(why) => {
                Line::from(Span::styled(printable(why), bold.add_modifier(Modifier::REVERSED)))
            }
            None => Line::from(format!("drops    {drops}")),
        };
        vec![
            Line::from(vec![Span::styled(title, bold), Span::raw(state)]),
            Line::from(peers),
            Line::from(lane("priority", &sum(&self.peers, |peer| &peer.lanes.priority))),
            Line::from(lane("bulk    ", &sum(&self.peers, |peer| &peer.lanes.bulk))),
            Line::from(self.times()),
            last,
        ]
    }

    /// The times of messages of both lanes in the last second.
    fn times(&self) -> String {
        let text = |times: &Times| {
            let short = |time: Duration| match micros(time) {
                us @ ..1_000 => format!("{us}us"),
                us => milliseconds(us),
            };
            times.map_or_else(
                || "-".to_owned(),
                |(half, most)| format!("{}/{}", short(half), short(most)),
            )
        };
        let [[handled, sent], [bulk_handled, bulk_sent]] = &self.times;
        format!(
            "p50/p99  handled {} bulk {}, sent {} bulk {}",
            text(handled),
            text(bulk_handled),
            text(sent),
            text(bulk_sent)
        )
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        self.shown = usize::from(area.height.saturating_sub(1));
        let place = self.place();
        // The chosen peer is in sight, and no line is empty while there are peers for it.
        self.scrolled =
            self.scrolled.clamp(place.saturating_sub(self.shown.saturating_sub(1)), place);
        self.scrolled = self.scrolled.min(self.peers.len().saturating_sub(self.shown));
        let head = Column::ALL.map(|column| {
            let style = Style::new().add_modifier(Modifier::REVERSED);
            let is_chosen = column == self.column;
            Cell::from(column.head()).style(if is_chosen { style } else { Style::new() })
        });
        let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
        let peers = self.peers.iter().enumerate().skip(self.scrolled).take(self.shown);
        let rows = peers.map(|(at, peer)| {
            let row = Row::new(Column::ALL.map(|column| column.text(peer)));
            let reversed = Style::new().add_modifier(Modifier::REVERSED);
            if at == place { row.style(reversed) } else { row }
        });
        let widths = Column::ALL.map(|column| match column.width() {
            0 => Constraint::Min(10),
            width => Constraint::Length(width),
        });
        frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1), area);
    }
}

fn lane(name: &str, lane: &Lane) -> String {
    format!(
        "{name} in {}/s {}, out {}/s {}, waiting {} ({}B)",
        short(lane.received_messages_per_s),
        rate(lane.received_bytes_per_s),
        short(lane.sent_messages_per_s),
        rate(lane.sent_bytes_per_s),
        short(lane.queued_messages as f64),
        short(lane.queued_bytes as f64),
    )
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;
    use crate::admin::{
        report::{Bucket, LaneLatency},
        wire::Lanes,
    };

    fn answer(peers: Vec<Peer>) -> Answer {
        let bucket = |up_to_us, messages| Bucket { up_to_us, messages };
        let buckets = || vec![bucket(Some(64), peers.len() as u64), bucket(None, 0)];
        let lane = || LaneLatency { handling: buckets(), sending: buckets() };
        let latency = Latency { priority: lane(), bulk: lane() };
        Answer { status: status(), peers, latency }
    }

    fn status() -> Status {
        let status = json!({
            "version": "1", "network": "net\u{1b}[2J", "profile": "tandem", "mode": "hybrid", "peer_id": "12D3",
            "ws": null, "p2p": [], "peers": 3, "uptime_ms": 1_000, "lines_lost": {"log": 0, "out": 0},
            "state": "serving", "reasons": [], "dials": [],
        });
        serde_json::from_value(status).unwrap()
    }

    fn peer(number: u64, queued_bytes: usize) -> Peer {
        let peer = json!({
            "peer": number, "transport": "p2p", "direction": "in", "path": "direct",
            "address": format!("/dns4/\u{1b}]0;x\u{7}{number}/tcp/1"), "peer_id": null, "connected_ms": 5_000,
            "queued_bytes": queued_bytes, "roles": [], "rtt_us": 1_500, "weight": 0, "http": null, "dial": null,
            "topic_score": null, "topic_muted": false, "agent": "\u{9b}31mred\u{202e}", "protocols": [],
            "lanes": Lanes::default(), "dropped": 1, "drops": {"duplicate": 1},
        });
        serde_json::from_value(peer).unwrap()
    }

    fn drawn(screen: &mut Screen, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines = cells.chunks(usize::from(width));
        lines.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
    }

    fn first_peer(lines: &[String]) -> &str {
        lines.iter().find(|line| line.starts_with('#')).map_or("", |line| line[..4].trim_end())
    }

    // Issue 12, "bad input".
    #[test]
    fn hostile_words_of_peers_are_shown_escaped() {
        let lines = drawn(&mut Screen::new(answer(vec![peer(1, 0)])), (80, 24));
        let text = lines.concat();
        let acts = |letter: char| letter.is_control() || letter == '\u{202e}';
        assert!(!text.contains(acts), "{lines:#?}");
        assert!(text.contains("▯31mred▯") && text.contains("net▯[2J"), "{lines:#?}");
    }

    // Issue 12, 5.
    #[test]
    fn a_thousand_peers_are_sorted_and_one_of_them_is_followed() {
        let peers =
            || (0..1_000).map(|number| peer(number, (number as usize * 7) % 1_000)).collect();
        let mut screen = Screen::new(answer(peers()));
        let press = |screen: &mut Screen, code| {
            assert!(screen.press(Pressed::Key(code, KeyModifiers::NONE)).is_continue());
            drawn(screen, (80, 24))
        };
        assert_eq!(first_peer(&drawn(&mut screen, (80, 24))), "#0");
        assert_eq!(first_peer(&press(&mut screen, KeyCode::Char('f'))), "#857", "most bytes first");
        assert_eq!(first_peer(&press(&mut screen, KeyCode::Char('o'))), "#0");
        press(&mut screen, KeyCode::Char('n'));
        let lines = press(&mut screen, KeyCode::Home);
        assert!(lines[20].starts_with("#999 no identity"), "the described one: {lines:#?}");
        press(&mut screen, KeyCode::Char('o'));
        screen.show(answer(peers()));
        let lines = drawn(&mut screen, (80, 24));
        assert!(lines.iter().any(|line| line.starts_with("#999 ")), "it is in sight: {lines:#?}");
        assert!(lines[20].starts_with("#999 no identity"), "and still described");
    }

    #[test]
    fn a_screen_of_any_size_is_drawn() {
        for size in [(1, 1), (10, 3), (80, 6), (300, 100)] {
            let mut screen = Screen::new(answer((0..20).map(|number| peer(number, 0)).collect()));
            screen.press(Pressed::Key(KeyCode::End, KeyModifiers::NONE)).is_continue();
            drawn(&mut screen, size);
            screen.show(answer(Vec::new()));
            drawn(&mut screen, size);
        }
    }
}
