//! Stories of dumps that are damaged or hostile: each bad file is named, the rest is ingested, nothing else is touched.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::support::{
    self, Ingested, Place, SHAPE, Word, finished, gzip, gzip_bomb, make_fifo, npy, npy_f16, program, touch, tree,
    write_summary,
};
use attnkit::dump::{Dump, ReadOptions, StepReader};
use attnkit::ingest::{self, Event, IngestOptions, Observer};
use attnkit::progress::Progress;
use half::f16;

const VIDEO: &str = "prompt_000_vid001";

/// A place with steps 0 to 3 of one word; step 2 is there to be spoilt.
fn four_steps() -> (Place, Word) {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..4);
    place.word("prompt_001_vid001", "tree").steps(0..2);
    (place, word)
}

/// Ingests, and expects that exactly the files named are left out, that all else is in the store, and that nothing else
/// changed.
#[track_caller]
fn assert_only_left_out(place: &Place, files: &[&Path], steps: &[i64], found: &str) -> Ingested {
    let dump = tree(&place.dump());
    let outside = place.outside_the_store();
    let ingested = place.ingest(&[]).ended(3).says(found);
    for file in files {
        assert!(ingested.told.err.contains(&file.display().to_string()), "{ingested:?}");
    }
    let mut left_out: Vec<PathBuf> = ingested.left_out().into_iter().map(|left| left.0).collect();
    left_out.dedup();
    assert_eq!(left_out, files, "{:?}", ingested.left_out());
    assert_eq!(place.steps(VIDEO)["flower"], steps);
    assert_eq!(place.steps("prompt_001_vid001")["tree"], [0, 1]);
    place.assert_sound();
    assert_eq!(tree(&place.dump()), dump, "the dump was modified");
    assert_eq!(place.outside_the_store(), outside, "something was written outside the store");
    ingested
}

/// Replaces step 2 by something bad, and expects that just it is left out.
#[track_caller]
fn assert_step_2_left_out(extension: &str, contents: &[u8], found: &str) {
    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    let path = word.write(2, extension, contents);
    assert_only_left_out(&place, &[&path], &[0, 1, 3], found);
}

// What crashes and full disks leave.

#[test]
fn empty_files_are_left_out() {
    for extension in ["npy", "npy.gz", "pt", "pt.gz", "npz"] {
        assert_step_2_left_out(extension, b"", "the file is empty");
    }
}

#[test]
fn truncated_files_are_left_out() {
    let whole = npy_f16(&SHAPE, &Place::new().word(VIDEO, "flower").values(2));
    assert_step_2_left_out("npy", &whole[..whole.len() - 1], "promises 416 bytes for shape [2, 3, 24, 1], found 415");
    assert_step_2_left_out("npy", &whole[..100], "the header is cut off after 100 bytes");
    let packed = gzip(&whole);
    for length in [5, 40, packed.len() / 2, packed.len() - 3] {
        assert_step_2_left_out("npy.gz", &packed[..length], "gzip stream is damaged or cut off");
    }
    let fixture = support::fixture("variants/torch/attention_maps/prompt_000_vid001/token_circle/step_000.pt");
    let torch = fs::read(fixture).unwrap();
    assert_step_2_left_out("pt", &torch[..torch.len() / 2], "step_002.pt");
    assert_step_2_left_out("pt.gz", &gzip(&torch[..torch.len() / 2]), "step_002.pt.gz");
}

#[test]
fn trailing_bytes_are_no_part_of_an_array() {
    let whole = npy_f16(&SHAPE, &Place::new().word(VIDEO, "flower").values(2));
    assert_step_2_left_out("npy", &[&whole[..], b"x"].concat(), "found 417");
    assert_step_2_left_out("npy.gz", &gzip(&[&whole[..], b"x"].concat()), "found 417");
}

#[test]
fn a_tensor_without_metadata_and_metadata_without_a_tensor_are_named() {
    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002_metadata.json")).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002.npy")], &[0, 1, 3], "no metadata beside it");

    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002_metadata.json")], &[0, 1, 3], "metadata without a tensor");
}

