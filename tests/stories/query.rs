//! Stories of `attnkit query`: what researchers ask, what is read for it, and what they are told when the question is
//! wrong. Values are judged in `tests/readers`, against numpy.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{self, Place, Told, npy_f32};
use attnkit::kernel::Reducer;
use attnkit::progress::Silent;
use attnkit::query::{Across, Align, Average, Compare, Dimension, Filter, Reduction};
use attnkit::store::Store;
use serde_json::Value;

const VIDEO: &str = "prompt_000_vid001";
/// Maps of 40 kB: a chunk is one block's heads, four chunks make a step.
const LARGE: [usize; 4] = [4, 3, 20_000, 1];
const OVER_BOTH: [Dimension; 2] = [Dimension::Block, Dimension::Head];

/// A store of two videos with two words of four steps each.
fn four_words() -> Place {
    let place = Place::new();
    for (number, video) in [(1, "prompt_000_vid001"), (2, "prompt_000_vid002")] {
        for token in ["flower", "tree"] {
            place.word(video, token).with_key("seed", number).steps(0..4);
        }
    }
    place.ingest(&["--rollups", "all"]).clean();
    place
}

/// A store of one word of three steps, each of four chunks.
fn four_chunks_a_step() -> Place {
    let place = Place::new();
    place.word(VIDEO, "flower").shaped(LARGE).with_key("video_width", Value::Null).steps(0..3);
    place.ingest(&["--rollups", "all"]).clean();
    place
}

/// Runs `attnkit query QUESTION a.store …`.
fn ask(place: &Place, question: &str, rest: &[&str]) -> Told {
    let arguments: Vec<&str> = ["query", question, "a.store"].into_iter().chain(rest.iter().copied()).collect();
    place.run(arguments)
}

/// The rows of an answer, as objects.
fn rows(place: &Place, question: &str, rest: &[&str]) -> Vec<Value> {
    let told = ask(place, question, &[rest, &["--format", "json"]].concat()).succeeded();
    serde_json::from_str(&told.out).unwrap()
}

fn average(filter: &str) -> Average {
    Average { values: false, ..Average::new(Filter::parse(filter).unwrap()) }
}

#[test]
fn only_chunks_that_hold_selected_maps_are_read() {
    let place = four_chunks_a_step();
    let store = Store::open(place.store()).unwrap();
    let lowest = rows(&place, "list", &["--table", "heads", "--sort", "entropy", "--limit", "1"]).remove(0);
    let by_statistic = format!("entropy <= {} AND step = {}", lowest["entropy"], lowest["step"]);
    for (filter, chunks, maps) in [
        ("block = 2", 3, 9),
        ("block = 2 AND step = 1", 1, 3),
        ("block IN (0, 3) AND head = 1", 6, 6),
        (by_statistic.as_str(), 1, 1),
        ("step = 2 AND head > 0", 4, 8),
    ] {
        let question = Average { reduction: Reduction { rollups: false, ..Reduction::default() }, ..average(filter) };
        let answer = question.run(&store, &Silent).unwrap();
        assert_eq!((answer.read.chunks, answer.read.bytes), (chunks, chunks * 3 * 40_000), "{filter}");
        let explained = question.explain(&store).unwrap();
        assert_eq!((explained.arrays[0].chunks, explained.arrays[0].decoded_bytes), (chunks, chunks * 3 * 40_000));
        assert_eq!(explained.maps, maps, "{filter}");
    }
}

