//! Ctrl-C: the first asks the work at hand to end where it can go on later, the second ends the process.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

/// What shells report of a process that was interrupted.
pub(super) const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C (and being told to terminate, as by a scheduler) asks first.
pub(super) fn listen() {
    let on_signal = || {
        if ASKED.swap(true, Ordering::SeqCst) {
            exit(EXIT_CODE.into());
        }
        eprintln!(
            "\nending after what is being written; once more ends at once, which loses nothing that is committed"
        );
    };
    // Where signals cannot be caught, they end the process: what is committed stays.
    if let Err(error) = ctrlc::set_handler(on_signal) {
        tracing::debug!("signals are not caught: {error}");
    }
}

/// Whether the work at hand is to end.
pub(super) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
