//! Stories of an ingest that goes well: every layout, format and option, and running it again.

use std::fs;

use crate::support::{self, Place, SHAPE, Word, gzip, npy, npy_f16, npy_f32, touch, tree, variants, write_summary};
use half::f16;
use serde_json::json;

const VIDEO: &str = "prompt_000_vid001";

/// A place with one video of two words, three steps each.
fn two_words() -> Place {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..3);
    place.word(VIDEO, "tree").steps(0..3);
    write_summary(&place.dump().join(VIDEO), &[0, 1, 2], &["flower", "tree"]);
    place
}

// Layouts and formats.

#[test]
fn every_format_a_generator_writes_is_ingested_bit_for_bit() {
    for variant in variants() {
        let place = Place::new().with_fixture(&format!("variants/{variant}"));
        let ingested = place.ingest(&[]).clean();
        assert_eq!(ingested.counts(), (6, 0), "{variant}");
        let told = place.run(["verify", "a.store", "--against", "dump"]).succeeded();
        assert!(told.out.contains("6 steps compared with the dump"), "{variant}: {}", told.out);
    }
}

#[test]
fn the_bundled_real_dump_is_ingested_bit_for_bit() {
    let place = Place::new().with_fixture("dataset");
    place.ingest(&[]).clean();
    place.assert_same_as_dump();
}

#[test]
fn all_directory_layouts_are_found_from_any_directory_above_or_in_them() {
    let place = Place::new();
    let root = place.dump().join("batch/attention_maps");
    for (dir, id) in [
        ("prompt_000_vid001", "prompt_000_vid001"),
        ("prompt_001/vid001", "prompt_001_vid001"),
        ("prompt_001/vid_002", "prompt_001_vid002"),
        ("prompt_002/p002_b001_s000", "p002_b001_s000"),
        ("my video", "my video"),
    ] {
        Word::at(root.join(dir).join("token_two people"), id, "two people").steps([0]);
    }
    fs::create_dir_all(place.dump().join("batch/configs")).unwrap();
    fs::write(place.dump().join("batch/batch_metadata.json"), "{}").unwrap();
    for dump in ["dump", "dump/batch", "dump/batch/attention_maps"] {
        let _ = fs::remove_dir_all(place.store());
        place.ingest_from(&[place.path(dump)], &[]).clean();
        let expected = ["my video", "p002_b001_s000", "prompt_000_vid001", "prompt_001_vid001", "prompt_001_vid002"];
        assert_eq!(place.videos(), expected, "{dump}");
        place.assert_same_as_dump();
    }
    for dump in ["dump/batch/attention_maps/prompt_001", "dump/batch/attention_maps/prompt_001/vid001/token_two people"]
    {
        let _ = fs::remove_dir_all(place.store());
        place.ingest_from(&[place.path(dump)], &[]).clean();
        assert_eq!(place.videos()[0], "prompt_001_vid001", "{dump}");
    }
}

#[test]
fn the_store_may_be_named_without_a_directory() {
    let place = two_words();
    place.run(["ingest", "dump", "--store", "maps.store"]).succeeded();
    place.run(["info", "maps.store"]).succeeded();
}

#[test]
fn batches_with_equal_video_ids_keep_apart() {
    let place = Place::new();
    for batch in ["sunny", "rainy"] {
        let root = place.dump().join(batch).join("attention_maps");
        Word::new(&root, VIDEO, "flower").with_key("prompt", batch).steps([0]);
        Word::new(&root, &format!("{batch}_only"), "flower").steps([0]);
    }
    place.ingest(&[]).clean();
    let ids = ["rainy/prompt_000_vid001", "rainy/rainy_only", "sunny/prompt_000_vid001", "sunny/sunny_only"];
    assert_eq!(place.videos(), ids);
    let contents = place.contents();
    assert_eq!(
        (&contents["videos"][0]["prompt"], &contents["videos"][2]["prompt"]),
        (&json!("rainy"), &json!("sunny"))
    );
    place.assert_same_as_dump();
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 4));
}

#[test]
fn weight_syntax_in_a_directory_name_is_read_as_weight() {
    let place = Place::new();
    place.word(VIDEO, "flower:2.5").with_key("token_word", "flower").steps([0]);
    let ingested = place.ingest(&[]).clean();
    assert_eq!(ingested.warnings(), Vec::<String>::new());
    assert_eq!(place.series(VIDEO, "flower")["weight"], 2.5);
}

#[test]
fn steps_beyond_999_come_last() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0, 999, 1000]);
    place.ingest(&[]).clean();
    assert_eq!(place.steps(VIDEO)["flower"], [0, 999, 1000]);
    place.assert_same_as_dump();
}

#[test]
fn a_plain_file_wins_over_a_gzipped_one() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps([0]);
    let other = npy_f16(&SHAPE, &word.values(17));
    fs::write(word.file("step_000.npy.gz"), gzip(&other)).unwrap();
    place.ingest(&[]).clean();
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&word.values(0)));
}