#[test]
fn rollups_are_read_exactly_where_they_answer() {
    let place = four_words();
    let store = Store::open(place.store()).unwrap();
    let array = |filter: &str, over: &[Dimension], reduction: Reduction| -> &'static str {
        let question = Average { over: over.to_vec(), reduction, ..average(filter) };
        let explained = question.explain(&store).unwrap();
        let names: BTreeSet<&'static str> = explained.arrays.iter().map(|array| array.array).collect();
        assert_eq!(names.len(), 1, "{filter} {over:?}");
        assert_eq!(names.contains("attention"), !explained.no_rollup.is_empty() || over == [Dimension::Step]);
        names.first().copied().unwrap()
    };
    let mean = Reduction::default();
    assert_eq!(array("step >= 0", &OVER_BOTH, mean), "mean");
    assert_eq!(array("token = 'tree'", &[Dimension::Block, Dimension::Head, Dimension::Step], mean), "mean");
    assert_eq!(array("step = 1", &[Dimension::Block], mean), "mean_block");
    assert_eq!(array("step = 1", &[Dimension::Head], mean), "mean_head");
    assert_eq!(array("step = 1", &[Dimension::Step], mean), "attention");
    // All blocks of some heads: the mean over blocks still answers; some blocks of some heads: nothing does.
    assert_eq!(array("head = 1", &OVER_BOTH, mean), "mean_block");
    assert_eq!(array("block = 1", &OVER_BOTH, mean), "mean_head");
    assert_eq!(array("block = 1", &[Dimension::Block], mean), "attention");
    assert_eq!(array("block = 1 AND head = 1", &OVER_BOTH, mean), "attention");
    assert_eq!(array("block >= 0", &OVER_BOTH, mean), "mean");
    for other in [
        Reduction { reducer: Reducer::Max, ..mean },
        Reduction { reducer: Reducer::Sum, ..mean },
        Reduction { skipna: true, ..mean },
        Reduction { rollups: false, ..mean },
    ] {
        assert_eq!(array("step >= 0", &OVER_BOTH, other), "attention", "{other:?}");
    }
}

#[test]
fn rollups_and_full_arrays_give_the_same_maps() {
    let place = four_words();
    let store = Store::open(place.store()).unwrap();
    for (filter, over) in [
        ("step >= 0", &OVER_BOTH[..]),
        ("step > 1", &[Dimension::Block]),
        ("token = 'tree'", &[Dimension::Head]),
        ("head = 2", &OVER_BOTH),
        ("step >= 0", &[Dimension::Block, Dimension::Head, Dimension::Step, Dimension::Video]),
    ] {
        let with = |rollups: bool| {
            let reduction = Reduction { rollups, ..Reduction::default() };
            let question = Average { over: over.to_vec(), reduction, ..Average::new(Filter::parse(filter).unwrap()) };
            question.run(&store, &Silent).unwrap().maps.unwrap()
        };
        let (from_rollups, from_all) = (with(true), with(false));
        assert_eq!(from_rollups.maps, from_all.maps);
        for (a, b) in from_rollups.values.iter().zip(&from_all.values) {
            let ulp = f32::from_bits(a.to_bits() + 1) - a;
            assert!((a - b).abs() <= ulp, "{filter} {over:?}: {a} {b}");
            assert!(over.contains(&Dimension::Step) || a == b, "a stored mean is the mean");
        }
    }
}

#[test]
fn the_same_question_gives_the_same_bits_with_any_number_of_threads() {
    let place = Place::new();
    for video in ["a", "b", "c"] {
        let word = place.word(video, "flower").shaped([3, 4, 500, 2]).with_key("video_width", Value::Null);
        for step in 0..5 {
            // Float32 of many magnitudes, so that every order of additions rounds differently.
            let values: Vec<f32> = word
                .values(step)
                .iter()
                .enumerate()
                .map(|(i, value)| value.to_f32() * [1.0, 1e3, 1e6][i % 3])
                .collect();
            word.write(step, "npy", &npy_f32(&word.shape, &values));
        }
    }
    place.ingest(&[]).clean();
    for reducer in ["mean", "sum", "std", "median", "max"] {
        for over in ["block,head", "video,step", "video,token,step,block,head"] {
            let answers: Vec<Vec<u8>> = ["1", "2", "5"]
                .iter()
                .map(|threads| {
                    let arguments =
                        ["--over", over, "--with", reducer, "--threads", threads, "-o", "a.parquet", "--no-rollups"];
                    ask(&place, "average", &arguments).succeeded();
                    std::fs::read(place.path("a.parquet")).unwrap()
                })
                .collect();
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{reducer} over {over}");
        }
    }
    let compared: BTreeSet<String> = ["1", "2", "5"]
        .iter()
        .map(|threads| {
            ask(&place, "compare", &["--across", "video", "--threads", threads, "--metric", "js,spearman"])
                .succeeded()
                .out
        })
        .collect();
    assert_eq!(compared.len(), 1);
}

