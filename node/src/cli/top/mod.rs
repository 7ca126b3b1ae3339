//! `tandem top`: a running node and its peers, a table that follows them in a terminal.
//!
//! ```text
//!   keyboard ──thread──▶ keys ──┐
//!   node ──once a second────────┴─▶ Screen ──draw──▶ terminal
//! ```
//!
//! # Invariants
//!
//! * The terminal is as it was before, whatever ends the program: a key, a signal, an error or a panic.
//! * Nothing of a peer reaches the terminal unescaped.
//! * A node that does not answer delays no key.

mod keyboard;
mod quantiles;
mod screen;
mod table;
mod terminal;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use tokio::time::{self, MissedTickBehavior};

use self::{
    keyboard::Keyboard,
    screen::{Answer, Screen},
    terminal::Terminal,
};
use super::{args::TopArgs, failure::Failure, signals::StopSignals};
use crate::admin::{Client, ClientError};

/// Shows the node until somebody has seen enough.
pub(crate) async fn top(args: TopArgs, mut signals: StopSignals) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.target.data_dir()?);
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "top needs a terminal: tandem peers prints the same once";
        return Err(Failure::Usage { text: text.to_owned() });
    }
    // Before the screen is taken, so that a node that is not there is told in one line.
    let mut screen = Screen::new(ask(&client).await?);
    let failed = |source| Failure::System { what: "the terminal", source };
    let mut terminal = Terminal::take().map_err(failed)?;
    let mut keyboard = Keyboard::listen().map_err(failed)?;
    let mut ticks = time::interval(Duration::from_secs(args.every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        terminal.draw(&mut screen).map_err(failed)?;
        let asked = async {
            ticks.tick().await;
            ask(&client).await
        };
        tokio::pin!(asked);
        loop {
            tokio::select! {
                biased;
                _ = signals.next() => return Ok(ExitCode::SUCCESS),
                pressed = keyboard.next() => match pressed {
                    Some(pressed) if screen.press(pressed).is_continue() => {
                        terminal.draw(&mut screen).map_err(failed)?;
                    }
                    // A terminal that is gone presses no keys.
                    _ => return Ok(ExitCode::SUCCESS),
                },
                answered = &mut asked => {
                    match answered {
                        Ok(answer) => screen.show(answer),
                        Err(error) => screen.lose(Failure::from(error).line()),
                    }
                    break;
                }
            }
        }
    }
}

/// Asks the node for everything that is shown.
async fn ask(client: &Client) -> Result<Answer, ClientError> {
    let (status, peers, latency) =
        tokio::try_join!(client.status(), client.peers(), client.latency())?;
    Ok(Answer { status, peers, latency })
}
