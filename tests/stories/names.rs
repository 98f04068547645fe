//! Stories of dumps that are not as documented: chosen blocks, odd names and links, JSON as Python writes it, large
//! seeds. Nothing is dropped, renamed or rounded in silence, and `export` gives it all back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{self, Place, Word, gzip, npy_f16};
use serde_json::{Value, json};

const VIDEO: &str = "prompt_000_vid001";

/// Rows of an answer as JSON.
fn rows(place: &Place, arguments: &[&str]) -> Vec<Value> {
    let told = place.run([&["query"], arguments, &["--format", "json"]].concat()).succeeded();
    serde_json::from_str(&told.out).unwrap()
}

/// One column of `query list a.store`.
fn column(place: &Place, name: &str, condition: &str) -> Vec<Value> {
    let asked = ["list", "a.store", "--columns", name, "--where", condition];
    rows(place, &asked).into_iter().map(|row| row[name].clone()).collect()
}

// Chosen blocks and heads.

#[test]
fn chosen_blocks_keep_their_numbers_in_tables_arrays_questions_and_exports() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").shaped([1, 2, 12, 1]);
    for step in 0..2 {
        for block in [6, 8, 10, 12] {
            let name = format!("step_{step:03}_block_{block:02}");
            fs::write(word.file(&format!("{name}.npy")), npy_f16(&word.shape, &word.values(step * 100 + block)))
                .unwrap();
            let metadata = word.clone().with_key("block_idx", block).metadata(step);
            fs::write(word.file(&format!("{name}_metadata.json")), metadata.to_string()).unwrap();
        }
    }
    assert_eq!(place.ingest(&[]).clean().counts(), (2, 0));
    place.assert_same_as_dump();
    let blocks = |place: &Place| {
        rows(place, &["sql", "a.store", "SELECT DISTINCT block FROM heads ORDER BY block"])
            .into_iter()
            .map(|row| row["block"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(blocks(&place), [6, 8, 10, 12]);
    // A question for one block reads the file of that block.
    let asked = ["query", "average", "a.store", "--where", "block = 10 AND step = 1 AND head = 0", "-o", "ten.npy"];
    place.run(asked).succeeded();
    let written = fs::read(place.path("ten.npy")).unwrap();
    let floats: Vec<f32> =
        written[written.len() - 48..].chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let expected: Vec<f32> = word.values(110)[..12].iter().map(|value| value.to_f32()).collect();
    assert_eq!(floats, expected);
    let by_block = rows(&place, &["evolution", "a.store", "--by", "block", "--where", "step = 0"]);
    assert_eq!(by_block.iter().map(|row| row["block"].as_i64().unwrap()).collect::<Vec<_>>(), [6, 8, 10, 12]);
    place.run(["query", "map", "a.store", "--step", "0", "--block", "7"]).ended(1).says("blocks 6 to 12");
    assert!(place.run(["info", "a.store"]).succeeded().out.contains("blocks 6, 8, 10, 12"));
    // And back: a dump with one file a step, of which metadata says which blocks it has.
    place.run(["export", "a.store", "--out", "back"]).succeeded();
    let metadata = fs::read(place.path("back/attention_maps").join(VIDEO).join("token_flower/step_000_metadata.json"));
    let metadata: Value = serde_json::from_slice(&metadata.unwrap()).unwrap();
    assert_eq!(metadata["block_idx"], json!([6, 8, 10, 12]));
    fs::remove_dir_all(place.store()).unwrap();
    place.ingest_from(&[place.path("back")], &[]).clean();
    assert_eq!(blocks(&place), [6, 8, 10, 12]);
}

#[test]
fn a_file_of_one_block_is_of_that_block_and_not_averaged() {
    let place = Place::new();
    place.word(VIDEO, "flower").shaped([1, 2, 12, 1]).with_key("block_idx", 7).steps(0..2);
    place.word(VIDEO, "tree").shaped([1, 2, 12, 1]).steps(0..2);
    place.ingest(&[]).clean();
    place.assert_sound();
    let sql = "SELECT token, MIN(block) AS first, COUNT(block) AS known FROM heads GROUP BY token ORDER BY token";
    let found = rows(&place, &["sql", "a.store", sql]);
    assert_eq!(
        found,
        [json!({"token": "flower", "first": 7, "known": 4}), json!({"token": "tree", "first": null, "known": 0}),]
    );
}

#[test]
fn a_step_of_other_blocks_than_most_is_left_out_and_named() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").shaped([1, 2, 12, 1]);
    word.clone().with_key("block_idx", 7).steps(0..3);
    word.with_key("block_idx", 8).steps([3]);
    let ingested = place.ingest(&[]).ended(3).says("of block 8");
    assert_eq!(ingested.counts(), (3, 0));
    place.assert_sound();
}

// Names.

#[test]
fn a_linked_video_has_the_name_of_the_link() {
    let place = Place::new();
    for job in ["job_1", "job_2"] {
        Word::at(place.path(format!("scratch/{job}/out/token_flower")), "prompt_000_vid001", "flower").steps([0]);
    }
    fs::create_dir_all(place.dump()).unwrap();
    symlink(place.path("scratch/job_1/out"), place.dump().join("prompt_000_vid001")).unwrap();
    symlink("../scratch/job_2/out", place.dump().join("prompt_003_vid002")).unwrap();
    symlink("/nowhere/at/all", place.dump().join("prompt_004_vid001")).unwrap();
    place.ingest(&[]).ended(3).says("prompt_004_vid001: is a link to /nowhere/at/all, which is not there");
    assert_eq!(place.videos(), ["prompt_000_vid001", "prompt_003_vid002"]);
    // The dump itself may be a link, too; and a directory that is there twice is read once, under its own name.
    symlink(place.dump(), place.path("link")).unwrap();
    symlink("prompt_000_vid001", place.dump().join("again")).unwrap();
    fs::remove_file(place.dump().join("prompt_004_vid001")).unwrap();
    let ingested = place.ingest_from(&[place.path("link")], &[]).clean();
    assert_eq!(ingested.counts(), (0, 2));
    assert!(ingested.warnings().iter().any(|warning| warning.contains("same directory")), "{:?}", ingested.warnings());
}

#[test]
fn what_systems_leave_beside_a_dump_changes_no_id() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0]);
    for dir in ["__MACOSX/dump", "@eaDir", ".ipynb_checkpoints"] {
        Word::new(&place.dump().join(dir), VIDEO, "flower").steps([0]);
    }
    let word = place.dump().join(VIDEO).join("token_flower");
    for name in ["._step_000.npy", ".DS_Store", "Thumbs.db", ".nfs0000001"] {
        fs::write(word.join(name), "x").unwrap();
    }
    assert_eq!(place.ingest(&[]).clean().warnings(), Vec::<String>::new());
    assert_eq!(place.videos(), [VIDEO]);
}

