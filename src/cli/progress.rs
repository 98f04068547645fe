//! Progress: a bar on a terminal, a line now and then in a pipe, nothing if quiet.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{say, units};

/// Seconds between two lines in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one long piece of work.
pub(super) struct Progress {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
    quiet: bool,
}

struct Lines {
    what: &'static str,
    start: Instant,
    last: Instant,
}

impl Lines {
    /// Prints a line, if the last one is long ago.
    fn now_and_then(lines: &Mutex<Self>, line: impl FnOnce(&Self) -> String) {
        let mut lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.last.elapsed() >= LINE_EVERY {
            lines.last = Instant::now();
            say(&format!("{}: {}", lines.what, line(&lines)));
        }
    }
}

impl Progress {
    /// Progress in bytes.
    pub fn of_bytes(what: &'static str, quiet: bool) -> Self {
        let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {msg}, {bytes_per_sec}, {eta} left";
        Self::new(what, quiet, template)
    }

    /// Progress in steps.
    pub fn of_steps(what: &'static str, quiet: bool) -> Self {
        Self::new(what, quiet, "{prefix} {wide_bar} {pos}/{len} steps, {per_sec}, {eta} left")
    }

    /// What waits for something, and says now and then what it has.
    pub fn of_waiting(what: &'static str, quiet: bool) -> Self {
        let progress = Self::new(what, quiet, "{spinner} {prefix}: {msg}");
        progress.bar.enable_steady_tick(Duration::from_millis(200));
        progress
    }

    fn new(what: &'static str, quiet: bool, template: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if quiet || !terminal { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, target).with_style(style).with_prefix(what);
        let now = Instant::now();
        let lines = (!quiet && !terminal).then(|| Mutex::new(Lines { what, start: now, last: now }));
        Self { bar, lines, quiet }
    }

    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Advances, with a remark such as the number of steps done.
    pub fn advance(&self, by: u64, remark: impl FnOnce() -> String) {
        self.bar.inc(by);
        let Some(lines) = &self.lines else {
            if !self.bar.is_hidden() {
                self.bar.set_message(remark());
            }
            return;
        };
        Lines::now_and_then(lines, |lines| {
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let remark = Some(remark()).filter(|remark| !remark.is_empty()).map(|remark| format!(" ({remark})"));
            let seconds = lines.start.elapsed().as_secs();
            format!("{} done{} after {seconds} s", units::percent(done, total), remark.unwrap_or_default())
        });
    }

    /// Says something else than before: in its place on a terminal, as a line now and then in a pipe.
    pub fn say(&self, message: &str) {
        self.bar.set_message(message.to_owned());
        if let Some(lines) = &self.lines {
            Lines::now_and_then(lines, |_| message.to_owned());
        }
    }

    pub fn set_position(&self, position: u64, remark: impl FnOnce() -> String) {
        self.advance(position.saturating_sub(self.bar.position()), remark);
    }

    /// Prints a line without disturbing the bar, unless quiet.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.note_always(line);
        }
    }

    /// Prints a line without disturbing the bar.
    pub fn note_always(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
