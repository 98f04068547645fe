//! Stories of ingests that are killed, run out of room, or run at the same time: nothing committed is ever lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::{self, Place, copy_tree, program, touch, write_summary};
use attnkit::ingest::{self, Event, IngestOptions, Observer};
use attnkit::progress::{Amount, Progress, Unit};
use attnkit::store::Store;

const VIDEO: &str = "prompt_000_vid001";
const VIDEOS: i32 = 4;

/// A place with four videos of two words, three steps each.
fn four_videos() -> Place {
    let place = Place::new();
    for video in 0..VIDEOS {
        let id = format!("prompt_{video:03}_vid001");
        place.word(&id, "flower").steps(0..3);
        place.word(&id, "tree").steps(0..3);
        write_summary(&place.dump().join(&id), &[0, 1, 2], &["flower", "tree"]);
    }
    place
}

/// What an ingest that nothing disturbed makes of the dump.
fn undisturbed(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let other = Place::new();
    copy_tree(&place.dump(), &other.dump());
    other.ingest(&[]).clean();
    other.exported()
}

fn start(place: &Place, options: &[&str]) -> Child {
    Command::new(program())
        .args(["ingest", "dump", "--store", "a.store", "--quiet"])
        .args(options)
        .current_dir(place.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Expects that the store, if it is one yet, opens, is sound and holds whole videos of the dump only.
#[track_caller]
fn assert_holds_whole_videos(place: &Place) {
    if !place.store().join("zarr.json").exists() {
        return; // killed before there was a store
    }
    let contents = place.contents();
    for video in contents["videos"].as_array().unwrap() {
        let words = place.steps(video["video_id"].as_str().unwrap());
        assert!(words.len() == 2 && words.values().all(|steps| steps == &[0, 1, 2]), "{words:?}");
    }
    let report = place.check(&[place.dump()]);
    // A commit between its two renames is seen as such, and mended by the next ingest.
    let unmended = |error: &str| error.contains("of another commit than the steps part");
    assert!(report.faults.iter().all(|fault| unmended(&fault.error)), "{:?}", report.faults);
}

// Killed.

#[test]
fn a_kill_at_any_instant_costs_nothing_that_was_committed() {
    let place = four_videos();
    let expected = undisturbed(&place);
    let begin = Instant::now();
    assert!(start(&place, &[]).wait().unwrap().success());
    let whole = begin.elapsed();
    let delays = 12;
    for attempt in 0..delays {
        fs::remove_dir_all(place.store()).unwrap();
        let mut child = start(&place, &[]);
        std::thread::sleep(whole * attempt / delays);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_holds_whole_videos(&place);
        place.ingest(&[]).clean();
        assert!(place.exported() == expected, "the exported dump is another one");
        place.assert_same_as_dump();
        assert_eq!(place.ingest(&[]).clean().counts(), (0, 24));
    }
}

#[test]
fn kill_after_kill_of_one_store_gets_there_in_the_end() {
    let place = four_videos();
    let expected = undisturbed(&place);
    for milliseconds in (0..12).map(|attempt| attempt * 4) {
        let mut child = start(&place, &["--threads", "2"]);
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_holds_whole_videos(&place);
    }
    place.ingest(&[]).clean();
    assert!(place.exported() == expected, "the exported dump is another one");
    place.run(["gc", "a.store"]).succeeded();
    assert_eq!(place.contents()["bytes"]["unreferenced"], 0);
    place.assert_same_as_dump();
}

const DIES: &str = "ATTNKIT_STORY_DIES";

/// Ends the process after so many events, as if it were killed.
struct Mortal {
    events: Mutex<u32>,
    /// Where it writes which videos it is told are committed.
    told: PathBuf,
}

impl Mortal {
    fn one_more(&self) {
        let mut left = self.events.lock().unwrap();
        if *left == 0 {
            std::process::abort();
        }
        *left -= 1;
    }
}

impl Progress for Mortal {
    fn reached(&self, amount: Amount) {
        if amount.unit == Unit::Steps {
            self.one_more();
        }
    }
}

impl Observer for Mortal {
    fn event(&self, event: Event<'_>) {
        if let Event::Committed { video_id } = event {
            let mut told = fs::read_to_string(&self.told).unwrap_or_default();
            told.extend([video_id, "\n"]);
            fs::write(&self.told, told).unwrap();
        }
        self.one_more();
    }
}

/// No story: the process that dies in the next one.
#[test]
fn child_that_dies_after_some_events() {
    let Ok(dies) = std::env::var(DIES) else { return };
    let (events, place) = dies.split_once(' ').unwrap();
    let place = Path::new(place);
    let mortal = Mortal { events: Mutex::new(events.parse().unwrap()), told: place.join("told") };
    let options = IngestOptions { threads: 1, ..IngestOptions::default() };
    ingest::run(&[place.join("dump")], place.join("a.store"), &options, &mortal).unwrap();
}

#[test]
fn a_crash_after_any_step_or_commit_keeps_every_video_committed_before() {
    let place = four_videos();
    let expected = undisturbed(&place);
    let mut kept = Vec::new();
    for events in 0.. {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_dies_after_some_events", "--test-threads", "1"])
            .env(DIES, format!("{events} {}", place.path("").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_holds_whole_videos(&place);
        let videos = place.videos();
        let told = fs::read_to_string(place.path("told")).unwrap_or_default();
        assert!(told.lines().all(|told| videos.iter().any(|video| video == told)), "{told} told, {videos:?} there");
        kept.push((told.lines().count(), videos.len()));
        if status.success() {
            break;
        }
        let _ = fs::remove_file(place.path("told"));
        place.ingest(&[]).clean();
        assert!(place.exported() == expected, "after {events} events");
        fs::remove_dir_all(place.store()).unwrap();
    }
    assert!(kept.len() > 24, "{kept:?}");
    assert!(kept.iter().any(|(_, videos)| *videos == 0) && kept.contains(&(4, 4)), "{kept:?}");
    assert!(kept.iter().any(|(told, _)| (1..4).contains(told)), "no crash between commits: {kept:?}");
}

#[test]
fn a_crash_while_a_video_is_written_anew_leaves_the_old_one_to_readers() {
    let place = four_videos();
    place.ingest(&[]).clean();
    let old = place.exported();
    place.word(VIDEO, "flower").steps([3]);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_dies_after_some_events", "--test-threads", "1"])
        .env(DIES, format!("5 {}", place.path("").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    place.assert_sound();
    assert_eq!(place.exported(), old);
    place.ingest(&[]).clean();
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
    place.assert_same_as_dump();
}

/// A place where a commit was interrupted between its two renames: the heads part is of the new generation, the steps
/// part of the old one. Returns also where the new steps part would be staged, and itself.
fn between_two_renames(options: &[&str]) -> (Place, PathBuf, Vec<u8>) {
    let place = four_videos();
    place.ingest(options).clean();
    let steps = place.store().join("index/steps").join(format!("{VIDEO}.parquet"));
    let old = fs::read(&steps).unwrap();
    place.word(VIDEO, "flower").steps([3]);
    place.ingest(options).clean();
    let new = fs::read(&steps).unwrap();
    let generation = Store::open(place.store()).unwrap().snapshot().read_video(VIDEO).unwrap().unwrap().generation;
    fs::write(&steps, old).unwrap();
    let staged = place.store().join(format!(".staged/{VIDEO}.{generation}.steps"));
    (place, staged, new)
}

#[test]
fn a_commit_interrupted_between_its_renames_is_rolled_forward() {
    for mender in ["ingest", "gc"] {
        let (place, staged, new) = between_two_renames(&[]);
        fs::write(&staged, new).unwrap();
        assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2], "readers see the old steps");
        assert!(place.check(&[]).faults.iter().all(|fault| fault.error.contains("the next ingest")));
        if mender == "ingest" {
            assert_eq!(place.ingest(&[]).clean().counts(), (0, 25), "nothing is written again");
        } else {
            place.run(["gc", "a.store"]).succeeded();
        }
        assert!(!staged.exists());
        assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
        place.assert_same_as_dump();
    }
}

#[test]
fn a_commit_interrupted_without_its_staged_part_is_computed_anew() {
    for damage in [None, Some(&b"half a parquet file"[..])] {
        let (place, staged, _) = between_two_renames(&[]);
        if let Some(damage) = damage {
            fs::write(&staged, damage).unwrap();
        }
        place.ingest(&[]).clean();
        assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
        place.assert_same_as_dump();
        place.run(["gc", "a.store"]).succeeded();
        place.assert_same_as_dump();
        assert_eq!(place.contents()["bytes"]["unreferenced"], 0);
    }
}

#[test]
fn mending_keeps_words_that_the_dump_no_longer_has_as_they_were() {
    let options = ["--average", "heads", "--rollups", "none"];
    let (place, ..) = between_two_renames(&options);
    let before = place.series(VIDEO, "tree");
    let values = place.values(VIDEO, "tree", 1);
    fs::remove_dir_all(place.word(VIDEO, "tree").dir).unwrap();
    place.ingest(&options).clean();
    place.assert_sound();
    assert_eq!(place.values(VIDEO, "tree", 1), values);
    let after = place.series(VIDEO, "tree");
    for key in ["steps", "shape", "grid", "dtype", "lossy"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["bytes"]["rollups"], before["bytes"]["rollups"]);
}

#[test]
fn a_first_commit_interrupted_between_its_renames_is_finished() {
    let place = four_videos();
    place.ingest(&[]).clean();
    let steps = place.store().join("index/steps").join(format!("{VIDEO}.parquet"));
    let generation = Store::open(place.store()).unwrap().snapshot().read_video(VIDEO).unwrap().unwrap().generation;
    fs::rename(&steps, place.store().join(format!(".staged/{VIDEO}.{generation}.steps"))).unwrap();
    assert_eq!(place.videos().len(), 3);
    place.assert_sound();
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 24));
    place.assert_same_as_dump();
}

#[test]
fn what_a_killed_ingest_left_is_garbage_and_nothing_else_is() {
    let place = four_videos();
    place.ingest(&[]).clean();
    let before = place.exported();
    let store = place.store();
    let left = [
        store.join("maps").join(VIDEO).join("flower@00000000000000aa"),
        store.join("maps/never_committed/tree@00000000000000bb"),
    ];
    for dir in &left {
        fs::create_dir_all(dir.join("attention")).unwrap();
        fs::write(dir.join("attention/c.0.0"), b"half a shard").unwrap();
    }
    let hidden = [
        store.join(".zarr.json.0123456789abcdef"),
        store.join("maps/.zarr.json.0123456789abcdef"),
        store.join(format!(".staged/{VIDEO}.00000000000000aa.steps")),
        // Where writers of former versions had them.
        store.join("index/heads/.never_committed.00000000000000bb.heads"),
    ];
    for path in &hidden {
        fs::write(path, b"half").unwrap();
    }
    place.assert_same_as_dump();
    let told = place.run(["gc", "a.store", "--dry-run"]).succeeded();
    assert!(told.out.contains("in 6 places"), "{}", told.out);
    assert!(left.iter().chain(&hidden).all(|path| path.exists()));
    place.run(["gc", "a.store"]).succeeded();
    assert!(!left.iter().chain(&hidden).any(|path| path.exists()));
    assert_eq!(place.exported(), before);
    place.assert_same_as_dump();
    let told = place.run(["gc", "a.store"]).succeeded();
    assert!(told.out.contains("nothing to remove"), "{}", told.out);
}

// Out of room.

/// A file system of its own with little room.
struct TinyDisk(PathBuf);

impl TinyDisk {
    /// `None` where mounting is not allowed.
    fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("not told: mounting a small disk needs root");
        None
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_with_a_hint_and_the_same_command_goes_on_later() {
    let place = four_videos();
    let expected = undisturbed(&place);
    let Some(disk) = TinyDisk::mount(&place.store(), "size=32k,nr_inodes=1000") else { return };
    let mut completed = false;
    // More room each time, so that it runs out at many places.
    for kilobytes in (32..6000).step_by(96) {
        let options = format!("remount,size={kilobytes}k,nr_inodes=1000");
        assert!(Command::new("mount").args(["-o", &options]).arg(&disk.0).status().unwrap().success());
        let before = if place.store().join("zarr.json").exists() { place.videos() } else { Vec::new() };
        let ingested = place.ingest(&[]);
        if ingested.told.code == 0 {
            completed = true;
            break;
        }
        let told = ingested.ended(1).told;
        assert!(told.err.contains("No space left on device"), "{}", told.err);
        assert!(told.err.contains("hint: make room and run the same command again"), "{}", told.err);
        assert_holds_whole_videos(&place);
        if place.store().join("zarr.json").exists() {
            let after = place.videos();
            assert!(before.iter().all(|video| after.contains(video)));
            place.run(["gc", "a.store"]).succeeded();
            assert_eq!(place.contents()["bytes"]["unreferenced"], 0);
        }
    }
    assert!(completed);
    assert!(place.exported() == expected, "the exported dump is another one");
    place.assert_same_as_dump();
}

#[test]
fn a_limit_on_file_size_is_a_failure_that_loses_nothing() {
    let place = four_videos();
    place.word("prompt_009_vid001", "large").shaped([30, 12, 24, 1]).steps(0..20);
    let expected = undisturbed(&place);
    for signal in ["trap '' XFSZ; ", ""] {
        let limited = format!("{signal}ulimit -f 64 && exec \"$0\" ingest dump --store a.store -q --codec none");
        let status =
            Command::new("sh").args(["-c", &limited, program()]).current_dir(place.path("")).output().unwrap().status;
        assert!(!status.success());
        assert_eq!(status.code(), if signal.is_empty() { None } else { Some(1) });
        place.assert_sound();
    }
    place.ingest(&[]).clean();
    assert!(place.exported() == expected, "the exported dump is another one");
}

// At the same time.

#[test]
fn ingests_of_different_dumps_at_once_lose_nothing() {
    let place = four_videos();
    let second = place.path("second");
    for video in 4..8 {
        support::Word::new(&second, &format!("prompt_{video:03}_vid001"), "flower").steps(0..3);
    }
    for _ in 0..3 {
        let _ = fs::remove_dir_all(place.store());
        let mut first = start(&place, &[]);
        place.ingest_from(std::slice::from_ref(&second), &[]).clean();
        assert!(first.wait().unwrap().success());
        assert_eq!(place.videos().len(), 8);
        place.assert_same_as(&[place.dump(), second.clone()]);
    }
}

#[test]
fn ingests_of_the_same_dump_at_once_lose_nothing() {
    let place = four_videos();
    let expected = undisturbed(&place);
    for _ in 0..4 {
        let _ = fs::remove_dir_all(place.store());
        let children: Vec<Child> = (0..4).map(|_| start(&place, &[])).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert!(place.exported() == expected, "the exported dump is another one");
        place.assert_same_as_dump();
        assert_eq!(place.ingest(&[]).clean().counts(), (0, 24));
    }
}

#[test]
fn ingests_of_different_words_of_one_video_at_once_lose_nothing() {
    let place = four_videos();
    let expected = undisturbed(&place);
    for _ in 0..4 {
        let _ = fs::remove_dir_all(place.store());
        let mut other = start(&place, &["--tokens", "flower"]);
        place.ingest(&["--tokens", "tree"]).clean();
        assert!(other.wait().unwrap().success());
        assert!(place.exported() == expected, "words were lost: {:?}", place.contents()["steps"]);
        place.assert_same_as_dump();
    }
}

#[test]
fn gc_is_refused_while_an_ingest_runs() {
    let place = four_videos();
    place.ingest(&[]).clean();
    let writing = place.store().join("maps").join(VIDEO).join("flower@00000000000000aa");
    fs::create_dir(&writing).unwrap();
    let lock = fs::File::options().write(true).open(place.store().join(".writers/lock")).unwrap();
    lock.lock_shared().unwrap();
    place.run(["gc", "a.store"]).ended(1).says("an ingest is writing into this store").says("hint: ");
    assert!(writing.exists());
    place.run(["gc", "a.store", "--dry-run"]).succeeded();
    touch(&place.word(VIDEO, "flower").write_metadata(0), 5);
    place.ingest(&[]).clean(); // other writers need not wait
    drop(lock);
    place.run(["gc", "a.store"]).succeeded();
    assert!(!writing.exists());
    assert!(place.store().join(".writers/lock").exists(), "the lock files are no garbage");
}
