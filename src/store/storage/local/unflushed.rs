//! What was written and is not durable yet. A few files are flushed one by one; of many, the whole file system is,
//! where it can be: one wait for the disk instead of hundreds. Large files are flushed while others are computed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::store::StoreError;

/// Files of so many bytes are flushed as soon as they are whole.
const LARGE: u64 = 4 << 20;
/// As many files and directories are flushed one by one.
const FEW: usize = 6;
/// As many are flushed at the same time, where the file system is not flushed as a whole: the threads wait for the
/// disk.
const AT_ONCE: usize = 16;

/// Files and directories that are not durable yet.
#[derive(Debug, Default)]
pub struct Unflushed {
    written: Mutex<Written>,
    /// Held while something is flushed: who finds nothing left to flush has waited for it.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Written {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
    /// Those that are being flushed.
    under_way: Vec<(PathBuf, JoinHandle<io::Result<()>>)>,
    /// What was lost, and why: the system tells that once, so nothing may be believed to be durable afterwards.
    lost: Option<(PathBuf, String)>,
}

/// Why something was not flushed.
enum Failure {
    /// Nothing was tried: it can be tried again.
    Untried(StoreError),
    /// It may be lost.
    Lost(PathBuf, io::Error),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Untried(error) => error,
            Failure::Lost(path, error) => Self::io(path)(error),
        }
    }
}

impl Unflushed {
    /// A file that is whole.
    pub fn add(&self, path: PathBuf, file: File) -> Result<(), StoreError> {
        if file.metadata().map_err(StoreError::io(&path))?.len() < LARGE {
            self.add_file(path);
        } else {
            let flushed = thread::Builder::new().name("flush".into()).spawn(move || file.sync_all());
            let flushed = flushed.map_err(StoreError::io(&path))?;
            self.written().under_way.push((path, flushed));
        }
        Ok(())
    }

    /// A file that is whole, by its path.
    pub fn add_file(&self, path: PathBuf) {
        self.written().files.insert(path);
    }

    /// A directory with new names in it.
    pub fn add_directory(&self, path: PathBuf) {
        self.written().directories.insert(path);
    }

