//! attnkit turns dumps of cross-attention maps from video diffusion transformers into a columnar store of Zarr arrays and
//! Parquet tables that numpy, xarray, pandas, polars and DuckDB read as it is.
//!
//! The command line is a thin layer over this library: [`ingest::run`], [`contents::Contents`], [`verify::run`],
//! [`export::run`] and [`store::Store::gc`] are its subcommands.
//!
//! ```
//! use attnkit::ingest::{self, IngestOptions, Silent};
//! use attnkit::store::Codec;
//!
//! let dir = tempfile::tempdir()?;
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/torch");
//! let options = IngestOptions { codec: Codec::Fast, ..IngestOptions::default() };
//! let report = ingest::run(&[dump], dir.path().join("store"), &options, &Silent)?;
//! assert_eq!((report.ingested, report.skipped, report.quarantined.len()), (6, 0, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// What verify, repair and export alone use of the modules below them.
#![cfg_attr(not(feature = "query"), allow(dead_code, unused_imports))]

mod bounded;
#[cfg(feature = "cli")]
pub mod cli;
pub mod contents;
pub mod dtype;
pub mod dump;
pub mod estimate;
#[cfg(feature = "query")]
pub mod export;
pub mod grid;
pub mod ingest;
pub mod json;
pub mod kernel;
pub mod metrics;
#[cfg(feature = "query")]
pub mod output;
pub mod prompt;
#[cfg(feature = "query")]
pub mod query;
#[cfg(feature = "render")]
pub mod render;
#[cfg(feature = "query")]
pub mod repair;
pub mod shape;
pub mod source;
pub mod store;
pub mod suggest;
pub mod values;
#[cfg(feature = "query")]
pub mod verify;
