//! A store in memory, for tests and trials. Its clones are one place.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::threads::Locks;
use super::{Contents, Entry, EntryKind, FilesOf, Guard, Lock, Storage, Upload, checked_range, split};
use crate::store::StoreError;

/// Files in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<Files>,
    /// Held while files are published.
    turn: Mutex<()>,
    locks: Arc<Locks>,
}

#[derive(Debug, Default)]
struct Files {
    contents: BTreeMap<String, (Bytes, u128)>,
    /// Each with a number that is another for each that is made.
    directories: BTreeMap<String, u128>,
    written: u128,
}

impl Memory {
    /// A place without files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, key: &str, kind: io::ErrorKind) -> StoreError {
        StoreError::io(self.place(key))(kind.into())
    }
}

impl Files {
    fn put(&mut self, key: &str, contents: Bytes) {
        self.make_directory(split(key).0);
        self.written += 1;
        self.contents.insert(key.to_owned(), (contents, self.written));
    }

    fn make_directory(&mut self, directory: &str) -> bool {
        if directory.is_empty() {
            return false;
        }
        self.make_directory(split(directory).0);
        if self.directories.contains_key(directory) {
            return false;
        }
        self.written += 1;
        self.directories.insert(directory.to_owned(), self.written);
        true
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        let name = split(key).1.to_owned();
        if let Some((contents, stamp)) = self.contents.get(key) {
            return Some(Entry { name, kind: EntryKind::File, bytes: contents.len() as u64, stamp: *stamp });
        }
        let stamp = if key.is_empty() { 0 } else { *self.directories.get(key)? };
        Some(Entry { name, kind: EntryKind::Directory, bytes: 0, stamp })
    }

    /// Exchanges all that is at two keys and below.
    fn swap(&mut self, one: &str, other: &str) {
        let moved = |key: &str| {
            let below = |from: &str| key.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let of_one = below(one).map(|rest| format!("{other}{rest}"));
            of_one.or_else(|| below(other).map(|rest| format!("{one}{rest}"))).unwrap_or_else(|| key.to_owned())
        };
        let (contents, directories) = (std::mem::take(&mut self.contents), std::mem::take(&mut self.directories));
        self.contents = contents.into_iter().map(|(key, contents)| (moved(&key), contents)).collect();
        self.directories = directories.into_iter().map(|(key, stamp)| (moved(&key), stamp)).collect();
    }
}

impl Storage for Memory {
    fn place(&self, key: &str) -> PathBuf {
        PathBuf::from("memory:").join(key)
    }

    fn open(&self, key: &str) -> Result<Box<dyn Contents>, StoreError> {
        let files = self.files();
        match files.contents.get(key) {
            Some((contents, _)) => Ok(Box::new(contents.clone())),
            None if files.directories.contains_key(key) => {
                Err(StoreError::damaged(self.place(key), super::local::DIRECTORY))
            }
            None => Err(self.failed(key, io::ErrorKind::NotFound)),
        }
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.files().entry(key))
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, StoreError> {
        let files = self.files();
        if !directory.is_empty() && !files.directories.contains_key(directory) {
            return Err(self.failed(directory, io::ErrorKind::NotFound));
        }
        let keys = files.contents.keys().chain(files.directories.keys()).filter(|key| split(key).0 == directory);
        Ok(keys.filter_map(|key| files.entry(key)).collect())
    }

    fn make_directory(&self, directory: &str) -> Result<bool, StoreError> {
        Ok(self.files().make_directory(directory))
    }

    fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.files().contents.remove(key);
        Ok(Box::new(Draft { memory: self.clone(), key: key.to_owned(), contents: Vec::new() }))
    }

    fn put(&self, key: &str, contents: &[u8]) -> Result<(), StoreError> {
        self.files().put(key, Bytes::copy_from_slice(contents));
        Ok(())
    }

    fn publish(&self, commits: usize, files: &mut FilesOf<'_>) -> Result<Vec<bool>, StoreError> {
        let _turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let come = (0..commits).map(files).collect::<Result<Vec<_>, _>>()?;
        for (from, to) in come.iter().flatten().flatten() {
            let mut files = self.files();
            let (contents, _) =
                files.contents.remove(from).ok_or_else(|| self.failed(from, io::ErrorKind::NotFound))?;
            files.put(to, contents);
        }
        Ok(come.iter().map(Option::is_some).collect())
    }

    fn exchange(
        &self,
        new: &str,
        old: &str,
        is_ready: &mut dyn FnMut() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let _turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ready = is_ready()?;
        if is_ready {
            self.files().swap(new, old);
        }
        Ok(is_ready)
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let mut files = self.files();
        if files.contents.contains_key(to) {
            return Err(self.failed(to, io::ErrorKind::AlreadyExists));
        }
        let contents = files.contents.get(from).map(|(contents, _)| contents.clone());
        files.put(to, contents.ok_or_else(|| self.failed(from, io::ErrorKind::NotFound))?);
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let mut files = self.files();
        let below = format!("{key}/");
        let is_deleted = |other: &String| other == key || other.starts_with(&below);
        let is_there = files.contents.keys().chain(files.directories.keys()).any(is_deleted);
        files.contents.retain(|other, _| !is_deleted(other));
        files.directories.retain(|other, _| !is_deleted(other));
        if is_there { Ok(()) } else { Err(self.failed(key, io::ErrorKind::NotFound)) }
    }

    fn lock(&self, lock: Lock) -> Result<Guard, StoreError> {
        let (name, how) = lock.held();
        self.0.locks.hold(Path::new(name), how).ok_or_else(|| StoreError::Busy { path: self.place("") })
    }

    fn as_single_writer(&self, _: bool) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }
}

impl Contents for Bytes {
    fn len(&self) -> u64 {
        Self::len(self) as u64
    }

    fn read(&self, start: u64, bytes: u64) -> io::Result<Bytes> {
        checked_range(Contents::len(self), start, bytes)?;
        let at = |position: u64| usize::try_from(position).map_err(io::Error::other);
        Ok(self.slice(at(start)?..at(start + bytes)?))
    }
}

/// A file that is not there yet.
#[derive(Debug)]
struct Draft {
    memory: Memory,
    key: String,
    contents: Vec<u8>,
}

impl Write for Draft {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.contents.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for Draft {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.memory.files().put(&self.key, self.contents.into());
        Ok(())
    }
}
