//! What an ingest has to do, as values: whoever has one, and reaches the store and the files that it names, can run it.
//! What it takes and what it leaves are bytes both ways, so that it can be run in another process or on another
//! machine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use super::commit::{CommitOutcome, CommitStage, CommitTask};
use super::options::IngestOptions;
use super::plan::{PlanTask, VideoPlan};
use super::prompts::Prompts;
use super::series::StepPlan;
use super::task::{Fragment, ShardTask};
use super::{IngestError, lock};
use crate::message::{Kind, MessageError};
use crate::store::{StagedCommit, Store, heads_schema};

/// Where a store is, and how it may be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAddress {
    /// Its directory.
    pub path: PathBuf,
    /// Whether nobody else writes into it, so that locks can be done without.
    pub single_writer: bool,
}

impl StoreAddress {
    fn open(&self) -> Result<Store, IngestError> {
        Ok(Store::open(&self.path)?.as_single_writer(self.single_writer))
    }
}

/// By which an [`Ingest`](super::Ingest) knows a job that it gave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub(super) ingest: String,
    pub(super) number: u64,
}

/// One piece of an ingest's work.
///
/// A job whose process died is run again, by whoever still has the value, once it is certain that it runs no more. It
/// needs nothing but itself, the store, and files of the dump that it names; it asks nobody, and takes no lock but the
/// one of a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// Find out what of a video is new: the only job that looks at metadata.
    Plan(Ticket, StoreAddress, Box<PlanTask>),
    /// Read, measure and write the steps of one shard.
    Shard(Ticket, StoreAddress, Box<ShardTask>),
    /// Make what was written of a video visible.
    Commit(Ticket, StoreAddress, Box<CommitTask>),
}

/// What a job leaves, for the [`Ingest`](super::Ingest) that gave it out.
#[derive(Debug, Serialize, Deserialize)]
pub enum Done {
    /// A video was compared with the store.
    Plan(Ticket, Box<VideoPlan>),
    /// A shard was written, or could not be.
    Shard(Ticket, Box<Fragment>),
    /// A video was committed, or another writer was faster.
    Commit(Ticket, CommitOutcome),
}

/// How far a job is.
pub(super) enum JobStage {
    /// At its end.
    Done(Done),
    /// It is a commit, and is to be made visible.
    Staged(StagedCommit),
}

impl Job {
    /// Runs it in this process. Who runs many keeps a [`Worker`].
    ///
    /// # Errors
    /// If the store cannot be read or written; the ingest is to be told of it by
    /// [`fail`](super::Ingest::fail). Files of the dump that cannot be used are no error: what it leaves says so.
    pub fn run(&self) -> Result<Done, IngestError> {
        Worker::default().run(self)
    }

    /// Runs it where the store is open and the prompts are known. `on_step` is called after each step.
    pub(super) fn run_at(
        &self,
        store: &Store,
        prompts: &Prompts,
        on_step: &dyn Fn(&StepPlan),
    ) -> Result<Done, IngestError> {
        Ok(match self {
            Self::Plan(ticket, _, task) => Done::Plan(ticket.clone(), Box::new(task.run(store, prompts)?)),
            Self::Shard(ticket, _, task) => Done::Shard(ticket.clone(), Box::new(task.run(store, on_step)?)),
            Self::Commit(ticket, _, task) => Done::Commit(ticket.clone(), task.run(store)?),
        })
    }

    /// Runs it, but for what makes a commit visible.
    pub(super) fn stage_at(
        &self,
        store: &Store,
        prompts: &Prompts,
        on_step: &dyn Fn(&StepPlan),
    ) -> Result<JobStage, IngestError> {
        let Self::Commit(ticket, _, task) = self else {
            return self.run_at(store, prompts, on_step).map(JobStage::Done);
        };
        Ok(match task.stage(store)? {
            CommitStage::Ended(outcome) => JobStage::Done(Done::Commit(ticket.clone(), outcome)),
            CommitStage::Staged(staged) => JobStage::Staged(staged),
        })
    }

    /// What a commit leaves that was staged.
    pub(super) fn published(&self, store: &Store, is_published: bool) -> Done {
        let outcome = match self {
            Self::Commit(_, _, task) => task.outcome(store, is_published),
            Self::Plan(..) | Self::Shard(..) => CommitOutcome::Lost,
        };
        Done::Commit(self.ticket().clone(), outcome)
    }

    pub(super) const fn ticket(&self) -> &Ticket {
        match self {
            Self::Plan(ticket, ..) | Self::Shard(ticket, ..) | Self::Commit(ticket, ..) => ticket,
        }
    }

    /// Where the store is.
    #[must_use]
    pub const fn store(&self) -> &StoreAddress {
        match self {
            Self::Plan(_, store, _) | Self::Shard(_, store, _) | Self::Commit(_, store, _) => store,
        }
    }

