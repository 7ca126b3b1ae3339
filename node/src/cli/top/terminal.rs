//! The terminal, and the state in which it is left.
//!
//! # Invariants
//!
//! * It is restored once, by the end of this value or, before a panic is told, by the panic hook.

use std::{
    io::{self, Stdout, Write},
    panic,
    sync::{Mutex, PoisonError},
};

use ratatui::{
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen},
    },
};
use rustix::termios::{self, OptionalActions, Termios};

use super::screen::Screen;

/// The settings of the terminal before it was taken, while it is.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal of this process, taken for a full screen.
pub(super) struct Terminal {
    terminal: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            told(panic);
        }));
        let taken = (|| {
            termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
            execute!(io::stdout(), EnterAlternateScreen, Hide)?;
            ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))
        })();
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws the screen as it is now.
    pub(super) fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        self.terminal.draw(|frame| screen.draw(frame)).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was. The second call does nothing.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs nothing.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = io::stdout().flush();
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read,
        process::{Command, Stdio},
        thread,
    };

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Set in a process that is to panic in its terminal.
    const PANICS: &str = "TANDEM_TEST_PANICS_IN_A_TERMINAL";

    fn settings(terminal: &File) -> String {
        let settings = termios::tcgetattr(terminal).unwrap();
        format!("{:?} {:?}", settings.input_modes, settings.local_modes)
    }

    /// The process of the next test, where the terminal is real.
    #[test]
    fn a_process_panics_in_its_terminal() {
        if std::env::var_os(PANICS).is_some() {
            let _taken = Terminal::take().unwrap();
            panic!("on purpose");
        }
    }

    // Issue 12, 5.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (terminal, mut master) = (open(), File::from(master));
        let before = settings(&terminal);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "--nocapture",
            "cli::top::terminal::tests::a_process_panics_in_its_terminal",
        ]);
        command.env(PANICS, "1").stdin(open()).stdout(open()).stderr(open());
        let mut process = command.stdin(Stdio::from(open())).spawn().unwrap();
        let reading = thread::spawn(move || {
            let (mut shown, mut bytes) = (Vec::new(), [0; 4_096]);
            // The read fails once nobody has the terminal open any more.
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                shown.extend_from_slice(&bytes[..count]);
            }
            String::from_utf8_lossy(&shown).into_owned()
        });
        assert_eq!(process.wait().unwrap().code(), Some(101));
        assert_eq!(settings(&terminal), before);
        drop((command, terminal));
        let shown = reading.join().unwrap();
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text:?}: {shown:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l"));
        assert!(at("\u{1b}[?1049l") < at("on purpose"), "{shown:?}");
    }
}
