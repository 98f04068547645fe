//! Following a dump that is still being written: looks at it again and again, and ingests what is complete.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::prompts::Prompts;
use super::{
    Event, IngestError, IngestOptions, Observer, PromptMatches, Quarantined, Remark, Report, WatchOptions, into_inner,
    local, lock,
};
use crate::dump::{Dump, FileSignature, Series, StepFiles, Video};
use crate::progress::Progress;
use crate::store::Store;

/// How long what a commit replaced stays, for whoever is reading it.
const GRACE: Duration = Duration::from_mins(5);
/// How long a step that is written in parts waits for more of them, if none after it has begun.
const PARTS: Duration = Duration::from_secs(30);
/// How often a step that cannot be used is tried before it is said: it may be that it was read while it was written.
const ATTEMPTS: u32 = 3;
/// How often a pause looks whether it is to end.
const TICK: Duration = Duration::from_millis(100);
/// A dump so large that looking takes long is looked at less often: the pause is this many times as long.
const PAUSE: u32 = 5;

pub(super) fn watch(
    dumps: &[impl AsRef<Path>],
    path: &Path,
    options: &IngestOptions,
    watch: WatchOptions,
    observer: &dyn Observer,
) -> Result<Report, IngestError> {
    let start = Instant::now();
    let dumps: Vec<&Path> = dumps.iter().map(AsRef::as_ref).collect();
    let patience = watch.until_idle.map_or(PARTS, |idle| idle.min(PARTS));
    let mut watched = Watched::new(path, options, observer)?;
    loop {
        let looked = Instant::now();
        let dump = match find_what_is_there(&dumps, observer) {
            Err(IngestError::Cancelled) => break,
            found => found?,
        };
        let look = watched.look(dump, looked, patience);
        let pause_for = watch.poll.max(looked.elapsed() * PAUSE);
        let (idle, settling) = (look.idle, look.settling);
        let has_news = !look.dump.videos.is_empty();
        if has_news && !watched.ingest(look)? {
            break;
        }
        watched.remove_replaced();
        let waiting = settling + watched.incomplete.len() as u64;
        observer.event(Event::Watched { steps: watched.report.ingested, waiting, idle });
        if !has_news && settling == 0 && watch.until_idle.is_some_and(|limit| idle >= limit) {
            watched.give_up(&dumps)?;
            break;
        }
        if !pause(pause_for, observer) {
            break;
        }
    }
    let mut report = watched.into_report(start);
    if Store::is_at(path) {
        let store = Store::open(path)?.as_single_writer(options.single_writer);
        local::pack(&store, options, &mut report, observer);
    }
    Ok(report)
}

/// Searches the directories that are there already.
fn find_what_is_there(dumps: &[&Path], observer: &dyn Observer) -> Result<Dump, IngestError> {
    let there: Vec<&Path> = dumps.iter().copied().filter(|dump| dump.exists()).collect();
    Ok(Dump::find_unless_cancelled(&there, observer)?)
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

/// Of a tensor and its metadata, or of a summary twice: if it is the same at two looks, it is complete.
type Signature = [FileSignature; 2];

/// A dump, and what was done with it so far.
struct Watched<'a> {
    path: &'a Path,
    options: &'a IngestOptions,
    prompts: Prompts,
    observer: Once<'a>,
    /// The files at the last look, and when one of them was last another than before.
    files: HashMap<PathBuf, Signature>,
    changed: Instant,
    /// What could not be used at the last look: a tensor without metadata and the like, which may be completed yet.
    incomplete: Vec<Quarantined>,
    /// The files that an ingest has seen, as it has seen them.
    ingested: HashMap<PathBuf, Signature>,
    /// What could not be ingested, and how often that was tried.
    quarantined: BTreeMap<PathBuf, (Quarantined, u32)>,
    /// Whether anything that was found is selected, and what was said when something was not.
    has_selected: bool,
    unselected: Option<IngestError>,
    prompts_found: HashMap<String, bool>,
    replaced: VecDeque<(Instant, String)>,
    report: Report,
}

/// What a look found.
struct Look {
    /// Videos in which something complete is new, with all that is complete in them.
    dump: Dump,
    /// How long no file has been another than before.
    idle: Duration,
    /// Steps that wait for their files to stand still.
    settling: u64,
}

impl<'a> Watched<'a> {
    fn new(path: &'a Path, options: &'a IngestOptions, observer: &'a dyn Observer) -> Result<Self, IngestError> {
        Ok(Self {
            path,
            options,
            prompts: Prompts::new(options)?,
            observer: Once { observer, said: Mutex::default() },
            files: HashMap::new(),
            changed: Instant::now(),
            incomplete: Vec::new(),
            ingested: HashMap::new(),
            quarantined: BTreeMap::new(),
            has_selected: false,
            unselected: None,
            prompts_found: HashMap::new(),
            replaced: VecDeque::new(),
            report: Report::default(),
        })
    }

