//! Stories of a dump that is ingested while it is being written.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::{Place, Word, files, fixture, list, npy_f16, program, write_summary};
use attnkit::ingest::{self, Event, IngestError, IngestOptions, Observer, PromptMatches, Report, WatchOptions};
use attnkit::progress::Progress;
use attnkit::store::Store;

const VIDEO: &str = "prompt_000_vid001";

/// What a generator does, one thing after each look, and what is in the store then.
struct Generator<'a> {
    place: &'a Place,
    acts: Mutex<std::vec::IntoIter<Act<'a>>>,
    steps: Mutex<Vec<usize>>,
    warnings: Mutex<Vec<String>>,
}

type Act<'a> = Box<dyn Fn() + Send + 'a>;

impl Observer for Generator<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Watched { .. } => {
                self.steps.lock().unwrap().push(steps_in(self.place));
                if let Some(act) = self.acts.lock().unwrap().next() {
                    act();
                }
            }
            Event::Warning(remark) => self.warnings.lock().unwrap().push(remark.message.clone()),
            _ => {}
        }
    }
}

impl Progress for Generator<'_> {
    fn is_cancelled(&self) -> bool {
        self.acts.lock().unwrap().len() == 0
    }
}

fn steps_in(place: &Place) -> usize {
    let video = Store::open(place.store()).ok().and_then(|store| store.snapshot().read_video(VIDEO).unwrap());
    video.map_or(0, |video| video.rows.len())
}

/// Watches until all acts are done. Returns the steps in the store after each look.
fn watch(place: &Place, acts: Vec<Act<'_>>) -> (Vec<usize>, Report, Vec<String>) {
    let generator =
        Generator { place, acts: Mutex::new(acts.into_iter()), steps: Mutex::default(), warnings: Mutex::default() };
    let options = WatchOptions { poll: Duration::from_millis(5), ..WatchOptions::default() };
    let report = ingest::watch(&[place.dump()], place.store(), &IngestOptions::default(), options, &generator).unwrap();
    (generator.steps.into_inner().unwrap(), report, generator.warnings.into_inner().unwrap())
}

fn nothing<'a>() -> Act<'a> {
    Box::new(|| {})
}

#[test]
fn a_step_is_committed_once_it_has_metadata_and_its_files_stand_still() {
    let place = Place::new();
    let word = Word::new(&place.dump(), VIDEO, "flower");
    let contents = npy_f16(&word.shape, &word.values(0));
    let file = word.file("step_000.npy");
    let acts: Vec<Act<'_>> = vec![
        Box::new(|| fs::write(&file, &contents[..300]).unwrap()),
        nothing(),
        Box::new(|| fs::write(&file, &contents).unwrap()),
        nothing(),
        Box::new(|| drop(word.write_metadata(0))),
        nothing(),
        nothing(),
    ];
    let (steps, report, _) = watch(&place, acts);
    // Seen once after its metadata was written, and once more as it was.
    assert_eq!(steps, [0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((report.ingested, report.quarantined.len()), (1, 0));
    place.assert_same_as_dump();
}

#[test]
fn each_look_adds_what_is_new_and_says_what_is_odd_once() {
    let place = Place::new();
    let word = || place.word(VIDEO, "flower").with_key("num_heads", 12);
    let step = |step: i32| -> Act<'_> { Box::new(move || drop(word().steps([step]))) };
    let acts = vec![step(0), nothing(), step(1), nothing(), step(2), nothing(), nothing()];
    let (steps, report, warnings) = watch(&place, acts);
    assert_eq!(steps, [0, 0, 1, 1, 2, 2, 3]);
    assert_eq!((report.ingested, report.skipped), (3, 0));
    assert_eq!((warnings.len(), report.warnings.len()), (1, 1), "{warnings:?}");
    place.assert_same_as_dump();
    // What was replaced is still there for whoever is reading it.
    assert!(place.generations().len() > 1);
    place.run(["gc", "a.store"]).succeeded();
    place.assert_same_as_dump();
}

#[test]
fn a_step_that_is_written_again_and_a_late_summary_are_taken() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..2);
    let again = || {
        let other = place.word("x", "y").values(7);
        place.word(VIDEO, "flower").write(1, "npy", &npy_f16(&crate::support::SHAPE, &other));
    };
    let summary = || write_summary(&place.dump().join(VIDEO), &[0, 1], &["flower"]);
    let acts: Vec<Act<'_>> =
        vec![nothing(), Box::new(again), nothing(), nothing(), Box::new(summary), nothing(), nothing()];
    let (_, report, _) = watch(&place, acts);
    assert_eq!(report.ingested, 3);
    assert_eq!(place.contents()["videos"][0]["has_summary"], true);
    place.assert_same_as_dump();
}

