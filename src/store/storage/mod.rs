//! Where the files of a store lie: on a file system ([`Local`]), or in memory ([`Memory`]). A key is the path of a file
//! below the store, with `/`; the store's own root is the empty one.
//!
//! Whoever adds another place runs the conformance tests of this directory on it (`conformance.rs`).

#[cfg(test)]
pub(super) mod conformance;
#[cfg(test)]
pub(crate) mod counting;
mod local;
mod memory;
mod threads;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub use local::Local;
pub use memory::Memory;
use threads::How;

use super::StoreError;

/// The largest document or part that is read in one piece.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Files by their keys. All methods may be called by many threads at once, and beside other processes.
pub trait Storage: Debug + Send + Sync {
    /// How messages name the place of a key.
    fn place(&self, key: &str) -> PathBuf;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// If it is not there ([`StoreError::is_not_found`]), is no file, or cannot be read.
    fn open(&self, key: &str) -> Result<Box<dyn Contents>, StoreError>;

    /// What is at a key itself: no link is followed. `None`: nothing.
    ///
    /// # Errors
    /// If that cannot be told.
    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// What is in a directory, in any order.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    fn list(&self, directory: &str) -> Result<Vec<Entry>, StoreError>;

    /// Makes a directory, and those that it is in. Returns whether it was not there before: of several that ask, one is
    /// told so.
    ///
    /// # Errors
    /// If something else is there, or it cannot be made.
    fn make_directory(&self, directory: &str) -> Result<bool, StoreError>;

    /// Begins a new file, in place of what may be at its key: what shares its contents with that keeps them. Until it
    /// is finished, it may be there in part; until the next [`flush`](Self::flush), it need not be durable.
    ///
    /// # Errors
    /// If it cannot be created.
    fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Replaces a file, or creates it: readers see all of it or what was there before. It is durable then.
    ///
    /// # Errors
    /// If it cannot be written.
    fn put(&self, key: &str, contents: &[u8]) -> Result<(), StoreError>;

    /// Puts finished files in the place of others. `files` tells those of a commit by its number, as (from, to), or
    /// that it does not come: between that and the last of the files, no other writer publishes. The files of a commit
    /// come one behind the other; commits are of different videos, and those that stand as far from the end go
    /// together. All that was written before is durable then, and so are the files in their new places. Returns which
    /// commits came.
    ///
    /// # Errors
    /// Those of `files` and [`flush`](Self::flush), and if a file cannot be moved.
    fn publish(&self, commits: usize, files: &mut FilesOf<'_>) -> Result<Vec<bool>, StoreError>;

    /// Puts a directory in the place of another, and that in its place, if `is_ready` says so: from then until it is
    /// done, nobody publishes. All that was written before is durable then. Whoever opens something by its key opens it
    /// in the one or the other, or, where a file system cannot do both at once, is told for an instant that nothing is
    /// there; a process that dies in that instant leaves what was there under the key `{new}.old`. Returns whether it
    /// was done.
    ///
    /// # Errors
    /// Those of `is_ready` and [`flush`](Self::flush), and if a directory cannot be moved.
    fn exchange(
        &self,
        new: &str,
        old: &str,
        is_ready: &mut dyn FnMut() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError>;

    /// Makes durable what was written, linked and made through this and its clones.
    ///
    /// # Errors
    /// If that fails: what was written may be lost then.
    fn flush(&self) -> Result<(), StoreError>;

    /// Gives a file a second key. Its contents are shared where that can be, and copied otherwise; neither is ever
    /// modified.
    ///
    /// # Errors
    /// If it is not there, something is at the other key, or that cannot be written.
    fn link(&self, from: &str, to: &str) -> Result<(), StoreError>;

    /// Removes a file, or a directory with all that is in it. What a link leads to stays.
    ///
    /// # Errors
    /// If it is not there or cannot be removed.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Announces a writer, or somebody who must be alone, as long as the guard lives.
    ///
    /// # Errors
    /// [`StoreError::Busy`], if somebody must be alone and is not; if it cannot be announced.
    fn lock(&self, lock: Lock) -> Result<Guard, StoreError>;

    /// The same place for somebody who promises that no other process writes there: locks are done without where there
    /// are none.
    fn as_single_writer(&self, is_single_writer: bool) -> Arc<dyn Storage>;

    /// The contents of a document or part.
    ///
    /// # Errors
    /// As [`open`](Self::open), or if it is larger than any.
    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let contents = self.open(key)?;
        let bytes = contents.len();
        if bytes > MAX_FILE_BYTES {
            let found = format!("{bytes} bytes; such a file has {MAX_FILE_BYTES} at the most");
            return Err(StoreError::damaged(self.place(key), found));
        }
        contents.read(0, bytes).map_err(StoreError::io(self.place(key)))
    }

    /// Writes a file that nobody looks for yet. It is durable with the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`Upload::finish`].
    fn write(&self, key: &str, contents: &[u8]) -> Result<(), StoreError> {
        let mut file = self.create(key)?;
        file.write_all(contents).map_err(StoreError::io(self.place(key)))?;
        file.finish()
    }

    /// Bytes of all files at a key and below; none, if nothing is there.
    ///
    /// # Errors
    /// If a directory cannot be read.
    fn bytes_below(&self, key: &str) -> Result<u64, StoreError> {
        let Some(entry) = self.entry(key)? else { return Ok(0) };
        if entry.kind != EntryKind::Directory {
            return Ok(entry.bytes);
        }
        let below = match self.list(key) {
            Err(error) if error.is_not_found() => Vec::new(),
            other => other?,
        };
        below.iter().map(|entry| self.bytes_below(&join(key, &entry.name))).sum()
    }
}

/// A file that is open for reading, as it was when it was opened.
pub trait Contents: Send + Sync {
    /// Its bytes.
    fn len(&self) -> u64;

