//! How does the attention to a word settle while a video is denoised? Follows it through the steps of a store.
//!
//! `cargo run --release --example follow_a_word -- maps.store circle`

use std::error::Error;
use std::path::Path;

use attnkit::Store;
use attnkit::progress::Silent;
use attnkit::query::{Evolution, Filter};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().ok_or("usage: follow_a_word STORE WORD")?;
    run(Path::new(&store), &arguments.next().ok_or("usage: follow_a_word STORE WORD")?)
}

/// Prints, for each video and step, how concentrated the mean map is and how like that of the last step.
pub(crate) fn run(store: &Path, word: &str) -> Result<(), Box<dyn Error>> {
    let store = Store::open(store)?;
    let filter = Filter { token: Some(word.to_owned()), ..Filter::all() };
    let table = Evolution::new(filter).run(&store, &Silent)?.table;
    let (videos, steps) = (table.column("video_id")?.str()?, table.column("step")?.i32()?);
    let (top5, alike) = (table.column("top5")?.f64()?, table.column("cosine_last")?.f64()?);
    for row in 0..table.height() {
        let share = 100.0 * top5.get(row).unwrap_or(f64::NAN);
        println!(
            "{} step {}: {share:.1} % of the attention in 5 % of the positions, cosine to the last step {:.3}",
            videos.get(row).unwrap_or_default(),
            steps.get(row).unwrap_or_default(),
            alike.get(row).unwrap_or(f64::NAN),
        );
    }
    Ok(())
}