#[test]
fn every_file_of_a_word_is_ingested_or_named() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..3);
    let array = npy_f16(&word.shape, &word.values(9));
    let odd =
        ["step_-1.npy", "step_999.5.npy", "step_2147483648.npy", "step_003.NPY", "step_7_final.npy", "step-8.npy"];
    for name in odd.iter().chain(&["step_001.npy.tmp", "maps.safetensors", "notes.txt"]) {
        fs::write(word.file(name), &array).unwrap();
    }
    fs::write(word.file("step_2.npy"), &array).unwrap();
    fs::write(word.file("step_2_metadata.json"), word.metadata(2).to_string()).unwrap();
    let ingested = place.ingest(&[]).ended(3);
    assert_eq!(ingested.counts(), (3, 0));
    let named: Vec<String> =
        ingested.left_out().into_iter().map(|(path, error)| format!("{} {error}", path.display())).collect();
    for name in odd.iter().chain(&["step_001.npy.tmp", "maps.safetensors", "step_2.npy"]) {
        assert!(named.iter().any(|left| left.contains(&format!("/{name} "))), "{name}: {named:?}");
    }
    assert!(ingested.report["warnings"].to_string().contains("notes.txt"));
    place.assert_sound();
    // `verify --against` names them before the dump is deleted.
    let told = place.run(["verify", "a.store", "--against", "dump"]).ended(3);
    assert!(told.out.contains("step_999.5.npy") && told.out.contains("step_2.npy"), "{}", told.out);
}

#[test]
fn verify_names_steps_that_were_not_ingested() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps(0..3);
    place.ingest(&["--every", "2"]).clean();
    let told = place.run(["verify", "a.store", "--against", "dump"]).ended(3);
    assert!(told.out.contains("not in the store:") && told.out.contains("step_001.npy"), "{}", told.out);
}