    /// Compares a dump with the last look, and leaves in it what is to be ingested.
    fn look(&mut self, mut dump: Dump, now: Instant, patience: Duration) -> Look {
        let files: HashMap<PathBuf, Signature> = dump.videos.iter().flat_map(signatures).collect();
        let incomplete: Vec<Quarantined> = dump.problems.drain(..).map(|problem| Quarantined::from(&problem)).collect();
        let is_other = |(path, signature): (&PathBuf, &Signature)| self.files.get(path) != Some(signature);
        if files.iter().any(is_other) || incomplete != self.incomplete {
            self.changed = now;
        }
        let idle = now.duration_since(self.changed);
        let complete = |path: &Path| files.get(path).is_some_and(|signature| self.files.get(path) == Some(signature));
        let mut settling = 0;
        for video in &mut dump.videos {
            let may_grow = video.summary.is_none() && idle < patience;
            for series in &mut video.series {
                let (steps, unfinished) = (series.steps.len(), unfinished(series).filter(|_| may_grow));
                let stands = |step: &StepFiles| step.parts.iter().all(|part| complete(&part.path));
                series.steps.retain(|step| Some(step.step) != unfinished && stands(step));
                settling += (steps - series.steps.len()) as u64;
            }
            video.series.retain(|series| !series.steps.is_empty());
            video.summary = video.summary.take().filter(|path| complete(path));
        }
        (self.files, self.incomplete) = (files, incomplete);
        let with_new_prompts = self.prompts.changed();
        let is_new = |path: &Path| self.ingested.get(path) != self.files.get(path);
        dump.videos.retain(|video| paths(video).any(is_new) || with_new_prompts.contains(&video.root));
        Look { dump, idle, settling }
    }

