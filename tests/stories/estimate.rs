//! Stories of planning: how large a dump and its store will be.

use crate::support::Place;
use serde_json::{Value, json};

fn estimate(place: &Place, arguments: &[&str]) -> Value {
    let told = place.run(["estimate", "--json"].iter().chain(arguments)).succeeded();
    serde_json::from_str(&told.out).unwrap()
}

#[test]
fn the_documented_settings_cost_what_their_shapes_say() {
    let place = Place::new();
    let numbers =
        ["--blocks", "30", "--heads", "12", "--grid", "15x30x53", "--steps", "50", "--tokens", "5", "--videos", "100"];
    let found = estimate(&place, &numbers);
    let sizes: Vec<(Value, u64)> = found["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|setting| (setting["shape"].clone(), setting["values_bytes"].as_u64().unwrap()))
        .collect();
    let of = |blocks: u64, heads: u64| (json!([blocks, heads, 23_850, 1]), blocks * heads * 23_850 * 2 * 50 * 5 * 100);
    assert_eq!(sizes, [of(1, 1), of(1, 12), of(30, 1), of(30, 12)]);
    let doubled = estimate(&place, &[&numbers[..], &["--dtype", "float32"]].concat());
    assert_eq!(doubled["settings"][3]["values_bytes"].as_u64().unwrap(), 2 * of(30, 12).1);
    let table = place.run(["estimate"].iter().chain(&numbers)).succeeded().out;
    for text in ["17.2 MB", "429 GB", "360x", "[30, 12, 23850, 1]", "balanced", "assumed", "50100"] {
        assert!(table.contains(text), "`{text}` is not in\n{table}");
    }
}

#[test]
fn a_model_has_its_blocks_heads_and_grid() {
    let place = Place::new();
    let shape = |model: &str, size: &str, frames: &str| {
        let found = estimate(&place, &["--model", model, "--size", size, "--frames", frames]);
        found["settings"].as_array().unwrap().last().unwrap()["shape"].clone()
    };
    assert_eq!(shape("wan2.1-1.3b", "480x848", "57"), json!([30, 12, 23_850, 1]));
    assert_eq!(shape("wan2.1-14b", "480x832", "81"), json!([40, 40, 21 * 30 * 52, 1]));
    assert_eq!(shape("wan2.2-5b", "704x1280", "121"), json!([30, 24, 31 * 22 * 40, 1]));
    place.run(["estimate", "--model", "wan3"]).ended(2).says("wan2.1-1.3b");
    place.run(["estimate", "--model", "wan2.1-14b", "--size", "8x8"]).ended(2).says("too small");
    place.run(["estimate", "--size", "8"]).ended(2).says("480x832");
    place.run(["estimate"]).ended(2).says("--from DUMP");
    for (grid, steps) in [("1048576x1048576x1048576", "1"), ("4096x4096x4096", "1"), ("15x30x53", "4294967295")] {
        let numbers = ["--blocks", "400", "--heads", "100", "--grid", grid, "--steps", steps, "--videos", "4294967295"];
        place.run(["estimate"].iter().chain(&numbers)).ended(2).says("exabyte");
    }
    place.run(["estimate", "--model", "wan2.1-14b", "--throughput", "500"]).ended(2).says("500MB");
}

#[test]
fn a_dump_is_planned_from_what_it_has() {
    let place = Place::new().with_fixture("dataset");
    let found = estimate(&place, &["--from", "dump", "--throughput", "100MB"]);
    let settings = found["settings"].as_array().unwrap();
    assert_eq!(settings.len(), 4);
    assert_eq!(settings[3]["values_bytes"], 280 * 6 * 4 * 576 * 2);
    assert_eq!(found["compression"][3]["maps"].as_f64().map(f64::round), Some(1.0), "no codec, no compression");
    let ratio = found["compression"][1]["maps"].as_f64().unwrap();
    assert!((0.5..1.0).contains(&ratio), "{ratio}");
    // Maps that are averaged already cannot be had in more detail.
    let averaged = Place::new().with_fixture("variants/averaged");
    assert_eq!(estimate(&averaged, &["--from", "dump"])["settings"].as_array().unwrap().len(), 1);
    let bfloat16 = Place::new().with_fixture("variants/torch_bfloat16");
    let found = estimate(&bfloat16, &["--from", "dump"]);
    let setting = found["settings"].as_array().unwrap().last().unwrap();
    assert_eq!(setting["step_bytes"], 6 * 4 * 576 * 2, "two bytes each in the dump");
    assert!(found["compression"][1]["maps"].as_f64().unwrap() < 0.8, "{}", found["compression"]);
    place.run(["estimate", "--from", "nowhere"]).ended(1).says("nowhere");
}
