//! Stories of prompts: templates on the command line, weights and templates in the tables, tokenizers.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{self, Place, Word, fixture, list, program, tree};
use attnkit::store::{StepRow, Store};
use serde_json::{Value, json};

const TEMPLATE: &str = "a beautiful [(flower:2.5) near a tree|(tree:3) next to a flower]";

fn json_of(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(&place.run(arguments).succeeded().out).unwrap()
}

// Templates.

#[test]
fn a_template_expands_to_prompts_weights_and_choices() {
    let place = Place::new();
    let found = json_of(&place, &["prompt", "expand", TEMPLATE, "--format", "json"]);
    let tree = &found[1];
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!(tree["prompt"], "a beautiful tree next to a flower");
    assert_eq!(tree["weighted_prompt"], "a beautiful (tree:3) next to a flower");
    assert_eq!(tree["tokens"], json!([{"word": "tree", "weight": 3.0}]));
    assert_eq!(
        tree["choices"],
        json!([{"bracket": 0, "option": 1, "text": "(tree:3) next to a flower", "weight": 1.0}])
    );
    assert_eq!(tree["prompt_id"], "prompt_001");
}

#[test]
fn templates_of_a_file_are_numbered_through() {
    let place = Place::new();
    let templates = fixture("dataset/templates.txt");
    let told =
        place.run(["prompt".as_ref(), "expand".as_ref(), templates.as_os_str(), "--format=csv".as_ref()]).succeeded();
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[0], "prompt_id,template,variation,prompt,weighted_prompt,tokens,choices");
    assert!(lines[8].starts_with("prompt_007,a red [(circle:1.5)|(circle:0.5)] above a blue (square),1,"));
    assert!(lines[8].ends_with("circle:0.5; square:1,0=(circle:0.5)"));
    let limited = place.run(["prompt", "expand", "[a|b] [1|2]", "--limit", "1", "--format", "table"]).succeeded();
    assert!(limited.out.contains("a 1") && !limited.out.contains("a 2") && limited.out.contains("4 variations in all"));
}

#[test]
fn a_million_variations_are_written_as_they_are_computed() {
    let place = Place::new();
    let template = "[0|1|2|3|4|5|6|7|8|9]".repeat(6);
    let told = place.run(["prompt", "expand", &template, "--format", "csv"]).succeeded();
    assert_eq!(told.out.lines().count(), 1_000_001);
    assert!(told.out.lines().last().unwrap().starts_with("prompt_999999,"));
    let endless = "[a|b]".repeat(500);
    let told = place.run(["prompt", "expand", &endless, "--format", "json", "--limit", "2"]).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&told.out).unwrap().as_array().unwrap().len(), 2);
}

#[test]
fn a_mistake_is_pointed_at() {
    let place = Place::new();
    let told = place.run(["prompt", "parse", "a (flower:2.5 near a tree"]).ended(2);
    assert!(told.err.contains("  a (flower:2.5 near a tree\n    ^\n"), "{}", told.err);
    assert!(told.err.contains("expected a `)`"), "{}", told.err);
    fs::write(place.path("t.txt"), "a\nb [c|d\n").unwrap();
    place.run(["prompt", "expand", "t.txt"]).ended(2).says("t.txt:2: at character 3");
    place.run(["prompt", "expand", "missing.txt"]).ended(2).says("no such file");
    place.run(["prompt", "expand", "[a|]"]).succeeded().says("warning: at character 3");
    place.run(["prompt", "expand", "[a [b [c [d]]]]"]).ended(2).says("3 deep");
    place.run(["prompt", "expand", "[a [b [c [d]]]]", "--max-depth", "4"]).succeeded();
}

