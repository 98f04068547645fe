//! Decodes every `attention` array of a store once and prints `{"bytes": N, "seconds": s}`: the read-back benchmark.

use std::time::Instant;

use attnkit::store::{StepRow, Store, StoreError};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: readback STORE")?;
    let store = Store::open(path)?.snapshot();
    let index = store.read_index()?;
    let series: Vec<_> = index.iter().flat_map(attnkit::store::VideoIndex::series).collect();
    let start = Instant::now();
    let mut bytes = 0;
    for rows in series {
        let array = store.open_array(&rows[0].array)?;
        let decode = |row: &StepRow| -> Result<u64, StoreError> {
            let mut bytes = 0;
            array.for_each_chunk(row.row.into(), |_, values| bytes += values.len() as u64)?;
            Ok(bytes)
        };
        bytes += rows.par_iter().map(decode).try_reduce(|| 0, |a, b| Ok(a + b))?;
    }
    println!("{{\"bytes\": {bytes}, \"seconds\": {}}}", start.elapsed().as_secs_f64());
    Ok(())
}