    /// As bytes.
    ///
    /// # Errors
    /// If a path in it is not Unicode.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MessageError> {
        let tables = match self {
            Self::Commit(_, _, task) => task.tables().collect(),
            _ => Vec::new(),
        };
        Kind::Job.to_bytes(self, &stream_of(&tables).map_err(|error| Kind::Job.unsendable(error))?)
    }

    /// Of bytes.
    ///
    /// # Errors
    /// If these are no job's, or one of another version of attnkit, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut job, tables) = Kind::Job.of_bytes(bytes)?;
        match &mut job {
            Self::Commit(_, _, task) => give(Kind::Job, tables, task.tables_mut())?,
            _ => give(Kind::Job, tables, [])?,
        }
        Ok(job)
    }
}

impl Done {
    pub(super) const fn ticket(&self) -> &Ticket {
        match self {
            Self::Plan(ticket, _) | Self::Shard(ticket, _) | Self::Commit(ticket, _) => ticket,
        }
    }

    /// As bytes.
    ///
    /// # Errors
    /// If a path in it is not Unicode.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MessageError> {
        let tables = match self {
            Self::Shard(_, fragment) => vec![&fragment.heads],
            _ => Vec::new(),
        };
        Kind::Done.to_bytes(self, &stream_of(&tables).map_err(|error| Kind::Done.unsendable(error))?)
    }

    /// Of bytes. What was wrong with a file is there in words.
    ///
    /// # Errors
    /// If these are not what a job leaves, or of another version of attnkit, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut done, tables) = Kind::Done.of_bytes(bytes)?;
        match &mut done {
            Self::Shard(_, fragment) => give(Kind::Done, tables, [&mut fragment.heads])?,
            _ => give(Kind::Done, tables, [])?,
        }
        Ok(done)
    }
}

/// The prompts that the user named, and the tokenizer.
type PromptFiles = [Option<PathBuf>; 2];

/// Runs jobs in this process, one after another or on many threads: a store is opened once, and prompts and tokenizers
/// are read once.
#[derive(Default)]
pub struct Worker {
    store: Mutex<Option<(StoreAddress, Store)>>,
    prompts: Mutex<Option<(PromptFiles, Arc<Prompts>)>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// Runs a job.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn run(&self, job: &Job) -> Result<Done, IngestError> {
        let prompts = match job {
            Job::Plan(_, _, task) => self.prompts(&task.options)?,
            _ => Arc::default(),
        };
        let store = self.store(job.store())?;
        let done = job.run_at(&store, &prompts, &|_| {})?;
        // Somebody else may commit it.
        store.flush()?;
        Ok(done)
    }

    fn store(&self, address: &StoreAddress) -> Result<Store, IngestError> {
        let mut known = lock(&self.store);
        match &*known {
            Some((of, store)) if of == address => Ok(store.clone()),
            _ => Ok(known.insert((address.clone(), address.open()?)).1.clone()),
        }
    }

    fn prompts(&self, options: &IngestOptions) -> Result<Arc<Prompts>, IngestError> {
        let files = [options.prompts.clone(), options.tokenizer.clone()];
        let mut known = lock(&self.prompts);
        match &*known {
            Some((of, prompts)) if *of == files => Ok(prompts.clone()),
            _ => Ok(known.insert((files, Arc::new(Prompts::new(options)?))).1.clone()),
        }
    }
}