    /// Makes all of it durable. What is gone meanwhile nobody misses.
    pub fn flush(&self, root: &Path) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Written { files, directories, under_way, lost } = std::mem::take(&mut *self.written());
        let flushed = match lost {
            Some((path, error)) => Err(Failure::Lost(path, io::Error::other(error))),
            None => flush_all(root, &files, &directories, under_way),
        };
        let Err(failure) = flushed else { return Ok(()) };
        let mut written = self.written();
        match &failure {
            Failure::Untried(_) => {
                written.files.extend(files);
                written.directories.extend(directories);
            }
            Failure::Lost(path, error) => written.lost = Some((path.clone(), error.to_string())),
        }
        Err(failure.into())
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flush_all(
    root: &Path,
    files: &BTreeSet<PathBuf>,
    directories: &BTreeSet<PathBuf>,
    under_way: Vec<(PathBuf, JoinHandle<io::Result<()>>)>,
) -> Result<(), Failure> {
    // All are waited for: one that fails is no reason to forget the others.
    let ended: Vec<_> = under_way.into_iter().map(|(path, flushed)| (path, flushed.join())).collect();
    for (path, flushed) in ended {
        let flushed = flushed.unwrap_or_else(|_| Err(io::Error::other("it could not be flushed")));
        flushed.map_err(|error| Failure::Lost(path, error))?;
    }
    if files.len() + directories.len() > FEW && sync_file_system(root)? {
        return Ok(());
    }
    flush_each(files, flush_file)?;
    flush_each(directories, flush_directory)
}

fn flush_each(paths: &BTreeSet<PathBuf>, flush: fn(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let flush = |path: &PathBuf| match flush(path) {
        Err(Failure::Untried(error)) if error.is_not_found() => Ok(()),
        other => other,
    };
    if paths.len() <= FEW {
        return paths.iter().try_for_each(flush);
    }
    let paths: Vec<&PathBuf> = paths.iter().collect();
    thread::scope(|scope| {
        let flush_some = |some: &[&PathBuf]| some.iter().copied().try_for_each(flush);
        let some = paths.chunks(paths.len().div_ceil(AT_ONCE)).map(|some| scope.spawn(move || flush_some(some)));
        let threads: Vec<_> = some.collect();
        let ended: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.into_iter().try_for_each(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn flush_opened(path: &Path, opened: io::Result<File>) -> Result<(), Failure> {
    let file = opened.map_err(|error| Failure::Untried(StoreError::io(path)(error)))?;
    file.sync_all().map_err(|error| Failure::Lost(path.to_owned(), error))
}

fn flush_file(path: &Path) -> Result<(), Failure> {
    // Windows flushes only what is open for writing.
    flush_opened(path, if cfg!(unix) { File::open(path) } else { File::options().write(true).open(path) })
}

fn flush_directory(path: &Path) -> Result<(), Failure> {
    // Directories can be flushed on Unix only; elsewhere a rename is durable by itself.
    if cfg!(unix) { flush_opened(path, File::open(path)) } else { Ok(()) }
}

/// Makes the contents of a file durable.
pub fn sync_file(path: &Path) -> Result<(), StoreError> {
    Ok(flush_file(path)?)
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), StoreError> {
    Ok(flush_directory(path)?)
}

/// Flushes the file system that a directory is on. Returns false where that would not do: the system does not tell
/// whether it failed (before Linux 5.8), or the file system may take it for a hint.
#[cfg(target_os = "linux")]
fn sync_file_system(root: &Path) -> Result<bool, Failure> {
    /// ext2 to ext4, XFS, Btrfs, F2FS, ZFS, tmpfs.
    const RELIABLE: [i64; 6] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x2FC1_2FC1, 0x0102_1994];
    let untried = |error: io::Error| Failure::Untried(StoreError::io(root)(error));
    let opened = File::open(root).map_err(untried)?;
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)] // its type differs by machine
    let kind = i64::try_from(rustix::fs::fstatfs(&opened).map_err(|error| untried(error.into()))?.f_type).unwrap_or(0);
    if !RELIABLE.contains(&kind) || !tells_of_failures() {
        return Ok(false);
    }
    let synced = rustix::io::retry_on_intr(|| rustix::fs::syncfs(&opened));
    synced.map(|()| true).map_err(|error| Failure::Lost(root.to_owned(), error.into()))
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_: &Path) -> Result<bool, Failure> {
    Ok(false)
}

/// Whether this Linux is 5.8 or later.
#[cfg(target_os = "linux")]
fn tells_of_failures() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(8))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn whatever_is_left_of_few_and_many_files_is_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let unflushed = Unflushed::default();
        for count in [FEW - 1, 40] {
            for number in 0..count {
                let path = dir.path().join(number.to_string());
                let file = File::create(&path).unwrap();
                file.set_len(if number == 0 { LARGE } else { 1 }).unwrap();
                unflushed.add(path, file).unwrap();
            }
            unflushed.add_directory(dir.path().to_owned());
            unflushed.add_file(dir.path().join("gone"));
            unflushed.flush(dir.path()).unwrap();
            let written = unflushed.written();
            assert!(written.files.is_empty() && written.directories.is_empty() && written.under_way.is_empty());
        }
        let files: BTreeSet<PathBuf> = (0..40).map(|number| dir.path().join(number.to_string())).collect();
        assert!(flush_each(&files, flush_file).is_ok());
    }

    /// After a failure, nothing is durable because it is asked for again.
    #[test]
    fn what_was_lost_stays_lost_and_what_was_not_tried_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (root, file) = (dir.path().join("root"), dir.path().join("root/file"));
        let unflushed = Unflushed::default();
        for number in 0..40 {
            unflushed.add_file(dir.path().join(number.to_string()));
        }
        // Of many, the directory of the store is opened first.
        assert!(unflushed.flush(&root).unwrap_err().is_not_found());
        assert_eq!(unflushed.written().files.len(), 40);
        std::fs::create_dir(&root).unwrap();
        std::fs::write(&file, "kept").unwrap();
        unflushed.flush(&root).unwrap();

        unflushed.written().lost = Some((file.clone(), "a disk that is no more".into()));
        for _ in 0..2 {
            unflushed.add_file(file.clone());
            let error = unflushed.flush(&root).unwrap_err().to_string();
            assert!(error.contains("a disk that is no more") && error.contains("file"), "{error}");
        }
    }

    #[test]
    fn whoever_finds_nothing_to_flush_has_waited_for_whoever_flushes() {
        let dir = tempfile::tempdir().unwrap();
        let unflushed = Unflushed::default();
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = has_ended.clone();
        let slow = thread::spawn(move || {
            thread::sleep(std::time::Duration::from_millis(200));
            ended.store(true, Ordering::SeqCst);
            Ok(())
        });
        unflushed.written().under_way.push((dir.path().to_owned(), slow));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    unflushed.flush(dir.path()).unwrap();
                    assert!(has_ended.load(Ordering::SeqCst));
                });
            }
        });
    }
}
