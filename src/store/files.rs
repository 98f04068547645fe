//! The files of a store, opened and removed so that nothing outside it is touched. What is there may be from somebody
//! else: a link would lead out of the store, a pipe would never end, and a size is no more than a claim.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use zarrs::storage::byte_range::{ByteRange, ByteRangeIterator, InvalidByteRangeError};
use zarrs::storage::{Bytes, MaybeBytesIterator, ReadableStorageTraits, StorageError, StoreKey};

use super::StoreError;

/// The largest document or part that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Opens a file for reading.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    open_with(path, File::options().read(true))
}

/// Opens a file that is one itself: no link, no pipe, no device.
pub(super) fn open_with(path: &Path, options: &mut OpenOptions) -> Result<File, StoreError> {
    if let Some(odd) = fs::symlink_metadata(path).ok().and_then(|found| odd_kind(&found)) {
        return Err(StoreError::damaged(path, odd));
    }
    // Once more for what came in its place meanwhile: a link is not followed, a pipe not waited for.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, unix::FILE.bits().cast_signed());
    let file = options.open(path).map_err(StoreError::io(path))?;
    match file.metadata().map_err(StoreError::io(path)).map(|found| odd_kind(&found))? {
        Some(odd) => Err(StoreError::damaged(path, odd)),
        None => Ok(file),
    }
}

/// The contents of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let file = open(path)?;
    let bytes = file.metadata().map_err(StoreError::io(path))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(StoreError::damaged(path, format!("{bytes} bytes; such a file has {MAX_FILE_BYTES} at the most")));
    }
    let mut contents = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    file.take(MAX_FILE_BYTES).read_to_end(&mut contents).map_err(StoreError::io(path))?;
    Ok(contents)
}

/// Removes a file, or a directory with all that is in it, below `root`. A link is removed itself, and none is followed
/// on the way.
pub(crate) fn remove(root: &Path, path: &Path) -> Result<(), StoreError> {
    let removed = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Directory::below(root, dir).and_then(|dir| dir.remove(name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    removed.map_err(StoreError::io(path))
}

const LINK: &str = "a link, where a file of the store should be; put the file itself there";
const NO_DIRECTORY: &str = "a link or a file, where a directory of the store should be; put the directory itself there";

/// What is where a file should be; `None`: a file.
fn odd_kind(found: &fs::Metadata) -> Option<&'static str> {
    match found {
        found if found.is_file() => None,
        found if found.is_symlink() => Some(LINK),
        found if found.is_dir() => Some("a directory, where a file of the store should be"),
        _ => Some("a pipe or device, where a file of the store should be"),
    }
}

/// A directory that is held open: what is looked for in it is found in it, whatever is renamed or linked meanwhile.
#[derive(Debug)]
struct Directory(#[cfg(unix)] rustix::fd::OwnedFd, #[cfg(not(unix))] std::path::PathBuf);

impl Directory {
    /// A directory below `root`, which may be a link itself; nothing behind it may.
    fn below(root: &Path, path: &Path) -> io::Result<Self> {
        let below = path.strip_prefix(root).map_err(|_| io::ErrorKind::InvalidInput)?;
        below.components().try_fold(Self::open(root)?, |dir, name| dir.enter(name.as_os_str()))
    }

    /// Opens a file, by its path below.
    fn file(&self, path: &Path) -> io::Result<File> {
        let mut names = path.components();
        let Some(name) = names.next_back() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut dir = None;
        for name in names {
            dir = Some(dir.as_ref().unwrap_or(self).enter(name.as_os_str())?);
        }
        let file = dir.as_ref().unwrap_or(self).open_file(name.as_os_str())?;
        match odd_kind(&file.metadata()?) {
            Some(odd) => Err(io::Error::other(odd)),
            None => Ok(file),
        }
    }
}

#[cfg(unix)]
mod unix {
    use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
    use rustix::io::Errno;

    use super::{Directory, File, LINK, NO_DIRECTORY, OsStr, Path, io};

    const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    /// For files: a link is not followed, a pipe not waited for.
    pub const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

    impl Directory {
        pub fn open(path: &Path) -> io::Result<Self> {
            Ok(Self(File::open(path)?.into()))
        }

        pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
            match openat(&self.0, name, DIRECTORY, Mode::empty()) {
                Err(Errno::LOOP | Errno::NOTDIR) => Err(io::Error::other(NO_DIRECTORY)),
                other => Ok(Self(other?)),
            }
        }

        pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
            match openat(&self.0, name, FILE, Mode::empty()) {
                Err(Errno::LOOP) => Err(io::Error::other(LINK)),
                other => Ok(other?.into()),
            }
        }

        pub fn remove(&self, name: &OsStr) -> io::Result<()> {
            let dir = match openat(&self.0, name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(&self.0, name, AtFlags::empty())?),
                other => Self(other?),
            };
            for entry in Dir::read_from(&dir.0)? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    dir.remove(std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes()))?;
                }
            }
            Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
        }
    }
}

