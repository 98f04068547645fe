//! Following a dump that is still being written: looks at it again and again, and ingests what is complete.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::schedule::{self, Pass};
use super::{Event, IngestError, IngestOptions, Observer, PromptMatches, Quarantined, Remark, Report, WatchOptions};
use crate::dump::{Dump, StepFiles, Video};

/// How long what a commit replaced stays, for whoever is reading it.
const GRACE: Duration = Duration::from_mins(1);
/// How often a pause looks whether it is to end.
const TICK: Duration = Duration::from_millis(100);
/// A dump so large that looking takes long is looked at less often: at most this part of the time.
const LOOKING: u32 = 5;

pub(super) fn watch(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    watch: WatchOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let start = Instant::now();
    let dumps: Vec<&Path> = dumps.iter().map(AsRef::as_ref).collect();
    let mut watched = Watched::new(observer);
    let mut changed = Instant::now();
    loop {
        let looked = Instant::now();
        let dump = find_what_is_there(&dumps)?;
        let incomplete: Vec<Quarantined> = dump.problems.iter().map(Quarantined::from).collect();
        let found = !dump.videos.is_empty();
        let look = watched.look(dump);
        if look.changed || incomplete != watched.incomplete {
            changed = Instant::now();
        }
        let settling = look.settling;
        if !look.dump.videos.is_empty() && !watched.ingest(look, path, options)? {
            break;
        }
        watched.remove_replaced();
        let waiting = settling + incomplete.len() as u64;
        watched.incomplete = incomplete;
        observer.event(Event::Watched { steps: watched.report.ingested, waiting, idle: changed.elapsed() });
        let is_idle = watch.until_idle.is_some_and(|idle| changed.elapsed() >= idle);
        if is_idle && settling == 0 {
            if !found && watched.incomplete.is_empty() {
                return Err(IngestError::nothing_found(&dumps));
            }
            // Nobody is going to complete these.
            let incomplete = std::mem::take(&mut watched.incomplete);
            watched.quarantine(incomplete, true);
            break;
        }
        if !pause(watch.poll.max(looked.elapsed() * LOOKING), observer) {
            break;
        }
    }
    Ok(watched.into_report(start))
}

/// Searches the directories that are there already.
fn find_what_is_there(dumps: &[&Path]) -> Result<Dump, IngestError> {
    let there: Vec<&Path> = dumps.iter().copied().filter(|dump| dump.exists()).collect();
    Ok(Dump::find(&there)?)
}

/// Waits. Returns false if the watch is to end.
fn pause(time: Duration, observer: &dyn Observer) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if observer.is_cancelled() {
            return false;
        }
        std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
    }
    !observer.is_cancelled()
}

/// Size and modification time of a file: if both are the same at two looks, it is complete.
type Signature = (u64, SystemTime);

/// A dump, and what was done with it so far.
struct Watched<'a> {
    observer: Once<'a>,
    /// The files at the last look.
    files: HashMap<PathBuf, Signature>,
    /// What could not be used at the last look: a tensor without metadata and the like, which may be completed yet.
    incomplete: Vec<Quarantined>,
    /// The files that an ingest has seen, as it has seen them.
    ingested: HashMap<PathBuf, Signature>,
    quarantined: BTreeMap<PathBuf, Quarantined>,
    prompts: HashMap<String, bool>,
    replaced: VecDeque<(Instant, PathBuf)>,
    report: Report,
}

/// What a look found.
struct Look {
    /// Videos in which something complete is new, with all that is complete in them.
    dump: Dump,
    /// Whether any file is new or another one than before.
    changed: bool,
    /// Steps with files that have just been found, or found to be other ones.
    settling: u64,
}