#[test]
fn a_file_that_was_damaged_when_it_was_read_is_left_out_until_it_is_whole() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..2);
    let whole = fs::read(word.file("step_001.npy")).unwrap();
    fs::write(word.file("step_001.npy"), &whole[..200]).unwrap();
    let mend = || fs::write(word.file("step_001.npy"), &whole).unwrap();
    let acts: Vec<Act<'_>> = vec![nothing(), nothing(), Box::new(mend), nothing(), nothing()];
    let (steps, report, _) = watch(&place, acts);
    assert_eq!(steps, [0, 1, 1, 1, 2]);
    assert_eq!((report.ingested, report.quarantined), (2, vec![]));
}

#[test]
fn a_damaged_summary_that_is_mended_is_no_damage() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0]);
    let summary = place.dump().join(VIDEO).join("summary.json");
    fs::write(&summary, "{\"stored_steps\": [").unwrap();
    let mend = || write_summary(&place.dump().join(VIDEO), &[0], &["flower"]);
    let acts: Vec<Act<'_>> = vec![nothing(), nothing(), Box::new(mend), nothing(), nothing()];
    let (_, report, _) = watch(&place, acts);
    assert_eq!(report.quarantined, []);
    place.assert_same_as_dump();
}

#[test]
fn a_step_in_parts_waits_for_all_of_them() {
    let place = Place::new();
    let (from, to) = (fixture("variants/split/attention_maps").join(VIDEO), place.dump().join(VIDEO));
    let parts: Vec<PathBuf> =
        files(&from).into_keys().filter(|path| path.to_string_lossy().contains("circle/step_000_")).collect();
    let write = |parts: &[PathBuf]| {
        for part in parts {
            fs::create_dir_all(to.join(part).parent().unwrap()).unwrap();
            fs::copy(from.join(part), to.join(part)).unwrap();
        }
    };
    let (first, rest) = parts.split_at(parts.len() / 2);
    let acts: Vec<Act<'_>> = vec![
        Box::new(|| write(first)),
        nothing(),
        nothing(),
        nothing(),
        Box::new(|| write(rest)),
        nothing(),
        Box::new(|| write_summary(&to, &[0], &["circle"])),
        nothing(),
        nothing(),
    ];
    let (steps, report, _) = watch(&place, acts);
    // The summary says that the video is finished.
    assert_eq!(steps, [0, 0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(report.quarantined, []);
    assert_eq!(place.series(VIDEO, "circle")["shape"], serde_json::json!([6, 4, 576, 1]));
}

#[test]
fn prompts_that_come_later_are_taken() {
    let place = Place::new();
    let maps = place.dump().join("attention_maps");
    Word::new(&maps, VIDEO, "flower").with_key("prompt", "a flower").steps([0]);
    let told = || {
        let variations = r#"{"variations": [{"text": "a (flower:2)"}]}"#;
        fs::write(place.dump().join("batch_metadata.json"), variations).unwrap();
    };
    let acts: Vec<Act<'_>> = vec![nothing(), nothing(), Box::new(told), nothing(), nothing()];
    let (_, report, _) = watch(&place, acts);
    assert_eq!(report.prompts, Some(PromptMatches { matched: 1, unmatched: 0 }));
    assert_eq!(place.series(VIDEO, "flower")["weight"], 2.0);
}

/// Writes a step while the one before is committed, which takes long.
struct Slow<'a> {
    place: &'a Place,
    commits: Mutex<i32>,
}

