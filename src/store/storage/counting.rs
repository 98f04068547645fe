//! A storage that counts what is read of it, for tests.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::{Contents, Entry, FilesOf, Guard, Lock, Storage, Upload};
use crate::store::StoreError;

/// Another storage, whose reads are counted.
#[derive(Debug, Clone)]
pub struct Counting {
    inner: Arc<dyn Storage>,
    read: Arc<AtomicU64>,
}

impl Counting {
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, read: Arc::default() }
    }

    /// Bytes that were read since this was asked last.
    pub fn take(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }
}

struct Counted {
    inner: Box<dyn Contents>,
    read: Arc<AtomicU64>,
}

impl Contents for Counted {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read(&self, start: u64, bytes: u64) -> io::Result<Bytes> {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.inner.read(start, bytes)
    }
}

impl Storage for Counting {
    fn place(&self, key: &str) -> PathBuf {
        self.inner.place(key)
    }

    fn open(&self, key: &str) -> Result<Box<dyn Contents>, StoreError> {
        Ok(Box::new(Counted { inner: self.inner.open(key)?, read: self.read.clone() }))
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.entry(key)
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, StoreError> {
        self.inner.list(directory)
    }

    fn make_directory(&self, directory: &str) -> Result<bool, StoreError> {
        self.inner.make_directory(directory)
    }

    fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.inner.create(key)
    }

    fn put(&self, key: &str, contents: &[u8]) -> Result<(), StoreError> {
        self.inner.put(key, contents)
    }

    fn publish(&self, commits: usize, files: &mut FilesOf<'_>) -> Result<Vec<bool>, StoreError> {
        self.inner.publish(commits, files)
    }

    fn exchange(
        &self,
        new: &str,
        old: &str,
        is_ready: &mut dyn FnMut() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        self.inner.exchange(new, old, is_ready)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn link(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.inner.link(from, to)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn lock(&self, lock: Lock) -> Result<Guard, StoreError> {
        self.inner.lock(lock)
    }

    fn as_single_writer(&self, is_single_writer: bool) -> Arc<dyn Storage> {
        Arc::new(Self { inner: self.inner.as_single_writer(is_single_writer), ..self.clone() })
    }
}