#[test]
fn big_endian_and_fortran_arrays_are_stored_in_c_order() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").shaped([1, 2, 3, 1]);
    let c_order: Vec<f16> = (0..6u8).map(|n| f16::from_f32(f32::from(n))).collect();
    let fortran = [0, 3, 1, 4, 2, 5].map(|index: usize| c_order[index].to_le_bytes()).concat();
    let header = npy("<f2", "1, 2, 3, 1", &fortran);
    let header = String::from_utf8_lossy(&header[10..128]).replace("'fortran_order': False", "'fortran_order': True ");
    word.write(0, "npy", &[b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &fortran].concat());
    let big_endian: Vec<u8> = c_order.iter().flat_map(|value| value.to_be_bytes()).collect();
    word.write(1, "npy", &npy(">f2", "1, 2, 3, 1", &big_endian));
    place.ingest(&[]).clean();
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&c_order));
    assert_eq!(place.values(VIDEO, "flower", 1), bytes(&c_order));
}

#[test]
fn an_npz_gives_its_array_named_attention() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, step) in [("aaa.npy", 5), ("attention.npy", 0)] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut archive, &npy_f16(&SHAPE, &word.values(step))).unwrap();
    }
    word.write(0, "npz", &archive.finish().unwrap().into_inner());
    place.ingest(&[]).clean();
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&word.values(0)));
}

#[test]
fn aggregates_are_left_aside() {
    let place = Place::new().with_fixture("variants/aggregate");
    let plain = Place::new().with_fixture("variants/gzip");
    let before = place.run(["info", "dump"]).succeeded();
    assert!(before.out.contains("2 aggregate files left aside"), "{}", before.out);
    place.ingest(&[]).clean();
    plain.ingest(&[]).clean();
    assert_eq!(place.exported(), plain.exported());
}

#[test]
fn split_files_become_one_step() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").shaped([1, 1, 24, 1]);
    let whole = word.clone().shaped([2, 3, 24, 1]).values(0);
    for (index, part) in whole.chunks(24).enumerate() {
        let (block, head) = (index / 3, index % 3);
        let stem = format!("step_000_block_{block:02}_head_{head:02}");
        fs::write(word.file(&format!("{stem}.npy")), npy_f16(&word.shape, part)).unwrap();
        let mut metadata = word.metadata(0);
        metadata["block_idx"] = block.into();
        metadata["head_idx"] = head.into();
        fs::write(word.file(&format!("{stem}_metadata.json")), metadata.to_string()).unwrap();
    }
    place.ingest(&[]).clean();
    assert_eq!(place.series(VIDEO, "flower")["shape"], json!([2, 3, 24, 1]));
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&whole));
}

#[test]
fn a_split_step_with_a_missing_file_names_it() {
    let place = Place::new().with_fixture("variants/split");
    let missing = "step_004_block_01_head_02";
    let dir = place.dump().join("attention_maps").join(VIDEO).join("token_circle");
    for suffix in [".npy", "_metadata.json"] {
        fs::remove_file(dir.join(format!("{missing}{suffix}"))).unwrap();
    }
    let ingested = place.ingest(&[]).ended(3).says("step_004_block_00_head_00.npy").says("missing: block_01_head_02");
    assert_eq!((ingested.counts(), ingested.left_out().len()), ((5, 0), 1));
    assert_eq!(place.steps(VIDEO)["circle"], [0, 9]);
}

#[test]
fn a_video_whose_words_were_not_found_is_kept_with_its_summary() {
    let place = two_words();
    write_summary(&place.dump().join("prompt_001_vid001"), &[], &[]);
    place.ingest(&[]).clean();
    let contents = place.contents();
    let video = &contents["videos"][1];
    assert_eq!(video["video_id"], "prompt_001_vid001");
    assert_eq!((&video["has_summary"], &video["tokens"]), (&json!(true), &json!([])));
    place.assert_sound();
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 6));
}

#[test]
fn metadata_that_lies_is_a_warning_and_the_array_counts() {
    let place = Place::new();
    place
        .word(VIDEO, "flower")
        .shaped([1, 12, 24, 1])
        .with_key("aggregation_method", "blocks_and_heads_averaged")
        .with_key("dtype", "torch.float32")
        .with_key("num_blocks", 30)
        .with_key("attention_shape", json!([1, 1, 24, 1]))
        .with_key("step", 7)
        .with_key("seed", "high")
        .steps([0]);
    write_summary(&place.dump().join(VIDEO), &[0, 5], &["flower"]);
    let warnings = place.ingest(&[]).clean().warnings().join("\n");
    for expected in
        ["12 heads", "torch.float32", "num_blocks 30", "[1, 1, 24, 1]", "step 7", "`seed`", "steps without files: 5"]
    {
        assert!(warnings.contains(expected), "{expected} is not in {warnings}");
    }
    let series = place.series(VIDEO, "flower");
    assert_eq!((&series["shape"], &series["dtype"]), (&json!([1, 12, 24, 1]), &json!("float16")));
    place.assert_same_as_dump();
}

#[test]
fn nan_and_infinity_are_kept_and_mentioned() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    let mut values = word.values(0);
    values[3] = f16::NAN;
    values[100] = f16::INFINITY;
    word.write(0, "npy", &npy_f16(&SHAPE, &values));
    let warnings = place.ingest(&[]).clean().warnings();
    assert_eq!(warnings, ["2 of 144 values are NaN or infinite; they are kept"]);
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&values));
    place.assert_same_as_dump();
}

