//! Decodes every `attention` array of a store once and prints `{"bytes": N, "seconds": s}`: the read-back benchmark.

use std::time::Instant;

use attnkit::store::{Store, StoreError};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: readback STORE")?;
    let store = Store::open(path)?;
    let index = store.read_index()?;
    let rows: Vec<_> = index.iter().flat_map(|video| &video.rows).collect();
    let start = Instant::now();
    let decode = |row: &&attnkit::store::StepRow| -> Result<u64, StoreError> {
        Ok(store.open_array(&row.array)?.read_step(row.row.unsigned_abs().into())?.len() as u64)
    };
    let bytes = rows.par_iter().map(decode).try_reduce(|| 0, |a, b| Ok(a + b))?;
    println!("{{\"bytes\": {bytes}, \"seconds\": {}}}", start.elapsed().as_secs_f64());
    Ok(())
}
