//! Errors of the library as exceptions of `attnkit.errors`: a class for each kind, the same message, and what to try as
//! arguments.

use std::ffi::CString;

use attnkit::error::{Error, ErrorKind};
use attnkit::suggest::did_you_mean;
use pyo3::exceptions::{PyFileExistsError, PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use crate::spelling::in_python;

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

/// Results with errors of the library.
pub trait OrRaise<T> {
    /// The value, or the exception that Python code would look for.
    ///
    /// # Errors
    /// The exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Into<Error>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(exception)
    }
}

/// The exception for an error: its class says the kind, its attributes the rest.
pub fn exception(error: impl Into<Error>) -> PyErr {
    let error = error.into();
    let (kind, message) = (error.kind(), error.to_string());
    let arguments = (message.clone(), error.remedy().map(in_python));
    let exception = match kind {
        ErrorKind::NotAStore => exceptions::NotAStoreError::new_err(arguments),
        ErrorKind::NotFound => exceptions::NotFoundError::new_err(arguments),
        ErrorKind::Dump => exceptions::DumpError::new_err(arguments),
        ErrorKind::Question | ErrorKind::Unanswerable => exceptions::QueryError::new_err(arguments),
        ErrorKind::NothingSelected => exceptions::NothingSelectedError::new_err(arguments),
        ErrorKind::Prompt => exceptions::PromptError::new_err(arguments),
        ErrorKind::Write => exceptions::WriteError::new_err(arguments),
        ErrorKind::Export => exceptions::ExportError::new_err(arguments),
        ErrorKind::Cancelled => return PyKeyboardInterrupt::new_err(message),
        ErrorKind::Exists => return PyFileExistsError::new_err(message),
        // Of the class that Python has for this kind.
        ErrorKind::File => return std::io::Error::new(io_kind(&error), message).into(),
        ErrorKind::Argument | ErrorKind::Unwritable => {
            let advice = error.remedy().map(|remedy| format!("; {}", in_python(remedy)));
            return PyValueError::new_err(message + &advice.unwrap_or_default());
        }
        // Of a store, in whatever way.
        _ => exceptions::StoreError::new_err(arguments),
    };
    Python::attach(|py| exception.value(py).setattr("kind", kind.name())).map_or_else(|failed| failed, |()| exception)
}

/// What the system said, if it said something.
fn io_kind(error: &Error) -> std::io::ErrorKind {
    let mut source = std::error::Error::source(error);
    while let Some(found) = source {
        if let Some(found) = found.downcast_ref::<std::io::Error>() {
            return found.kind();
        }
        source = found.source();
    }
    std::io::ErrorKind::Other
}

/// That something is not there.
pub fn not_found(message: &str) -> PyErr {
    let exception = exceptions::NotFoundError::new_err((message.to_owned(),));
    Python::attach(|py| exception.value(py).setattr("kind", ErrorKind::NotFound.name()))
        .map_or_else(|failed| failed, |()| exception)
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
