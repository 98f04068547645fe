//! Which heads localise a word? Ingests a dump and asks its table of statistics, in SQL.
//!
//! `cargo run --release --example which_heads_localise -- fixtures/dataset circle`

use std::error::Error;
use std::path::Path;

use attnkit::Store;
use attnkit::ingest::{self, IngestOptions, Silent};
use attnkit::output::{Format, TableStyle, to_text};
use attnkit::query::Sql;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dump = arguments.next().unwrap_or_else(|| "fixtures/dataset".into());
    run(Path::new(&dump), &arguments.next().unwrap_or_else(|| "circle".into()))
}

/// Prints the five heads whose maps have most of their attention in 5 % of the positions.
pub(crate) fn run(dump: &Path, word: &str) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("maps.store");
    let report = ingest::run(&[dump], &path, &IngestOptions::default(), &Silent)?;
    println!("{} steps ingested", report.ingested);
    let statement = format!(
        "SELECT block, head, avg(top5) AS top5, avg(spread) AS spread FROM heads WHERE token = '{}' \
         GROUP BY block, head ORDER BY top5 DESC LIMIT 5",
        word.replace('\'', "''")
    );
    let answer = Sql::new(statement).run(&Store::open(path)?)?;
    let style = TableStyle { width: None, rows: 5, advice: None };
    print!("{}", String::from_utf8(to_text(&answer, Format::Table, style)?)?);
    Ok(())
}