#[test]
fn unreadable_metadata_is_named() {
    for (contents, found) in [
        (&b""[..], "the file is empty"),
        (b"{\"step\": 2, ", "not valid JSON"),
        (b"[1, 2]", "it is not an object"),
        (b"\xff\xfe{}", "not valid JSON"),
    ] {
        let (place, word) = four_steps();
        fs::write(word.file("step_002_metadata.json"), contents).unwrap();
        assert_only_left_out(&place, &[&word.file("step_002_metadata.json")], &[0, 1, 3], found);
    }
    let (place, word) = four_steps();
    let deep = [vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat();
    fs::write(word.file("step_002_metadata.json"), deep).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002_metadata.json")], &[0, 1, 3], "not valid JSON");
}

#[test]
fn an_unreadable_summary_costs_only_the_summary() {
    let (place, word) = four_steps();
    let summary = word.dir.with_file_name("summary.json");
    fs::write(&summary, b"{\"stored_steps\": [0, 1").unwrap();
    assert_only_left_out(&place, &[&summary], &[0, 1, 2, 3], "not valid JSON");
    assert_eq!(place.contents()["videos"][0]["has_summary"], false);
}

#[test]
fn gaps_in_the_steps_are_normal() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0, 5, 10, 20]);
    write_summary(&place.dump().join(VIDEO), &[0, 5, 10, 20], &["flower"]);
    let ingested = place.ingest(&[]).clean();
    assert_eq!(ingested.warnings(), Vec::<String>::new());
    assert_eq!(place.steps(VIDEO)["flower"], [0, 5, 10, 20]);
}

#[test]
fn of_two_runs_with_different_shapes_the_larger_one_is_kept() {
    let (place, word) = four_steps();
    let odd = word.clone().shaped([1, 1, 24, 1]);
    odd.write(2, "npy", &npy_f16(&odd.shape, &odd.values(2)));
    let found = "this step is float16 [1, 1, 24, 1], most steps of the word are float16 [2, 3, 24, 1]";
    assert_only_left_out(&place, &[&word.file("step_002.npy")], &[0, 1, 3], found);

    // Also where only the values, not the head of the file, tell it.
    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    fs::write(word.file("step_002.npy.gz"), gzip(&npy_f16(&odd.shape, &odd.values(2)))).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002.npy.gz")], &[0, 1, 3], found);

    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    let torch = support::fixture("variants/torch/attention_maps/prompt_000_vid001/token_circle/step_000.pt");
    fs::copy(torch, word.file("step_002.pt")).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002.pt")], &[0, 1, 3], "two runs in one directory?");
}

/// Spoils a file between the moment it is found and the moment it is read.
struct Meddler {
    path: PathBuf,
    once: Once,
}

impl Progress for Meddler {}

impl Observer for Meddler {
    fn event(&self, event: Event<'_>) {
        if let Event::Found { .. } = event {
            self.once.call_once(|| {
                fs::File::options().append(true).open(&self.path).unwrap().write_all(b"more").unwrap();
            });
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_left_for_the_next_run() {
    for name in ["step_002.npy", "step_002_metadata.json"] {
        let (place, word) = four_steps();
        let meddler = Meddler { path: word.file(name), once: Once::new() };
        let original = fs::read(word.file(name)).unwrap();
        if name.ends_with("json") {
            // Appended to JSON, `more` is damage; a longer number is only a change.
            fs::write(word.file(name), [&original[..original.len() - 1], b", \"x\": 1}  "].concat()).unwrap();
        }
        let report = ingest::run(&[place.dump()], place.store(), &IngestOptions::default(), &meddler).unwrap();
        assert_eq!((report.ingested, report.quarantined.len()), (5, 1), "{report:?}");
        assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 3]);
        fs::write(word.file(name), original).unwrap();
        assert_eq!(place.ingest(&[]).clean().counts(), (1, 5));
        place.assert_same_as_dump();
    }
}

#[test]
fn a_change_is_seen_even_if_the_size_stays() {
    let (place, word) = four_steps();
    let dump = Dump::find(&[place.dump()]).unwrap();
    let series = &dump.videos[0].series[0];
    assert!(StepReader::check_unchanged(&series.steps[2]).is_ok());
    touch(&word.file("step_002.npy"), 1);
    let error = StepReader::check_unchanged(&series.steps[2]).unwrap_err();
    assert!(error.to_string().contains("the file changed while it was read"), "{error}");
    assert!(StepReader::new(ReadOptions::default()).read(&series.steps[1], &series.split).is_ok());
}

// Hostile names.

#[test]
fn names_in_metadata_never_become_paths() {
    let place = Place::new();
    let evil = "../../../../x";
    place.word(VIDEO, "flower").with_key("token_word", evil).with_key("video_id", "/etc/passwd").steps([0]);
    place.word(VIDEO, "...").with_key("token_word", "..").steps([0]);
    place.word("x.._vid", "a\\..\\b").steps([0]);
    let outside = place.outside_the_store();
    let warnings = place.ingest(&[]).clean().warnings().join("\n");
    assert!(warnings.contains(evil) && warnings.contains("the directory counts"), "{warnings}");
    assert_eq!(place.outside_the_store(), outside);
    assert_eq!(place.steps(VIDEO).into_keys().collect::<Vec<_>>(), ["...", "flower"]);
    place.assert_same_as_dump();
    assert_exports_below(&place, 3);
}

#[test]
fn names_as_long_as_the_file_system_allows_are_no_problem() {
    let place = Place::new();
    let (a, b) = ("a".repeat(249), "a".repeat(248) + "é".get(..0).unwrap() + "b");
    place.word(&"v".repeat(250), &a).steps([0]);
    place.word(&"v".repeat(250), &b).steps([0]);
    place.word(&("v".repeat(249) + "W"), &"木".repeat(83)).steps([0]);
    place.ingest(&[]).clean();
    assert_eq!(place.videos().len(), 2);
    assert_eq!(place.steps(&"v".repeat(250)).into_keys().collect::<Vec<_>>(), [a, b]);
    place.assert_same_as_dump();
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 3));
}