// Running it again.

#[test]
fn a_second_run_does_nothing() {
    let place = two_words();
    assert_eq!(place.ingest(&[]).clean().counts(), (6, 0));
    let before = tree(&place.store());
    let again = place.ingest(&[]).clean();
    assert_eq!((again.counts(), &again.report["bytes_out"]), ((0, 6), &json!(0)));
    assert!(again.told.out.contains("0 steps ingested, 6 already there"), "{}", again.told.out);
    assert_eq!(tree(&place.store()), before);
}

#[test]
fn an_added_step_makes_a_new_generation_and_gc_removes_the_old_one() {
    let place = two_words();
    place.ingest(&[]).clean();
    let old = place.generations();
    place.word(VIDEO, "flower").steps([3]);
    assert_eq!(place.ingest(&[]).clean().counts(), (1, 6));
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
    let (flower, tree_word) = (&old[0], &old[1]);
    assert!(flower.join("attention/c.0.0.0.0.0").is_file(), "readers may still be in the old arrays");
    assert_eq!(place.generations().len(), 3, "the word that did not change keeps its arrays");
    place.assert_same_as_dump();

    let told = place.run(["gc", "a.store", "--dry-run"]).succeeded();
    assert!(told.out.starts_with(&format!("would remove a.store/maps/{VIDEO}/flower@")), "{}", told.out);
    assert!(flower.is_dir());
    place.run(["gc", "a.store"]).succeeded();
    assert!(!flower.exists() && tree_word.is_dir());
    assert_eq!(place.contents()["bytes"]["unreferenced"], 0);
    place.assert_same_as_dump();
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 7));
}

#[test]
fn a_changed_step_is_ingested_anew() {
    let place = two_words();
    place.ingest(&[]).clean();
    let word = place.word(VIDEO, "flower");
    let path = word.write(1, "npy", &npy_f16(&SHAPE, &word.values(40)));
    touch(&path, 10);
    assert_eq!(place.ingest(&[]).clean().counts(), (1, 5));
    assert_eq!(place.values(VIDEO, "flower", 1), bytes(&word.values(40)));
    place.assert_same_as_dump();
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 6));
}

#[test]
fn a_changed_metadata_file_is_ingested_anew() {
    let place = two_words();
    place.ingest(&[]).clean();
    let path = place.word(VIDEO, "flower").with_key("prompt", "a rose").write_metadata(0);
    touch(&path, 10);
    assert_eq!(place.ingest(&[]).clean().counts(), (1, 5));
    assert_eq!(place.contents()["videos"][0]["prompt"], "a rose");
}

#[test]
fn a_tensor_of_the_same_size_that_is_older_than_its_metadata_is_noticed() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps([0]);
    let set = |name: &str, seconds: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(word.file(name)).unwrap().set_modified(time).unwrap();
    };
    set("step_000.npy", 1_000);
    set("step_000_metadata.json", 9_000);
    place.ingest(&[]).clean();
    word.write(0, "npy", &npy_f16(&SHAPE, &word.values(5)));
    set("step_000.npy", 2_000);
    set("step_000_metadata.json", 9_000);
    assert_eq!(place.ingest(&[]).clean().counts(), (1, 0));
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&word.values(5)));
}

#[test]
fn metadata_of_another_size_is_noticed() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps([0]);
    let set = |seconds| {
        for name in ["step_000.npy", "step_000_metadata.json"] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options().write(true).open(word.file(name)).unwrap().set_modified(time).unwrap();
        }
    };
    set(1_000);
    place.ingest(&[]).clean();
    place.word(VIDEO, "flower").with_key("seed", 1_234_567).write_metadata(0);
    set(1_000);
    assert_eq!(place.ingest(&[]).clean().counts(), (1, 0));
    assert_eq!(place.contents()["videos"][0]["seed"], 1_234_567);
}

#[test]
fn another_run_in_the_same_directory_is_not_mixed_with_the_first() {
    let place = Place::new();
    place.word(VIDEO, "flower").with_key("seed", 11).steps(0..5);
    place.ingest(&[]).clean();
    fs::remove_dir_all(place.dump()).unwrap();
    place.word(VIDEO, "flower").with_key("seed", 12).steps(0..3);
    place.ingest(&[]).ended(3).says("of another run (seed 11, now 12)").says("--prefix").says("--replace");
    assert_eq!((place.steps(VIDEO)["flower"].len(), &place.contents()["videos"][0]["seed"]), (5, &json!(11)));
    place.ingest(&["--replace"]).clean();
    assert_eq!((place.steps(VIDEO)["flower"].len(), &place.contents()["videos"][0]["seed"]), (3, &json!(12)));
}

#[test]
fn steps_of_two_runs_in_one_directory_are_told() {
    let place = Place::new();
    place.word(VIDEO, "flower").with_key("seed", 11).steps(0..2);
    place.word(VIDEO, "flower").with_key("seed", 12).with_key("prompt", "a rose").steps(2..4);
    let warnings = place.ingest(&[]).clean().warnings().join("\n");
    assert!(warnings.contains("differ in seed (11, 12)") && warnings.contains("differ in prompt"), "{warnings}");
}

