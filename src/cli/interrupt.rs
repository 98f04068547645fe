//! Ctrl-C, and being told to terminate: the first time asks the work at hand to end where it can go on later, the
//! second ends the process.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What shells report of a process that was interrupted.
pub(super) const EXIT_CODE: u8 = 130;

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static SAID: AtomicBool = AtomicBool::new(false);

/// From now on, these signals ask first. One that is ignored, as in the background of a script, stays so.
pub(super) fn listen() {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM].into_iter().filter(|&signal| !is_ignored(signal)) {
        let listening = flag::register_conditional_shutdown(signal, EXIT_CODE.into(), asked.clone())
            .and_then(|_| flag::register(signal, asked.clone()));
        // A signal that cannot be caught ends the process: what is committed stays.
        if let Err(error) = listening {
            tracing::debug!("signal {signal} is not caught: {error}");
        }
    }
}

/// Whether the work at hand is to end. Says so the first time.
pub(super) fn is_asked() -> bool {
    let asked = ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed));
    if asked && !SAID.swap(true, Ordering::Relaxed) {
        // Whoever asked may have gone.
        let _ = writeln!(
            std::io::stderr(),
            "\nending after what is being written; once more ends at once, which loses nothing that is committed"
        );
    }
    asked
}

/// Whether the process was started with a signal ignored; only Linux tells.
pub(super) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