#[test]
fn a_wrong_question_is_answered_with_what_would_be_right() {
    let place = four_words();
    for (question, rest, code, said) in [
        ("average", &["--where", "entropi < 3"][..], 2, "there is no column `entropi`; near it: entropy"),
        ("average", &["--where", "step < 'three'"], 2, "`step` is int32"),
        ("average", &["--where", "step <"], 2, "cannot be used"),
        ("average", &["--where", "step + 1"], 2, "not true or false"),
        ("average", &["--where", "token = \"flower\""], 2, "text is quoted with '…'"),
        (
            "average",
            &["--token", "house"],
            1,
            "in the store: words flower, tree; steps 0 to 3; blocks 0 to 1; heads 0 to 2; videos prompt_000_vid001, \
             prompt_000_vid002",
        ),
        ("average", &["--over", "blocks"], 2, "none of video, token, token_index, step, block, head"),
        ("average", &["-o", "a.xyz"], 2, "the extension names no format"),
        ("average", &["--format", "parquet"], 2, "name a file"),
        ("average", &["--sort", "mear"], 2, "there is no column `mear`; near it: mean"),
        ("average", &["--sort", "mean:down"], 2, "neither asc nor desc"),
        ("list", &["--columns", "video"], 2, "near it: video_id"),
        ("list", &["--columns", "block"], 2, "--table heads"),
        ("list", &["-o", "a.npy"], 2, "npy holds maps"),
        ("sql", &["DROP TABLE steps"], 2, "only read, with SELECT"),
        ("sql", &["SELECT entropi FROM heads"], 2, "near it: entropy"),
        ("sql", &["SELECT FROM"], 2, "cannot be run"),
        ("map", &["--token", "tree", "--step", "1"], 2, "choose one with --video ID"),
        ("map", &["--video", VIDEO, "--token", "tree"], 2, "choose one with --step N"),
        ("compare", &["--across", "seed"], 2, "choose one with --token WORD"),
        ("compare", &["--across", "prompt", "--token", "tree"], 2, "only one prompt"),
        ("compare", &["--across", "seed", "--token", "tree", "--against", "7"], 2, "there are: 1, 2"),
        ("compare", &["--across", "seed", "--token", "tree", "--metric", "cosin"], 2, "did you mean `cosine`"),
        ("compare", &["--across", "weight", "--token", "tree"], 1, "no weight"),
    ] {
        ask(&place, question, rest).ended(code).says(said);
    }
    place.run(["query", "average", "nowhere"]).ended(1).says("not an attnkit store");
}

#[test]
fn a_failed_answer_leaves_the_file_that_was_there() {
    let place = four_words();
    let file = place.path("answer.npy");
    std::fs::write(&file, "mine").unwrap();
    ask(&place, "list", &["-o", "answer.npy"]).ended(2);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    std::fs::create_dir(place.path("answer.zarr")).unwrap();
    std::fs::write(place.path("answer.zarr/mine"), "mine").unwrap();
    ask(&place, "average", &["-o", "answer.zarr"]).ended(1).says("in the way");
    assert!(place.path("answer.zarr/mine").exists());
    ask(&place, "average", &["-o", "other.zarr"]).succeeded();
    ask(&place, "average", &["-o", "other.zarr", "--token", "tree"]).succeeded();
}

#[test]
fn nothing_is_written_into_the_store_or_over_the_dump() {
    let place = Place::new();
    let word = place.word("a", "flower").steps(0..2);
    place.ingest(&[]).clean();
    let (store, dump) = (support::tree(&place.store()), support::tree(&place.dump()));
    for target in ["a.store/zarr.json", "a.store/index/steps/a.parquet", "a.store/new.csv", "a.store/maps/../x.csv"] {
        ask(&place, "list", &["-o", target, "--format", "csv"]).ended(2).says("is in the store");
    }
    std::os::unix::fs::symlink(place.store().join("zarr.json"), place.path("link.json")).unwrap();
    ask(&place, "list", &["-o", "link.json"]).ended(2).says("is in the store");
    place
        .run(["ingest", "dump", "--store", "a.store", "--report", "a.store/zarr.json"])
        .ended(2)
        .says("is in the store");
    let step = word.file("step_000_metadata.json").display().to_string();
    place.run(["ingest", "dump", "--store", "a.store", "--report", &step]).ended(2).says("is a file of a dump");
    assert_eq!((support::tree(&place.store()), support::tree(&place.dump())), (store, dump));
}