#[test]
fn another_video_of_the_same_id_is_refused_even_if_some_steps_are_alike() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..3);
    place.ingest(&[]).clean();
    let other = place.path("other");
    fs::rename(place.dump(), &other).unwrap();
    let moved = other.join(VIDEO).join("token_flower/step_001.npy");
    fs::copy(other.join(VIDEO).join("token_flower/step_000.npy"), moved).unwrap();
    let told = place.run(["ingest", "other", "--store", "a.store"]).ended(3);
    assert!(told.err.contains("is in the store already, with other contents"), "{told:?}");
}

#[test]
fn steps_of_another_grid_are_left_out() {
    let place = Place::new();
    let size = |width: u32, height: u32| {
        place.word(VIDEO, "flower").with_key("video_width", width).with_key("video_height", height)
    };
    size(64, 48).steps(0..3);
    let odd = size(48, 64).steps([3]);
    let ingested = place.ingest(&[]).ended(3).says("on the grid 2x4x3").says("on the grid 2x3x4");
    assert_eq!(ingested.left_out()[0].0, odd.file("step_003.npy"));
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2]);
}

#[test]
fn a_selection_of_steps_replaces_all_of_them() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..8);
    place.ingest(&[]).clean();
    place.ingest(&["--every", "4"]).clean();
    assert_eq!(place.steps(VIDEO)["flower"].len(), 8);
    let replaced = place.ingest(&["--every", "4", "--replace"]).clean();
    assert!(replaced.warnings().iter().any(|warning| warning.contains("6 steps of the store")), "{replaced:?}");
    assert_eq!(place.steps(VIDEO)["flower"], [0, 4]);
    place.assert_sound();
}

#[test]
fn a_touched_file_with_the_same_contents_is_not_written_again() {
    let place = two_words();
    place.ingest(&[]).clean();
    let old = place.generations();
    touch(&place.word(VIDEO, "flower").file("step_001.npy"), 10);
    let again = place.ingest(&[]).clean();
    assert_eq!((again.counts(), &again.report["bytes_out"]), ((0, 6), &json!(0)));
    assert_eq!(place.generations(), old);
    place.assert_same_as_dump();
    let before = tree(&place.store());
    place.ingest(&[]).clean();
    assert_eq!(tree(&place.store()), before, "the new time is remembered");
}

#[test]
fn steps_whose_files_vanished_or_got_damaged_stay_in_the_store() {
    let place = two_words();
    place.ingest(&[]).clean();
    let flower = place.word(VIDEO, "flower");
    let original = place.exported();
    fs::remove_file(flower.file("step_000.npy")).unwrap();
    fs::remove_file(flower.file("step_000_metadata.json")).unwrap();
    fs::write(flower.file("step_001.npy"), b"\x93NUMPY").unwrap();
    fs::remove_dir_all(place.word(VIDEO, "tree").dir).unwrap();
    place.ingest(&[]).ended(3).says("step_001.npy");
    place.assert_sound();
    assert_eq!(place.exported(), original);

    // Also when the word is written anew.
    flower.clone().steps([3]);
    place.ingest(&[]).ended(3).says("step_001.npy");
    place.assert_sound();
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
    let exported = place.exported();
    for (path, contents) in &original {
        assert_eq!(exported.get(path), Some(contents), "{}", path.display());
    }

    fs::remove_dir_all(place.dump().join(VIDEO)).unwrap();
    place.word("prompt_001_vid001", "tree").steps([0]);
    place.ingest(&[]).clean();
    assert_eq!(place.videos(), [VIDEO, "prompt_001_vid001"]);
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2, 3]);
}

#[test]
fn an_interrupted_video_gets_its_summary_later() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0]);
    place.ingest(&[]).clean();
    assert_eq!(place.contents()["videos"][0]["has_summary"], false);
    write_summary(&place.dump().join(VIDEO), &[0], &["flower"]);
    assert_eq!(place.ingest(&[]).clean().counts(), (0, 1));
    assert_eq!(place.contents()["videos"][0]["has_summary"], true);
}

#[test]
fn a_run_that_was_started_again_with_other_shapes_replaces_the_first_if_asked() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..4);
    place.ingest(&[]).clean();
    fs::remove_dir_all(&word.dir).unwrap();
    place.word(VIDEO, "flower").shaped([1, 3, 24, 1]).steps(0..2);
    let refused = place.ingest(&[]).ended(3);
    assert!(refused.left_out()[0].1.contains("--replace"), "{refused:?}");
    let replaced = place.ingest(&["--replace"]).clean();
    assert!(replaced.warnings()[0].contains("are replaced: [2, 3]"), "{replaced:?}");
    place.assert_same_as_dump();
}

#[test]
fn the_same_id_with_other_contents_is_refused_until_prefix_or_replace() {
    let place = two_words();
    place.ingest(&[]).clean();
    let original = place.exported();
    let other = place.path("other");
    let word = Word::new(&other, VIDEO, "flower");
    word.write(0, "npy", &npy_f16(&SHAPE, &word.values(40)));
    let from_other = |options: &[&str]| place.ingest_from(std::slice::from_ref(&other), options);

    from_other(&[]).ended(3).says("--prefix").says(other.to_str().unwrap());
    assert_eq!(place.exported(), original);

    from_other(&["--prefix", "night"]).clean();
    assert_eq!(place.videos(), ["night/prompt_000_vid001", VIDEO]);
    assert_eq!(place.values("night/prompt_000_vid001", "flower", 0), bytes(&word.values(40)));
    place.run(["verify", "a.store", "--against", "other", "--prefix", "night"]).succeeded();

    from_other(&["--replace"]).clean();
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&word.values(40)));
    place.assert_sound();
}

