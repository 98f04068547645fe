//! Asks a store one of the benchmark's questions, several times within one process, and prints
//! `{"seconds": best, "check": a number that every reader must find}`: for `benches/query.py`.

use std::time::Instant;

use attnkit::progress::Silent;
use attnkit::query::{Across, Answer, Arrange, Average, Compare, Filter, List, QueryError, Reduction, TableName};
use attnkit::store::Store;

const ROUNDS: usize = 5;
const USAGE: &str = "usage: ask STORE mean|mean-no-rollups|one-head|compare|filter VIDEO|CONDITION";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, question, about] = &arguments[..] else { return Err(USAGE.into()) };
    let store = Store::open(store)?;
    let mut best = f64::INFINITY;
    let mut check = f64::NAN;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let answer = ask(&store, question, about)?;
        best = best.min(start.elapsed().as_secs_f64());
        check = check_of(&answer)?;
    }
    println!("{{\"seconds\": {best}, \"check\": {check}}}");
    Ok(())
}

fn ask(store: &Store, question: &str, about: &str) -> Result<Answer, Box<dyn std::error::Error>> {
    let of_video = || Filter { video: Some(about.to_owned()), ..Filter::all() };
    let average = |filter: Filter, rollups: bool| -> Result<Answer, QueryError> {
        let reduction = Reduction { rollups, ..Reduction::default() };
        Average { reduction, ..Average::new(filter) }.run(store, &Silent)
    };
    Ok(match question {
        "mean" => average(of_video(), true)?,
        "mean-no-rollups" => average(of_video(), false)?,
        "one-head" => average(Filter { block: Some(7), head: Some(3), ..of_video() }, true)?,
        "compare" => Compare {
            metrics: vec!["cosine".parse()?],
            reduction: Reduction { rollups: false, ..Reduction::default() },
            ..Compare::new(Filter::all(), Across::Video)
        }
        .run(store, &Silent)?,
        "filter" => {
            let columns = ["video_id", "token", "step", "block", "head", "entropy"].map(str::to_owned).to_vec();
            let filter = Filter::parse(about)?;
            let arrange = Arrange { columns: Some(columns), ..Arrange::default() };
            List { table: TableName::Heads, filter, arrange }.run(store)?
        }
        _ => return Err(USAGE.into()),
    })
}

/// Mean of all values of the maps, or of the comparison; the number of rows of a table.
fn check_of(answer: &Answer) -> Result<f64, Box<dyn std::error::Error>> {
    if let Some(maps) = &answer.maps {
        return Ok(maps.values.iter().map(|value| f64::from(*value)).sum::<f64>() / maps.values.len() as f64);
    }
    match answer.table.column("value") {
        Ok(values) => Ok(values.f64()?.iter().flatten().sum::<f64>() / answer.table.height() as f64),
        Err(_) => Ok(answer.table.height() as f64),
    }
}
