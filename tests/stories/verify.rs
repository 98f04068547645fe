//! Stories of verification and export: any flipped bit is found and named, and what was ingested comes back bit for
//! bit.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{
    Place, Random, SHAPE, Word, copy_tree, files, fixture, gzip, list, make_fifo, npy_f16, npy_parts, tree,
    write_summary,
};
use attnkit::dump::{Dump, ReadOptions};
use attnkit::error::{Error, ErrorKind};
use attnkit::export::{self, ExportOptions};
use attnkit::ingest::{self, IngestOptions, Observer};
use attnkit::progress::{Progress, Silent};
use attnkit::query::{Average, Filter};
use attnkit::repair::{self, RepairOptions};
use attnkit::store::{STORE_VERSION, Store, StoreError};
use attnkit::verify::{self, VerifyOptions};
use attnkit::{Source, estimate};
use half::f16;
use proptest::prelude::*;
use serde_json::{Value, json};

const VIDEO: &str = "prompt_000_vid001";
const SECOND: &str = "prompt_001_vid001";

/// A store of two videos; the first has two words and a summary.
fn small_store() -> Place {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..4);
    place.word(VIDEO, "two people").steps([0, 5]);
    write_summary(&place.dump().join(VIDEO), &[0, 1, 2, 3], &["flower", "two people"]);
    place.word(SECOND, "flower").steps([0]);
    place.ingest(&["--rollups", "all"]).clean();
    place
}

/// Something that verification found.
#[derive(Debug, Default)]
struct Found {
    video: Option<String>,
    token: Option<String>,
    step: Option<i32>,
    #[allow(dead_code)] // shown when a story fails
    error: String,
}

/// What is found wrong with a store; an error that stops everything counts as one.
fn faults(store: &Path) -> Vec<Found> {
    let whole = |error: &dyn std::fmt::Display| vec![Found { error: error.to_string(), ..Found::default() }];
    match Store::open(store) {
        Err(error) => whole(&error),
        Ok(store) => match attnkit::verify::run(&store, &VerifyOptions::default(), &attnkit::progress::Silent) {
            Err(error) => whole(&error),
            Ok(report) => report
                .faults
                .into_iter()
                .map(|fault| Found {
                    video: fault.video_id,
                    token: fault.token,
                    step: fault.step,
                    error: format!("{}: {}", fault.path, fault.error),
                })
                .collect(),
        },
    }
}

/// Flips one bit of a file, and puts it back after looking.
fn faults_with_bit_flipped(store: &Path, path: &Path, position: usize, bit: usize) -> Vec<Found> {
    let original = fs::read(path).unwrap();
    let mut flipped = original.clone();
    flipped[position] ^= 1 << bit;
    fs::write(path, flipped).unwrap();
    let found = faults(store);
    fs::write(path, original).unwrap();
    found
}

fn is_shard(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("c.")) && !is_coordinate(path)
}

fn is_coordinate(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "step" || part.as_os_str() == "timestep")
        && path.starts_with("maps")
}

