//! What an ingest says of itself: events while it runs, a report at the end.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dump::DumpError;
use crate::progress::{Amount, Progress, Silent, Unit};
use crate::remedy::{Note, Remedy, Spelling, with_remedy};
use crate::store::{Compaction, StepRow};

/// What happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The dump was searched: what there is to look at.
    Found {
        /// Videos.
        videos: usize,
        /// Steps.
        steps: u64,
        /// Bytes of the step files.
        bytes: u64,
    },
    /// Steps were done with: ingested, already there, or left out. Observers are told so as progress.
    #[doc(hidden)]
    Steps {
        /// How many.
        steps: u64,
        /// Bytes of their files.
        bytes: u64,
    },
    /// A video was committed.
    Committed {
        /// Its id.
        video_id: &'a str,
    },
    /// A watch has looked at the dump, and ingested what was complete.
    Watched {
        /// Steps ingested so far.
        steps: u64,
        /// Steps that are not complete yet.
        waiting: u64,
        /// How long nothing has changed.
        idle: Duration,
    },
    /// A file was left out.
    Quarantined(&'a Quarantined),
    /// Something was odd.
    Warning(&'a Remark),
}

/// Follows an ingest: its progress, in bytes and in steps, and what happens on the way. Called from many threads.
pub trait Observer: Progress {
    /// Something happened.
    fn event(&self, _event: Event<'_>) {}
}

impl Observer for Silent {}

/// An ingest that is part of other work: it is stopped with that, and its own progress is nobody's.
pub(crate) struct PartOf<'a>(pub &'a dyn Progress);

impl Progress for PartOf<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl Observer for PartOf<'_> {}

/// Says how far an ingest is to whoever observes it.
pub(super) struct Counted<'a> {
    observer: &'a dyn Observer,
    done: [AtomicU64; 2],
    all: [AtomicU64; 2],
}

impl<'a> Counted<'a> {
    const UNITS: [Unit; 2] = [Unit::Bytes, Unit::Steps];

    pub fn new(observer: &'a dyn Observer) -> Self {
        Self { observer, done: Default::default(), all: Default::default() }
    }

    fn say(&self) {
        for ((done, all), unit) in self.done.iter().zip(&self.all).zip(Self::UNITS) {
            let [done, all] = [done, all].map(|count| count.load(Ordering::Relaxed));
            self.observer.reached(Amount { done, all, unit });
        }
    }
}

impl Progress for Counted<'_> {
    fn is_cancelled(&self) -> bool {
        self.observer.is_cancelled()
    }
}

impl Observer for Counted<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Found { steps, bytes, .. } => {
                self.all.iter().zip([bytes, steps]).for_each(|(all, found)| all.store(found, Ordering::Relaxed));
                self.observer.event(event);
                self.say();
            }
            Event::Steps { steps, bytes } => {
                self.done.iter().zip([bytes, steps]).for_each(|(done, more)| {
                    done.fetch_add(more, Ordering::Relaxed);
                });
                self.say();
            }
            Event::Watched { steps, waiting, .. } => {
                self.observer.event(event);
                self.observer.reached(Amount { done: steps, all: steps + waiting, unit: Unit::Steps });
            }
            event => self.observer.event(event),
        }
    }
}

/// A file that was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Quarantined {
    /// The file or directory.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What was found and what was expected.
    pub error: String,
    /// What to try, if that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// Something odd about a file that was used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remark {
    /// The file or directory.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// The remark.
    pub message: String,
    /// What to try, if that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

impl From<&DumpError> for Quarantined {
    fn from(error: &DumpError) -> Self {
        Self { path: error.path.clone(), error: error.problem.to_string(), remedy: error.problem.remedy() }
    }
}

impl Quarantined {
    /// Says what to try in the text, as a face writes it.
    pub fn spell(&mut self, by: &dyn Spelling) {
        self.error = with_remedy(&self.error, self.remedy.take().as_ref(), by);
    }
}

impl Remark {
    pub(super) fn new(path: &Path, note: impl Into<Note>) -> Self {
        let Note { text, remedy } = note.into();
        Self { path: path.to_owned(), message: text, remedy }
    }

    /// Says what to try in the text, as a face writes it.
    pub fn spell(&mut self, by: &dyn Spelling) {
        self.message = with_remedy(&self.message, self.remedy.take().as_ref(), by);
    }
}