#[test]
fn words_of_two_videos_that_only_share_an_id_are_not_mixed() {
    let place = two_words();
    place.ingest(&[]).clean();
    let original = place.exported();
    let other = place.path("other");
    Word::new(&other, VIDEO, "rose").with_key("prompt", "a rose").with_key("seed", 1).steps(0..3);
    place.ingest_from(&[other], &[]).ended(3).says("--prefix");
    assert!(place.exported() == original);
}

#[test]
fn the_same_dump_moved_elsewhere_is_recognised() {
    let place = two_words();
    place.ingest(&[]).clean();
    let old = place.generations();
    fs::rename(place.dump(), place.path("moved")).unwrap();
    assert_eq!(place.ingest_from(&[place.path("moved")], &[]).clean().counts(), (0, 6));
    assert_eq!(place.generations(), old);
}

#[test]
fn settings_of_one_run_do_not_touch_words_it_does_not_select() {
    let place = two_words();
    place.ingest(&["--tokens", "flower", "--average", "heads", "--rollups", "none"]).clean();
    let before = place.series(VIDEO, "flower");
    place.ingest(&["--tokens", "tree"]).clean();
    assert_eq!(place.series(VIDEO, "flower"), before);
    assert_eq!(before["lossy"], json!({"average": ["head"]}));
    place.assert_same_as_dump();
}

#[test]
fn words_that_vanished_keep_their_settings_when_others_are_ingested_with_other_ones() {
    let place = two_words();
    place.ingest(&["--average", "heads"]).clean();
    let before = place.series(VIDEO, "tree");
    fs::remove_dir_all(place.word(VIDEO, "tree").dir).unwrap();
    place.ingest(&["--replace"]).clean();
    assert_eq!(place.series(VIDEO, "tree"), before);
    assert_eq!(place.series(VIDEO, "flower")["lossy"], json!({}));
    place.assert_sound();
}

#[test]
fn a_run_with_other_settings_keeps_what_is_there_until_replace() {
    let place = two_words();
    place.ingest(&[]).clean();
    let original = place.exported();
    let ingested = place.ingest(&["--average", "heads"]).clean().says("--replace");
    assert_eq!(ingested.counts(), (0, 6));
    assert!(place.exported() == original);
    place.word(VIDEO, "flower").steps([3]);
    place.ingest(&["--average", "heads"]).ended(3).says("--replace").says("token_flower");
    assert!(place.exported() == original);
    place.ingest(&["--average", "heads", "--replace"]).clean();
    assert_eq!(place.series(VIDEO, "flower")["shape"], json!([2, 1, 24, 1]));
    place.assert_same_as_dump();
}

// Options.

#[test]
fn videos_tokens_and_every_select() {
    let place = two_words();
    place.word("prompt_001_vid001", "tree").steps(0..6);
    place.ingest(&["--videos", "prompt_001*", "--tokens", "t?ee", "--every", "5"]).clean();
    assert_eq!(place.videos(), ["prompt_001_vid001"]);
    assert_eq!(place.steps("prompt_001_vid001")["tree"], [0, 5]);
    place.ingest(&["--tokens", "rose", "--tokens", "flow*"]).clean();
    assert_eq!(place.steps(VIDEO).into_keys().collect::<Vec<_>>(), ["flower"]);
    place.ingest(&[]).clean();
    assert_eq!(place.steps("prompt_001_vid001")["tree"], [0, 1, 2, 3, 4, 5]);
    assert_eq!(place.ingest(&["--every", "5"]).clean().counts(), (0, 4));
    place.assert_same_as_dump();
}

#[test]
fn a_selection_of_nothing_says_what_there_is() {
    let place = two_words();
    let ingested = place.ingest(&["--tokens", "rose"]).ended(2).says("words flower, tree");
    ingested.says("quote globs");
    assert!(!place.store().exists());
    place.ingest(&["--tokens", "a["]).ended(2).says("`a[` is not a glob");
}

#[test]
fn averaging_downsampling_and_narrowing_are_marked_as_lossy() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").with_key("dtype", "torch.float32");
    let values: Vec<f32> = (0..144u8).map(f32::from).collect();
    word.write(0, "npy", &npy_f32(&SHAPE, &values));
    let ingested = place.ingest(&["--average", "blocks,heads", "--downsample", "2", "--dtype", "float16"]).ended(0);
    assert!(ingested.warnings()[0].contains("no multiple of 2 x 2"), "{ingested:?}");
    let series = place.series(VIDEO, "flower");
    assert_eq!(series["shape"], json!([1, 1, 8, 1]));
    assert_eq!(series["grid"], json!({"frames": 2, "height": 2, "width": 2}));
    assert_eq!(
        series["lossy"],
        json!({"average": ["block", "head"], "downsample": 2,
               "downsampled_from": {"frames": 2, "height": 3, "width": 4}, "dtype": "float16"})
    );
    // Blocks and heads add 60 on average; windows are 2x2, and at the lower edge 1x2, which weigh half.
    let expected = [62.5f32, 64.5, 34.25, 35.25, 74.5, 76.5, 40.25, 41.25].map(f16::from_f32);
    assert_eq!(place.values(VIDEO, "flower", 0), bytes(&expected));
    place.assert_same_as_dump();
}