#[test]
fn a_flipped_bit_in_any_file_is_found_and_named() {
    let place = small_store();
    let store = place.store();
    let mut random = Random(20_240_607);
    let mut kinds = BTreeSet::new();
    for (name, contents) in files(&store) {
        if contents.is_empty() {
            assert!(name.starts_with(".writers"), "{}", name.display());
            continue;
        }
        let length = contents.len();
        let mut positions = vec![random.below(length)];
        if is_shard(&name) {
            // The first chunk, the last one, the index, its checksum.
            positions.extend([0, length / 2, length - 30, length - 1]);
            positions.extend((0..10).map(|_| random.below(length)));
        } else {
            positions.extend([0, length - 1]);
            positions.extend((0..4).map(|_| random.below(length)));
        }
        for position in positions {
            let found = faults_with_bit_flipped(&store, &store.join(&name), position, random.below(8));
            let place = format!("{} byte {position} of {length}: {found:?}", name.display());
            assert!(!found.is_empty(), "not found: {place}");
            let of_video = |fault: &Found| fault.video.as_deref().is_some_and(|id| name_has(&name, id));
            if is_shard(&name) {
                kinds.insert("shard");
                let named = |fault: &Found| of_video(fault) && fault.token.is_some() && fault.step.is_some();
                assert!(found.iter().any(named), "not named: {place}");
                let wrong = |fault: &&Found| fault.token.as_deref().is_some_and(|token| !name_has(&name, token));
                assert!(found.iter().find(wrong).is_none(), "wrongly named: {place}");
            } else if is_coordinate(&name) {
                kinds.insert("coordinate");
                assert!(found.iter().any(|fault| of_video(fault) && fault.token.is_some()), "not named: {place}");
            } else if name.starts_with("index") {
                kinds.insert("part");
                assert!(found.iter().any(of_video), "not named: {place}");
            } else {
                kinds.insert("document");
                assert!(name.ends_with("zarr.json"), "{place}");
            }
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["coordinate", "document", "part", "shard"]);
    place.assert_same_as_dump();
}

/// Whether a path's components name a video or a word (encoded).
fn name_has(path: &Path, name: &str) -> bool {
    path.to_string_lossy().contains(&attnkit::store::encode_name(name))
}

#[test]
fn every_bit_of_a_small_shard_is_covered() {
    let place = Place::new();
    place.word(VIDEO, "flower").shaped([1, 1, 24, 1]).steps([0]);
    place.ingest(&["--codec", "none"]).clean();
    let path = place.generations()[0].join("attention/c.0.0.0.0.0");
    for position in 0..fs::metadata(&path).unwrap().len() {
        let position = usize::try_from(position).unwrap();
        let found = faults_with_bit_flipped(&place.store(), &path, position, position % 8);
        assert!(found.iter().any(|fault| fault.step == Some(0)), "byte {position}: {found:?}");
    }
}

#[test]
fn the_damaged_step_is_the_one_that_is_named() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0, 5, 10]);
    place.ingest(&["--codec", "none"]).clean();
    let shard = place.generations()[0].join("attention/c.0.0.0.0.0");
    let mut bytes = fs::read(&shard).unwrap();
    let step = 2 * SHAPE.iter().product::<usize>();
    bytes[step + 10] ^= 1;
    fs::write(shard, bytes).unwrap();
    let told = place.run(["verify", "a.store"]).ended(1);
    let expected = format!("damaged: video {VIDEO}, word flower, step 5, maps/{VIDEO}/flower@");
    assert!(told.out.contains(&expected) && told.out.contains("1 fault"), "{}", told.out);
    let told = place.run(["verify", "a.store", "--json", "-q"]).ended(1);
    let report: Value = serde_json::from_str(&told.out).unwrap();
    let fault = &report["faults"][0];
    assert_eq!((&fault["video_id"], &fault["token"], &fault["step"]), (&json!(VIDEO), &json!("flower"), &json!(5)));
}

#[test]
fn a_missing_or_truncated_file_is_found() {
    let place = small_store();
    let store = place.store();
    for (name, contents) in files(&store) {
        if name.starts_with(".writers") {
            continue;
        }
        let path = store.join(&name);
        if !name.starts_with("index/steps") {
            fs::remove_file(&path).unwrap();
            assert!(!faults(&store).is_empty(), "{} is gone, and nothing is found", name.display());
        }
        fs::write(&path, &contents[..contents.len() - 1]).unwrap();
        assert!(!faults(&store).is_empty(), "{} is truncated, and nothing is found", name.display());
        fs::write(&path, &contents).unwrap();
    }
    place.assert_same_as_dump();
}

/// What a link leads to is not the store's to clean up.
#[test]
fn links_where_directories_of_the_store_should_be_are_refused() {
    for dir in ["maps", "index", "index/steps", "index/heads", ".writers"] {
        let place = small_store();
        let (own, elsewhere) = (place.store().join(dir), place.path("elsewhere"));
        fs::rename(&own, &elsewhere).unwrap();
        fs::create_dir_all(elsewhere.join(".hidden")).unwrap();
        fs::write(elsewhere.join("photo.jpg"), "x").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
        let before = crate::support::tree(&elsewhere);
        for command in [vec!["gc", "a.store"], vec!["verify", "a.store"], vec!["info", "a.store"]] {
            let told = place.run(command).ended(1);
            assert!(told.err.contains("is a link") || told.err.contains("a link, where"), "{told:?}");
        }
        place.run(["ingest", "dump", "--store", "a.store"]).ended(1);
        assert_eq!(crate::support::tree(&elsewhere), before, "{dir}");
    }
}