    /// Ingests what is complete. Returns false if the watch is to end.
    fn ingest(&mut self, look: Look) -> Result<bool, IngestError> {
        let videos = &look.dump.videos;
        let seen: Vec<PathBuf> = videos.iter().flat_map(paths).map(Path::to_owned).collect();
        let steps = || videos.iter().flat_map(|video| &video.series).flat_map(|series| &series.steps);
        let is_known = |step: &&StepFiles| {
            step.parts.iter().all(|part| self.ingested.get(&part.path) == self.files.get(&part.path))
        };
        let known = steps().filter(is_known).count() as u64;
        let metadata = steps().flat_map(|step| &step.parts).map(|part| part.metadata.clone());
        let words = videos.iter().flat_map(|video| &video.series).map(|series| series.dir.clone());
        let places: HashSet<PathBuf> = seen
            .iter()
            .cloned()
            .chain(metadata)
            .chain(words)
            .chain(videos.iter().map(|video| video.dir.clone()))
            .collect();
        let judged_anew = videos.iter().flat_map(|video| video.summary.iter().chain([&video.dir])).cloned().collect();
        self.observer.forget(&judged_anew);
        self.ingested.extend(seen.into_iter().filter_map(|path| self.files.get(&path).map(|&as_seen| (path, as_seen))));
        let pass = match local::pass(look.dump, self.path, self.options, &self.prompts, &self.observer) {
            Ok(pass) => pass,
            // What is selected may be yet to come.
            Err(error @ IngestError::NothingSelected { .. }) => {
                self.unselected.get_or_insert(error);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        self.has_selected = true;
        let before = std::mem::take(&mut self.quarantined);
        let (again, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.into_iter().partition(|(path, _)| places.contains(path));
        self.quarantined = others;
        for left in pass.report.quarantined {
            let attempts =
                again.get(&left.path).filter(|(known, _)| *known == left).map_or(0, |(_, attempts)| *attempts) + 1;
            self.leave_out(left, attempts);
        }
        self.prompts_found.extend(pass.prompts);
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

    /// Notes what could not be used. It is tried again, and said once it has been tried often enough; what no file is
    /// to blame for is said at once.
    fn leave_out(&mut self, left: Quarantined, mut attempts: u32) {
        let mut forget = || {
            let tensor = tensor_of(&left.path, &self.files);
            self.ingested.remove(&left.path).is_some() | self.ingested.remove(&tensor).is_some()
        };
        let is_tried_again = attempts < ATTEMPTS && forget();
        if !is_tried_again && attempts <= ATTEMPTS {
            self.observer.observer.event(Event::Quarantined(&left));
            attempts = ATTEMPTS;
        }
        self.quarantined.insert(left.path.clone(), (left, attempts));
    }

    /// Nothing has changed for long: what is incomplete will stay so.
    fn give_up(&mut self, dumps: &[&Path]) -> Result<(), IngestError> {
        if let Some(error) = self.unselected.take().filter(|_| !self.has_selected) {
            return Err(error);
        }
        if self.ingested.is_empty() && self.incomplete.is_empty() {
            return Err(IngestError::nothing_found(dumps));
        }
        for left in std::mem::take(&mut self.incomplete) {
            self.leave_out(left, ATTEMPTS);
        }
        Ok(())
    }

    /// Removes what was replaced long ago.
    fn remove_replaced(&mut self) {
        while self.replaced.front().is_some_and(|(when, _)| when.elapsed() >= GRACE) {
            let Some((_, path)) = self.replaced.pop_front() else { return };
            if let Ok(store) = Store::open(self.path) {
                store.discard(&path);
            }
        }
    }

    fn into_report(self, start: Instant) -> Report {
        let mut warnings: Vec<Remark> = into_inner(self.observer.said).remarks;
        warnings.sort();
        Report {
            quarantined: self.quarantined.into_values().map(|(left, _)| left).collect(),
            warnings,
            prompts: PromptMatches::of(&self.prompts_found),
            seconds: start.elapsed().as_secs_f64(),
            ..self.report
        }
    }
}

/// The last step of a word that is written in parts: there may be more of them to come.
fn unfinished(series: &Series) -> Option<i32> {
    let is_split = series.split.blocks.is_some() || series.split.heads.is_some();
    series.steps.last().filter(|_| is_split).map(|last| last.step)
}

/// The files of a video that are compared between looks: step files, and the summary.
fn paths(video: &Video) -> impl Iterator<Item = &Path> {
    let steps = video.series.iter().flat_map(|series| &series.steps).flat_map(|step| &step.parts);
    steps.map(|part| part.path.as_path()).chain(video.summary.as_deref())
}

/// These files with their signatures; that of a step file is of its metadata, too.
fn signatures(video: &Video) -> impl Iterator<Item = (PathBuf, Signature)> + '_ {
    let steps = video.series.iter().flat_map(|series| &series.steps).flat_map(|step| &step.parts);
    let summary = video.summary.iter().filter_map(|path| Some((path.clone(), [FileSignature::of(path).ok()?; 2])));
    steps.map(|part| (part.path.clone(), [part.tensor, part.described])).chain(summary)
}

/// The step file that a metadata file is beside.
fn tensor_of(metadata: &Path, files: &HashMap<PathBuf, Signature>) -> PathBuf {
    let name = metadata.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix("_metadata.json").unwrap_or_default();
    let beside =
        crate::dump::FileFormat::ALL.map(|format| metadata.with_file_name(format!("{stem}{}", format.extension())));
    beside.into_iter().find(|path| files.contains_key(path)).unwrap_or_default()
}

/// Passes on what ingests say, each warning once: later looks find the same again. What is left out is said by the
/// watch itself.
struct Once<'a> {
    observer: &'a dyn Observer,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    remarks: Vec<Remark>,
    /// Each text once in a directory.
    known: HashSet<(Option<PathBuf>, String)>,
    /// What the observer was told, also of what is no longer so.
    told: HashSet<(Option<PathBuf>, String)>,
}

impl Once<'_> {
    /// Drops remarks on files that are looked at again.
    fn forget(&self, files: &HashSet<PathBuf>) {
        let mut said = lock(&self.said);
        let Said { remarks, known, .. } = &mut *said;
        remarks.retain(|remark| {
            let stays = !files.contains(&remark.path);
            if !stays {
                known.remove(&key(remark));
            }
            stays
        });
    }
}

fn key(remark: &Remark) -> (Option<PathBuf>, String) {
    (remark.path.parent().map(Path::to_owned), remark.message.clone())
}

impl Observer for Once<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Found { .. } | Event::Steps { .. } | Event::Quarantined(_) => {}
            Event::Warning(remark) => {
                let mut said = lock(&self.said);
                if said.known.insert(key(remark)) {
                    said.remarks.push(remark.clone());
                    let is_news = said.told.insert(key(remark));
                    drop(said);
                    if is_news {
                        self.observer.event(event);
                    }
                }
            }
            event => self.observer.event(event),
        }
    }
}

impl Progress for Once<'_> {
    fn is_cancelled(&self) -> bool {
        self.observer.is_cancelled()
    }
}
