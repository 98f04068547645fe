//! Does a word look elsewhere in another prompt? Compares its mean maps, prompt by prompt.
//!
//! `cargo run --release --example compare_prompts -- maps.store circle`

use std::error::Error;
use std::path::{Path, PathBuf};

use attnkit::Store;
use attnkit::output::{Format, write_file};
use attnkit::progress::Silent;
use attnkit::query::{Across, Align, Compare, Filter};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().ok_or("usage: compare_prompts STORE WORD")?;
    let word = arguments.next().ok_or("usage: compare_prompts STORE WORD")?;
    println!("{}", run(Path::new(&store), &word, Path::new("."))?.display());
    Ok(())
}

/// Writes every pair of prompts with the cosine of their maps, and how far apart their centroids are, to a CSV file.
pub(crate) fn run(store: &Path, word: &str, dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let question = Compare {
        metrics: vec!["cosine".parse()?, "centroid".parse()?],
        align: Align::Mean, // of the means over all steps
        ..Compare::new(Filter { token: Some(word.to_owned()), ..Filter::all() }, Across::Prompt)
    };
    let answer = question.run(&Store::open(store)?, &Silent)?;
    for note in &answer.notes {
        eprintln!("{note}"); // in what the prompts' videos differ beside the prompt
    }
    let path = dir.join(format!("{word}.csv"));
    write_file(&answer, Format::Csv, &path)?;
    Ok(path)
}