/// Other readers take every file of the directory, and would read its rows twice.
#[test]
fn a_copy_that_some_tool_left_beside_a_part_is_named() {
    let place = small_store();
    let rows = |place: &Place| place.run(["query", "sql", "a.store", "SELECT * FROM heads"]).out.lines().count();
    let all = rows(&place);
    let part = place.store().join("index/steps").join(format!("{VIDEO}.parquet"));
    let copies = [" (1)", ".sync-conflict-20240331-AB", "-laptop", "-1", ".parquet"];
    for name in copies.map(|copy| format!("{VIDEO}{copy}.parquet")).into_iter().chain([format!("_{VIDEO}.parquet")]) {
        let copy = part.with_file_name(&name);
        fs::copy(&part, &copy).unwrap();
        for (command, code) in [("verify", 1), ("query list", 3), ("info", 3), ("gc", 3)] {
            let told = place.run(command.split(' ').chain(["a.store"])).ended(code);
            let said = told.out.clone() + &told.err;
            assert!(said.contains(&name) && said.contains("its name is no part's"), "{told:?}");
        }
        assert_eq!(rows(&place), all, "its rows are read once");
        fs::remove_file(copy).unwrap();
    }
    assert!(faults(&place.store()).is_empty());
}

/// A bit of a part is flipped: its video is left out by name, all others are answered from, and nothing is removed.
#[test]
fn a_damaged_part_costs_its_video_alone() {
    let place = small_store();
    let rows = |sql: &str, code: i32| {
        let told = place.run(["query", "sql", "a.store", sql]).ended(code);
        (told.out.lines().map(str::to_owned).collect::<Vec<String>>(), told.err)
    };
    let all_of_second = format!("SELECT * FROM heads WHERE video_id = '{SECOND}'");
    let (expected, _) = rows(&all_of_second, 0);
    let mut random = Random(7);
    for table in ["steps", "heads"] {
        let part = place.store().join("index").join(table).join(format!("{VIDEO}.parquet"));
        let original = fs::read(&part).unwrap();
        for _ in 0..12 {
            let mut flipped = original.clone();
            flipped[random.below(original.len())] ^= 1 << random.below(8);
            fs::write(&part, &flipped).unwrap();
            let (found, told) = rows("SELECT * FROM heads", 3);
            assert_eq!(found, expected, "{told}");
            assert!(told.contains(&format!("left out: a.store/index/{table}/{VIDEO}.parquet: ")), "{told}");
            place.run(["query", "average", "a.store", "--where", "entropy > 0"]).ended(3);
            place.run(["gc", "a.store"]).ended(if table == "steps" { 3 } else { 0 }).out.contains("nothing to remove");
            if table == "steps" {
                for command in [&["info", "a.store"][..], &["query", "evolution", "a.store"], &["gc", "a.store"]] {
                    place.run(command).ended(3);
                }
                let out = tempfile::tempdir().unwrap();
                let told = place.run(["export", "a.store", "--out", out.path().to_str().unwrap()]).ended(3);
                assert!(told.out.starts_with("1 video, 1 step"), "{told:?}");
                place.ingest(&[]).ended(3).says("cannot be read");
            }
        }
        fs::write(&part, &original).unwrap();
    }
    assert!(faults(&place.store()).is_empty());
}

/// What is in the rows of a store, but for where the arrays are.
fn rows_of(place: &Place) -> (String, String) {
    let columns = "video_id,prompt_id,prompt,seed,token,weight,step,timestep,num_blocks,frames,height,width,dtype,\
                   source,content_hash";
    let steps = place.run(["query", "list", "a.store", "--columns", columns]).succeeded().out;
    (steps, place.run(["query", "list", "a.store", "--table", "heads"]).succeeded().out)
}

/// Each of two parts has the name of the other: both videos are read anew.
#[test]
fn parts_that_were_swapped_are_mended() {
    let place = small_store();
    let (before, dump) = (rows_of(&place), place.dump());
    let part = |video: &str| place.store().join("index/steps").join(format!("{video}.parquet"));
    fs::rename(part(VIDEO), place.path("aside")).unwrap();
    fs::rename(part(SECOND), part(VIDEO)).unwrap();
    fs::rename(place.path("aside"), part(SECOND)).unwrap();
    place.run(["query", "list", "a.store"]).ended(3);
    place.ingest(&[]).ended(3).says("its name is no part's");
    place.run(["repair", "a.store", "--from", dump.to_str().unwrap()]).succeeded();
    assert_eq!(rows_of(&place), before);
    place.assert_same_as_dump();
}