#[test]
fn ids_longer_than_a_file_name_are_no_problem() {
    let place = Place::new();
    for batch in ["x".repeat(240), "y".repeat(240)] {
        Word::new(&place.dump().join(batch).join("b".repeat(100)), VIDEO, "flower").steps([0]);
    }
    place.ingest(&[]).clean();
    let ids = place.videos();
    assert!(ids.len() == 2 && ids.iter().all(|id| id.len() > 340 && id.ends_with(VIDEO)), "{ids:?}");
    place.assert_same_as_dump();
    place.ingest(&["--prefix", &"p/..".repeat(100)]).clean();
    assert_eq!(place.videos().len(), 4);
    place.assert_sound();
    assert_exports_below(&place, 4);
}

#[test]
fn names_of_any_script_and_bytes_are_kept() {
    let place = Place::new();
    for token in ["two people", "花", "naïve", "NUL", "nul", "con.txt", "~", "a@b", " ", "", "-rf", "*", "a:b", "|"] {
        place.word(VIDEO, token).steps([0]);
    }
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"token_\xff\xfe");
    let word = place.word(VIDEO, "odd").steps([0]);
    fs::rename(&word.dir, word.dir.with_file_name(odd)).unwrap();
    place.ingest(&[]).clean();
    assert_eq!(place.steps(VIDEO).len(), 15);
    place.assert_same_as_dump();
    for generation in place.generations() {
        let name = generation.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.~@".contains(&b)), "{name}");
    }
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 15));
}

#[test]
fn two_spellings_of_one_word_are_not_mixed() {
    let (place, _) = four_steps();
    let second = place.word(VIDEO, "flower:2.5").with_key("token_word", "flower").steps([0]);
    assert_only_left_out(&place, &[&second.dir], &[0, 1, 2, 3], "word `flower` was already found in");
}

/// Exports the store, and expects all step files below the target.
fn assert_exports_below(place: &Place, steps: usize) {
    let outside = place.outside_the_store();
    let exported = place.exported();
    assert_eq!(exported.keys().filter(|path| path.extension().is_some_and(|e| e == "npy")).count(), steps);
    assert_eq!(place.outside_the_store(), outside);
}

// Hostile file systems.

#[test]
fn symbolic_links_in_circles_end() {
    let (place, word) = four_steps();
    let video = word.dir.parent().unwrap();
    symlink(place.dump(), video.join("again")).unwrap();
    symlink("loop_b", place.dump().join("loop_a")).unwrap();
    symlink("loop_a", place.dump().join("loop_b")).unwrap();
    symlink(video, place.dump().join("prompt_009_vid001")).unwrap();
    symlink("step_007.npy", word.file("step_007.npy")).unwrap();
    symlink(&word.dir, word.file("token_flower")).unwrap();
    let before = tree(&place.dump());
    let ingested = place.ingest(&[]);
    assert!(matches!(ingested.told.code, 0 | 3), "{ingested:?}");
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
    assert_eq!(tree(&place.dump()), before);
    place.assert_sound();
}

#[test]
fn a_dangling_link_is_named() {
    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    symlink("/nowhere/at/all", word.file("step_002.npy")).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002.npy")], &[0, 1, 3], "is a link to /nowhere/at/all");
}

#[test]
fn a_linked_dump_is_ingested() {
    let (place, _) = four_steps();
    fs::rename(place.dump(), place.path("real")).unwrap();
    fs::create_dir(place.dump()).unwrap();
    symlink(place.path("real"), place.dump().join("attention_maps")).unwrap();
    assert_eq!(place.ingest(&[]).clean().counts(), (6, 0));
}