#[test]
fn a_prompt_is_taken_apart_into_segments() {
    let place = Place::new();
    let found = json_of(&place, &["prompt", "parse", "a (flower:2.5) near a tree", "--format", "json"]);
    let segments: Vec<(&str, f64)> = found["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| (segment["text"].as_str().unwrap(), segment["weight"].as_f64().unwrap()))
        .collect();
    assert_eq!(segments, [("a ", 1.0), ("flower", 2.5), (" near a tree", 1.0)]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    for format in ["csv", "json"] {
        let template = "[0|1|2|3|4|5|6|7|8|9]".repeat(5);
        let mut command = Command::new(program());
        command.args(["prompt", "expand", &template, "--format", format]).current_dir(place.path(""));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

// In the tables.

fn rows(place: &Place) -> Vec<StepRow> {
    let store = Store::open(place.store()).unwrap();
    store.snapshot().read_index().unwrap().into_iter().flat_map(|video| video.rows).collect()
}

fn row(place: &Place, video: &str, token: &str) -> StepRow {
    rows(place).into_iter().find(|row| row.video_id == video && row.token == token).unwrap()
}

#[test]
fn templates_fill_the_tables_of_a_store_that_was_ingested_without_them() {
    let place = Place::new().with_fixture("dataset");
    place.ingest(&[]).clean();
    assert!(rows(&place).iter().all(|row| row.template.is_none() && row.weight.is_none()));
    let arrays = || -> Vec<_> { tree(&place.store().join("maps")).into_iter().collect() };
    let before = arrays();
    let ingested = place.ingest(&["--prompts", "dump/templates.txt"]).clean();
    assert_eq!(ingested.report["prompts"], json!({"matched": 16, "unmatched": 0}));
    assert_eq!(ingested.counts(), (0, 280));
    assert!(arrays() == before, "an array was written again");
    let circle = row(&place, "prompt_006_vid001", "circle");
    assert_eq!(circle.template.as_deref(), Some("a red [(circle:1.5)|(circle:0.5)] above a blue (square)"));
    assert_eq!(
        (circle.variation, circle.weight, circle.prompt_id.as_deref()),
        (Some(0), Some(1.5), Some("prompt_006"))
    );
    assert_eq!(row(&place, "prompt_007_vid002", "circle").weight, Some(0.5));
    assert_eq!(row(&place, "prompt_005_vid001", "square").weight, Some(3.0));
    place.assert_same_as_dump();
    // An ingest without prompts takes nothing away.
    place.ingest(&[]).clean();
    assert_eq!(row(&place, "prompt_007_vid002", "circle").weight, Some(0.5));
}

#[test]
fn a_response_curve_over_the_weights_of_a_word() {
    let place = Place::new().with_fixture("dataset");
    place.ingest(&["--prompts", "dump/templates.txt"]).clean();
    let condition = "prompt = 'a red circle above a blue square'";
    let compare = [
        "query",
        "compare",
        "a.store",
        "--across",
        "weight",
        "--token",
        "circle",
        "--align",
        "mean",
        "--metric",
        "mass_ratio",
    ];
    let told = place.run(compare.into_iter().chain(["--where", condition, "--format", "json"])).succeeded();
    let curve: Vec<Value> = serde_json::from_str(&told.out).unwrap();
    let of = |key: &str| curve.iter().map(|row| row[key].as_f64().unwrap()).collect::<Vec<f64>>();
    assert_eq!(of("a"), [0.5, 1.0, 1.5, 2.5]);
    assert_eq!(of("b"), [1.0; 4]);
    // The least-squares line through the points.
    let (x, y) = (of("a"), of("value"));
    let mean = |of: &[f64]| of.iter().sum::<f64>() / 4.0;
    let covariance: f64 = x.iter().zip(&y).map(|(x_i, y_i)| (x_i - mean(&x)) * (y_i - mean(&y))).sum();
    let variance: f64 = x.iter().map(|x_i| (x_i - mean(&x)).powi(2)).sum();
    assert!((of("slope")[0] - covariance / variance).abs() < 1e-9);
    assert!(y.windows(2).all(|pair| pair[1] < pair[0]), "{y:?}");
    assert_eq!(curve[0]["trend"], "falling");
}

#[test]
fn what_generators_leave_beside_the_maps_is_found() {
    let place = Place::new();
    let maps = place.dump().join("batch/attention_maps");
    let prompt = |prompt: &str| json!(prompt);
    Word::at(maps.join("prompt_000/vid001/token_flower"), "prompt_000_vid001", "flower")
        .with_key("prompt", prompt("a beautiful flower near a tree"))
        .steps([0]);
    Word::at(maps.join("prompt_001/p001_b002_s000/token_tree"), "p001_b002_s000", "tree")
        .with_key("prompt", prompt("a beautiful tree next to a flower"))
        .steps([0]);
    let configs = place.dump().join("batch/configs");
    fs::create_dir_all(&configs).unwrap();
    let variations = json!([
        {"id": "a_beautiful_(flower_2.5)_near_a_tree", "text": "a beautiful (flower:2.5) near a \
            tree", "variables": {"var_0": "(flower:2.5) near a tree"}},
        {"id": "a_beautiful_(tree_3)_next_to_a_flower", "text": "a beautiful (tree:3) next to a \
            flower", "variables": {}},
    ]);
    fs::write(configs.join("prompt_variations.json"), variations.to_string()).unwrap();
    fs::write(configs.join("prompt_template.txt"), TEMPLATE).unwrap();
    place.ingest(&[]).clean();
    let tree = row(&place, "p001_b002_s000", "tree");
    assert_eq!((tree.weight, tree.variation, tree.prompt_id.as_deref()), (Some(3.0), Some(1), Some("prompt_001")));
    assert_eq!(tree.template.as_deref(), Some(TEMPLATE));

    // The same from the batch's metadata alone.
    fs::remove_dir_all(&configs).unwrap();
    fs::remove_dir_all(place.store()).unwrap();
    let batch =
        json!({"batch_info": {"batch_name": "b", "template": TEMPLATE}, "variations": variations, "results": {}});
    fs::write(place.dump().join("batch/batch_metadata.json"), batch.to_string()).unwrap();
    place.ingest(&[]).clean();
    assert_eq!(
        row(&place, "p001_b002_s000", "tree"),
        StepRow { array: row(&place, "p001_b002_s000", "tree").array, ..tree }
    );

    // What cannot be read there is said, and costs nothing.
    fs::write(place.dump().join("batch/batch_metadata.json"), "{}").unwrap();
    let ingested = place.ingest(&[]).clean();
    assert_eq!(ingested.warnings(), Vec::<String>::new(), "a batch's metadata may be anything");
    fs::create_dir_all(&configs).unwrap();
    fs::write(configs.join("prompt_variations.json"), "{").unwrap();
    assert!(place.ingest(&[]).clean().warnings()[0].contains("the prompts beside it are not known"));
}

#[test]
fn expanded_prompts_are_prompts_to_ingest_with() {
    let place = Place::new().with_fixture("dataset");
    let told = place.run(["prompt", "expand", "dump/templates.txt", "--format", "json"]).succeeded();
    fs::write(place.path("prompts.json"), told.out).unwrap();
    place.ingest(&["--prompts", "prompts.json"]).clean();
    let from_json = rows(&place);
    fs::remove_dir_all(place.store()).unwrap();
    place.ingest(&["--prompts", "dump/templates.txt"]).clean();
    let facts = |rows: Vec<StepRow>| -> Vec<_> {
        rows.into_iter()
            .map(|row| (row.video_id, row.token, row.step, row.template, row.variation, row.weight))
            .collect()
    };
    assert_eq!(facts(rows(&place)), facts(from_json));
}

#[test]
fn weights_in_names_and_in_metadata_count_more_than_those_of_the_batch() {
    let place = Place::new();
    let word = |video: &str, token: &str, prompt: &str| {
        Word::at(place.dump().join(video).join(format!("token_{token}")), video, token)
            .with_key("prompt", prompt)
            .steps([0])
    };
    word("prompt_000_vid001", "flower:1.5", "a flower and a tree");
    word("prompt_000_vid001", "tree", "a flower and a tree");
    word("other", "cat", "a (cat:0.7) here");
    fs::write(place.path("t.txt"), "a (flower:2) and a tree\n").unwrap();
    let ingested = place.ingest(&["--prompts", "t.txt"]).clean();
    let weight = |video, token| row(&place, video, token).weight;
    assert_eq!(weight("prompt_000_vid001", "flower"), Some(1.5));
    assert_eq!(weight("prompt_000_vid001", "tree"), Some(1.0), "without emphasis the weight is 1");
    assert_eq!(weight("other", "cat"), Some(0.7));
    let warnings = ingested.warnings().join("\n");
    assert!(warnings.contains("`flower` has weight 1.5 in the dump, 2 in prompt_000; the dump counts"), "{warnings}");
    assert!(warnings.contains("its prompt `a cat here` is none of those in"), "{warnings}");
    assert_eq!(ingested.report["prompts"], json!({"matched": 1, "unmatched": 1}));
}

#[test]
fn where_metadata_has_no_prompt_the_number_in_the_name_tells_it_every_time() {
    let place = Place::new();
    place.word("prompt_000_vid001", "flower").with_key("prompt", Value::Null).steps(0..2);
    fs::write(place.path("t.txt"), "a (flower:2)\n").unwrap();
    for _ in 0..2 {
        let ingested = place.ingest(&["--prompts", "t.txt"]).clean();
        assert_eq!(ingested.report["prompts"], json!({"matched": 1, "unmatched": 0}));
    }
    assert_eq!(row(&place, "prompt_000_vid001", "flower").weight, Some(2.0));
}

#[test]
fn what_is_known_of_prompts_stays_when_steps_are_added_without_them() {
    let place = Place::new();
    let word = |prompt: &str| place.word("prompt_001_vid001", "flower").with_key("prompt", prompt);
    word("a flower").steps([0]);
    fs::write(place.path("t.txt"), "a (flower:[2|3])\n").unwrap();
    place.ingest(&["--prompts", "t.txt"]).clean();
    let facts = || -> Vec<_> {
        rows(&place).into_iter().map(|row| (row.step, row.weight, row.template, row.variation)).collect()
    };
    let template = || Some("a (flower:[2|3])".to_owned());
    assert_eq!(facts(), [(0, Some(3.0), template(), Some(1))]);
    word("a flower").steps([0, 1]);
    place.ingest(&[]).clean();
    assert_eq!(facts(), [(0, Some(3.0), template(), Some(1)), (1, Some(3.0), template(), Some(1))]);
    // Another weight is not of that template, and another prompt under the same name is another matter.
    fs::write(place.path("v.json"), r#"[{"text": "a"}, {"text": "a (flower:7)"}]"#).unwrap();
    place.ingest(&["--prompts", "v.json"]).clean();
    assert_eq!(facts()[1], (1, Some(7.0), None, None));
    for step in [0, 1] {
        let values = place.word("x", "y").values(step + 7);
        word("two flowers").write(step, "npy", &support::npy_f16(&support::SHAPE, &values));
    }
    place.ingest(&["--videos", "prompt_001*"]).clean();
    assert_eq!(facts()[1], (1, None, None, None));
}

#[test]
fn a_prompt_that_only_its_text_tells_is_said() {
    let place = Place::new();
    place.word("prompt_003_vid001", "flower").with_key("prompt", "a flower").steps([0]);
    place.word("prompt_004_vid001", "tree").with_key("prompt", "a (tree:2 here").steps([0]);
    fs::write(place.path("t.txt"), "a (flower:2)\n").unwrap();
    let warnings = place.ingest(&["--prompts", "t.txt"]).clean().warnings().join("\n");
    assert!(warnings.contains("that of prompt_000") && warnings.contains("not that of prompt_003"), "{warnings}");
    assert!(warnings.contains("weights in its prompt are not read: at character 3"), "{warnings}");
    assert_eq!(row(&place, "prompt_003_vid001", "flower").weight, Some(2.0));
}

#[test]
fn prompts_that_cannot_be_read_are_a_mistake_that_costs_nothing() {
    let place = Place::new();
    place.word("v", "flower").steps([0]);
    fs::write(place.path("t.txt"), "a [b|c\n").unwrap();
    place.ingest(&["--prompts", "t.txt"]).ended(2).says("t.txt:1: at character 3");
    place.ingest(&["--prompts", "missing.txt"]).ended(2).says("missing.txt");
    place.ingest(&["--tokenizer", "t.txt"]).ended(2).says("not a tokenizer.json");
    assert!(!place.store().exists());
}

// Tokenizers.

/// A tokenizer of whole words, with the ids that the fixtures' model has for the shapes.
fn tokenizer(place: &Place, circle: u32) -> PathBuf {
    let words = json!({"<unk>": 0, "a": 1, "red": 2, "blue": 3, "above": 4, "square": 8, "circle": circle, "</s>": 30});
    let document = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 30, "content": "</s>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [30], "tokens": ["</s>"]}}},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
    });
    let path = place.path("tokenizer.json");
    fs::write(&path, document.to_string()).unwrap();
    path
}

#[test]
fn pieces_and_positions_of_a_prompt() {
    let place = Place::new();
    tokenizer(&place, 7);
    let prompt = "a (red circle:2.5) above a (circle)";
    let found = json_of(
        &place,
        &["prompt", "tokens", "--tokenizer", "tokenizer.json", prompt, "--word", "square", "--format", "json"],
    );
    assert_eq!(found["prompt"], "a red circle above a circle");
    let ids: Vec<u64> = found["pieces"].as_array().unwrap().iter().map(|piece| piece["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 7, 4, 1, 7, 30]);
    let words = &found["words"];
    assert_eq!(
        (&words[0]["word"], &words[0]["positions"], &words[0]["weight"]),
        (&json!("red circle"), &json!([1, 2]), &json!(2.5))
    );
    assert_eq!((&words[1]["positions"], words[1]["occurrences"].as_array().unwrap().len()), (&json!([2]), 2));
    assert_eq!((&words[2]["positions"], &words[2]["occurrences"]), (&json!([]), &json!([])));
    let table =
        place.run(["prompt", "tokens", "--tokenizer", "tokenizer.json", prompt, "--format", "table"]).succeeded();
    assert!(table.out.contains("[2] and [5]"), "{}", table.out);
    place.run(["prompt", "tokens", "--tokenizer", "nowhere.json", "a"]).ended(2).says("nowhere.json");
    place
        .run(["prompt", "tokens", "--tokenizer", "tokenizer.json", "[a|b]"])
        .ended(2)
        .says("expected a prompt, found a template");
}

#[test]
fn token_ids_of_a_dump_are_checked_against_a_tokenizer() {
    let place = Place::new();
    support::copy_tree(&fixture("dataset/attention_maps/prompt_000_vid001"), &place.dump().join("prompt_000_vid001"));
    tokenizer(&place, 7);
    assert_eq!(place.ingest(&["--tokenizer", "tokenizer.json"]).clean().warnings(), Vec::<String>::new());
    tokenizer(&place, 9);
    let warnings = place.ingest(&["--tokenizer", "tokenizer.json"]).clean().warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("token_ids [7] for `circle`") && warnings[0].contains("it is [9]"), "{warnings:?}");
    assert_eq!(list(&place.store().join("maps")).len(), 1);
}