#[test]
fn what_was_lost_is_known_after_an_export_too() {
    let place = Place::new();
    place.word(VIDEO, "flower").with_key("seed", 7).steps(0..2);
    place.ingest(&["--average", "heads", "--downsample", "2", "--grid", "3x4x2", "--prefix", "run1"]).ended(0);
    let id = format!("run1/{VIDEO}");
    let lossy = place.series(&id, "flower")["lossy"].clone();
    let grid = json!({"frames": 3, "height": 4, "width": 2});
    assert_eq!(lossy, json!({"average": ["head"], "downsample": 2, "downsampled_from": grid}));
    place.run(["export", "a.store", "--out", "exported"]).succeeded();
    place.run(["ingest", "exported", "--store", "b.store", "--average", "blocks"]).succeeded();
    let told = place.run(["info", "b.store", "--json"]).succeeded();
    let again: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let word = &again["videos"][0]["tokens"][0];
    assert_eq!(again["videos"][0]["video_id"], id.as_str());
    let told = place.run(["query", "list", "b.store", "--columns", "prompt_id", "--limit", "1"]).succeeded();
    assert_eq!(told.out, "prompt_id\nrun1/prompt_000\n");
    assert_eq!(word["lossy"], json!({"average": ["block", "head"], "downsample": 2, "downsampled_from": grid}));
    assert_eq!(word["grid"], place.series(&id, "flower")["grid"]);
}

#[test]
fn a_tilde_behind_an_equals_sign_is_the_home_directory() {
    let place = two_words();
    let home = place.path("home");
    fs::create_dir(&home).unwrap();
    let told = std::process::Command::new(support::program())
        .args(["ingest", "dump", "--store=~/a.store", "--report=~/report.json"])
        .current_dir(place.path(""))
        .env("HOME", &home)
        .output()
        .unwrap();
    assert!(told.status.success(), "{told:?}");
    assert!(home.join("a.store/zarr.json").is_file() && home.join("report.json").is_file());
    assert!(!place.path("~").exists());
}

#[test]
fn a_named_grid_that_does_not_fit_leaves_that_of_the_metadata() {
    let place = two_words();
    let ingested = place.ingest(&["--grid", "3x3x3"]).clean();
    assert!(ingested.warnings().iter().any(|warning| warning.contains("it is not used")), "{ingested:?}");
    assert_eq!(place.series(VIDEO, "flower")["grid"], json!({"frames": 2, "height": 3, "width": 4}));
}

#[test]
fn dtype_float32_widens_without_loss() {
    let place = two_words();
    let ingested = place.ingest(&["--dtype", "float32"]).clean();
    assert!(!ingested.told.err.contains("as float32"), "{ingested:?}");
    let series = place.series(VIDEO, "flower");
    assert_eq!((&series["dtype"], &series["lossy"]), (&json!("float32"), &json!({})));
    place.assert_same_as_dump();
}

#[test]
fn a_batch_axis_is_not_guessed_at() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    let values: Vec<f32> = (0..48u8).map(f32::from).collect();
    word.write(0, "npy", &npy_f32(&[1, 2, 1, 24, 1], &values));
    place.ingest(&[]).ended(3).says("step_000.npy").says("--batch INDEX").says("--batch mean");
    place.ingest(&["--batch", "7"]).ended(3).says("--batch 7 is out of range");
    place.ingest(&["--batch", "1"]).clean();
    let second: Vec<u8> = values[24..].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(place.values(VIDEO, "flower", 0), second);
    assert_eq!(place.series(VIDEO, "flower")["lossy"], json!({"batch": 1}));
    place.ingest(&["--batch", "mean", "--replace"]).clean();
    let mean: Vec<u8> = (12..36u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    assert_eq!(place.values(VIDEO, "flower", 0), mean);
    place.assert_same_as_dump();
}

#[test]
fn a_batch_axis_of_one_is_dropped() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    word.write(0, "npy", &npy_f16(&[2, 1, 3, 24, 1], &word.values(0)));
    place.ingest(&[]).clean();
    assert_eq!(place.series(VIDEO, "flower")["shape"], json!([2, 3, 24, 1]));
    assert_eq!(place.series(VIDEO, "flower")["lossy"], json!({}));
}

#[test]
fn the_grid_can_be_named_where_metadata_does_not_tell_it() {
    let place = Place::new();
    let silent = |key| (key, serde_json::Value::Null);
    let mut word = place.word(VIDEO, "flower");
    for (key, value) in ["video_width", "video_height", "video_frames"].map(silent) {
        word = word.with_key(key, value);
    }
    word.steps([0]);
    let warnings = place.ingest(&[]).clean().warnings();
    assert_eq!((warnings.len(), &place.series(VIDEO, "flower")["grid"]), (1, &json!(null)), "{warnings:?}");
    place.ingest(&["--grid", "1x4x6", "--replace"]).clean();
    assert_eq!(place.series(VIDEO, "flower")["grid"], json!({"frames": 1, "height": 4, "width": 6}));
    let wrong = place.ingest(&["--grid", "1x1x5", "--replace"]).clean().warnings().join("\n");
    assert!(wrong.contains("--grid 1x1x5 has 5 positions, the maps have 24"), "{wrong}");
    place.ingest(&["--grid", "4x6"]).ended(2).says("FRAMESxHEIGHTxWIDTH");
    place.assert_sound();
}