/// Statistics of maps, as an Arrow stream; no bytes if there are none.
fn stream_of(tables: &[&RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    if !tables.is_empty() {
        let mut writer = StreamWriter::try_new(&mut bytes, &heads_schema())?;
        tables.iter().try_for_each(|table| writer.write(table))?;
        writer.finish()?;
    }
    Ok(bytes)
}

/// The tables of a stream, each for its place: as many as there are places.
fn give<'a>(
    kind: Kind,
    stream: &[u8],
    places: impl IntoIterator<Item = &'a mut RecordBatch>,
) -> Result<(), MessageError> {
    let mut tables = Vec::new();
    if !stream.is_empty() {
        let reader = StreamReader::try_new(stream, None).map_err(|error| kind.damaged(error))?;
        if reader.schema() != heads_schema() {
            return Err(kind.damaged("its tables have other columns"));
        }
        tables = reader.collect::<Result<_, _>>().map_err(|error| kind.damaged(error))?;
    }
    let mut tables = tables.into_iter();
    for place in places {
        *place = tables.next().ok_or_else(|| kind.damaged("a table is missing"))?;
    }
    match tables.next() {
        None => Ok(()),
        Some(_) => Err(kind.damaged("it has a table too many")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Ingest, Next, Silent};
    use super::*;

    const DUMP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");

    /// Runs an ingest whose jobs, and what they leave, go through bytes. Returns the jobs.
    fn through_bytes(store: &std::path::Path) -> Vec<Job> {
        let mut ingest = Ingest::begin(&[DUMP], store, &IngestOptions::default(), &Silent).unwrap();
        let (worker, mut jobs) = (Worker::default(), Vec::new());
        while let Next::Job(job) = ingest.next() {
            let sent = Job::from_bytes(&job.to_bytes().unwrap()).unwrap();
            assert_eq!(sent, job);
            let bytes = worker.run(&sent).unwrap().to_bytes().unwrap();
            let left = Done::from_bytes(&bytes).unwrap();
            assert!(left.to_bytes().unwrap() == bytes, "what {job:?} leaves is sent as something else");
            ingest.accept(left).unwrap();
            jobs.push(job);
        }
        assert_eq!(ingest.finish().unwrap().ingested, 6);
        jobs
    }

    #[test]
    fn what_is_sent_is_what_arrives_and_a_commit_that_runs_again_finds_itself() {
        let dir = tempfile::tempdir().unwrap();
        let jobs = through_bytes(&dir.path().join("sent"));
        let report = super::super::run(&[DUMP], dir.path().join("here"), &IngestOptions::default(), &Silent).unwrap();
        assert_eq!(report.ingested, 6);
        let rows = |name: &str| {
            let store = Store::open(dir.path().join(name)).unwrap();
            let mut rows = store.snapshot().read_video("prompt_000_vid001").unwrap().unwrap().rows;
            for row in &mut rows {
                row.array.clear();
            }
            rows
        };
        assert_eq!(rows("sent"), rows("here"));
        let commit = jobs.last().unwrap();
        assert!(matches!(commit.run().unwrap(), Done::Commit(_, CommitOutcome::Committed)));
        // Another writer's commit on top of it names the same arrays: they stay, though this one is not the last.
        let store = Store::open(dir.path().join("sent")).unwrap();
        let arrays = || -> Vec<std::path::PathBuf> {
            store
                .snapshot()
                .read_video("prompt_000_vid001")
                .unwrap()
                .unwrap()
                .rows
                .iter()
                .map(|row| store.place().join(&row.array))
                .collect()
        };
        let Job::Commit(ticket, address, task) = commit.clone() else { panic!("{commit:?}") };
        let mut other = task;
        if let Some(change) = &mut other.change {
            change.base = Some(std::mem::replace(&mut change.generation, crate::store::new_generation()));
        }
        let other = Job::Commit(ticket, address, other);
        assert!(matches!(other.run().unwrap(), Done::Commit(_, CommitOutcome::Committed)));
        assert!(matches!(commit.run().unwrap(), Done::Commit(_, CommitOutcome::Lost)));
        assert!(arrays().iter().all(|array| array.join("zarr.json").is_file()));
    }

    #[test]
    fn other_bytes_and_other_versions_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let job = through_bytes(&dir.path().join("store")).remove(0);
        let bytes = job.to_bytes().unwrap();
        let refused = |bytes: &[u8]| Job::from_bytes(bytes).unwrap_err().to_string();
        assert!(refused(b"").contains("too few"));
        assert!(refused(b"{\"video\": 1}").contains("something else; expected a job"));
        assert!(refused(&job.run().unwrap().to_bytes().unwrap()).contains("what a job of an ingest leaves; expected"));
        let mut newer = bytes.clone();
        newer[8] += 1;
        assert!(refused(&newer).contains("version 2; this attnkit reads version 1"), "{}", refused(&newer));
        assert!(refused(&bytes[..bytes.len() - 1]).contains("damaged"));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_anywhere_is_found(at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let address = StoreAddress { path: "store".into(), single_writer: false };
            let ticket = Ticket { ingest: "one".into(), number: 3 };
            let task = CommitTask { video_id: "v".into(), discarded: vec!["maps/v/w@1".into()], change: None };
            let mut bytes = Job::Commit(ticket, address, Box::new(task)).to_bytes().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Job::from_bytes(&bytes).is_err());
        }

        #[test]
        fn times_and_floats_arrive_as_they_are(
            seconds in -1_i64 << 35..1 << 35,
            nanos in 0..1_000_000_000_u32,
            bits: u64,
        ) {
            let apart = std::time::Duration::new(seconds.unsigned_abs(), nanos);
            let epoch = std::time::SystemTime::UNIX_EPOCH;
            let modified = if seconds < 0 { epoch - apart } else { epoch + apart };
            let signature = crate::dump::FileSignature { bytes: 1, modified };
            let text = serde_json::to_string(&signature).unwrap();
            prop_assert_eq!(serde_json::from_str::<crate::dump::FileSignature>(&text).unwrap(), signature);
            let metadata = crate::dump::StepMetadata { timestep: Some(f64::from_bits(bits)), ..Default::default() };
            let text = serde_json::to_string(&metadata).unwrap();
            let read = serde_json::from_str::<crate::dump::StepMetadata>(&text).unwrap().timestep.unwrap();
            prop_assert!(read.to_bits() == bits || read.is_nan() && f64::from_bits(bits).is_nan());
        }
    }
}