#[test]
fn named_pipes_and_devices_are_not_waited_for() {
    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    make_fifo(&word.file("step_002.npy"));
    assert_only_left_out(&place, &[&word.file("step_002.npy")], &[0, 1, 3], "not a regular file");
    place.run(["info", "dump"]).succeeded();

    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    symlink("/dev/zero", word.file("step_002.npy")).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002.npy")], &[0, 1, 3], "not a regular file");

    let (place, word) = four_steps();
    make_fifo(&word.dir.with_file_name("summary.json"));
    assert_eq!(place.ingest(&[]).told.code & !3, 0);
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
}

#[test]
fn a_named_pipe_in_place_of_metadata_is_not_waited_for() {
    for make in [make_fifo, |path: &Path| symlink("/dev/zero", path).unwrap()] {
        let (place, word) = four_steps();
        let path = word.file("step_002_metadata.json");
        fs::remove_file(&path).unwrap();
        make(&path);
        let ingested = place.ingest(&[]).ended(3).says("step_002");
        assert_eq!(ingested.left_out().len(), 1);
        assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 3]);
        place.run(["info", "dump"]).succeeded();
    }
}

#[test]
fn a_directory_in_place_of_a_file_is_named() {
    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002.npy")).unwrap();
    fs::create_dir(word.file("step_002.npy")).unwrap();
    assert_only_left_out(&place, &[&word.file("step_002.npy")], &[0, 1, 3], "not a regular file");

    let (place, word) = four_steps();
    fs::remove_file(word.file("step_002_metadata.json")).unwrap();
    fs::create_dir(word.file("step_002_metadata.json")).unwrap();
    let ingested = place.ingest(&[]).ended(3).says("step_002");
    assert_eq!(ingested.left_out().len(), 1);
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 3]);
}

// Hostile files.

#[test]
fn arrays_that_are_no_maps_are_left_out() {
    let zeros = [0u8; 288];
    for (contents, found) in [
        (npy("<i4", "2, 3, 12, 1", &zeros), "the array's type is `<i4`"),
        (npy("|O", "2, 3, 24, 1", b"cos\nsystem\n."), "object (a pickle, which is never loaded)"),
        (npy("<f2", "144,", &zeros), "shape is [144]; expected four non-empty axes"),
        (npy("<f2", "0, 3, 24, 1", b""), "shape is [0, 3, 24, 1]"),
        (npy("<f2", "1, 1, 2, 3, 24, 1", &zeros), "expected four non-empty axes"),
        (b"not an npy file at all".to_vec(), "not an npy file"),
        (b"\x93NUMPY\x09\x00".to_vec(), "not an npy file"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "not an npy file"),
        (npy("<f2", &"(".repeat(40), b""), "nested or structured"),
    ] {
        assert_step_2_left_out("npy", &contents, found);
        assert_step_2_left_out("npy.gz", &gzip(&contents), found);
    }
}

#[test]
fn no_memory_is_allocated_on_a_headers_word_alone() {
    let claims = ["1000000, 1000000, 1000000, 1", "18446744073709551615, 18446744073709551615, 4, 1"];
    for shape in claims {
        let array = npy("<f2", shape, b"few");
        let found = format!("[{shape}]");
        assert_step_2_left_out("npy", &array, &found);
        assert_step_2_left_out("npy.gz", &gzip(&array), &found);
        assert_step_2_left_out("npz", &zip_of(&[("attention.npy", &array)]), "step_002.npz");
    }
    assert_step_2_left_out("npy", &npy("<f2", "99999999999999999999999999, 1, 1, 1", b"few"), "step_002.npy");
}

#[test]
fn a_bomb_is_defused_in_little_memory() {
    const TEN_GB: usize = 10_000_000_000;
    let small = npy("<f2", "2, 3, 24, 1", &[0; 288]);
    let large = npy("<f2", "1, 1, 5000000000, 1", b"");
    for (extension, contents, found) in [
        ("npy.gz", gzip_bomb(b"", TEN_GB), "not an npy file"),
        ("npy.gz", gzip_bomb(&small, TEN_GB), "promises 416 bytes"),
        ("npy.gz", gzip_bomb(&large, TEN_GB), "shape is [1, 1, 5000000000, 1]"),
        ("pt.gz", gzip_bomb(b"", TEN_GB / 5), "attention maps do not"),
        ("pt.gz", gzip_bomb(b"PK\x03\x04", TEN_GB / 5), "attention maps do not"),
        ("npz", zip_bomb(&small, 1_000_000_000), "promises 416 bytes"),
    ] {
        let (place, word) = four_steps();
        fs::remove_file(word.file("step_002.npy")).unwrap();
        let path = word.write(2, extension, &contents);
        assert!(path.metadata().unwrap().len() < 16_000_000);
        // With 600 MB of address space (that is more than what is used), a process that unpacks 10 GB dies.
        let limited = "ulimit -v 600000 && exec \"$0\" ingest dump --store a.store --threads 1";
        let mut command = Command::new("sh");
        command.args(["-c", limited, program()]).current_dir(place.path(""));
        let output = finished(command, std::time::Duration::from_mins(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{extension} {found}: {said}");
        assert!(said.contains("step_002") && said.contains(found), "{said}");
        assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 3]);
    }
}

