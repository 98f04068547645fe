//! A store on a file system. What a commit names is flushed before it is published (`unflushed`); nothing outside the
//! store is touched (`directory`), and writers take turns (`lock`).

mod directory;
mod lock;
mod unflushed;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::{Contents, Entry, EntryKind, FilesOf, Guard, Lock, Storage, Upload, checked_range, join, split};
use crate::store::StoreError;
use directory::Directory;
use unflushed::{Unflushed, sync_directory, sync_file};

/// What is said of a directory in the place of a file.
pub(super) const DIRECTORY: &str = "a directory, where a file of the store should be";
/// What is written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// A directory of a file system.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
    /// Whether nobody else writes, so that locks can be done without.
    is_single_writer: bool,
    /// What is not durable yet; shared by clones.
    unflushed: Arc<Unflushed>,
}

impl Local {
    /// The files below a directory, which need not be there yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), is_single_writer: false, unflushed: Arc::default() }
    }
}

impl Storage for Local {
    fn place(&self, key: &str) -> PathBuf {
        // Joined with nothing, a path would end in a separator.
        if key.is_empty() { self.root.clone() } else { self.root.join(key) }
    }

    fn open(&self, key: &str) -> Result<Box<dyn Contents>, StoreError> {
        let file = Directory::open(&self.root).and_then(|root| root.file(Path::new(key)));
        let file = file.map_err(|refused| refused.at(&self.place(key)))?;
        let len = file.metadata().map_err(StoreError::io(self.place(key)))?.len();
        Ok(Box::new(OpenFile { len, file }))
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let path = self.place(key);
        match fs::symlink_metadata(&path) {
            Ok(found) => Ok(Some(entry(split(key).1.to_owned(), &found))),
            // Below a file, there is nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(StoreError::io(path)(error)),
        }
    }

    fn list(&self, directory: &str) -> Result<Vec<Entry>, StoreError> {
        let path = self.place(directory);
        let mut found = Vec::new();
        for below in fs::read_dir(&path).map_err(StoreError::io(&path))? {
            let below = below.map_err(StoreError::io(&path))?;
            let name = below.file_name().to_string_lossy().into_owned();
            match below.metadata() {
                Ok(metadata) => found.push(entry(name, &metadata)),
                // It has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io(below.path())(error)),
            }
        }
        Ok(found)
    }

    fn make_directory(&self, directory: &str) -> Result<bool, StoreError> {
        let path = self.place(directory);
        self.make_directories_of(directory)?;
        match fs::create_dir(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match self.entry(directory)?.and_then(|entry| entry.kind.in_place_of_directory()) {
                    Some(odd) => Err(StoreError::damaged(&path, odd)),
                    None => Ok(false),
                }
            }
            Err(error) => Err(StoreError::io(&path)(error)),
        }
    }

    fn create(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        let path = self.place(key);
        self.make_directories_of(key)?;
        // Never write into a file that another generation may share.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(&path)(error)),
            _ => {}
        }
        let file = File::create_new(&path).map_err(StoreError::io(&path))?;
        Ok(Box::new(NewFile {
            path,
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            unflushed: self.unflushed.clone(),
        }))
    }

    fn put(&self, key: &str, contents: &[u8]) -> Result<(), StoreError> {
        let (directory, name) = split(key);
        let staged = join(directory, &format!(".{name}.{:016x}", fastrand::u64(..)));
        self.write(&staged, contents)?;
        sync_file(&self.place(&staged))?;
        self.rename(&staged, key)?;
        sync_directory(parent_of(&self.place(key)))
    }

    fn publish(&self, commits: usize, files: &mut FilesOf<'_>) -> Result<Vec<bool>, StoreError> {
        self.flush()?;
        let _turn = lock::turn(&self.root, self.is_single_writer)?;
        let come = (0..commits).map(files).collect::<Result<Vec<_>, _>>()?;
        for from_end in (0..come.iter().flatten().map(Vec::len).max().unwrap_or(0)).rev() {
            let mut directories = BTreeSet::new();
            for files in come.iter().flatten() {
                if let Some((from, to)) = files.iter().rev().nth(from_end) {
                    self.rename(from, to)?;
                    directories.insert(split(to).0);
                }
            }
            directories.iter().try_for_each(|directory| sync_directory(&self.place(directory)))?;
        }
        Ok(come.iter().map(Option::is_some).collect())
    }

    fn exchange(
        &self,
        new: &str,
        old: &str,
        is_ready: &mut dyn FnMut() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let _turn = lock::turn(&self.root, self.is_single_writer)?;
        if !is_ready()? {
            return Ok(false);
        }
        keep_permissions(&self.place(old), &self.place(new));
        self.flush()?;
        if !swap(&self.place(new), &self.place(old)).map_err(StoreError::io(self.place(old)))? {
            let aside = format!("{new}.old");
            self.rename(old, &aside)?;
            if let Err(error) = self.rename(new, old) {
                self.rename(&aside, old)?;
                return Err(error);
            }
            // It is done: what cannot be renamed stays where it is.
            if let Err(error) = self.rename(&aside, new) {
                tracing::debug!("{error}");
            }
        }
        [new, old].iter().try_for_each(|key| sync_directory(parent_of(&self.place(key))))?;
        Ok(true)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.unflushed.flush(&self.root)
    }

    fn link(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.make_directories_of(to)?;
        let (from, to) = (self.place(from), self.place(to));
        if let Err(error) = fs::hard_link(&from, &to) {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(StoreError::io(&to)(error));
            }
            fs::copy(&from, &to).map_err(StoreError::io(&to))?;
            self.unflushed.add_file(to);
        }
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (directory, name) = split(key);
        let below = Directory::open(&self.root).and_then(|root| root.below(Path::new(directory)));
        below.and_then(|directory| directory.remove(name.as_ref())).map_err(|refused| refused.at(&self.place(key)))
    }

    fn lock(&self, lock: Lock) -> Result<Guard, StoreError> {
        lock::take(&self.root, lock, self.is_single_writer)
    }

    fn as_single_writer(&self, is_single_writer: bool) -> Arc<dyn Storage> {
        Arc::new(Self { is_single_writer, ..self.clone() })
    }
}