#[test]
fn a_dump_of_which_nothing_is_understood_is_a_failure() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    fs::write(word.file("step-000.npy"), npy_f16(&word.shape, &word.values(0))).unwrap();
    place.ingest(&[]).ended(1).says("nothing in it is understood").says("step-000.npy");
    assert!(!place.store().exists());
}

#[test]
fn a_word_is_one_however_its_characters_are_composed() {
    let place = Place::new();
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    place.word(VIDEO, composed).steps(0..2);
    let other = place.word("prompt_001_vid001", decomposed).steps(0..2);
    let ingested = place.ingest(&[]).clean();
    assert!(ingested.warnings().iter().any(|warning| warning.contains("decomposed")), "{:?}", ingested.warnings());
    for spelling in [composed, decomposed] {
        let told = place.run(["query", "list", "a.store", "--token", spelling, "--columns", "token"]).succeeded();
        assert_eq!(told.out, format!("token\n{}", format!("{composed}\n").repeat(4)));
    }
    // The same in a store that has the word already.
    fs::remove_dir_all(place.dump().join(VIDEO)).unwrap();
    other.steps([2]);
    place.ingest(&[]).clean();
    assert_eq!(column(&place, "token", "step = 2"), [json!(composed)]);
}

#[test]
fn no_file_of_a_store_has_a_name_that_readers_skip() {
    let place = Place::new();
    place.word("_hidden", "_flower").steps(0..2);
    place.ingest(&[]).clean();
    assert!(place.store().join("index/steps/~5fhidden.parquet").is_file());
    assert!(place.generations()[0].ends_with(Path::new("~5fhidden").join(place.generations()[0].file_name().unwrap())));
    assert!(place.generations()[0].file_name().unwrap().to_str().unwrap().starts_with("~5fflower@"));
    // A store in which they have such names still opens, and goes on under them.
    for table in ["steps", "heads"] {
        let index = place.store().join("index").join(table);
        fs::rename(index.join("~5fhidden.parquet"), index.join("_hidden.parquet")).unwrap();
    }
    place.assert_sound();
    place.word("_hidden", "_flower").steps(0..3);
    assert_eq!(place.ingest(&[]).clean().counts(), (1, 2));
    assert_eq!(place.videos(), ["_hidden"]);
    assert_eq!(column(&place, "step", "block = 0").len(), 3);
    assert!(!place.store().join("index/steps/~5fhidden.parquet").exists());
    place.run(["gc", "a.store"]).succeeded();
    place.assert_sound();
}

// Weights, ids and words, there and back.

#[test]
fn weights_words_and_ids_survive_an_export() {
    let place = Place::new();
    let long = "é".repeat(115);
    let prompt = "a cat in 16:9 and 9:16";
    place.word("prompt_000_vid001", "cat:2.5").with_key("prompt", prompt).steps([0]);
    Word::at(place.dump().join("prompt_001_vid001/token_cat_2.5"), "prompt_001_vid001", "cat:2.5")
        .with_key("prompt", prompt)
        .steps([0]);
    Word::at(place.dump().join("prompt_002_vid001/token_16:9"), "prompt_002_vid001", "16:9").steps([0]);
    Word::at(place.dump().join("prompt_003_vid001/token_9_16"), "prompt_003_vid001", "9:16").steps([0]);
    Word::at(place.dump().join("prompt_004_vid001/token_cat:2.5"), "prompt_004_vid001", "cat").steps([0]);
    Word::at(place.dump().join("prompt_005_vid001").join(format!("token_{long}")), "prompt_005_vid001", &long)
        .steps([0]);
    assert_eq!(place.ingest(&["--prefix", "a/b"]).clean().warnings(), Vec::<String>::new());
    let told =
        |place: &Place| rows(place, &["list", "a.store", "--columns", "video_id,prompt_id,token,weight,token_ids"]);
    let before = told(&place);
    let of = |row: &Value| (row["token"].as_str().unwrap().to_owned(), row["weight"].as_f64());
    let cat = ("cat".to_owned(), Some(2.5));
    let expected = [cat.clone(), cat.clone(), ("16:9".into(), None), ("9:16".into(), None), cat, (long, None)];
    assert_eq!(before.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!(before[0]["video_id"], "a/b/prompt_000_vid001");
    for layout in ["flat", "nested"] {
        place.run(["export", "a.store", "--out", layout, "--layout", layout]).succeeded();
        let again = Place::new();
        assert_eq!(again.ingest_from(&[place.path(layout)], &[]).clean().warnings(), Vec::<String>::new());
        assert_eq!(told(&again), before, "{layout}");
        place.run(["verify", "a.store", "--against", layout]).succeeded();
    }
}

#[test]
fn prompts_that_a_store_knows_survive_an_export() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0]);
    fs::write(place.path("templates.txt"), "a beautiful [(flower:1.5)|(rose)] near a tree\n").unwrap();
    place.ingest(&["--prompts", place.path("templates.txt").to_str().unwrap()]).clean();
    let told = |place: &Place| rows(place, &["list", "a.store", "--columns", "prompt_id,template,variation,weight"]);
    let before = told(&place);
    assert_eq!((before[0]["weight"].as_f64(), before[0]["variation"].as_i64()), (Some(1.5), Some(0)));
    place.run(["export", "a.store", "--out", "back"]).succeeded();
    fs::remove_dir_all(place.store()).unwrap();
    place.ingest_from(&[place.path("back")], &[]).clean();
    assert_eq!(told(&place), before);
}

