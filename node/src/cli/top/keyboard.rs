//! The keys that are pressed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;

use super::screen::Pressed;

/// Time after which the thread looks whether it is needed. Chosen: nobody notices it at the end.
const LOOK: Duration = Duration::from_millis(100);

/// Keys that wait. Chosen: a hand's worth; more are dropped, as nobody sees what they would do.
const MAX_WAITING: usize = 16;

/// A thread that reads the terminal, because reading it blocks.
#[derive(Debug)]
pub(super) struct Keyboard {
    pressed: mpsc::Receiver<Pressed>,
    done: Arc<AtomicBool>,
}

impl Keyboard {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, pressed) = mpsc::channel(MAX_WAITING);
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                match event::poll(LOOK).and_then(|is_there| is_there.then(event::read).transpose())
                {
                    Ok(None) => {}
                    Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                        // Full: the key is dropped.
                        let _ = sender.try_send(Pressed::Key(key.code, key.modifiers));
                    }
                    Ok(Some(Event::Resize(..))) => drop(sender.try_send(Pressed::Resized)),
                    Ok(Some(_)) => {}
                    // The terminal is gone; the receiver hears of it by the end of the sender.
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self { pressed, done })
    }

    /// The next key; `None` once the terminal is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe: a key that was not returned is returned by the next call.
    pub(super) async fn next(&mut self) -> Option<Pressed> {
        self.pressed.recv().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}
