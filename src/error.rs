//! One error for all that this library does: its kind, by which a face decides how to report it, and what to try next.
//! What went wrong is the error of a layer, which stays inside.

use std::error::Error as StdError;
use std::fmt;

use crate::remedy::Remedy;

/// What kind of mistake it is: what a program that calls this one would tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no store where one was named.
    NotAStore,
    /// A store cannot be read or written: it is damaged, the disk is full, …
    Store,
    /// Something else is writing.
    Busy,
    /// There is no such dump, video, word or step.
    NotFound,
    /// A file of a dump cannot be used.
    Dump,
    /// A question that cannot be answered as it is put.
    Question,
    /// A question that these maps have no answer to.
    Unanswerable,
    /// A question that no map matches.
    NothingSelected,
    /// A prompt or a template cannot be used.
    Prompt,
    /// A step does not fit behind those that are in the store.
    Write,
    /// A dump cannot be written where it should be.
    Export,
    /// The value of an option, or of another argument, makes no sense.
    Argument,
    /// A file beside stores and dumps cannot be read or written.
    File,
    /// A file cannot be written in this form, or in this place.
    Unwritable,
    /// Something is in the way of what is to be written.
    Exists,
    /// Whoever follows the work wanted it to stop; the message says what stays.
    Cancelled,
}

impl ErrorKind {
    /// As programs would write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAStore => "not_a_store",
            Self::Store => "store",
            Self::Busy => "busy",
            Self::NotFound => "not_found",
            Self::Dump => "dump",
            Self::Question => "question",
            Self::Unanswerable => "unanswerable",
            Self::NothingSelected => "nothing_selected",
            Self::Prompt => "prompt",
            Self::Write => "write",
            Self::Export => "export",
            Self::Argument => "argument",
            Self::File => "file",
            Self::Unwritable => "unwritable",
            Self::Exists => "exists",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What was found: words, or the error of somebody else's library, which stays the source.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// An error of one layer of this library.
pub trait LayerError: StdError + Send + Sync + 'static {
    /// What kind of mistake it is.
    fn kind(&self) -> ErrorKind;

    /// What to try next, if that can be told.
    fn remedy(&self) -> Option<Remedy> {
        None
    }
}

/// Why something was not done. Its message says what is wrong; [`remedy`](Self::remedy) what to try.
///
/// ```
/// use attnkit::error::{Error, ErrorKind};
/// use attnkit::store::{Store, StoreError};
///
/// let error = Error::from(Store::open("nowhere").unwrap_err());
/// assert_eq!(error.kind(), ErrorKind::NotAStore);
/// assert!(matches!(error.downcast_ref(), Some(StoreError::NotAStore { .. })));
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    remedy: Option<Remedy>,
    of_layer: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// What kind of mistake it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to try next, if that can be told.
    #[must_use]
    pub const fn remedy(&self) -> Option<&Remedy> {
        self.remedy.as_ref()
    }

    /// The same, with something else to try: where a caller knows more.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Remedy>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// The error of a layer, if it is this one's.
    #[must_use]
    pub fn downcast_ref<E: LayerError>(&self) -> Option<&E> {
        self.of_layer.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of_layer.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.of_layer.source()
    }
}

impl<E: LayerError> From<E> for Error {
    fn from(error: E) -> Self {
        Self { kind: error.kind(), remedy: error.remedy(), of_layer: Box::new(error) }
    }
}

impl LayerError for std::io::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn what_another_library_said_stays_the_source() {
        let said = serde_json::from_str::<u8>("x").unwrap_err();
        let error = Error::from(StoreError::Damaged { path: "zarr.json".into(), found: said.into() });
        assert!(error.source().unwrap().is::<serde_json::Error>(), "{error}");
        assert_eq!((error.kind(), error.kind().name()), (ErrorKind::Store, "store"));
        assert_eq!(error.to_string(), "zarr.json: damaged: expected value at line 1 column 1");
        let error = error.with_remedy("restore it");
        assert_eq!(error.remedy().unwrap().to_string(), "restore it");
    }
}