// Numbers and JSON.

#[test]
fn seeds_of_64_bits_tell_videos_apart_and_all_numbers_come_back_digit_for_digit() {
    let place = Place::new();
    let seeds = ["18446744073709551615", "18446744073709551614", "-9223372036854775808", "0"];
    for (number, seed) in seeds.iter().enumerate() {
        let video = format!("prompt_000_vid00{number}");
        let word = place.word(&video, "flower").steps(0..2);
        for step in 0..2 {
            let mut metadata = word.metadata(step).to_string();
            assert!(metadata.contains("\"seed\":999"));
            metadata = metadata
                .replace("\"seed\":999", &format!("\"seed\":{seed},\"x\":[1e400,0.10,123456789012345678901234567890]"));
            fs::write(word.file(&format!("step_00{step}_metadata.json")), metadata).unwrap();
        }
    }
    place.ingest(&[]).clean();
    let listed = place.run(["query", "list", "a.store", "--where", "step = 0", "--columns", "seed"]).succeeded();
    assert_eq!(listed.out, format!("seed\n{}\n", seeds.join("\n")));
    let select = |condition: &str| column(&place, "video_id", condition).len();
    assert_eq!(select("seed = 18446744073709551615"), 2);
    assert_eq!(select("seed IN (18446744073709551615, -9223372036854775808)"), 4);
    assert_eq!(select("seed > 9223372036854775807"), 4);
    assert_eq!(select("seed < 0"), 2);
    let sql = "SELECT seed, COUNT(*) AS n FROM steps GROUP BY seed ORDER BY seed";
    let by_seed = place.run(["query", "sql", "a.store", sql]).succeeded();
    assert_eq!(by_seed.out, "seed,n\n-9223372036854775808,2\n0,2\n18446744073709551614,2\n18446744073709551615,2\n");
    let compared = rows(&place, &["compare", "a.store", "--across", "seed", "--align", "mean", "--metric", "js"]);
    assert_eq!(compared.len(), 6);
    assert!(compared.iter().all(|row| row["value"].as_f64().unwrap() > 0.0));
    place.run(["export", "a.store", "--out", "back"]).succeeded();
    for (number, seed) in seeds.iter().enumerate() {
        let path = format!("back/attention_maps/prompt_000_vid00{number}/token_flower/step_001_metadata.json");
        let text = fs::read_to_string(place.path(path)).unwrap().replace([' ', '\n'], "");
        assert!(text.contains(&format!("\"seed\":{seed},")), "{text}");
        assert!(text.contains("\"x\":[1e400,0.10,123456789012345678901234567890]"), "{text}");
    }
}