impl Local {
    fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let to = self.place(to);
        fs::rename(self.place(from), &to).map_err(StoreError::io(&to))
    }

    /// Creates the directories that a key is in. They may be there already, made by a writer that was interrupted
    /// before they were durable.
    fn make_directories_of(&self, key: &str) -> Result<(), StoreError> {
        let parent = split(key).0;
        let path = self.place(parent);
        if !path.is_dir() {
            fs::create_dir_all(&path).map_err(StoreError::io(&path))?;
        }
        let mut directory = Some(parent);
        while let Some(above) = directory {
            self.unflushed.add_directory(self.place(above));
            directory = (!above.is_empty()).then(|| split(above).0);
        }
        Ok(())
    }
}

fn entry(name: String, found: &fs::Metadata) -> Entry {
    let kind = match found {
        found if found.is_file() => EntryKind::File,
        found if found.is_dir() => EntryKind::Directory,
        found if found.is_symlink() => EntryKind::Link,
        _ => EntryKind::Other,
    };
    let modified = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    // Files that are written within one tick of the clock differ in where they are.
    #[cfg(unix)]
    let place = std::os::unix::fs::MetadataExt::ino(found);
    #[cfg(not(unix))]
    let place = 0;
    let stamp = modified.map_or(0, |time| time.as_nanos()) << 64 | u128::from(place);
    Entry { name, kind, bytes: found.len(), stamp }
}

/// Gives a directory that takes the place of another, and those in it, the permissions and group of that, as far as
/// that can be done.
#[cfg(unix)]
fn keep_permissions(old: &Path, new: &Path) {
    use std::os::unix::fs::{MetadataExt, chown};

    // A table that was not there before is as what it is in.
    let Ok(found) = fs::symlink_metadata(old).or_else(|_| fs::symlink_metadata(parent_of(old))) else { return };
    let _ = chown(new, None, Some(found.gid()));
    let _ = fs::set_permissions(new, found.permissions());
    for below in fs::read_dir(new).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            keep_permissions(&old.join(below.file_name()), &below.path());
        }
    }
}

#[cfg(not(unix))]
fn keep_permissions(_: &Path, _: &Path) {}

/// Exchanges two directories at once; false where that cannot be done.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn swap(one: &Path, other: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        // An earlier kernel, or a file system such as NFS.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn swap(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// The directory that a path is in.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a directory and its parents, all durable.
fn make_directories(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    if parent != path {
        make_directories(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::io(path)(error)),
        _ => sync_directory(parent),
    }
}

/// A file that is open for reading.
struct OpenFile {
    len: u64,
    file: File,
}

impl Contents for OpenFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, start: u64, bytes: u64) -> io::Result<Bytes> {
        checked_range(self.len, start, bytes)?;
        let mut piece = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        read_exact_at(&self.file, &mut piece, start)?;
        Ok(piece.into())
    }

    fn read_into(&self, start: u64, target: &mut [u8]) -> io::Result<()> {
        checked_range(self.len, start, target.len() as u64)?;
        read_exact_at(&self.file, target, start)
    }
}

/// Reads a range of a file. Many threads may do so at once.
#[cfg(unix)]
fn read_exact_at(file: &File, piece: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, piece, start)
}

/// Reads a range of a file. Many threads may do so at once.
#[cfg(windows)]
fn read_exact_at(file: &File, mut piece: &mut [u8], mut start: u64) -> io::Result<()> {
    while !piece.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, piece, start)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        start += read as u64;
        piece = &mut piece[read..];
    }
    Ok(())
}

/// A file that is being written.
struct NewFile {
    path: PathBuf,
    file: BufWriter<File>,
    unflushed: Arc<Unflushed>,
}

impl Write for NewFile {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.file.write(piece)
    }

    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Upload for NewFile {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let Self { path, file, unflushed } = *self;
        let file = file.into_inner().map_err(|error| StoreError::io(&path)(error.into_error()))?;
        unflushed.add(path, file)
    }
}