/// Each file of a store is damaged in turn, or gone: it is mended from the dump, and nothing of the other video is
/// touched.
#[test]
fn any_damaged_file_is_mended_and_nothing_else_is_touched() {
    let place = small_store();
    let (before, pristine) = (rows_of(&place), files(&place.store()));
    let dump = place.dump();
    let repair = ["repair", "a.store", "--from", dump.to_str().unwrap()];
    place.run(repair).succeeded().out.contains("nothing is damaged");
    let mut random = Random(11);
    for (number, name) in pristine.keys().filter(|name| !name.starts_with(".writers")).enumerate() {
        let aside = place.path("aside");
        crate::support::copy_tree(&place.store(), &aside);
        let path = place.store().join(name);
        if number % 3 == 0 {
            fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = fs::read(&path).unwrap();
            let position = random.below(bytes.len());
            bytes[position] ^= 1 << random.below(8);
            fs::write(&path, bytes).unwrap();
        }
        let other = if name.to_string_lossy().contains(SECOND) { VIDEO } else { SECOND };
        let untouched = |place: &Place| tree(&place.store().join("maps").join(other));
        let others = untouched(&place);
        // A part that is gone is of no video: the next ingest has it.
        let is_gone = number % 3 == 0 && name.starts_with("index/steps");
        if is_gone {
            place.ingest(&[]).clean();
        } else {
            let told = place.run(repair).ended(0);
            assert!(told.out.contains("mended: ") && told.out.contains(", 0 left"), "{}: {told:?}", name.display());
        }
        assert_eq!(rows_of(&place), before, "{}", name.display());
        place.assert_same_as_dump();
        assert_eq!(untouched(&place), others, "{}", name.display());
        fs::remove_dir_all(place.store()).unwrap();
        fs::rename(&aside, place.store()).unwrap();
    }
}

