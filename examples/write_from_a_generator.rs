//! Keeps attention maps as they come, without a dump: every step is in the store, for good, before the next begins.
//!
//! `cargo run --release --example write_from_a_generator -- /tmp/maps.store`

use std::error::Error;
use std::path::Path;

use attnkit::Source;
use attnkit::dump::{ReadOptions, StepArray, StepMetadata};
use attnkit::ingest::{StoreWriter, WriterOptions};
use ndarray::Array4;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: write_from_a_generator STORE")?;
    run(Path::new(&path))
}

/// Makes up two steps of a video of 16 x 32 pixels, 5 frames: latent frames of 1 x 2 positions.
pub(crate) fn run(store: &Path) -> Result<(), Box<dyn Error>> {
    let mut writer = StoreWriter::open(store, "prompt_000_vid001", WriterOptions::default())?;
    for step in 0..2_u16 {
        let maps = Array4::from_shape_fn((2, 3, 4, 1), |(block, head, position, _)| {
            (block + head + position) as f32 / f32::from(step + 40)
        });
        let described = json!({
            "timestep": 1000 - 20 * step, "prompt": "a flower", "seed": 7,
            "video_height": 16, "video_width": 32, "video_frames": 5,
        });
        let (metadata, _odd) = StepMetadata::from_object(serde_json::from_value(described)?);
        writer.append("flower", None, step.into(), &StepArray::try_from(maps)?, &metadata)?;
    }
    let written = Source::open(store, ReadOptions::default())?;
    println!("{}: steps {:?} of `flower`", store.display(), written.steps("prompt_000_vid001", "flower")?);
    Ok(())
}