#[test]
fn json_as_python_writes_it_costs_no_maps() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps(0..5);
    let edit = |step: i32, edit: &dyn Fn(String) -> Vec<u8>| {
        let path = word.file(&format!("step_00{step}_metadata.json"));
        fs::write(&path, edit(fs::read_to_string(&path).unwrap())).unwrap();
    };
    edit(0, &|text| text.replace("6.5", "NaN").replace("\"timestep\": 999.0", "\"timestep\": -Infinity").into_bytes());
    edit(1, &|text| [b"\xEF\xBB\xBF", text.as_bytes()].concat());
    edit(2, &|text| text.replacen('{', "{\"seed\": 1, \"note\": \"\\ud83d\",", 1).into_bytes());
    edit(3, &|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    let ingested = place.ingest(&[]).ended(3).says("step_003_metadata.json").says("UTF-16");
    assert_eq!(ingested.counts(), (4, 0));
    let said = ingested.warnings().join("\n");
    for what in [
        "`cfg_scale` is NaN",
        "`timestep` is -Infinity",
        "byte order mark",
        "`seed` is there more than once",
        "half a character",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert_eq!(column(&place, "seed", "step = 2"), [json!(999)]);
    assert_eq!(column(&place, "timestep", "step = 0"), [json!(null)]);
    place.assert_sound();
}

#[test]
fn gzip_is_read_as_gunzip_reads_it() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    let npy = |step: i32| npy_f16(&word.shape, &word.values(step));
    let (first, second) = (npy(0), npy(1));
    word.write(0, "npy.gz", &[gzip(&first[..90]), gzip(&first[90..])].concat());
    word.write(1, "npy.gz", &[gzip(&second), vec![0; 512]].concat());
    word.write(2, "npy.gz", &[gzip(&npy(2)), b"words".to_vec()].concat());
    word.write(3, "npy.gz", &npy(3));
    let ingested = place.ingest(&[]).ended(3).says("5 bytes behind the gzip stream").says("not gzip, as its name says");
    assert_eq!(ingested.counts(), (2, 0));
    for step in 0..2 {
        let expected: Vec<u8> = word.values(step).iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(place.values(VIDEO, "flower", step), expected);
    }
}

#[test]
fn times_before_1970_are_rounded_down() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower").steps([0]);
    let before = std::time::UNIX_EPOCH - std::time::Duration::from_nanos(1_500_500);
    for path in [word.file("step_000.npy"), word.file("step_000_metadata.json")] {
        fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    }
    place.ingest(&[]).clean();
    let found = rows(&place, &["sql", "a.store", "SELECT CAST(source_modified AS BIGINT) AS t FROM steps"]);
    assert_eq!(found[0]["t"], -1501);
}

// Which array of an npz.

#[test]
fn of_several_arrays_none_is_guessed_at() {
    let place = Place::new();
    let word = place.word(VIDEO, "flower");
    let archive = |arrays: &[(&str, Vec<u8>)]| {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, array) in arrays {
            archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            std::io::Write::write_all(&mut archive, array).unwrap();
        }
        archive.finish().unwrap().into_inner()
    };
    let npy = |step: i32| npy_f16(&word.shape, &word.values(step));
    let scalar = support::npy("<i8", "()", &7i64.to_le_bytes());
    word.write(0, "npz", &archive(&[("uncond", npy(10)), ("cond", npy(0))]));
    word.write(1, "npz", &archive(&[("cond", npy(1)), ("timestep", scalar)]));
    let ingested = place.ingest(&[]).ended(3).says("several arrays that can be a step: uncond, cond").says("--array");
    assert_eq!(ingested.counts(), (1, 0));
    assert!(ingested.warnings().iter().any(|warning| warning.contains("`cond` of it is taken")));
    let ingested = place.ingest(&["--array", "cond", "--replace"]).clean();
    assert_eq!(ingested.report["quarantined"], json!([]));
    let expected: Vec<u8> = word.values(0).iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(place.values(VIDEO, "flower", 0), expected);
    let group = fs::read(place.generations().last().unwrap().join("zarr.json")).unwrap();
    let group: Value = serde_json::from_slice(&group).unwrap();
    assert_eq!(group["attributes"]["attnkit"]["source_arrays"], json!(["cond"]));
    place.assert_same_as_dump();
    fs::remove_dir_all(place.store()).unwrap();
    place.ingest(&["--array", "none"]).ended(3).says("no array `none`").says("there are uncond, cond");
}

// Which is the dump, and which is the store.