#[test]
fn downsampling_needs_a_grid() {
    let place = Place::new();
    place.word(VIDEO, "flower").with_key("video_width", serde_json::Value::Null).steps([0]);
    place.ingest(&["--downsample", "2"]).ended(3).says("--grid FxHxW").says("token_flower");
    place.ingest(&["--downsample", "2", "--grid", "2x3x4"]).clean();
    assert_eq!(place.series(VIDEO, "flower")["shape"], json!([2, 3, 8, 1]));
    place.assert_same_as_dump();
}

#[test]
fn the_generators_settings_file_is_applied_and_unknown_keys_are_named() {
    let place = two_words();
    let settings = "attention_analysis_settings:\n  store_attention: true\n  storage_interval: 2\n  \
                    store_per_head: false\n  store_per_block: true\n  attention_threshold: 0.1\n";
    fs::write(place.path("settings.yaml"), settings).unwrap();
    place.ingest(&["--settings", "settings.yaml"]).clean().says("unknown key `attention_threshold`");
    assert_eq!(place.steps(VIDEO)["flower"], [0, 2]);
    assert_eq!(place.series(VIDEO, "flower")["shape"], json!([2, 1, 24, 1]));
    fs::write(place.path("settings.yaml"), "attention_analysis_settings:\n  storage_interval: never\n").unwrap();
    place.ingest(&["--settings", "settings.yaml"]).ended(2).says("`storage_interval`");
}

#[test]
fn a_flag_counts_more_than_the_settings_file() {
    let place = two_words();
    fs::write(place.path("settings.yaml"), "attention_analysis_settings:\n  storage_interval: 2\n").unwrap();
    place.ingest(&["--settings", "settings.yaml", "--every", "1"]).clean();
    assert_eq!(place.steps(VIDEO)["flower"], [0, 1, 2]);
}

/// The same store as an ingest with these rollups makes, without the dump.
#[test]
fn rollups_come_and_go_without_the_dump() {
    let place = two_words();
    place.word(VIDEO, "tree").steps(3..5);
    place.ingest(&["--rollups", "none"]).clean();
    let before = place.exported();
    let asked = |store: &str, over: &str| {
        place.run(["query", "average", store, "--over", over, "--format", "json", "--values"]).out.replace(store, "")
    };
    fs::rename(place.dump(), place.path("gone")).unwrap();
    assert!(place.run(["rollup", "a.store", "--rollups", "none"]).succeeded().out.contains("0 words of 0 steps"));
    let told = place.run(["rollup", "a.store", "--rollups", "all", "--tokens", "flower"]).succeeded();
    assert!(told.out.contains("1 word of 3 steps written anew, 0 had"), "{}", told.out);
    let bytes = |token: &str| place.series(VIDEO, token)["bytes"]["rollups"].as_u64().unwrap();
    assert!(bytes("flower") > 0 && bytes("tree") == 0);
    let told = place.run(["rollup", "a.store", "--rollups", "all"]).succeeded();
    assert!(told.out.contains("1 word of 5 steps written anew, 1 had"), "{}", told.out);
    place.assert_sound();
    assert_eq!(place.exported(), before);
    place.run(["gc", "a.store"]).succeeded();

    fs::rename(place.path("gone"), place.dump()).unwrap();
    assert_eq!(place.ingest(&["--rollups", "all"]).clean().counts(), (0, 8), "it is what this ingest would make");
    place.assert_same_as_dump();
    place.run(["ingest", "dump", "--store", "b.store", "--rollups", "all"]).succeeded();
    for over in ["block", "head", "block,head", "step"] {
        assert_eq!(asked("a.store", over), asked("b.store", over), "{over}");
    }
    let told = place.run(["rollup", "a.store", "--rollups", "none"]).succeeded();
    assert!(told.out.contains("2 words of 8 steps written anew") && told.out.contains("take 0 B now"), "{}", told.out);
    place.assert_same_as_dump();
    place.run(["rollup", "a.store", "--rollups", "all", "--videos", "nothing"]).ended(2).says("nothing is selected");
}

#[test]
fn rollups_can_be_left_out() {
    let place = two_words();
    place.ingest(&["--rollups", "none"]).clean();
    assert_eq!(place.contents()["bytes"]["rollups"], 0);
    assert!(place.generations().iter().all(|dir| !dir.join("mean").exists()));
    place.assert_same_as_dump();
    place.ingest(&["--rollups", "all", "--replace"]).clean();
    assert!(place.contents()["bytes"]["rollups"].as_u64().unwrap() > 0);
    place.assert_same_as_dump();
}

