//! Questions to a store: select maps with SQL conditions, reduce, measure, compare. Knows the store; knows nothing of
//! dumps, ingest or output formats.
//!
//! A question is a value ([`Average`], [`Evolution`], [`SpatialMap`], [`Compare`], [`List`], [`Sql`], or any of them as
//! a [`Question`]); running it against a store gives an [`Answer`]. Whoever has other threads, processes or machines
//! takes its [`Plan`], whose [`Task`]s and what they leave ([`Partial`]) are bytes both ways, and merges that
//! ([`Merger`]).
//!
//! ```
//! use attnkit::ingest::{self, IngestOptions};
//! use attnkit::progress::Silent;
//! use attnkit::query::{Average, Filter};
//! use attnkit::store::Store;
//!
//! let dir = tempfile::tempdir()?;
//! let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
//! ingest::run(&[dump], dir.path().join("store"), &IngestOptions::default(), &Silent)?;
//! let store = Store::open(dir.path().join("store"))?;
//!
//! let filter = Filter::parse("token = 'circle' AND step > 0")?;
//! let answer = Average::new(filter).run(&store, &Silent)?;
//! assert_eq!(answer.table.height(), 2); // a map for each of two steps
//! assert_eq!(answer.maps.unwrap().common_shape(), Some([4, 12, 12].as_slice()));
//! # Ok::<(), attnkit::Error>(())
//! ```

mod answer;
mod average;
mod by_parts;
mod catalog;
mod compare;
mod cut;
mod dialect;
mod error;
mod evolution;
mod exact;
mod explain;
mod filter;
mod frame;
mod key;
mod map;
mod merge;
mod plan;
mod portable;
mod question;
mod rollup;
mod scan;
mod selection;
mod tables;
mod task;
#[cfg(test)]
mod trial;
mod unknown;
mod wire;
mod work;

pub use answer::{Answer, AnswerKind, Arrange, Maps, ReadCount, Sort};
pub use average::{Average, Dimension};
pub use compare::{Across, Align, Compare, Form};
pub use error::QueryError;
pub(crate) use error::caught;
pub use evolution::{By, Evolution};
pub use explain::{ArrayUse, Explain};
pub use filter::Filter;
pub use key::{Key, KeyValue};
pub use map::SpatialMap;
pub use merge::Merger;
pub use plan::Plan;
pub use question::{Explanation, Question};
pub use selection::StepSet;
pub use tables::{List, Sql, TableName, columns};
pub use task::{Grain, Partial, Reduction, Task};
pub use work::Group;

pub(crate) use crate::kernel::Resampled;