#[test]
fn sql_sees_the_two_tables_alone() {
    let place = Place::new();
    place.word("a", "flower").steps(0..2);
    place.ingest(&[]).clean();
    std::fs::write(place.path("secret.csv"), "a\nsecret\n").unwrap();
    for sql in [
        "SELECT * FROM read_csv('secret.csv')",
        "SELECT * FROM steps JOIN Read_CSV ('secret.csv') AS s ON true",
        "WITH s AS (SELECT * FROM read_parquet('http://localhost/x')) SELECT * FROM s",
        "SELECT * FROM 'secret.csv'",
        "SELECT * FROM \"secret.csv\"",
        "SELECT * FROM steps WHERE step IN (SELECT a FROM read_json('secret.csv'))",
    ] {
        let told = place.run(["query", "sql", "a.store", sql]).ended(2);
        assert!(!told.out.contains("secret\n") && told.out.is_empty(), "{told:?}");
    }
    let long = ["step = 1"; 300].join(" OR ");
    ask(&place, "list", &["--where", &format!("{long} OR {long}")]).ended(2).says("operators").says("IN");
    assert_eq!(rows(&place, "list", &["--where", &["step = 1"; 100].join(" OR ")]).len(), 1);
}

#[test]
fn maps_of_different_grids_are_not_averaged_silently() {
    let place = Place::new();
    place.word("a", "flower").steps(0..2);
    place.word("b", "flower").shaped([2, 3, 48, 1]).with_key("video_frames", 13).steps(0..2);
    place.ingest(&[]).clean();
    ask(&place, "average", &["--over", "video,block,head"]).ended(1).says("2x3x4 (a); 4x3x4 (b)");
    ask(&place, "compare", &["--across", "video"]).ended(1).says("different grids");
    assert_eq!(rows(&place, "average", &[]).len(), 4);
    let one = rows(&place, "average", &["--over", "video,block,head", "--where", "spatial = 48"]);
    assert_eq!((one.len(), &one[0]["frames"]), (2, &4.into()));
}

#[test]
fn an_axis_that_the_dump_averaged_is_named_once() {
    let place = Place::new().with_fixture("variants/per_head");
    place.ingest(&[]).clean();
    let told = ask(&place, "average", &["--over", "block"]).succeeded();
    assert_eq!(told.err.matches("blocks are averaged in the dump").count(), 1, "{}", told.err);
    let of_heads = rows(&place, "average", &["--over", "block"]);
    assert!(of_heads.iter().all(|row| row["n"] == 1));
    let kept = rows(&place, "average", &["--over", "step", "--limit", "1"]);
    assert_eq!((&kept[0]["block"], &kept[0]["head"]), (&Value::Null, &0.into()));
    assert!(ask(&place, "average", &["--where", "block = 0"]).code == 1, "no map has a block");
}

#[test]
fn steps_with_selected_maps_are_exported_and_verified() {
    let place = four_words();
    let condition = "token = 'tree' AND step < 2 AND video_id = 'prompt_000_vid002'";
    place.run(["export", "a.store", "--out", "some", "--where", condition]).succeeded();
    let files = support::tree(&place.path("some"));
    let steps: Vec<_> = files.keys().filter(|path| path.to_string_lossy().ends_with(".npy")).collect();
    assert_eq!(steps.len(), 2, "{files:?}");
    assert!(steps.iter().all(|path| path.to_string_lossy().contains("prompt_000_vid002/token_tree/step_00")));
    let told = place.run(["verify", "a.store", "--where", condition, "--against", "dump", "--json"]).succeeded();
    let report: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&report["steps"], &report["compared"], &report["videos"]), (&2.into(), &2.into(), &1.into()));
    place.run(["export", "a.store", "--out", "none", "--where", "token = 'house'"]).ended(1).says("no map matches");
    place.run(["verify", "a.store", "--where", "tokn = 'tree'"]).ended(2).says("near it: token");
}

#[test]
fn damage_is_found_only_by_those_who_read_it() {
    let place = four_chunks_a_step();
    let shard = find(&place.store(), "attention").join("c.0.0.0.0.0");
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    ask(&place, "average", &[]).succeeded();
    ask(&place, "average", &["--no-rollups"]).ended(1).says("attention");
    place.run(["verify", "a.store", "--where", "step = 0"]).succeeded();
    place.run(["verify", "a.store", "--where", "step = 1"]).ended(1);
}

