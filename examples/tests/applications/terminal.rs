//! A program in a pseudo terminal of 80 cells and 24 lines, read as a terminal reads it.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use vt100::Parser;

use crate::process::{PATIENCE, Process, eventually};

const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// The program, killed when this is dropped.
pub(crate) struct Terminal {
    process: Process,
    keys: File,
    screen: Arc<Mutex<Parser>>,
}

impl Terminal {
    pub(crate) fn run(program: &Command) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = ptsname(&keys, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        tcsetwinsize(open(), SIZE).unwrap();
        // In a session of its own: else the program may find the terminal of the tester.
        let mut command = Command::new("setsid");
        command.arg(program.get_program()).args(program.get_args());
        command.env("TERM", "xterm-256color").stdin(open()).stdout(open()).stderr(Stdio::null());
        let process: Child = command.spawn().unwrap();
        let screen = Arc::new(Mutex::new(Parser::new(SIZE.ws_row, SIZE.ws_col, 0)));
        let keys = File::from(keys);
        let (mut output, shown) = (keys.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { process: Process::of(process), keys, screen }
    }

    #[track_caller]
    pub(crate) fn shows(&self, expected: &str) {
        eventually(expected, || {
            self.screen.lock().unwrap().screen().contents().contains(expected).then_some(())
        });
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end, which leaves the screen of the shell.
    #[track_caller]
    pub(crate) fn ends(mut self) {
        assert!(self.process.wait(PATIENCE).success());
        eventually("the screen is given back", || {
            (!self.screen.lock().unwrap().screen().alternate_screen()).then_some(())
        });
    }
}