#[cfg(not(unix))]
mod by_path {
    use super::{Directory, File, NO_DIRECTORY, OsStr, Path, fs, io, odd_kind};

    impl Directory {
        pub fn open(path: &Path) -> io::Result<Self> {
            Ok(Self(path.to_owned()))
        }

        pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
            let path = self.0.join(name);
            if fs::symlink_metadata(&path)?.is_dir() { Ok(Self(path)) } else { Err(io::Error::other(NO_DIRECTORY)) }
        }

        pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
            let path = self.0.join(name);
            match odd_kind(&fs::symlink_metadata(&path)?) {
                Some(odd) => Err(io::Error::other(odd)),
                None => File::open(path),
            }
        }

        pub fn remove(&self, name: &OsStr) -> io::Result<()> {
            let path = self.0.join(name);
            if fs::symlink_metadata(&path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        }
    }
}

/// The files of an array, for `zarrs`.
#[derive(Debug)]
pub(super) struct ArrayFiles(Directory);

impl ArrayFiles {
    /// Opens the directory of an array below `root`.
    pub fn open(root: &Path, path: &Path) -> Result<Self, StoreError> {
        Directory::below(root, path).map(Self).map_err(StoreError::io(path))
    }

    fn file(&self, key: &StoreKey) -> Result<Option<File>, StorageError> {
        match self.0.file(Path::new(key.as_str())) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

impl ReadableStorageTraits for ArrayFiles {
    fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        byte_ranges: ByteRangeIterator<'a>,
    ) -> Result<MaybeBytesIterator<'a>, StorageError> {
        let Some(mut file) = self.file(key)? else { return Ok(None) };
        let len = file.metadata().map_err(failed)?.len();
        Ok(Some(Box::new(byte_ranges.map(move |range| read_range(&mut file, len, range)))))
    }

    fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        let Some(file) = self.file(key)? else { return Ok(None) };
        file.metadata().map(|found| Some(found.len())).map_err(failed)
    }

    fn supports_get_partial(&self) -> bool {
        true
    }
}

/// Reads a range of a file of `len` bytes, which are all that is ever allocated for it.
fn read_range(file: &mut File, len: u64, range: ByteRange) -> Result<Bytes, StorageError> {
    let (start, end) = match range {
        ByteRange::FromStart(start, None) => (Some(start), Some(len)),
        ByteRange::FromStart(start, Some(length)) => (Some(start), start.checked_add(length)),
        ByteRange::Suffix(length) => (len.checked_sub(length), Some(len)),
    };
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= len => {
            let mut bytes = Vec::with_capacity(usize::try_from(end - start).unwrap_or(0));
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            file.take(end - start).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes.into())
        }
        _ => Err(InvalidByteRangeError::new(range, len).into()),
    }
}

fn failed(error: io::Error) -> StorageError {
    StorageError::IOError(Arc::new(error))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_and_no_pipe_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(outside.join("b")).unwrap();
        fs::write(outside.join("b/file"), "kept").unwrap();
        fs::write(root.join("a/b/file"), "own").unwrap();
        symlink(&outside, root.join("linked")).unwrap();
        symlink(outside.join("b/file"), root.join("a/link")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(root.join("a/pipe")).status().unwrap().success());

        assert_eq!(read(&root.join("a/b/file")).unwrap(), b"own");
        for (odd, said) in [("a/link", "a link"), ("a/pipe", "a pipe"), ("a/b", "a directory")] {
            let error = read(&root.join(odd)).unwrap_err().to_string();
            assert!(error.contains(odd) && error.contains(said), "{error}");
        }
        let array = ArrayFiles::open(&root, &root.join("a")).unwrap();
        assert_eq!(array.get(&StoreKey::new("b/file").unwrap()).unwrap().unwrap(), "own".as_bytes());
        assert_eq!(array.get(&StoreKey::new("b/none").unwrap()).unwrap(), None);
        array.get(&StoreKey::new("link").unwrap()).unwrap_err();
        array.get(&StoreKey::new("pipe").unwrap()).unwrap_err();
        ArrayFiles::open(&root, &root.join("linked/b")).unwrap_err();

        remove(&root, &root.join("linked/b")).unwrap_err();
        remove(&root, &root.join("linked")).unwrap();
        remove(&root, &root.join("a")).unwrap();
        assert_eq!(fs::read(outside.join("b/file")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn a_range_outside_a_file_allocates_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"0123456789").unwrap();
        let mut get = |range| read_range(&mut file, 10, range).ok();
        assert_eq!(get(ByteRange::FromStart(2, Some(3))).unwrap(), "234");
        assert_eq!(get(ByteRange::FromStart(8, None)).unwrap(), "89");
        assert_eq!(get(ByteRange::Suffix(10)).unwrap(), "0123456789");
        for range in [
            ByteRange::FromStart(8, Some(3)),
            ByteRange::FromStart(11, None),
            ByteRange::FromStart(u64::MAX, Some(2)),
            ByteRange::Suffix(u64::MAX),
        ] {
            assert_eq!(get(range), None, "{range}");
        }
    }
}
