//! What an ingest has to do, as values: whoever has one, and reaches the store and the files that it names, can run it.
//! What it takes and what it leaves are bytes both ways, so that it can be run in another process or on another
//! machine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::commit::{CommitOutcome, CommitTask};
use super::options::IngestOptions;
use super::plan::{PlanTask, VideoPlan};
use super::prompts::Prompts;
use super::series::StepPlan;
use super::task::{Fragment, ShardTask};
use super::{IngestError, lock};
use crate::store::{Store, heads_schema};

/// The version of jobs and of what they leave, as bytes.
const VERSION: u32 = 1;

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
        match self {
            Self::Commit(_, _, task) => to_bytes(Kind::Job, self, &task.tables().collect::<Vec<_>>()),
            _ => to_bytes(Kind::Job, self, &[]),
        }
    }

    /// Of bytes.
    ///
    /// # Errors
    /// If these are no job's, or one of another version of attnkit, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut job, tables) = from_bytes(Kind::Job, bytes)?;
        match &mut job {
            Self::Commit(_, _, task) => give(tables, task.tables_mut())?,
            _ => give(tables, [])?,
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
        match self {
            Self::Shard(_, fragment) => to_bytes(Kind::Done, self, &[&fragment.heads]),
            _ => to_bytes(Kind::Done, self, &[]),
        }
    }

    /// Of bytes. What was wrong with a file is there in words.
    ///
    /// # Errors
    /// If these are not what a job leaves, or of another version of attnkit, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let (mut done, tables) = from_bytes(Kind::Done, bytes)?;
        match &mut done {
            Self::Shard(_, fragment) => give(tables, [&mut fragment.heads])?,
            _ => give(tables, [])?,
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
        job.run_at(&self.store(job.store())?, &prompts, &|_| {})
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

/// Why bytes are no job, or not what one leaves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// They are something else.
    #[error("these bytes are {found}; expected {expected}")]
    Other {
        /// What they are.
        found: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// They are of another version of attnkit.
    #[error("{what} of version {found}; this attnkit reads version {expected}: all processes must run the same one")]
    Version {
        /// What they are.
        what: &'static str,
        /// Their version.
        found: u32,
        /// The version that is known.
        expected: u32,
    },
    /// They are not as they were written.
    #[error("{what} is damaged: {found}")]
    Damaged {
        /// What they are.
        what: &'static str,
        /// What is wrong.
        found: String,
    },
    /// It cannot be written as bytes.
    #[error("{what} cannot be sent: {found}")]
    Unsendable {
        /// What it is.
        what: &'static str,
        /// What the library says.
        found: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Job,
    Done,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Job, Self::Done];

    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Job => b"attn.job",
            Self::Done => b"attn.did",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Job => "a job of an ingest",
            Self::Done => "what a job of an ingest leaves",
        }
    }

    fn damaged(self, found: impl ToString) -> MessageError {
        MessageError::Damaged { what: self.name(), found: found.to_string() }
    }
}

/// Eight bytes that say what it is, the version, a hash of all behind it, the length of the JSON, the JSON, and tables
/// of `heads` as an Arrow stream.
fn to_bytes(kind: Kind, value: &impl Serialize, tables: &[&RecordBatch]) -> Result<Vec<u8>, MessageError> {
    let unsendable = |found: String| MessageError::Unsendable { what: kind.name(), found };
    let json = serde_json::to_vec(value).map_err(|error| unsendable(error.to_string()))?;
    let mut rest = (json.len() as u64).to_le_bytes().to_vec();
    rest.extend(json);
    if !tables.is_empty() {
        let mut writer = StreamWriter::try_new(&mut rest, &heads_schema()).map_err(|e| unsendable(e.to_string()))?;
        let written = tables.iter().try_for_each(|table| writer.write(table)).and_then(|()| writer.finish());
        written.map_err(|error| unsendable(error.to_string()))?;
    }
    Ok([kind.magic().as_slice(), &VERSION.to_le_bytes(), &xxh3_128(&rest).to_le_bytes(), &rest].concat())
}

fn from_bytes<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<(T, Vec<RecordBatch>), MessageError> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(MessageError::Other { found: "too few", expected: kind.name() });
    };
    match Kind::ALL.into_iter().find(|kind| kind.magic() == magic) {
        Some(found) if found == kind => {}
        Some(found) => return Err(MessageError::Other { found: found.name(), expected: kind.name() }),
        None => return Err(MessageError::Other { found: "something else", expected: kind.name() }),
    }
    let cut_off = || kind.damaged("it is cut off");
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let found = u32::from_le_bytes(*version);
    if found != VERSION {
        return Err(MessageError::Version { what: kind.name(), found, expected: VERSION });
    }
    let (hash, rest) = rest.split_first_chunk::<16>().ok_or_else(cut_off)?;
    if xxh3_128(rest) != u128::from_le_bytes(*hash) {
        return Err(kind.damaged("it has not the hash that it says"));
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(cut_off)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (json, tables) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    let value = serde_json::from_slice(json).map_err(|error| kind.damaged(error))?;
    if tables.is_empty() {
        return Ok((value, Vec::new()));
    }
    let reader = StreamReader::try_new(tables, None).map_err(|error| kind.damaged(error))?;
    if reader.schema() != heads_schema() {
        return Err(kind.damaged("its tables have other columns"));
    }
    let tables = reader.collect::<Result<_, _>>().map_err(|error| kind.damaged(error))?;
    Ok((value, tables))
}

/// Puts tables where they belong: as many as there are places.
fn give<'a>(
    tables: Vec<RecordBatch>,
    places: impl IntoIterator<Item = &'a mut RecordBatch>,
) -> Result<(), MessageError> {
    let mut tables = tables.into_iter();
    for place in places {
        *place = tables.next().ok_or_else(|| Kind::Done.damaged("a table is missing"))?;
    }
    match tables.next() {
        None => Ok(()),
        Some(_) => Err(Kind::Done.damaged("it has a table too many")),
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
        let mut ingest = Ingest::begin(&[DUMP], store, &IngestOptions::default()).unwrap();
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
