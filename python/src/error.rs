//! Errors of the library as exceptions of `attnkit.errors`, with the same messages.

use std::ffi::CString;

use attnkit::dump::{DumpError, Problem};
use attnkit::export::ExportError;
use attnkit::ingest::{IngestError, SettingsError, WriteError};
use attnkit::output::OutputError;
use attnkit::prompt::{BatchPromptsError, TemplatesError};
use attnkit::query::QueryError;
use attnkit::source::SourceError;
use attnkit::store::StoreError;
use attnkit::suggest::did_you_mean;
use attnkit::verify::VerifyError;
use pyo3::exceptions::{PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

mod exceptions {
    //! Classes that are written in Python.
    pyo3::import_exception!(attnkit.errors, DamageWarning);
    pyo3::import_exception!(attnkit.errors, DumpError);
    pyo3::import_exception!(attnkit.errors, ExportError);
    pyo3::import_exception!(attnkit.errors, NotAStoreError);
    pyo3::import_exception!(attnkit.errors, NotFoundError);
    pyo3::import_exception!(attnkit.errors, NothingSelectedError);
    pyo3::import_exception!(attnkit.errors, PromptError);
    pyo3::import_exception!(attnkit.errors, QueryError);
    pyo3::import_exception!(attnkit.errors, StoreError);
    pyo3::import_exception!(attnkit.errors, WriteError);
}

/// An error as the exception that Python code would look for.
pub trait IntoPython {
    /// The exception.
    fn into_python(self) -> PyErr;
}

/// Results with such errors.
pub trait OrRaise<T> {
    /// The value, or the exception.
    ///
    /// # Errors
    /// The exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: IntoPython> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(IntoPython::into_python)
    }
}

impl IntoPython for StoreError {
    fn into_python(self) -> PyErr {
        let message = said(&self);
        match self {
            Self::NotAStore { .. } => exceptions::NotAStoreError::new_err(message),
            _ => exceptions::StoreError::new_err(message),
        }
    }
}

impl IntoPython for DumpError {
    fn into_python(self) -> PyErr {
        match &self.problem {
            Problem::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
                exceptions::NotFoundError::new_err(said(&self))
            }
            _ => exceptions::DumpError::new_err(said(&self)),
        }
    }
}

impl IntoPython for QueryError {
    fn into_python(self) -> PyErr {
        let (message, hint) = (said(&self), self.hint().map(|hint| in_python(&hint)));
        match self {
            Self::Store(error) => error.into_python(),
            Self::Cancelled => PyKeyboardInterrupt::new_err(message),
            Self::NothingSelected { .. } => exceptions::NothingSelectedError::new_err((message, hint)),
            Self::Tables(_) => exceptions::StoreError::new_err(message),
            Self::NotAnAnswer { .. } => PyValueError::new_err(message),
            _ => exceptions::QueryError::new_err((message, hint)),
        }
    }
}

impl IntoPython for OutputError {
    fn into_python(self) -> PyErr {
        let message = said(&self);
        match self {
            // Of the class that Python has for this kind.
            Self::Write { source, .. } => std::io::Error::new(source.kind(), message).into(),
            Self::InTheWay { .. } => pyo3::exceptions::PyFileExistsError::new_err(message),
            Self::Query(error) => error.into_python(),
            _ => PyValueError::new_err(message),
        }
    }
}