impl Progress for Slow<'_> {}

impl Observer for Slow<'_> {
    fn event(&self, event: Event<'_>) {
        if let Event::Committed { .. } = event {
            let mut commits = self.commits.lock().unwrap();
            *commits += 1;
            std::thread::sleep(Duration::from_millis(300));
            if *commits < 3 {
                self.place.word(VIDEO, "flower").steps([*commits]);
            }
        }
    }
}

#[test]
fn the_time_that_an_ingest_takes_is_not_idle() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0]);
    let slow = Slow { place: &place, commits: Mutex::new(0) };
    let options = WatchOptions { poll: Duration::from_millis(10), until_idle: Some(Duration::from_millis(200)) };
    let report = ingest::watch(&[place.dump()], place.store(), &IngestOptions::default(), options, &slow).unwrap();
    assert_eq!(report.ingested, 3);
    assert!(report.seconds < 10.0, "pauses are for looking, not for ingesting: {} s", report.seconds);
}

#[test]
fn a_watch_ends_when_nothing_changes_and_names_what_was_never_completed() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..2);
    fs::remove_file(word.file("step_001_metadata.json")).unwrap();
    let ingested = place.ingest(&["--watch", "--poll", "20ms", "--until-idle", "200ms"]).ended(3);
    assert_eq!(ingested.counts(), (1, 0));
    assert_eq!(ingested.left_out()[0].0, word.file("step_001.npy"));
    let again = place.ingest(&["--watch", "--poll", "20ms", "--until-idle", "200ms"]).ended(3);
    assert_eq!(again.counts(), (0, 1));
    place
        .run(["ingest", "nowhere", "--store", "b.store", "--watch", "--poll", "20ms", "--until-idle", "100ms"])
        .ended(1)
        .says("no attention maps found");
    assert!(!place.path("b.store").exists());
    let none =
        ["ingest", "dump", "--store", "b.store", "--watch", "--poll", "20ms", "--until-idle", "100ms", "--videos", "x"];
    place.run(none).ended(2).says("nothing is selected");
}

#[test]
fn errors_that_waiting_does_not_mend_end_a_watch() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..1);
    fs::create_dir_all(place.store()).unwrap();
    fs::write(place.store().join("zarr.json"), "{}").unwrap();
    let watched = ingest::watch(
        &[place.dump()],
        place.store(),
        &IngestOptions::default(),
        WatchOptions { poll: Duration::from_millis(5), until_idle: None },
        &ingest::Silent,
    );
    assert!(matches!(watched, Err(IngestError::Store(_))), "{watched:?}");
}

fn start(place: &Place, options: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(["ingest", "dump", "--store", "a.store"]).args(options).current_dir(place.path(""));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let killed = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(killed.success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_watch_with_a_report() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..3);
    let child = start(&place, &["--watch", "--poll", "20ms"]);
    let started = Instant::now();
    while steps_in(&place) < 3 {
        assert!(started.elapsed() < Duration::from_secs(40), "nothing was ingested");
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 steps ingested"), "{output:?}");
    place.assert_same_as_dump();
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_an_ingest_between_two_commits() {
    let place = Place::new();
    for video in 0..300 {
        place.word(&format!("prompt_{video:03}_vid001"), "flower").steps(0..20);
    }
    let child = start(&place, &["--threads", "1"]);
    let started = Instant::now();
    while !place.store().join("index/steps").is_dir() || list(&place.store().join("index/steps")).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(40), "nothing was ingested");
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("stays in the store") && said.contains("to go on"), "{said}");
    assert!(place.videos().len() < 300);
    place.assert_sound();
    place.ingest(&[]).clean();
    place.assert_same_as_dump();
}