impl<'a> Watched<'a> {
    fn new(observer: &'a dyn Observer) -> Self {
        Self {
            observer: Once { observer, said: Mutex::default() },
            files: HashMap::new(),
            incomplete: Vec::new(),
            ingested: HashMap::new(),
            quarantined: BTreeMap::new(),
            prompts: HashMap::new(),
            replaced: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Compares a dump with the last look, and leaves in it what is to be ingested.
    fn look(&mut self, mut dump: Dump) -> Look {
        let files: HashMap<PathBuf, Signature> = dump.videos.iter().flat_map(files_of).collect();
        let changed = files.iter().any(|(path, signature)| self.files.get(path) != Some(signature));
        let complete = |path: &Path| files.get(path).is_some_and(|signature| self.files.get(path) == Some(signature));
        let mut settling = 0;
        for video in &mut dump.videos {
            for series in &mut video.series {
                let steps = series.steps.len();
                series.steps.retain(|files| files.parts.iter().all(|part| complete(&part.path)));
                settling += (steps - series.steps.len()) as u64;
            }
            video.series.retain(|series| !series.steps.is_empty());
            video.summary = video.summary.take().filter(|path| complete(path));
        }
        dump.problems.clear();
        let is_new = |(path, signature): (PathBuf, Signature)| self.ingested.get(&path) != Some(&signature);
        dump.videos.retain(|video| files_of(video).any(is_new));
        self.files = files;
        Look { dump, changed, settling }
    }

    /// Ingests what is complete. Returns false if the watch is to end.
    fn ingest(&mut self, look: Look, path: &Path, options: &IngestOptions) -> Result<bool, IngestError> {
        let files: Vec<(PathBuf, Signature)> = look.dump.videos.iter().flat_map(files_of).collect();
        let steps = || look.dump.videos.iter().flat_map(|video| &video.series).flat_map(|series| &series.steps);
        let is_known = |step: &&StepFiles| {
            step.parts.iter().all(|part| self.ingested.get(&part.path) == Some(&(part.bytes, part.modified)))
        };
        let known = steps().filter(is_known).count() as u64;
        let of_step = |step: &StepFiles| {
            step.parts.iter().flat_map(|part| [part.path.clone(), part.metadata.clone()]).collect::<Vec<_>>()
        };
        let looked_at: HashSet<PathBuf> = steps().flat_map(of_step).collect();
        let pass = match schedule::pass(look.dump, path, options, &self.observer) {
            // What is selected may be yet to come.
            Err(IngestError::NothingSelected { .. }) => Pass::default(),
            pass => pass?,
        };
        self.ingested.extend(files);
        self.quarantined.retain(|path, _| !looked_at.contains(path));
        self.quarantine(pass.report.quarantined, false);
        self.prompts.extend(pass.prompts);
        let now = Instant::now();
        self.replaced.extend(pass.replaced.into_iter().map(|path| (now, path)));
        self.report.ingested += pass.report.ingested;
        self.report.skipped += pass.report.skipped.saturating_sub(known);
        self.report.bytes_in += pass.report.bytes_in;
        self.report.bytes_out += pass.report.bytes_out;
        match pass.failed {
            None => Ok(true),
            Some(IngestError::Cancelled) => Ok(false),
            Some(error) => Err(error),
        }
    }

    fn quarantine(&mut self, left: Vec<Quarantined>, say: bool) {
        for left in left {
            if say {
                self.observer.event(Event::Quarantined(&left));
            }
            self.quarantined.insert(left.path.clone(), left);
        }
    }

    /// Removes what was replaced long ago.
    fn remove_replaced(&mut self) {
        while self.replaced.front().is_some_and(|(when, _)| when.elapsed() >= GRACE) {
            let Some((_, path)) = self.replaced.pop_front() else { return };
            // What cannot be removed is `gc`'s.
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::debug!("{}: {error}", path.display());
            }
        }
    }

    fn into_report(self, start: Instant) -> Report {
        let mut warnings = self.observer.said.into_inner().unwrap_or_else(PoisonError::into_inner);
        warnings.sort();
        Report {
            quarantined: self.quarantined.into_values().collect(),
            warnings,
            prompts: PromptMatches::of(&self.prompts),
            seconds: start.elapsed().as_secs_f64(),
            ..self.report
        }
    }
}

/// The files of a video that can be compared between looks: step files (with their metadata) and the summary.
fn files_of(video: &Video) -> impl Iterator<Item = (PathBuf, Signature)> + '_ {
    let steps = video.series.iter().flat_map(|series| &series.steps).flat_map(|step| &step.parts);
    let summary = video.summary.iter().filter_map(|path| {
        let found = path.metadata().ok()?;
        Some((path.clone(), (found.len(), found.modified().ok()?)))
    });
    steps.map(|part| (part.path.clone(), (part.bytes, part.modified))).chain(summary)
}

/// Passes on what ingests say, each warning once: later looks find the same again.
struct Once<'a> {
    observer: &'a dyn Observer,
    said: Mutex<Vec<Remark>>,
}

impl Observer for Once<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Found { .. } = event {
            return;
        }
        if let Event::Warning(remark) = event {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same =
                |known: &Remark| known.message == remark.message && known.path.parent() == remark.path.parent();
            if said.iter().any(is_same) {
                return;
            }
            said.push(remark.clone());
        }
        self.observer.event(event);
    }

    fn is_cancelled(&self) -> bool {
        self.observer.is_cancelled()
    }
}
