//! Stories of ingests whose jobs run elsewhere: in processes that share the store, the dump, and bytes alone.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use attnkit::ingest::{Done, Ingest, IngestOptions, Job, Next, Report};
use attnkit::progress::Silent;

use crate::support::{Place, copy_tree, fixture};

const VIDEO: &str = "prompt_000_vid001";
const RUNS: &str = "ATTNKIT_STORY_RUNS_A_JOB";

/// No story: the process that runs a job in the next ones. It reads the job's bytes from one file, and leaves what it
/// has done in another.
#[test]
fn child_that_runs_a_job() {
    let Some(path) = std::env::var_os(RUNS).map(PathBuf::from) else { return };
    let job = Job::from_bytes(&fs::read(&path).unwrap()).unwrap();
    fs::write(path.with_extension("done"), job.run().unwrap().to_bytes().unwrap()).unwrap();
}

/// Processes that run the jobs of one ingest, a few at a time.
struct Elsewhere<'a> {
    ingest: Ingest,
    messages: &'a Path,
    running: VecDeque<(PathBuf, Child)>,
    count: usize,
}

impl<'a> Elsewhere<'a> {
    const AT_ONCE: usize = 3;

    fn new(dump: &Path, store: &Path, messages: &'a Path, options: &IngestOptions) -> Self {
        fs::create_dir_all(messages).unwrap();
        let ingest = Ingest::begin(&[dump], store, options, &Silent).unwrap().with_jobs(Self::AT_ONCE);
        Self { ingest, messages, running: VecDeque::new(), count: 0 }
    }

    /// Starts the jobs that there are. Returns whether all is done.
    fn start(&mut self) -> bool {
        while self.running.len() < Self::AT_ONCE {
            let job = match self.ingest.next() {
                Next::Job(job) => job,
                Next::Wait => return false,
                Next::End => return true,
            };
            let path = self.messages.join(format!("{}.job", self.count));
            fs::write(&path, job.to_bytes().unwrap()).unwrap();
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "jobs::child_that_runs_a_job", "--test-threads", "1"])
                .env(RUNS, &path)
                // Nothing is found by where a process is.
                .current_dir("/")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            self.running.push_back((path, child));
            self.count += 1;
        }
        false
    }

    /// Accepts what the last job that was started has left.
    fn accept(&mut self) {
        let Some((path, mut child)) = self.running.pop_back() else { return };
        assert!(child.wait().unwrap().success(), "{}", path.display());
        let done = Done::from_bytes(&fs::read(path.with_extension("done")).unwrap()).unwrap();
        self.ingest.accept(done).unwrap();
    }

    fn finished(mut self) -> Report {
        while !self.start() {
            self.accept();
        }
        self.ingest.finish().unwrap()
    }
}

#[test]
fn an_ingest_whose_jobs_run_in_other_processes_leaves_the_same_store() {
    for name in ["dataset", "variants/split", "variants/gzip"] {
        let (here, there) = (Place::new(), Place::new());
        copy_tree(&fixture(name), &here.dump());
        copy_tree(&fixture(name), &there.dump());
        let expected = here.ingest(&[]);
        let messages = there.path("messages");
        let report = Elsewhere::new(&there.dump(), &there.store(), &messages, &IngestOptions::default()).finished();
        assert_eq!((report.ingested, report.skipped), expected.counts(), "{name}");
        assert_eq!(report.warnings.len(), expected.warnings().len(), "{name}");
        assert!(report.bytes_out > 0 && report.contents.unwrap().videos > 0, "{name}");
        assert!(there.exported() == here.exported(), "{name}");
        there.assert_same_as_dump();
        let again = Elsewhere::new(&there.dump(), &there.store(), &messages, &IngestOptions::default()).finished();
        assert_eq!((again.ingested, again.skipped), (0, report.ingested), "{name}");
    }
}

#[test]
fn files_that_another_process_cannot_use_are_left_out_and_said() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..4);
    place.word(VIDEO, "tree").steps(0..4);
    fs::write(word.file("step_002.npy"), &fs::read(word.file("step_002.npy")).unwrap()[..200]).unwrap();
    let messages = place.path("messages");
    let report = Elsewhere::new(&place.dump(), &place.store(), &messages, &IngestOptions::default()).finished();
    assert_eq!((report.ingested, report.quarantined.len()), (7, 1), "{report:?}");
    assert_eq!(report.quarantined[0].path, word.file("step_002.npy"));
    assert!(report.quarantined[0].error.contains("truncated or damaged"), "{report:?}");
    // Steps that are new come to those that are there.
    word.steps([2, 4]);
    let report = Elsewhere::new(&place.dump(), &place.store(), &messages, &IngestOptions::default()).finished();
    assert_eq!((report.ingested, report.skipped), (2, 7), "{report:?}");
    place.assert_same_as_dump();
    place.run(["gc", "a.store"]).succeeded();
    assert_eq!(place.generations().len(), 2);
}

#[test]
fn two_ingests_whose_jobs_run_in_other_processes_lose_nothing() {
    let place = Place::new();
    let words = ["flower", "tree"];
    for video in 0..3 {
        for token in &words {
            drop(place.word(&format!("prompt_{video:03}_vid001"), token).steps(0..3));
        }
    }
    let messages = words.map(|token| place.path("messages").join(token));
    let mut ingests = [0, 1].map(|one| {
        let options = IngestOptions { tokens: vec![words[one].to_owned()], ..IngestOptions::default() };
        Elsewhere::new(&place.dump(), &place.store(), &messages[one], &options)
    });
    // Each video is planned by both before one of them commits it.
    while !ingests.each_mut().map(Elsewhere::start).iter().all(|has_ended| *has_ended) {
        ingests.iter_mut().for_each(Elsewhere::accept);
    }
    let reports = ingests.map(|ingest| ingest.ingest.finish().unwrap());
    assert_eq!(reports.map(|report| (report.ingested, report.quarantined.len())), [(9, 0), (9, 0)]);
    place.assert_same_as_dump();
    place.run(["gc", "a.store"]).succeeded();
    assert_eq!(place.generations().len(), 6);
}