#[test]
fn every_codec_keeps_every_bit_and_another_one_is_no_reason_to_write_again() {
    for codec in ["fast", "balanced", "small", "none"] {
        let place = two_words();
        place.ingest(&["--codec", codec]).clean();
        place.assert_same_as_dump();
        assert_eq!(place.ingest(&["--codec", "fast"]).clean().counts(), (0, 6));
    }
}

#[test]
fn one_thread_makes_the_same_store_contents_as_many() {
    let (one, many) = (Place::new().with_fixture("dataset"), Place::new().with_fixture("dataset"));
    one.ingest(&["--threads", "1"]).clean();
    many.ingest(&["--threads", "8"]).clean();
    assert_eq!(one.exported(), many.exported());
    assert_eq!(one.contents()["videos"], many.contents()["videos"]);
    one.ingest(&["--threads", "0"]).ended(2);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let place = two_words();
    fs::write(place.word(VIDEO, "tree").file("step_002.npy"), b"").unwrap();
    let before = tree(&place.path(""));
    let told = place.run(["ingest", "dump", "--store", "a.store", "--dry-run"]).ended(3);
    assert!(told.out.contains("would ingest 5 steps of 1 video; 0 already there, 1 file left out"), "{}", told.out);
    assert!(told.out.contains("step_002.npy") && told.out.contains("nothing was written"), "{}", told.out);
    assert_eq!(tree(&place.path("")), before);
    place.ingest(&[]).ended(3);
    let before = tree(&place.store());
    let told = place.run(["ingest", "dump", "--store", "a.store", "--dry-run", "--tokens", "flower"]).succeeded();
    assert!(told.out.contains("would ingest 0 steps of 0 videos; 3 already there"), "{}", told.out);
    assert_eq!(tree(&place.store()), before);
}

#[test]
fn quiet_says_nothing_but_errors() {
    let place = two_words();
    place.word("prompt_001_vid001", "flower").with_key("dtype", "torch.float64").steps([0]);
    let told = place.ingest(&["--quiet"]).clean().told;
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    fs::write(place.word(VIDEO, "flower").file("step_003.npy"), b"").unwrap();
    let told = place.ingest(&["-q"]).ended(3).told;
    assert!(told.out.is_empty() && told.err.lines().count() == 1, "{told:?}");
    assert!(told.err.contains("step_003.npy"));
}

#[test]
fn on_error_fail_stops_and_leaves_a_store_that_opens() {
    let place = two_words();
    fs::write(place.word(VIDEO, "tree").file("step_001.npy"), b"").unwrap();
    place.ingest(&["--on-error", "fail"]).ended(1).says("error: ").says("step_001.npy").says("hint: ");
    place.assert_sound();
    place.ingest(&[]).ended(3);
    assert_eq!(place.steps(VIDEO)["tree"], [0, 2]);
    place.assert_sound();
    assert_eq!(place.ingest(&[]).ended(3).counts(), (0, 5), "also words with a bad file are there already");
}

#[test]
fn the_report_has_the_documented_keys() {
    let place = two_words();
    fs::write(place.word(VIDEO, "tree").file("step_003.npy"), b"").unwrap();
    place.word("prompt_001_vid001", "tree").with_key("num_heads", 99).steps([0]);
    let report = place.ingest(&[]).ended(3).report;
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut found = keys(&report);
    found.sort();
    assert_eq!(
        found,
        ["bytes_in", "bytes_out", "contents", "ingested", "quarantined", "seconds", "skipped", "warnings"]
    );
    assert_eq!(keys(&report["quarantined"][0]), ["path", "error"]);
    assert_eq!(keys(&report["warnings"][0]), ["path", "message"]);
    let npy_bytes = fs::metadata(place.word(VIDEO, "tree").file("step_000.npy")).unwrap().len();
    assert_eq!(report["bytes_in"], 7 * npy_bytes);
    assert!(report["bytes_out"].as_u64().unwrap() > 0 && report["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_directory_without_a_dump_and_a_store_that_is_none_are_errors_with_hints() {
    let place = two_words();
    fs::create_dir(place.path("empty")).unwrap();
    place.ingest_from(&[place.path("empty")], &[]).ended(1).says("no attention maps found").says("hint: ");
    place.ingest_from(&[place.path("nowhere")], &[]).ended(1).says("nowhere").says("hint: ");
    assert!(!place.store().exists());
    let told = place.run(["ingest", "dump", "--store", "dump"]).ended(1);
    told.says("not an attnkit store").says("hint: ");
    place.run(["ingest", "dump"]).ended(2);
    place.run(["info", "empty"]).ended(1).says("neither a store nor a dump");
}

#[test]
fn info_describes_a_dump_as_it_will_describe_the_store() {
    let place = Place::new().with_fixture("dataset");
    let dump = place.run(["info", "dump", "--json"]).succeeded();
    let dump: serde_json::Value = serde_json::from_str(&dump.out).unwrap();
    place.ingest(&[]).clean();
    let store = place.contents();
    assert_eq!((&dump["kind"], &store["kind"]), (&json!("dump"), &json!("store")));
    assert_eq!((&dump["steps"], &dump["bytes"]["raw"]), (&store["steps"], &store["bytes"]["raw"]));
    let told = place.run(["info", "a.store"]).succeeded();
    assert!(told.out.starts_with("store a.store (format version 1)\n"), "{}", told.out);
}

fn bytes(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
