//! Long work: done on another thread without the interpreter lock, while the calling thread shows progress and listens
//! for Ctrl-C.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use attnkit::ingest::Observer;
use attnkit::progress::{Amount, Progress, Unit};
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;

/// Between two looks at signals and progress.
const TICK: Duration = Duration::from_millis(50);

/// The process that the threads were started in; 0 before that.
static STARTED_IN: AtomicU32 = AtomicU32::new(0);

/// Threads do not live on in a child that is forked: without this, it would wait for them for ever.
fn require_threads() -> PyResult<()> {
    let own = std::process::id();
    match STARTED_IN.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Err(started) if started != own => Err(PyRuntimeError::new_err(
            "this process was forked from one that had used attnkit, whose threads it does not have: start processes \
             with \
             multiprocessing.get_context(\"spawn\") or \"forkserver\"",
        )),
        _ => Ok(()),
    }
}

/// Runs short work without the interpreter lock.
///
/// # Errors
/// In a process that was forked from one that had done work.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    require_threads()?;
    Ok(py.detach(work))
}

/// How far work has come, and whether it should stop.
#[derive(Debug, Default)]
pub struct Watch {
    /// What is counted: the first unit that the work speaks of.
    unit: OnceLock<Unit>,
    done: AtomicU64,
    all: AtomicU64,
    cancelled: AtomicBool,
    finished: Mutex<bool>,
    wake: Condvar,
}

impl Watch {
    /// Notes that there is nothing left to do, whatever was left out on the way.
    pub fn finish_all(&self) {
        self.done.store(self.all.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn finish(&self) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Waits for the end of the work, one tick long. Returns whether it has ended.
    fn wait(&self) -> bool {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        *self.wake.wait_timeout_while(finished, TICK, |finished| !*finished).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Progress for Watch {
    fn reached(&self, amount: Amount) {
        if *self.unit.get_or_init(|| amount.unit) != amount.unit {
            return;
        }
        self.all.store(amount.all, Ordering::Relaxed);
        self.done.fetch_max(amount.done, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Observer for Watch {}

/// Says that the work has ended, even if it panics.
struct Finish<'a>(&'a Watch);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Runs `work`. `progress` is called with (done, all) now and then, and at the end.
///
/// # Errors
/// What `progress` raises, and `KeyboardInterrupt`; the work is stopped then.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> T + Send,
) -> PyResult<T> {
    attended(py, progress, false, work)
}

/// The same for work that Ctrl-C ends rather than breaks off: what it comes to by then is its result.
///
/// # Errors
/// As [`run`], but for `KeyboardInterrupt`.
pub fn run_until_interrupted<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> T + Send,
) -> PyResult<T> {
    attended(py, progress, true, work)
}

fn attended<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    ends_at_interrupt: bool,
    work: impl FnOnce(&Watch) -> T + Send,
) -> PyResult<T> {
    require_threads()?;
    let watch = Watch::default();
    // Ctrl-C is noticed here, or by `progress` if that is running.
    let unless_ended = |called: PyResult<()>| match called {
        Err(error) if ends_at_interrupt && error.is_instance_of::<PyKeyboardInterrupt>(py) => {
            watch.cancel();
            Ok(())
        }
        called => called,
    };
    let attend = || -> PyResult<()> {
        let mut shown = (0, 0);
        loop {
            let finished = py.detach(|| watch.wait());
            let state = (watch.done.load(Ordering::Relaxed), watch.all.load(Ordering::Relaxed));
            if let Some(progress) = progress.filter(|_| state != shown) {
                unless_ended(progress.call1(state).map(drop))?;
                shown = state;
            }
            if finished {
                return Ok(());
            }
            unless_ended(py.check_signals())?;
        }
    };
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let _finish = Finish(&watch);
            work(&watch)
        });
        let attended = attend();
        watch.cancel();
        let result = py.detach(|| working.join());
        attended?;
        result.map_err(|panic| std::panic::resume_unwind(panic))
    })
}
