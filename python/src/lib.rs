//! `attnkit._native`: the library as Python sees it. It translates arguments, results and errors, lets go of the
//! interpreter lock while it works, and nothing else; what is pleasant to use is made of it in Python, beside this
//! crate.
#![allow(clippy::too_many_arguments)] // keyword arguments of Python

mod answer;
mod array;
mod column;
mod draw;
mod error;
mod estimate;
mod ingest;
mod prompt;
mod question;
mod source;
mod spelling;
mod store;
mod work;

/// The extension module.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use super::answer::{Answer, heatmap};
    #[pymodule_export]
    use super::array::mean_axis;
    #[pymodule_export]
    use super::draw::{Figure, figure, figure_of, film, film_of, report};
    #[pymodule_export]
    use super::estimate::estimate;
    #[pymodule_export]
    use super::ingest::{StoreWriter, dry_run, ingest_dumps, watch};
    #[pymodule_export]
    use super::prompt::{Templates, Tokenizer, occurrences};
    #[pymodule_export]
    use super::question::{Question, usual_reduction};
    #[pymodule_export]
    use super::source::{Source, infer_grid};
    #[pymodule_export]
    use super::store::{Store, columns};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