#[test]
fn the_limit_for_one_step_is_the_users_choice() {
    let (place, word) = four_steps();
    let told = place.ingest(&["--max-step-bytes", "400"]).ended(3).says("the limit is 400");
    assert_eq!(told.left_out().len(), 6);
    place.ingest(&["--max-step-bytes", "416"]).clean();
    assert_eq!(place.steps(VIDEO)["flower"].len(), 4, "{}", word.dir.display());
}

#[test]
fn nothing_is_ever_executed_from_a_torch_file() {
    let place = Place::new();
    let victim = place.path("executed");
    let command = format!("touch {}", victim.display());
    let length = u8::try_from(command.len()).unwrap();
    // cos\nsystem\n(U<command>tR. : call os.system(command), in three spellings.
    let global = [b"\x80\x02cposix\nsystem\nU", &[length][..], command.as_bytes(), b"\x85R."].concat();
    let named = [b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c", &[length][..], command.as_bytes(), b"\x85R."].concat();
    let instance = [b"(U", &[length][..], command.as_bytes(), b"iposix\nsystem\n."].concat();
    let builtin = [b"\x80\x02c__builtin__\neval\nU", &[length][..], command.as_bytes(), b"\x85R."].concat();
    let word = place.word(VIDEO, "flower").steps([9]);
    let mut bad = Vec::new();
    for (step, pickle) in (0..).zip([global, named, instance, builtin]) {
        let archive = zip_of(&[
            ("archive/data.pkl", &pickle),
            ("archive/byteorder", b"little"),
            ("archive/data/0", &[0; 288]),
            ("archive/version", b"3\n"),
        ]);
        bad.push(word.write(step, "pt", &archive));
        bad.push(word.write(step + 4, "pt.gz", &gzip(&pickle)));
    }
    bad.sort();
    let ingested = place.ingest(&[]).ended(3);
    assert_eq!(ingested.left_out().into_iter().map(|left| left.0).collect::<Vec<_>>(), bad);
    assert!(ingested.told.err.contains("posix") && ingested.told.err.contains("system"), "{}", ingested.told.err);
    assert!(!victim.exists());
    assert_eq!(place.steps(VIDEO)["flower"], [9]);
}

#[test]
fn damaged_archives_are_left_out() {
    let array = npy_f16(&[1, 1, 24, 1], &[f16::ONE; 24]);
    assert_step_2_left_out("npz", b"PK\x03\x04 and no more", "not a usable npz archive");
    assert_step_2_left_out("npz", &zip_of(&[("readme.txt", b"hello")]), "it holds no array");
    let mut archive = zip_of(&[("attention.npy", &array)]);
    let middle = archive.len() / 3;
    archive[middle] ^= 0xff;
    assert_step_2_left_out("npz", &archive, "step_002.npz");
    assert_step_2_left_out("pt", &zip_of(&[("a/data.pkl", b"garbage")]), "step_002.pt");
    assert_step_2_left_out("pt", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "step_002.pt"); // torch before 1.6
}

#[test]
fn no_single_changed_byte_of_a_torch_file_does_harm() {
    let fixture = support::fixture("variants/torch/attention_maps/prompt_000_vid001/token_circle/step_000.pt");
    let original = fs::read(fixture).unwrap();
    let pickle = original.windows(8).position(|window| window == b"data.pkl").unwrap();
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    for step in 0..400 {
        let mut changed = original.clone();
        let at = pickle + usize::try_from(step).unwrap();
        changed[at] ^= 1 << (step % 8);
        word.write(step, "pt", &changed);
    }
    let ingested = place.ingest(&[]);
    assert!(matches!(ingested.told.code, 0 | 3), "{ingested:?}");
    place.assert_sound();
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in entries {
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file(*name, stored).unwrap();
        archive.write_all(contents).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn zip_bomb(first: &[u8], zeros: usize) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file("attention.npy", options.compression_level(Some(1)).large_file(true)).unwrap();
    archive.write_all(first).unwrap();
    let piece = vec![0; 1 << 24];
    for _ in 0..zeros / piece.len() {
        archive.write_all(&piece).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
