//! attnkit turns dumps of cross-attention maps from video diffusion transformers into a columnar store of Zarr arrays
//! and Parquet tables that numpy, xarray, pandas, polars and DuckDB read as it is, and answers questions about them.
//!
//! A *dump* holds one array `[block, head, spatial, token]` for each (video, tracked word, denoising step); a *store*
//! holds the same values, their statistics and their means. The command line and the Python package are thin layers
//! over this library.
//!
//! # Ingest
//!
//! [`ingest::run`] makes a store of dumps, or adds to it what is new in them. It can be killed at any time: the same
//! call goes on. [`Ingest`](ingest::Ingest) gives out its jobs as values, for those who run them elsewhere.
//!
//! ```
//! use attnkit::ingest::{self, IngestOptions};
//! use attnkit::progress::Silent;
//!
//! let dir = tempfile::tempdir()?;
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/torch");
//! let report = ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &Silent)?;
//! assert_eq!((report.ingested, report.skipped, report.quarantined.len()), (6, 0, 0));
//! # Ok::<(), attnkit::Error>(())
//! ```
//!
//! # Open
//!
//! [`Store::open`] opens a store, for questions and checks; [`Source::open`] a store or a dump alike, for those who
//! only look. [`Contents`](contents::Contents) says what is in either.
//!
//! ```
//! use attnkit::Source;
//! use attnkit::dump::ReadOptions;
//!
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/torch");
//! let source = Source::open(dump, ReadOptions::default())?;
//! assert_eq!(source.videos()?, ["prompt_000_vid001"]);
//! assert_eq!(source.tokens("prompt_000_vid001")?, ["circle", "square"]);
//! assert_eq!(source.steps("prompt_000_vid001", "circle")?, [0, 4, 9]);
//! # Ok::<(), attnkit::Error>(())
//! ```
//!
//! # Read
//!
//! [`Source::step`] gives the array of a step as an `ndarray` of its own type; [`Source::load`] stacks several,
//! [`Source::mean`] averages them.
//!
//! ```
//! use attnkit::Source;
//! use attnkit::dump::ReadOptions;
//! use half::f16;
//! use ndarray::{Array4, Axis};
//!
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/torch");
//! let source = Source::open(dump, ReadOptions::default())?;
//! let step = source.step("prompt_000_vid001", "circle", 4)?;
//! let mean = step.to_f32().mean_axis(Axis(0)).unwrap().mean_axis(Axis(0)).unwrap(); // over blocks, then heads
//! let grid = source.grid("prompt_000_vid001", "circle")?.unwrap();
//! let frames = mean.into_shape_with_order((grid.frames, grid.height, grid.width))?;
//! assert_eq!(frames.dim(), (4, 12, 12));
//!
//! let exact: Array4<f16> = step.try_into().expect("float16, as it was dumped");
//! assert_eq!(exact.dim(), (6, 4, 576, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ask
//!
//! Questions are values: [`Average`](query::Average), [`Evolution`](query::Evolution),
//! [`SpatialMap`](query::SpatialMap), [`Compare`](query::Compare), [`List`](query::List), [`Sql`](query::Sql); any of
//! them is a [`Question`](query::Question), which goes through JSON. Each takes a condition in SQL and answers with a
//! table, and the maps behind its rows. A [`Plan`](query::Plan) cuts a question into tasks for other processes. (Cargo
//! feature `query`.)
//!
//! ```
//! # #[cfg(feature = "query")] {
//! use attnkit::Store;
//! use attnkit::query::{Average, Filter};
//! # use attnkit::ingest::{self, IngestOptions};
//! use attnkit::progress::Silent;
//! # let dir = tempfile::tempdir()?;
//! # let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/torch");
//! # let path = dir.path().join("store");
//! # ingest::run(&[dump], &path, &IngestOptions::default(), &Silent)?;
//!
//! let store = Store::open(path)?;
//! let filter = Filter::parse("token = 'circle' AND step > 0 AND block BETWEEN 2 AND 4")?;
//! let answer = Average::new(filter).run(&store, &Silent)?;
//! let maps = answer.maps.expect("averages are maps");
//! assert_eq!((maps.maps.len(), maps.common_shape()), (2, Some([4, 12, 12].as_slice()))); // of two steps
//! # }
//! # Ok::<(), attnkit::Error>(())
//! ```
//!
//! # Write
//!
//! [`StoreWriter`](ingest::StoreWriter) takes one step of one word at a time from a program that has it in memory;
//! every step is a commit.
//!
//! ```
//! use attnkit::dump::{StepArray, StepMetadata};
//! use attnkit::ingest::{StoreWriter, WriterOptions};
//! use ndarray::Array4;
//!
//! let dir = tempfile::tempdir()?;
//! let mut writer = StoreWriter::open(dir.path().join("store"), "prompt_000_vid001", WriterOptions::default())?;
//! for step in 0..2 {
//!     let maps = Array4::<f32>::from_elem((2, 3, 24, 1), 1.0 / 24.0);
//!     assert!(writer.append("flower", None, step, &StepArray::try_from(maps)?, &StepMetadata::default())?);
//! }
//! # Ok::<(), attnkit::Error>(())
//! ```
//!
//! # Check
//!
//! [`verify::run`] checks every byte of a store, and every value against the dump that it was made of.
//! [`repair::run`] writes anew what is damaged, [`export::run`] writes a store back as a dump, and
//! [`Store::gc`] removes what no commit names. (Cargo feature `query`.)
//!
//! ```
//! # #[cfg(feature = "query")] {
//! use attnkit::Store;
//! use attnkit::verify::{self, VerifyOptions};
//! # use attnkit::ingest::{self, IngestOptions};
//! use attnkit::progress::Silent;
//! # let dir = tempfile::tempdir()?;
//! # let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/torch");
//! # let path = dir.path().join("store");
//! # ingest::run(&[dump], &path, &IngestOptions::default(), &Silent)?;
//!
//! let options = VerifyOptions { against: vec![dump.into()], ..VerifyOptions::default() };
//! let report = verify::run(&Store::open(path)?, &options, &Silent)?;
//! assert_eq!((report.compared, report.faults.len()), (6, 0));
//! # }
//! # Ok::<(), attnkit::Error>(())
//! ```
//!
//! # Cargo features
//!
//! | feature | for |
//! |---|---|
//! | `query` | questions, answers' formats, verify, repair, export: brings polars |
//! | `tokenizer` | words among the pieces that a tokenizer cuts prompts into |
//! | `render` | pictures of maps |
//! | `cli` (default) | the `attnkit` command, and all of the above |
//!
//! Without any of them the library reads dumps, and reads and writes stores.

// What verify, repair and export alone use of the modules below them.
#![cfg_attr(not(feature = "query"), allow(dead_code, unused_imports))]

mod bounded;
#[cfg(feature = "cli")]
pub mod cli;
pub mod contents;
#[cfg(feature = "render")]
pub mod draw;
pub mod dtype;
pub mod dump;
pub mod error;
pub mod estimate;
#[cfg(feature = "query")]
pub mod export;
pub mod grid;
pub mod ingest;
pub mod json;
pub mod kernel;
pub mod message;
pub mod metrics;
#[cfg(feature = "query")]
pub mod output;
pub mod progress;
pub mod prompt;
pub mod provenance;
#[cfg(feature = "query")]
pub mod query;
pub mod remedy;
#[cfg(feature = "render")]
pub mod render;
#[cfg(feature = "query")]
pub mod repair;
#[cfg(feature = "render")]
pub mod report;
pub mod shape;
pub mod source;
pub mod store;
pub mod suggest;
pub mod values;
#[cfg(feature = "query")]
pub mod verify;

pub use error::Error;
pub use progress::Progress;
pub use source::Source;
pub use store::Store;