fn find(store: &Path, array: &str) -> std::path::PathBuf {
    let word = support::list(&support::list(&store.join("maps")).into_iter().find(|path| path.is_dir()).unwrap());
    word.into_iter().find(|path| path.is_dir()).unwrap().join(array)
}

/// An answer replaces a file, and nothing behind a link; what killed commands left goes with the next.
#[test]
#[cfg(unix)]
fn answers_are_not_written_through_links_and_leftovers_go() {
    let place = four_words();
    std::fs::write(place.path("thesis.txt"), "mine").unwrap();
    for (link, to) in [("link.csv", "thesis.txt"), ("dangling.csv", "nowhere"), ("link.json", "thesis.txt")] {
        std::os::unix::fs::symlink(place.path(to), place.path(link)).unwrap();
    }
    for (question, answer) in [("list", "link.csv"), ("list", "dangling.csv"), ("average", "link.npy")] {
        ask(&place, question, &["-o", answer]).ended(1);
    }
    assert!(!place.path("nowhere").exists() && !place.path("link.npy").exists());
    assert_eq!(std::fs::read_to_string(place.path("thesis.txt")).unwrap(), "mine");
    ask(&place, "list", &["-o", "/dev/stdout", "--format", "csv"]).succeeded();
    let (old, young, held) = (place.path(".attnkit-a"), place.path(".attnkit-b"), place.path(".attnkit-c"));
    for left in [&old, &young, &held] {
        std::fs::write(left, "").unwrap();
    }
    for left in [&old, &held] {
        let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        std::fs::File::options().append(true).open(left).unwrap().set_modified(an_hour_ago).unwrap();
    }
    let lock = std::fs::File::open(&held).unwrap();
    lock.lock().unwrap();
    ask(&place, "list", &["-o", "rows.csv"]).succeeded();
    assert!(!old.exists() && young.exists() && held.exists());
}

#[test]
fn statistics_of_another_commit_are_not_trusted() {
    let place = four_words();
    let part = place.store().join("index/heads").join(format!("{VIDEO}.parquet"));
    std::fs::copy(place.store().join("index/heads/prompt_000_vid002.parquet"), &part).unwrap();
    let answer =
        ask(&place, "average", &["--where", "entropy > 0"]).ended(3).says("left out: ").says("of another commit");
    assert!(!answer.out.contains(VIDEO) && answer.out.contains("prompt_000_vid002"));
    ask(&place, "average", &["--where", "block = 0"]).succeeded();
}

#[test]
fn steps_are_matched_as_asked() {
    let place = Place::new();
    place.word("long", "flower").steps(0..6);
    // Half as many steps over the same time.
    for (step, time) in [(0, 999.0), (1, 975.0), (2, 949.0)] {
        place.word("short", "flower").with_key("timestep", time).steps([step]);
    }
    place.ingest(&[]).clean();
    let store = Store::open(place.store()).unwrap();
    let steps = |align: Align| -> Vec<Option<i32>> {
        let compare = Compare { align, ..Compare::new(Filter::all(), Across::Video) };
        let table = compare.run(&store, &Silent).unwrap().table;
        let cosine: Vec<Option<i32>> = table.column("step").unwrap().i32().unwrap().iter().collect();
        cosine.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    };
    assert_eq!(steps(Align::Step), [Some(0), Some(1), Some(2)]);
    assert_eq!(steps(Align::Timestep), [Some(0), Some(1), Some(2)]);
    assert_eq!((steps(Align::Last), steps(Align::Mean)), (vec![None], vec![None]));
    let value = |align: &str, step: i64, a: &str| {
        let told = rows(&place, "compare", &["--across", "video", "--metric", "l2", "--align", align, "--against", a]);
        told.into_iter().find(|row| row["step"] == step).unwrap()["value"].as_f64().unwrap()
    };
    // Step 2 of the short one, at 949, belongs to step 5 of the long one.
    assert!((value("timestep", 2, "long") - value("timestep", 2, "short")).abs() < 1e-12);
    assert!((value("timestep", 2, "long") - value("step", 2, "long")).abs() > 1e-9);
    ask(&place, "compare", &["--across", "video"]).succeeded().says("steps that are not in every video: 3");
}

#[test]
fn an_empty_selection_of_rows_is_an_empty_table() {
    let place = four_words();
    let told = ask(&place, "list", &["--where", "step > 90", "--columns", "video_id,step"]).succeeded();
    assert_eq!(told.out, "video_id,step\n");
}