#[test]
fn a_dump_where_a_store_is_wanted_and_a_store_where_a_dump_is_are_told_so() {
    let place = Place::new();
    place.word(VIDEO, "flower").steps([0]);
    place.ingest(&[]).clean();
    for command in
        [&["query", "list", "dump"][..], &["verify", "dump"], &["export", "dump", "--out", "x"], &["gc", "dump"]]
    {
        place.run(command).ended(1).says("it is a dump").says("attnkit ingest dump --store");
    }
    place.run(["ingest", "a.store", "--store", "b.store"]).ended(1).says("is a store").says("attnkit export a.store");
    place.run(["ingest", "dump", "--store", "dump"]).ended(1).says("it is a dump");
    assert!(!place.path("b.store").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn help_that_cannot_be_printed_is_a_failure() {
    let place = Place::new();
    let program = support::program();
    for arguments in ["--help", "--version", "ingest --help", "query compare -h"] {
        place_shell(&place, &format!("{program} {arguments} > /dev/full"), 1);
        place_shell(&place, &format!("{program} {arguments} > /dev/null"), 0);
    }
    // Nor does a standard error that is full end in a crash.
    place_shell(&place, &format!("{program} query list nowhere 2> /dev/full"), 1);
    place_shell(&place, &format!("{program} query 2> /dev/full > /dev/null"), 2);
}

#[cfg(target_os = "linux")]
fn place_shell(place: &Place, command: &str, code: i32) {
    let status = std::process::Command::new("sh").args(["-c", command]).current_dir(place.path("")).status().unwrap();
    assert_eq!(status.code(), Some(code), "{command}");
}

// Paths are not data.

#[test]
fn a_path_is_neither_data_nor_a_pattern() {
    let plain = Place::new();
    plain.word(VIDEO, "flower").steps(0..3);
    let asked = |store: &str| -> Vec<String> {
        let store = store.to_owned();
        let questions: [&[&str]; 4] = [
            &["list", &store, "--columns", "video_id,token,step,seed,height", "--format", "csv"],
            &[
                "list",
                &store,
                "--table",
                "heads",
                "--where",
                "step = 1 AND block = 1 AND seed = 999",
                "--columns",
                "step,block,head,gini,seed",
            ],
            &["average", &store, "--where", "height = 3", "--columns", "video_id,token,step,mean"],
            &["sql", &store, "SELECT step, COUNT(*) AS n, AVG(entropy) AS e FROM heads GROUP BY step ORDER BY step"],
        ];
        questions.iter().map(|question| plain.run([&["query"], *question].concat()).succeeded().out).collect()
    };
    plain.ingest(&[]).clean();
    let expected = asked("a.store");
    for dir in [
        "step=50/seed=1",
        "block=7/token=x",
        "height=480",
        "[a]",
        "a*b",
        "q?",
        "x{1,2}",
        "50% %20 #x",
        "s3:",
        "file:",
        "a\nb",
    ] {
        fs::create_dir_all(plain.path(dir)).unwrap();
        for store in [format!("{dir}/b.store"), plain.path(dir).join("c.store").to_str().unwrap().to_owned()] {
            plain.run(["ingest", "dump", "--store", &store]).succeeded();
            assert_eq!(asked(&store), expected, "{store}");
            plain.run(["verify", &store, "--where", "step = 1"]).succeeded();
        }
        let answer = format!("{dir}/answer.parquet");
        plain.run(["query", "evolution", "a.store", "-o", &answer]).succeeded();
        assert!(plain.path(&answer).is_file());
    }
}

#[test]
fn names_on_the_way_to_a_dump_mean_nothing() {
    let place = Place::new();
    // A batch that somebody keeps below the name of another prompt, and of a word.
    for dir in ["prompt_007", "token_dog", "token_dog/attention_maps", "p007_b001_s000"] {
        Word::new(&place.path(dir), VIDEO, "flower").steps([0]);
        let _ = fs::remove_dir_all(place.store());
        place.ingest_from(&[place.path(dir)], &[]).clean();
        let asked = ["list", "a.store", "--columns", "video_id,prompt_id,token"];
        assert_eq!(
            rows(&place, &asked),
            [json!({"video_id": VIDEO, "prompt_id": "prompt_000", "token": "flower"})],
            "{dir}"
        );
        fs::remove_dir_all(place.path(dir)).unwrap();
    }
}