#[test]
fn without_the_dump_what_values_tell_is_mended_and_values_are_not() {
    let place = small_store();
    let dump = place.dump();
    let before = rows_of(&place);
    let damage = |kind: &str| {
        let path = files(&place.store()).into_keys().find(|name| {
            let name = name.to_string_lossy();
            name.contains(VIDEO) && name.contains(kind) && (kind.contains("json") || !name.contains("json"))
        });
        let path = place.store().join(path.unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
    };
    for derived in ["/heads/", "/mean_head/c.", "/mean/c.", "/mean_block/zarr.json", "/step/c.", "/timestep/zarr.json"]
    {
        damage(derived);
        place.run(["repair", "a.store"]).succeeded();
        place.run(["gc", "a.store"]).succeeded();
        assert_eq!(rows_of(&place), before, "{derived}");
    }
    damage("/attention/c.");
    let told = place.run(["repair", "a.store"]).ended(1);
    assert!(told.out.contains("still damaged: video ") && told.out.contains("--from"), "{told:?}");
    // A dump that is not what was ingested mends nothing.
    let other = Word::at(place.path("other/attention_maps").join(VIDEO).join("token_flower"), SECOND, "flower");
    other.steps(0..3);
    let told = place.run(["repair", "a.store", "--from", "other"]).ended(1);
    assert!(told.out.contains("is not what was ingested any more"), "{told:?}");
    place.run(["repair", "a.store", "--from", dump.to_str().unwrap()]).succeeded();
    assert_eq!(rows_of(&place), before);
    place.assert_same_as_dump();
}

#[test]
fn arrays_of_two_words_that_were_swapped_are_found() {
    let place = small_store();
    let video = place.store().join("maps").join(VIDEO);
    let generations: Vec<PathBuf> = place.generations().into_iter().filter(|path| path.starts_with(&video)).collect();
    let aside = video.join("aside");
    fs::rename(&generations[0], &aside).unwrap();
    fs::rename(&generations[1], &generations[0]).unwrap();
    fs::rename(&aside, &generations[1]).unwrap();
    assert!(!faults(&place.store()).is_empty());
}

#[test]
fn against_the_dump_a_single_other_bit_is_found() {
    let place = small_store();
    let word = place.word(VIDEO, "flower");
    let mut values = word.values(1);
    values[77] = f16::from_bits(values[77].to_bits() ^ 1);
    fs::write(word.file("step_001.npy"), npy_f16(&SHAPE, &values)).unwrap();
    place.run(["verify", "a.store"]).succeeded();
    let told = place.run(["verify", "a.store", "--against", "dump"]).ended(1);
    let expected = format!("differs: video {VIDEO}, word flower, step 1, ");
    assert!(told.out.contains(&expected) && told.out.contains("1 of 144 values differ"), "{}", told.out);
}

#[test]
fn a_dump_that_was_packed_or_moved_is_still_the_same() {
    let place = small_store();
    let path = place.word(VIDEO, "flower").file("step_001.npy");
    fs::write(path.with_extension("npy.gz"), gzip(&fs::read(&path).unwrap())).unwrap();
    fs::remove_file(path).unwrap();
    fs::rename(place.dump(), place.path("moved")).unwrap();
    place.run(["verify", "a.store", "--against", "moved"]).succeeded();
}

#[test]
fn against_another_directory_nothing_is_compared_and_that_is_said() {
    let place = small_store();
    Word::new(&place.path("other"), "prompt_007_vid001", "rose").steps([0]);
    place.run(["verify", "a.store", "--against", "other"]).ended(1).says("nothing was compared").says("--prefix");
    place.run(["verify", "a.store", "--against", "nowhere"]).ended(1).says("nowhere");
}

#[test]
fn against_tells_what_is_not_in_the_dump() {
    let place = small_store();
    fs::remove_file(place.word(VIDEO, "flower").file("step_001.npy")).unwrap();
    fs::remove_dir_all(place.dump().join(SECOND)).unwrap();
    let told = place.run(["verify", "a.store", "--against", "dump"]).succeeded();
    assert!(told.out.contains("5 steps compared with the dump; 2 of the store not in the dump"), "{}", told.out);
}

#[test]
fn verifying_changes_nothing() {
    let place = small_store();
    let before = tree(&place.path(""));
    place.run(["verify", "a.store", "--against", "dump"]).succeeded();
    place.run(["info", "a.store"]).succeeded();
    assert_eq!(tree(&place.path("")), before);
}

#[test]
fn a_store_of_another_version_is_refused() {
    let place = small_store();
    let path = place.store().join("zarr.json");
    let text = fs::read_to_string(&path).unwrap();
    let other = of_version_2(&text);
    assert_ne!(other, text);
    fs::write(&path, other).unwrap();
    assert!(matches!(Store::open(place.store()), Err(StoreError::Version { found: 2, expected: 1, .. })));
    for command in ["info", "verify", "gc"] {
        place
            .run([command, "a.store"])
            .ended(1)
            .says("store version 2, written by attnkit 9.1.0; this attnkit")
            .says("reads version 1: use attnkit 9.1.0 or a later one");
    }
    place.ingest(&[]).ended(1).says("store version 2");
}

/// Something else where a file of the store should be is named at once, by whatever reads it: no link is followed, no
/// pipe waited for.
#[test]
#[cfg(unix)]
fn links_and_pipes_in_a_store_are_named_by_every_command() {
    let flower = "maps/prompt_000_vid001/flower@";
    for (start, end) in [
        ("zarr.json", "zarr.json"),
        ("index/steps", "prompt_000_vid001.parquet"),
        ("index/heads", "prompt_000_vid001.parquet"),
        (flower, "attention/zarr.json"),
        (flower, "attention/c.0.0.0.0.0"),
    ] {
        for is_pipe in [false, true] {
            let place = small_store();
            let mut known = files(&place.store()).into_keys();
            let is_meant =
                |path: &PathBuf| path.to_str().is_some_and(|name| name.starts_with(start) && name.ends_with(end));
            let file = known.find(is_meant).unwrap();
            let path = place.store().join(&file);
            let outside = place.path("outside");
            fs::rename(&path, &outside).unwrap();
            let before = fs::read(&outside).unwrap();
            if is_pipe {
                make_fifo(&path);
            } else {
                std::os::unix::fs::symlink(&outside, &path).unwrap();
            }
            let kind = if is_pipe { "a pipe" } else { "a link" };
            let mut named = 0;
            for command in [
                vec!["verify", "a.store"],
                vec!["info", "a.store"],
                vec!["gc", "a.store"],
                vec!["export", "a.store", "--out", "dump"],
                vec!["query", "average", "a.store", "--with", "max"],
                vec!["query", "list", "a.store", "--table", "heads"],
                vec!["ingest", "attention_maps", "--store", "a.store"],
            ] {
                let told = place.run(&command);
                named += usize::from((told.out + &told.err).contains(kind));
            }
            assert!(named > 1, "{}: {kind} is named {named} times", file.display());
            assert_eq!(fs::read(&outside).unwrap(), before);
        }
    }
}

/// A packed store of the first version, as it was written when that was frozen: two dumps, the second one packed with
/// the first.
#[test]
fn a_packed_store_that_was_kept_says_what_it_said_and_is_added_to() {
    let place = Place::new();
    copy_tree(&fixture("stores/version_1_packed"), &place.path("old.store"));
    let ingest = |dump: &str, store: &str, options: &[&str]| {
        let dump = fixture(dump);
        let command = ["ingest", dump.to_str().unwrap(), "--store", store, "-q"];
        place.run(command.iter().chain(options)).ended(0);
    };
    ingest("variants/averaged", "fresh.store", &["--rollups", "all"]);
    ingest("variants/torch", "fresh.store", &["--prefix", "other", "--rollups", "all"]);
    let said = |store: &str| {
        [
            vec!["query", "average", store, "--over", "block,head,step", "--format", "csv"],
            vec!["query", "list", store, "--columns", "video_id,token,step,content_hash", "--format", "csv"],
            vec!["query", "list", store, "--table", "heads", "--format", "csv"],
        ]
        .map(|question| place.run(question).ended(0).out)
    };
    let before = said("old.store");
    assert_eq!(before, said("fresh.store"));
    place.run(["verify", "old.store"]).ended(0);
    assert_eq!(place.run(["gc", "old.store"]).ended(0).out, "nothing to remove\n");
    assert_eq!(place.run(["compact", "old.store"]).ended(0).out, "nothing to pack\n");
    ingest("variants/gzip", "old.store", &["--prefix", "new"]);
    for compacted in [false, true] {
        if compacted {
            place.run(["compact", "old.store"]).ended(0).says("");
        }
        let now = said("old.store");
        assert_eq!(
            now[1].lines().filter(|line| !line.starts_with("new/")).collect::<Vec<_>>(),
            before[1].lines().collect::<Vec<_>>()
        );
        place.run(["verify", "old.store"]).ended(0);
    }
    assert_eq!(list(&place.path("old.store/index/steps")).len(), 1);
}

/// One store of each version that was released, as it was written then.
#[test]
fn stores_of_every_version_open_and_say_what_they_said() {
    let (dump, stores) = (fixture("variants/averaged"), fixture("stores"));
    let dump = dump.to_str().unwrap();
    let versions = list(&stores).into_iter().filter(|store| !store.ends_with("version_1_packed")).collect::<Vec<_>>();
    assert_eq!(versions.len() as u64, STORE_VERSION);
    for version in versions {
        let place = Place::new();
        copy_tree(&version, &place.path("old.store"));
        place.run(["ingest", dump, "--store", "fresh.store", "-q"]).ended(0);
        place.run(["verify", "old.store"]).ended(0);
        let circles = |store: &str| {
            place
                .run(["query", "average", store, "--token", "circle", "--over", "step", "--format", "csv"])
                .ended(0)
                .out
        };
        assert_eq!(circles("old.store"), circles("fresh.store"));
        assert_eq!(place.run(["gc", "old.store"]).ended(0).out, "nothing to remove\n");
        // Columns that were added since are null, beside rows that have them.
        let counted = || {
            let statement = "SELECT COUNT(*) AS n, COUNT(pieces) AS told FROM steps";
            let counts = place.run(["query", "sql", "old.store", statement, "--format", "csv"]).ended(0).out;
            let counts = counts.lines().last().unwrap().split(',').map(|count| count.parse().unwrap());
            counts.collect::<Vec<usize>>()
        };
        let [old, 0] = counted()[..] else { panic!("{:?}", counted()) };
        let new = fixture("variants/torch");
        place.run(["ingest", new.to_str().unwrap(), "--store", "old.store", "--prefix", "new", "-q"]).ended(0);
        assert_eq!(counted(), [old + 6, 6]);
        let unknown = ["query", "list", "old.store", "--where", "pieces IS NULL AND call IS NULL", "--format", "csv"];
        assert_eq!(place.run(unknown).ended(0).out.lines().count(), old + 1);
        place.run(["verify", "old.store"]).ended(0);
    }
}

fn of_version_2(text: &str) -> String {
    let mut document: Value = serde_json::from_str(text).unwrap();
    document["attributes"]["attnkit"]["store_version"] = 2.into();
    document["attributes"]["attnkit"]["attnkit_version"] = "9.1.0".into();
    document.to_string()
}

// Export.

/// Expects the same files in two directories: equal arrays in step files, equal values in JSON.
#[track_caller]
fn assert_same_dump(left: &Path, right: &Path) {
    let (left, right) = (files(left), files(right));
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (path, left) in &left {
        let right = &right[path];
        if path.extension().is_some_and(|extension| extension == "json") {
            let json = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
            assert_eq!(json(left), json(right), "{}", path.display());
        } else {
            assert!(npy_parts(left) == npy_parts(right), "{}", path.display());
        }
    }
}

#[test]
fn export_gives_back_the_dump_value_for_value() {
    let place = small_store();
    // Keys that attnkit does not know, and odd values of those it does.
    place
        .word(SECOND, "tree")
        .with_key("seed", Value::Null)
        .with_key("cfg_scale", Value::Null)
        .with_key("aggregation_method", "mean")
        .with_key("note", json!({"by": ["hand", 1.5]}))
        .with_key("num_blocks", 99)
        .with_key("total_steps", "many")
        .steps([3]);
    place.ingest(&[]).clean();
    place.run(["export", "a.store", "--out", "restored"]).succeeded();
    assert_same_dump(&place.path("restored/attention_maps"), &place.dump());
}

#[test]
fn the_bundled_real_dump_comes_back_value_for_value() {
    let place = Place::new().with_fixture("dataset");
    place.ingest(&[]).clean();
    place.run(["export", "a.store", "--out", "restored"]).succeeded();
    assert_same_dump(&place.path("restored/attention_maps"), &place.dump().join("attention_maps"));
}

#[test]
fn all_layouts_and_formats_of_export_are_the_same_dump() {
    let place = small_store();
    for (layout, format, file) in [
        ("flat", "npy.gz", "prompt_000_vid001/token_flower/step_000.npy.gz"),
        ("nested", "npy", "prompt_000/vid001/token_flower/step_000.npy"),
        ("nested", "npy.gz", "prompt_000/vid001/token_two people/step_005.npy.gz"),
    ] {
        let out = format!("{layout}-{format}");
        place.run(["export", "a.store", "--out", &out, "--layout", layout, "--format", format]).succeeded();
        assert!(place.path(&out).join("attention_maps").join(file).is_file());
        let again = Place::new();
        again.ingest_from(&[place.path(&out)], &[]).clean();
        assert!(again.exported() == place.exported());
    }
}

#[test]
fn export_writes_into_an_empty_directory_only() {
    let place = small_store();
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out/mine"), b"precious").unwrap();
    let before = tree(&place.path(""));
    place.run(["export", "a.store", "--out", "out"]).ended(1).says("exists and is not empty");
    place.run(["export", "a.store", "--out", "out/mine"]).ended(1);
    assert_eq!(tree(&place.path("")), before);
    fs::remove_file(place.path("out/mine")).unwrap();
    place.run(["export", "a.store", "--out", "out"]).succeeded();
    place.run(["export", "a.store", "--out", "out"]).ended(1);
}

#[test]
fn an_interrupted_export_goes_on() {
    let place = small_store();
    let shard = files(&place.store()).into_keys().find(|name| {
        let name = name.to_string_lossy();
        name.contains("flower@") && name.contains(VIDEO) && name.contains("/attention/c.")
    });
    let shard = place.store().join(shard.unwrap());
    let original = fs::read(&shard).unwrap();
    let mut flipped = original.clone();
    flipped[original.len() / 2] ^= 1;
    fs::write(&shard, flipped).unwrap();
    place.run(["export", "a.store", "--out", "out"]).ended(1);
    fs::write(&shard, original).unwrap();
    let written = files(&place.path("out"));
    let has = |name: &str| written.keys().any(|path| path.to_string_lossy().ends_with(name));
    assert!(has(".attnkit-export.json") && has("_metadata.json") && has(".npy"), "{:?}", written.keys());
    place.run(["export", "a.store", "--out", "out", "--format", "npy.gz"]).ended(1).says("of something else");
    place.run(["export", "a.store", "--out", "out"]).succeeded().says("were there already");
    place.run(["export", "a.store", "--out", "whole"]).succeeded();
    assert_eq!(files(&place.path("out")), files(&place.path("whole")));
    place.run(["export", "a.store", "--out", "out"]).ended(1).says("exists and is not empty");
}

#[test]
fn export_of_a_damaged_store_fails_and_says_where() {
    let place = small_store();
    let shard = place.generations()[0].join("attention/c.0.0.0.0.0");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[3] ^= 4;
    fs::write(shard, bytes).unwrap();
    place.run(["export", "a.store", "--out", "out"]).ended(1).says("attention");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bits_come_back_through_ingest_and_export(
        bits in proptest::collection::vec(any::<u16>(), 48),
        // NaN with a payload, infinities, negative zero, subnormals: those that are easily lost.
        special in proptest::sample::select(
            vec![0x7C01u16, 0x7E55, 0xFE00, 0xFFFF, 0x7C00, 0xFC00, 0x8000, 0x0001, 0x83FF],
        ),
        at in 0..48usize,
        codec in proptest::sample::select(vec!["fast", "balanced", "small", "none"]),
        packed in any::<bool>(),
    ) {
        let mut values: Vec<f16> = bits.iter().copied().map(f16::from_bits).collect();
        values[at] = f16::from_bits(special);
        let place = Place::new();
        let word = Word::new(&place.dump(), VIDEO, "flower").shaped([2, 1, 24, 1]);
        let file = npy_f16(&word.shape, &values);
        if packed {
            word.write(0, "npy.gz", &gzip(&file));
        } else {
            word.write(0, "npy", &file);
        }
        place.ingest(&["--codec", codec]).clean();
        let exported = place.exported();
        let step = &exported[Path::new("prompt_000_vid001/token_flower/step_000.npy")];
        prop_assert_eq!(npy_parts(step), npy_parts(&file));
        prop_assert_eq!(place.check(&[place.dump()]).faults, vec![]);
    }
}

/// Wants all work to stop.
struct Stopped;

impl Progress for Stopped {
    fn is_cancelled(&self) -> bool {
        true
    }
}

impl Observer for Stopped {}

#[test]
fn all_long_work_can_be_stopped_and_says_what_stays() {
    let place = small_store();
    let (dump, path, options) = (place.dump(), place.store(), IngestOptions::default());
    let store = Store::open(&path).unwrap();
    let source = Source::open(&dump, ReadOptions::default()).unwrap();
    let left = path.join("maps/left");
    fs::create_dir(&left).unwrap();
    let stopped: [(Error, &str); 10] = [
        (store.gc(&Stopped).unwrap_err().into(), "removed by then is removed"),
        (Dump::find_unless_cancelled(&[&dump], &Stopped).unwrap_err().into(), "search for steps was stopped"),
        (verify::run(&store, &VerifyOptions::default(), &Stopped).unwrap_err().into(), "everything was verified"),
        (repair::run(&path, &RepairOptions::default(), &Stopped).unwrap_err().into(), "the same repair goes on"),
        (
            export::run(&store, &place.path("out"), &ExportOptions::default(), &Stopped).unwrap_err().into(),
            "the same export goes on",
        ),
        (source.load(VIDEO, "flower", None, &Stopped).unwrap_err().into(), "everything was read"),
        (Average::new(Filter::all()).run(&store, &Stopped).unwrap_err().into(), "the answer was complete"),
        (estimate::measure(&dump, &Stopped).unwrap_err().into(), "committed before stays"),
        (ingest::dry_run(&[&dump], &path, &options, &Stopped).unwrap_err().into(), "committed before stays"),
        (
            ingest::run(&[&dump], place.path("b.store"), &options, &Stopped).unwrap_err().into(),
            "committed before stays",
        ),
    ];
    for (error, stays) in stopped {
        assert!(error.kind() == ErrorKind::Cancelled && error.to_string().contains(stays), "{error}");
    }
    assert!(left.exists() && store.gc(&Silent).unwrap().len() == 1 && !left.exists());
    place.assert_sound();
}