    /// A range of them.
    ///
    /// # Errors
    /// If it does not lie within the file, before anything is allocated; if it cannot be read.
    fn read(&self, start: u64, bytes: u64) -> io::Result<Bytes>;

    /// Reads a range of them into memory of its length.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_into(&self, start: u64, target: &mut [u8]) -> io::Result<()> {
        target.copy_from_slice(&self.read(start, target.len() as u64)?);
        Ok(())
    }

    /// Whether it is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file that is being written.
pub trait Upload: io::Write + Send {
    /// Ends it: it is whole then, and durable with the next [`flush`](Storage::flush).
    ///
    /// # Errors
    /// If it cannot be written.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name there.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of a file.
    pub bytes: u64,
    /// Changes when a file is written: a time, or a number.
    pub stamp: u128,
}

/// What something in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A link, which no store has.
    Link,
    /// A pipe, a socket or a device, which no store has either.
    Other,
}

impl EntryKind {
    /// What is said of it in the place of one of the store's directories; nothing of a directory.
    pub(super) fn in_place_of_directory(self) -> Option<String> {
        let kind = match self {
            Self::Directory => return None,
            Self::Link => "a link",
            Self::File | Self::Other => "a file",
        };
        Some(format!("{kind}, where a directory of the store should be; put the directory itself there"))
    }
}

/// Tells the files of a commit by its number, as (from, to); `None`: it does not come.
pub type FilesOf<'a> = dyn FnMut(usize) -> Result<Option<Vec<(String, String)>>, StoreError> + 'a;

/// What is announced to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Writes beside others; waits for whoever is alone.
    Writer,
    /// Is the only one.
    Alone,
    /// Is the only one that puts an index in the place of the present one; waits for whoever does.
    Index,
}

impl Lock {
    /// What it is called, and how it is held.
    const fn held(self) -> (&'static str, How) {
        match self {
            Self::Writer => ("lock", How::Shared),
            Self::Alone => ("lock", How::AloneIfFree),
            Self::Index => ("index", How::Alone),
        }
    }
}

/// Ends a [`Lock`] when it is dropped.
pub type Guard = Box<dyn Any + Send + Sync>;

/// The key of something in a directory.
pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The directory and the name of what is at a key.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// Checks that a range lies within a file of `len` bytes.
fn checked_range(len: u64, start: u64, bytes: u64) -> io::Result<()> {
    match start.checked_add(bytes) {
        Some(end) if end <= len => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{bytes} bytes from byte {start} on are not within its {len}"),
        )),
    }
}
