//! What fuzzing found, and what it started from: no input of any kind is read wrongly, or ends the process.

#[path = "../../fuzz/src/targets.rs"]
#[allow(missing_docs)]
mod targets;

use std::fs;
use std::path::Path;

/// Runs a target on each file that was kept for it, and on so many mutations of it.
fn run(target: &str, of: fn(&[u8]), mutations: u64) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut inputs = 0;
    for kept in ["corpus", "failures"] {
        let Ok(files) = fs::read_dir(fuzz.join(kept).join(target)) else { continue };
        for file in files {
            let input = fs::read(file.unwrap().path()).unwrap();
            of(&input);
            inputs += 1;
            for seed in 0..mutations {
                of(&mutated(&input, &mut fastrand::Rng::with_seed(seed)));
            }
        }
    }
    assert!(inputs > 0, "nothing was kept for {target}");
}

/// An input with a few bytes changed, cut out, or doubled.
fn mutated(input: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..=bytes.len());
        let end = (at + random.usize(0..9)).min(bytes.len());
        match random.u8(0..5) {
            0 => bytes[at..end].fill_with(|| random.u8(..)),
            1 => bytes[at..end].fill(*random.choice(&[0, 0x7F, 0x80, 0xFF]).unwrap()),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Each target, with the mutations that it runs of each file: fewer where one takes milliseconds.
macro_rules! targets {
    ($($target:ident: $mutations:literal),*) => {
        $(
            #[test]
            fn $target() {
                run(stringify!($target), targets::$target, $mutations);
            }
        )*
    };
}

targets!(
    npy: 200,
    npy_gzip: 200,
    npz: 200,
    torch: 200,
    torch_gzip: 200,
    gzip: 200,
    metadata: 200,
    summary: 200,
    settings: 200,
    template: 200,
    document: 100,
    shard: 200,
    part: 20,
    store: 20,
    condition: 100,
    question: 100,
    message: 100
);

/// A message that nothing reads would find nothing.
#[test]
fn kept_messages_and_questions_are_read() {
    use attnkit::ingest::{Done, Job};
    use attnkit::query::{Answer, Partial, Question, Task};

    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let kept = |target: &str| fs::read_dir(corpus.join(target)).unwrap().map(|file| file.unwrap().path());
    for path in kept("message") {
        let bytes = targets::sealed(&fs::read(&path).unwrap(), "maps/v/w@1/attention", "1");
        let read = [
            Task::from_bytes(&bytes).is_ok(),
            Partial::from_bytes(&bytes).is_ok(),
            Answer::from_bytes(&bytes).is_ok(),
            Job::from_bytes(&bytes).is_ok(),
            Done::from_bytes(&bytes).is_ok(),
        ];
        assert_eq!(read.into_iter().filter(|read| *read).count(), 1, "{}", path.display());
    }
    for path in kept("question") {
        Question::from_json(&fs::read_to_string(&path).unwrap()).unwrap();
    }
}
