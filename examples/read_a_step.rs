//! Where does a word look? Reads one step of a dump, or of a store, and prints the brightest position of each frame.
//!
//! `cargo run --release --example read_a_step -- fixtures/dataset`

use std::error::Error;
use std::path::Path;

use attnkit::Source;
use attnkit::dump::ReadOptions;
use ndarray::Axis;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "fixtures/dataset".into());
    run(Path::new(&path))
}

/// Of the first word of the first video.
pub(crate) fn run(path: &Path) -> Result<(), Box<dyn Error>> {
    let source = Source::open(path, ReadOptions::default())?;
    let video = source.videos()?.swap_remove(0);
    let word = source.tokens(&video)?.swap_remove(0);
    let step = source.steps(&video, &word)?.swap_remove(0);
    let grid = source.grid(&video, &word)?.ok_or("the grid of this video is not known")?;

    let maps = source.step(&video, &word, step)?.to_f32(); // [block, head, spatial, token]
    let over_all =
        maps.mean_axis(Axis(3)).and_then(|maps| maps.mean_axis(Axis(1))).and_then(|maps| maps.mean_axis(Axis(0)));
    let map = over_all.ok_or("no maps")?.into_shape_with_order((grid.frames, grid.height, grid.width))?;
    println!("`{word}` of {video} at step {step}, mean of all blocks and heads:");
    for (number, frame) in map.outer_iter().enumerate() {
        let brightest = frame.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1));
        let ((y, x), value) = brightest.ok_or("an empty frame")?;
        println!("frame {number}: {value:.5} at y {y}, x {x}");
    }
    Ok(())
}