/// What an ingest did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Steps that are new in the store or have new contents.
    pub ingested: u64,
    /// Steps that were in the store already.
    pub skipped: u64,
    /// Files left out, sorted by path.
    pub quarantined: Vec<Quarantined>,
    /// Oddities, sorted by path.
    pub warnings: Vec<Remark>,
    /// Whether videos' prompts were found; `None` if there were no prompts to look in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptMatches>,
    /// What the store holds of the dump now; of a watch, `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<DumpContents>,
    /// How the tables were packed at the end; `None` if they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<Compaction>,
    /// Bytes of the files of the steps that were ingested.
    pub bytes_in: u64,
    /// Bytes written into the store.
    pub bytes_out: u64,
    /// Wall time.
    pub seconds: f64,
}

/// How much there is of what tells videos apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpContents {
    /// Videos.
    pub videos: u64,
    /// Different words.
    pub words: u64,
    /// Different texts of prompts.
    pub prompts: u64,
    /// Different seeds.
    pub seeds: u64,
    /// Videos whose seed is not known.
    pub without_seed: u64,
    /// Videos of a generator that have words of other weights than 1: that is what was asked for.
    pub weighted: u64,
}

/// What tells the videos of an ingest apart.
#[derive(Debug, Default)]
pub(super) struct Seen {
    videos: u64,
    without_seed: u64,
    weighted: u64,
    words: BTreeSet<String>,
    prompts: BTreeSet<String>,
    seeds: BTreeSet<i128>,
}

impl Seen {
    pub fn add<'a>(&mut self, rows: impl Iterator<Item = &'a StepRow>) {
        let (mut is_empty, mut has_seed, mut is_weighted) = (true, false, false);
        for row in rows {
            is_empty = false;
            has_seed |= row.seed.is_some();
            // Of captured ones the model is told.
            is_weighted |= row.provenance.model.is_none() && row.weight.is_some_and(|weight| weight != 1.0);
            self.seeds.extend(row.seed);
            if !self.words.contains(&row.token) {
                self.words.insert(row.token.clone());
            }
            if let Some(prompt) = row.prompt.as_ref().filter(|prompt| !self.prompts.contains(*prompt)) {
                self.prompts.insert(prompt.clone());
            }
        }
        self.videos += u64::from(!is_empty);
        self.without_seed += u64::from(!is_empty && !has_seed);
        self.weighted += u64::from(is_weighted);
    }

    pub fn merge(&mut self, other: Self) {
        self.videos += other.videos;
        self.without_seed += other.without_seed;
        self.weighted += other.weighted;
        self.words.extend(other.words);
        self.prompts.extend(other.prompts);
        self.seeds.extend(other.seeds);
    }

    pub fn contents(&self) -> DumpContents {
        DumpContents {
            videos: self.videos,
            words: self.words.len() as u64,
            prompts: self.prompts.len() as u64,
            seeds: self.seeds.len() as u64,
            without_seed: self.without_seed,
            weighted: self.weighted,
        }
    }
}

/// How many videos' prompts were found among those of their batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptMatches {
    /// Videos whose prompt was found.
    pub matched: u64,
    /// Videos whose prompt was not found; each is among the warnings.
    pub unmatched: u64,
}

impl PromptMatches {
    /// Counts whether the prompts of videos were found.
    pub(super) fn of(found: &HashMap<String, bool>) -> Option<Self> {
        let count = |wanted: bool| found.values().filter(|found| **found == wanted).count() as u64;
        (!found.is_empty()).then(|| Self { matched: count(true), unmatched: count(false) })
    }
}

/// What an ingest would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DryRun {
    /// Steps to ingest.
    pub ingest: u64,
    /// Steps in the store already.
    pub skip: u64,
    /// Videos to commit.
    pub videos: u64,
    /// Whether videos' prompts were found; `None` if there are no prompts to look in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptMatches>,
    /// Files that would be left out, as far as their heads tell.
    pub quarantined: Vec<Quarantined>,
    /// Oddities.
    pub warnings: Vec<Remark>,
    /// Bytes of the step files to read.
    pub bytes_in: u64,
    /// Bytes of the values, uncompressed.
    pub bytes_raw: u64,
    /// Estimated bytes in the store, from compressing a few of the steps.
    pub bytes_out_estimate: u64,
    /// Array files and part files to write.
    pub files_out: u64,
}

/// Writes a path as text; what is not UTF-8 in it is replaced.
pub(crate) fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
