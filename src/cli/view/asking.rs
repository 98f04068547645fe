//! Questions to the terminal, in a mode in which its answers are not shown.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};

use super::environment::{Answers, Window};
use crate::cli::interrupt::is_ignored;

/// Kitty's graphics, the size of a cell, and primary device attributes: these last, as all terminals answer them.
const QUESTIONS: &[u8] = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[c";
/// How long each piece of the answers may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long all of them may take.
const AT_MOST: Duration = Duration::from_secs(1);
/// Bytes of answers that are worth reading.
const ENOUGH: usize = 4096;

pub(super) fn window() -> Window {
    let Ok(size) = termios::tcgetwinsize(io::stdout()) else { return Window::default() };
    let pixels = (size.ws_xpixel.into(), size.ws_ypixel.into());
    Window { columns: size.ws_col.into(), rows: size.ws_row.into(), pixels }
}

/// Asks. Nothing is answered where standard input is no terminal, or not ours to read.
pub(super) fn ask() -> Answers {
    let input = io::stdin();
    let input = input.as_fd();
    let in_front = || termios::tcgetpgrp(input).is_ok_and(|group| group == getpgrp());
    if !input.is_terminal() || !in_front() {
        return Answers::default();
    }
    let Ok(_quiet) = Quiet::enter(input) else { return Answers::default() };
    // Keys that were typed ahead are for whoever reads next.
    if is_ready(input, Duration::ZERO) {
        return Answers::default();
    }
    let mut output = io::stdout();
    if output.write_all(QUESTIONS).and_then(|()| output.flush()).is_err() {
        return Answers::default();
    }
    let (start, mut heard, mut answers) = (Instant::now(), Vec::new(), Answers::default());
    while !answers.complete && heard.len() < ENOUGH && start.elapsed() < AT_MOST && is_ready(input, PATIENCE) {
        let mut piece = [0; 256];
        match rustix::io::read(input, &mut piece) {
            Ok(length @ 1..) => heard.extend_from_slice(&piece[..length]),
            _ => break,
        }
        answers = Answers::parse(&heard);
    }
    answers
}

/// Whether there is something to read, at last. A signal ends the waiting.
fn is_ready(input: BorrowedFd<'_>, wait: Duration) -> bool {
    let wait = Timespec::try_from(wait).ok();
    poll(&mut [PollFd::new(&input, PollFlags::IN)], wait.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Signals that end a process.
const ENDING: [i32; 3] = [SIGINT, SIGQUIT, SIGTERM];
/// Whether they do so now.
static IS_FREE: AtomicBool = AtomicBool::new(true);
/// Which of them came when they did not.
static CAUGHT: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// A terminal that hands on what is typed at once and does not show it. Until it is as it was before, no signal
/// ends the process.
struct Quiet<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let mut before = termios::tcgetattr(terminal)?;
        // As told by most terminals: 0 is the speed of output. What is set otherwise reads as another mode later.
        if before.input_speed() == before.output_speed() {
            before.set_input_speed(0)?;
        }
        listen();
        let mut mode = before.clone();
        mode.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        mode.special_codes[SpecialCodeIndex::VMIN] = 0;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        IS_FREE.store(false, Ordering::SeqCst);
        let quiet = Self { terminal, before };
        termios::tcsetattr(terminal, OptionalActions::Now, &mode)?;
        Ok(quiet)
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that has gone has no mode.
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
        IS_FREE.store(true, Ordering::SeqCst);
        for (signal, caught) in ENDING.into_iter().zip(&CAUGHT) {
            if caught.swap(false, Ordering::SeqCst) {
                let _ = low_level::emulate_default_handler(signal);
            }
        }
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (signal, caught) in ENDING.into_iter().zip(&CAUGHT).filter(|&(signal, _)| !is_ignored(signal)) {
            // One that cannot be caught ends the process at once.
            let _ = flag::register_conditional_default(signal, &IS_FREE).and_then(|_| flag::register(signal, caught));
        }
    });
}