impl IntoPython for IngestError {
    fn into_python(self) -> PyErr {
        let message = said(&self);
        match self {
            Self::Dump(error) => error.into_python(),
            Self::Store(error) => error.into_python(),
            Self::NothingFound { .. } => exceptions::NotFoundError::new_err(message),
            Self::Prompts(BatchPromptsError::Io { source, .. }) => std::io::Error::new(source.kind(), message).into(),
            Self::Cancelled => PyKeyboardInterrupt::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

impl IntoPython for WriteError {
    fn into_python(self) -> PyErr {
        match self {
            Self::Store(error) => error.into_python(),
            _ => exceptions::WriteError::new_err(said(&self)),
        }
    }
}

impl IntoPython for SourceError {
    fn into_python(self) -> PyErr {
        let message = said(&self);
        match self {
            Self::Dump(error) => error.into_python(),
            Self::Store(error) => error.into_python(),
            Self::Cancelled => PyKeyboardInterrupt::new_err(message),
            Self::Unusable { .. } | Self::Mixed { .. } => exceptions::DumpError::new_err(message),
            _ => exceptions::NotFoundError::new_err(message),
        }
    }
}

impl IntoPython for SettingsError {
    fn into_python(self) -> PyErr {
        PyValueError::new_err(said(&self))
    }
}

impl IntoPython for VerifyError {
    fn into_python(self) -> PyErr {
        let message = said(&self);
        match self {
            Self::Store(error) => error.into_python(),
            Self::Query(error) => error.into_python(),
            Self::Dump(error) => error.into_python(),
            Self::NothingCompared { .. } => {
                let hint = "is it the right directory? if it was ingested with prefix=NAME, say so here too";
                exceptions::NotFoundError::new_err((message, hint))
            }
            _ => PyKeyboardInterrupt::new_err(message),
        }
    }
}

impl IntoPython for ExportError {
    fn into_python(self) -> PyErr {
        let message = said(&self);
        match self {
            Self::Store(error) => error.into_python(),
            Self::Query(error) => error.into_python(),
            Self::Cancelled => PyKeyboardInterrupt::new_err(message),
            _ => exceptions::ExportError::new_err(message),
        }
    }
}

impl IntoPython for TemplatesError {
    fn into_python(self) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Io { source, .. } => std::io::Error::new(source.kind(), message).into(),
            _ => exceptions::PromptError::new_err(message),
        }
    }
}

/// That something is not there.
pub fn not_found(message: &str) -> PyErr {
    exceptions::NotFoundError::new_err(in_python(message))
}

fn said(error: &impl std::fmt::Display) -> String {
    in_python(&error.to_string())
}

/// Text of the library that speaks of options of the command line, with the arguments of Python instead.
pub fn in_python(text: &str) -> String {
    /// Options whose value is a word.
    const CHOICES: [&str; 6] = ["align", "across", "batch", "on_error", "placement", "table"];
    let text = text
        .replace("attnkit query list STORE --columns help", "store.columns()")
        .replace("`attnkit query average`", "Store.average");
    let mut parts = text.split("--");
    let mut translated = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Not every pair of hyphens is an option: names of files and videos may have them.
        if !(translated.is_empty() || translated.ends_with([' ', '`', '(', '\n'])) {
            translated.push_str("--");
            translated.push_str(part);
            continue;
        }
        let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(part.len());
        let (name, rest) = (part[..end].replace('-', "_"), &part[end..]);
        if name.is_empty() {
            translated += "--";
        }
        translated += &name;
        let has_value = rest.strip_prefix(' ').is_some_and(|value| {
            CHOICES.contains(&name.as_str()) || value.starts_with(|c: char| c == '"' || c.is_ascii_uppercase())
        });
        if has_value {
            translated.push('=');
        }
        translated += if has_value { &rest[1..] } else { rest };
    }
    translated.replace("=FxHxW", "=(frames, height, width)").replace("=HxW", "=(height, width)")
}

/// Warns that something of a store is left out.
///
/// # Errors
/// If warnings are errors.
pub fn warn_of_damage(py: Python<'_>, found: &str) -> PyResult<()> {
    let category = py.get_type::<exceptions::DamageWarning>();
    let message = CString::new(format!("left out: {}", found.replace('\0', "\\0")))?;
    PyErr::warn(py, &category, &message, 1)
}

/// A choice by its name.
///
/// # Errors
/// `ValueError`, naming the argument and what there is to choose from.
pub fn choice<'de, T: serde::Deserialize<'de>>(argument: &str, name: &'de str) -> PyResult<T> {
    T::deserialize(IntoDeserializer::<ValueError>::into_deserializer(name)).map_err(|error| {
        // "unknown variant `wieght`, expected one of `prompt`, `weight`"
        let said = error.to_string();
        let known = said.split('`').skip(1).step_by(2).skip(1);
        PyValueError::new_err(format!("{argument}: {said}{}", did_you_mean(name, known)))
    })
}

/// An argument that is written as text.
///
/// # Errors
/// `ValueError`, naming the argument and what was expected.
pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(argument: &str, text: &str) -> PyResult<T> {
    text.parse().map_err(|error| PyValueError::new_err(format!("{argument}: {error}")))
}
