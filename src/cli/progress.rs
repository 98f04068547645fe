//! Progress, shown: a bar on a terminal, a line now and then in a pipe, nothing if quiet.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{interrupt, say, units};
use crate::progress::{Amount, Progress, Unit};

/// Seconds between two lines in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one long piece of work. Ctrl-C stops it, where that is listened to.
pub(super) struct Bar {
    shown: ProgressBar,
    unit: Unit,
    /// Less to do is not worth a bar.
    least: u64,
    steps: AtomicU64,
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

impl Bar {
    /// Of work that counts bytes, and perhaps steps beside them.
    pub fn of_bytes(what: &'static str, quiet: bool) -> Self {
        let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {msg}, {bytes_per_sec}, {eta} left";
        Self::new(what, quiet, template, Unit::Bytes)
    }

    /// Of work that counts steps.
    pub fn of_steps(what: &'static str, quiet: bool) -> Self {
        Self::new(what, quiet, "{prefix} {wide_bar} {pos}/{len} steps, {per_sec}, {eta} left", Unit::Steps)
    }

    /// Of work that counts pieces of its own.
    pub fn of_tasks(what: &'static str, quiet: bool) -> Self {
        Self::new(what, quiet, "{prefix} {wide_bar} {pos}/{len}, {eta} left", Unit::Tasks)
    }

    /// Of what waits for something, and says now and then what it has.
    pub fn of_waiting(what: &'static str, quiet: bool) -> Self {
        let bar = Self::new(what, quiet, "{spinner} {prefix}: {msg}", Unit::Bytes);
        bar.shown.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Shown only where there is at least so much to do.
    pub fn from(self, least: u64) -> Self {
        Self { least, ..self }
    }

    fn new(what: &'static str, quiet: bool, template: &str, unit: Unit) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if quiet || !terminal { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let shown = ProgressBar::with_draw_target(None, target).with_style(style).with_prefix(what);
        let now = Instant::now();
        let lines = (!quiet && !terminal).then(|| Mutex::new(Lines { what, start: now, last: now }));
        Self { shown, unit, least: 0, steps: AtomicU64::new(0), lines, quiet }
    }

    /// Says something else than before: in its place on a terminal, as a line now and then in a pipe.
    pub fn say(&self, message: &str) {
        self.shown.set_message(message.to_owned());
        if let Some(lines) = &self.lines {
            Lines::now_and_then(lines, |_| message.to_owned());
        }
    }

    /// Prints a line without disturbing the bar, unless quiet.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.note_always(line);
        }
    }

    /// Prints a line without disturbing the bar.
    pub fn note_always(&self, line: &str) {
        self.shown.suspend(|| say(line));
    }

    pub fn finish(&self) {
        self.shown.finish_and_clear();
    }
}

impl Progress for Bar {
    fn reached(&self, amount: Amount) {
        let Amount { done, all, unit } = amount;
        if unit == Unit::Steps {
            self.steps.fetch_max(done, Ordering::Relaxed);
        }
        if unit != self.unit || all < self.least {
            return;
        }
        self.shown.set_length(all);
        // Amounts overtake each other.
        self.shown.inc(done.saturating_sub(self.shown.position()));
        let steps = || match self.steps.load(Ordering::Relaxed) {
            0 => String::new(),
            steps => units::count(steps, "step"),
        };
        let Some(lines) = &self.lines else {
            if !self.shown.is_hidden() {
                self.shown.set_message(steps());
            }
            return;
        };
        Lines::now_and_then(lines, |lines| {
            let steps = Some(steps()).filter(|steps| !steps.is_empty()).map(|steps| format!(" ({steps})"));
            let seconds = lines.start.elapsed().as_secs();
            format!("{} done{} after {seconds} s", units::percent(done, all), steps.unwrap_or_default())
        });
    }

    fn is_cancelled(&self) -> bool {
        interrupt::is_asked()
    }
}
