//! The examples do what they say, on the bundled dumps.

use std::fs;

use crate::support::fixture;

#[path = "../../examples/compare_prompts.rs"]
#[allow(dead_code)]
mod compare_prompts;
#[path = "../../examples/follow_a_word.rs"]
#[allow(dead_code)]
mod follow_a_word;
#[path = "../../examples/read_a_step.rs"]
#[allow(dead_code)]
mod read_a_step;
#[path = "../../examples/which_heads_localise.rs"]
#[allow(dead_code)]
mod which_heads_localise;
#[path = "../../examples/write_from_a_generator.rs"]
#[allow(dead_code)]
mod write_from_a_generator;

#[test]
fn every_example_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("maps.store");
    write_from_a_generator::run(&store).unwrap();
    follow_a_word::run(&store, "flower").unwrap();
    read_a_step::run(&store).unwrap();
    read_a_step::run(&fixture("dataset")).unwrap();
    which_heads_localise::run(&fixture("dataset"), "circle").unwrap();

    let shapes = dir.path().join("shapes.store");
    let options = attnkit::ingest::IngestOptions::default();
    attnkit::ingest::run(&[fixture("dataset")], &shapes, &options, &attnkit::ingest::Silent).unwrap();
    let pairs = compare_prompts::run(&shapes, "circle", dir.path()).unwrap();
    let pairs = fs::read_to_string(pairs).unwrap();
    assert!(pairs.lines().count() > 2 && pairs.contains("cosine") && pairs.contains("centroid"), "{pairs}");
}
