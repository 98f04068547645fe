//! Tiny dumps, and stores of them: what is around the one file that is fuzzed.

use std::fs;
use std::path::{Path, PathBuf};

use attnkit::dump::{Dump, StepFiles};
use attnkit::ingest::{self, IngestOptions, Silent};
use attnkit::store::{Rollups, Store};

/// The video of each dump.
pub const VIDEO: &str = "prompt_000_vid001";

/// A directory with a dump in it, and a store of that.
pub struct Place {
    _dir: tempfile::TempDir,
    /// Of the first word's files in the dump.
    pub word: PathBuf,
    /// Files of its first step.
    pub step: StepFiles,
    pub store: PathBuf,
    /// Its `attention`, below the store.
    pub array: String,
}

impl Place {
    /// A dump of some words, each with its number of steps and the keys of their metadata.
    fn new(words: &[(&str, usize, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let dump = dir.path().join("dump");
        for (word, steps, keys) in words {
            let word = dump.join(VIDEO).join(format!("token_{word}"));
            fs::create_dir_all(&word).expect("a directory");
            for step in 0..*steps {
                fs::write(word.join(format!("step_{step:03}.npy")), npy(step)).expect("a file");
                let metadata = format!(r#"{{"video_frames": 5, "video_height": 32, "video_width": 48{keys}}}"#);
                fs::write(word.join(format!("step_{step:03}_metadata.json")), metadata).expect("a file");
            }
        }
        let store = dir.path().join("store");
        let options = IngestOptions { rollups: Rollups::All, ..IngestOptions::default() };
        ingest::run(&[&dump], &store, &options, &Silent).expect("an ingest");
        let series = Dump::find(&[&dump]).expect("a dump").videos[0].series[0].clone();
        let video =
            Store::open(&store).expect("a store").snapshot().read_video(VIDEO).expect("a part").expect("a video");
        let (step, array) = (series.steps[0].clone(), video.rows[0].array.clone());
        Self { _dir: dir, word: series.dir, step, store, array }
    }

    /// Of one step; with a coordinate, as words of more steps have it.
    pub fn of_one_step() -> Self {
        let place = Self::new(&[("flower", 1, "")]);
        let step = place.store.join(place.array.trim_end_matches("attention")).join("step");
        let mut chunk = vec![0; 8];
        super::mend::crc32c_behind(&mut chunk);
        fs::create_dir(&step).expect("a directory");
        fs::write(step.join("c.0"), chunk).expect("a file");
        place
    }

    /// Of two words, one of four steps with numbered heads.
    pub fn of_two_words() -> Self {
        Self::new(&[("flower", 4, r#", "head_idx": [3, 7], "prompt": "a flower""#), ("tree", 1, "")])
    }
}

/// A step of two heads on a grid of 2 x 2 x 3, whose values are another one's with another number.
fn npy(step: usize) -> Vec<u8> {
    let mut npy =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2, 12, 1), }".to_vec();
    npy.resize(127, b' ');
    npy.push(b'\n');
    npy.extend((0..24_u8).flat_map(|value| [value, 0x30 + u8::try_from(step).expect("a few")]));
    npy
}

/// Everything below a directory that is a file, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Replaces a file for as long as `work` takes; `None`: removes it.
pub fn with_file(path: &Path, contents: Option<&[u8]>, work: impl FnOnce()) {
    let _restored = Restored { path, before: fs::read(path).ok() };
    match contents {
        Some(contents) => fs::write(path, contents).expect("a file"),
        None => fs::remove_file(path).expect("a file"),
    }
    work();
}

/// A file that will be as it was before, whatever comes.
struct Restored<'a> {
    path: &'a Path,
    before: Option<Vec<u8>>,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let restored = match &self.before {
            Some(before) => fs::write(self.path, before),
            None => fs::remove_file(self.path),
        };
        assert!(restored.is_ok() || std::thread::panicking(), "{} is not as it was", self.path.display());
    }
}
