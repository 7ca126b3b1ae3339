//! Where texts are entered and shown: a screen where there is a terminal, lines where there is none.

use std::{
    collections::VecDeque,
    io::{self, BufRead, IsTerminal},
    thread,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::Stylize,
    text::Span,
    widgets::{Block, Paragraph},
};
use tokio::sync::mpsc;

use crate::message::MAX_TEXT;

/// Lines that the screen keeps.
const KEPT: usize = 500;

/// Texts and keys that wait.
const WAITING: usize = 64;

/// The place of a person, or of a script.
pub(crate) enum Console {
    /// Lines. They may end, and others are still heard then.
    Lines { entered: mpsc::Receiver<String> },
    /// A screen, restored when this is dropped.
    Screen(Screen),
}

/// A screen with what was said, and a line to type.
pub(crate) struct Screen {
    terminal: DefaultTerminal,
    events: mpsc::Receiver<Event>,
    shown: VecDeque<String>,
    typed: String,
}

impl Console {
    /// Takes the terminal if there is one.
    pub(crate) fn open() -> io::Result<Self> {
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            let terminal = ratatui::try_init()?;
            // A read of the terminal blocks, and ends with the process.
            let (sender, events) = mpsc::channel(WAITING);
            thread::spawn(move || {
                while let Ok(event) = event::read() {
                    if sender.blocking_send(event).is_err() {
                        break;
                    }
                }
            });
            return Ok(Self::Screen(Screen {
                terminal,
                events,
                shown: VecDeque::new(),
                typed: String::new(),
            }));
        }
        let (sender, entered) = mpsc::channel(WAITING);
        thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self::Lines { entered })
    }

    /// The next text to say; `None` when it is time to go.
    pub(crate) async fn next(&mut self) -> io::Result<Option<String>> {
        match self {
            Self::Screen(screen) => screen.next().await,
            Self::Lines { entered } => {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => Ok(None),
                    Some(line) = entered.recv() => Ok(Some(line)),
                }
            }
        }
    }

    /// Shows a line that is harmless to a terminal.
    pub(crate) fn show(&mut self, line: String) -> io::Result<()> {
        match self {
            Self::Lines { .. } => println!("{line}"),
            Self::Screen(screen) => {
                screen.shown.push_back(line);
                if screen.shown.len() > KEPT {
                    screen.shown.pop_front();
                }
                screen.draw()?;
            }
        }
        Ok(())
    }
}

impl Screen {
    /// The next text that is entered. Safe to drop: keys that were read are in the text that is being typed.
    async fn next(&mut self) -> io::Result<Option<String>> {
        while let Some(event) = self.events.recv().await {
            if let Event::Key(key) = event
                && key.kind != KeyEventKind::Release
            {
                match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
                    (KeyCode::Esc, _) | (KeyCode::Char('c' | 'd'), true) => return Ok(None),
                    (KeyCode::Backspace, _) => drop(self.typed.pop()),
                    (KeyCode::Char(letter), false) if self.typed.len() < MAX_TEXT => {
                        self.typed.push(letter);
                    }
                    (KeyCode::Enter, _) if !self.typed.is_empty() => {
                        return Ok(Some(std::mem::take(&mut self.typed)));
                    }
                    _ => {}
                }
            }
            self.draw()?;
        }
        Ok(None)
    }

    fn draw(&mut self) -> io::Result<()> {
        let (shown, typed) = (&self.shown, &self.typed);
        let drawn = self.terminal.draw(|frame| {
            let [above, below] =
                Layout::vertical([Constraint::Min(1), Constraint::Length(2)]).areas(frame.area());
            let (width, height) = (usize::from(above.width), usize::from(above.height));
            let rows: Vec<String> = shown.iter().flat_map(|line| wrapped(line, width)).collect();
            let last = rows.split_at(rows.len().saturating_sub(height)).1.join("\n");
            frame.render_widget(Paragraph::new(last), above);
            let typed = wrapped(typed, width.saturating_sub(3)).pop().unwrap_or_default();
            let line = Paragraph::new(format!("> {typed}\u{2588}"));
            frame.render_widget(line.block(Block::new().title(" Esc ends ".dim())), below);
        });
        drawn.map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// A line as rows of at most `width` cells.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut used = 0;
    for letter in line.chars() {
        let cells = Span::raw(letter.to_string()).width();
        if used + cells > width {
            rows.push(String::new());
            used = 0;
        }
        used += cells;
        if let Some(row) = rows.last_mut() {
            row.push(letter);
        }
    }
    rows
}
