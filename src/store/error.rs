//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Cause, ErrorKind, LayerError};
use crate::progress::Cancelled;
use crate::remedy::{CommandName, OptionName, Remedy};

/// EIO: what a disk answers for a sector that it cannot read.
const BAD_SECTOR: i32 = 5;

/// A problem with a store, naming the file or key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Whoever follows the work wanted it to stop.
    #[error("stopped; what was removed by then is removed")]
    Cancelled,
    /// There is no store.
    #[error("{}: not an attnkit store (no zarr.json with attributes.attnkit); found {found}", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A store of a version this program does not know.
    #[error(
        "{}: store version {found}, written by attnkit {written_by}; this attnkit, {}, reads version {expected}: use \
         attnkit {written_by} or a later one",
        path.display(), env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version known.
        expected: u64,
        /// The attnkit that created it.
        written_by: String,
    },
    /// A file that is damaged.
    #[error("{}: damaged: {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found: in words, or what a library says.
        #[source]
        found: Cause,
    },
    /// Parquet could not be read or written.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The part file.
        path: PathBuf,
        /// What the library says.
        source: parquet::errors::ParquetError,
    },
    /// An array could not be read or written.
    #[error("{}: {found}", path.display())]
    Array {
        /// The array.
        path: PathBuf,
        /// What the library says.
        #[source]
        found: Cause,
    },
    /// The file system has no locks, and nobody promised to be the only writer.
    #[error("{}: this file system has no locks ({source}), so that two writers could overwrite each other's commits",
        path.display())]
    NoLocks {
        /// The lock's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The directory of the tables is set aside.
    #[error("{}: not there: somebody who packed the tables has set it aside, and is at it now or has died; nothing is \
        lost", path.display())]
    NoIndex {
        /// The directory.
        path: PathBuf,
    },
    /// What was read was committed anew since, and is gone.
    #[error("{}: the store has moved on: this was written anew while it was read; ask again", path.display())]
    MovedOn {
        /// The file or array.
        path: PathBuf,
    },
    /// Something else is writing.
    #[error("{}: an ingest is writing into this store; wait until it ends", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
}

impl LayerError for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAStore { .. } => ErrorKind::NotAStore,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Store,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::NoLocks { .. } => {
                Remedy::of("if nobody else writes into this store, say so with {}", [OptionName::SingleWriter.on()])
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Remedy::of(
                "make room and run the same command again: it goes on where it stopped; {} removes what is incomplete",
                [CommandName::Gc.here()],
            ),
            Self::Cancelled => "run it again to go on".into(),
            Self::NoIndex { .. } => Remedy::of("{} puts it back", [CommandName::Gc.here()]),
            Self::Busy { .. } => "what it is writing now is not garbage; try again later".into(),
            _ => return None,
        })
    }
}

impl From<Cancelled> for StoreError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl StoreError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether it is one file that cannot be used, not the store or the machine.
    pub(super) fn is_of_one_file(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Parquet { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                    || source.kind() == io::ErrorKind::UnexpectedEof
                    || source.raw_os_error() == Some(BAD_SECTOR)
            }
            _ => false,
        }
    }

    pub(super) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_owned(), source }
    }

    pub(super) fn damaged(path: impl AsRef<Path>, found: impl Into<Cause>) -> Self {
        Self::Damaged { path: path.as_ref().to_owned(), found: found.into() }
    }

    pub(super) fn array(path: impl AsRef<Path>, found: impl Into<Cause>) -> Self {
        Self::Array { path: path.as_ref().to_owned(), found: found.into() }
    }
}
