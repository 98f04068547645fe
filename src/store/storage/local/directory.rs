//! The files of a store, opened and removed so that nothing outside it is touched. What is there may be from somebody
//! else: a link would lead out of the store, and a pipe would never end.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::DIRECTORY;
use crate::store::StoreError;

const LINK: &str = "a link, where a file of the store should be; put the file itself there";
const NO_DIRECTORY: &str = "a link or a file, where a directory of the store should be; put the directory itself there";

/// Why something was not opened or removed.
#[derive(Debug)]
pub enum Refused {
    /// What is there is not what a store has there.
    Odd(&'static str),
    /// The system says no.
    Io(io::Error),
}

impl Refused {
    /// The error of a path.
    pub fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Odd(odd) => StoreError::damaged(path, odd),
            Self::Io(error) => StoreError::io(path)(error),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(unix)]
impl From<rustix::io::Errno> for Refused {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// What is where a file should be; `None`: a file.
fn odd_kind(found: &fs::Metadata) -> Option<&'static str> {
    match found {
        found if found.is_file() => None,
        found if found.is_symlink() => Some(LINK),
        found if found.is_dir() => Some(DIRECTORY),
        _ => Some("a pipe or device, where a file of the store should be"),
    }
}

/// Opens the file of a lock, or creates it. A link is not followed, a pipe not waited for.
pub fn open_to_lock(path: &Path) -> Result<File, StoreError> {
    if let Some(odd) = fs::symlink_metadata(path).ok().and_then(|found| odd_kind(&found)) {
        return Err(StoreError::damaged(path, odd));
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    // Once more for what came in its place meanwhile.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, unix::FILE.bits().cast_signed());
    options.open(path).map_err(StoreError::io(path))
}

/// A directory that is held open: what is looked for in it is found in it, whatever is renamed or linked meanwhile.
#[derive(Debug)]
pub struct Directory(#[cfg(unix)] rustix::fd::OwnedFd, #[cfg(not(unix))] std::path::PathBuf);

impl Directory {
    /// A directory below this one. None on the way may be a link.
    pub fn below(self, path: &Path) -> Result<Self, Refused> {
        path.components().try_fold(self, |directory, name| directory.enter(name.as_os_str()))
    }

    /// Opens a file below, by its path.
    pub fn file(self, path: &Path) -> Result<File, Refused> {
        let (directory, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let file = self.below(directory)?.open_file(name)?;
        match odd_kind(&file.metadata()?) {
            Some(odd) => Err(Refused::Odd(odd)),
            None => Ok(file),
        }
    }
}

#[cfg(unix)]
mod unix {
    use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, unlinkat};
    use rustix::io::{Errno, retry_on_intr};

    use super::{Directory, File, LINK, NO_DIRECTORY, OsStr, Path, Refused};

    const ROOT: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
    const BELOW: OFlags = ROOT.union(OFlags::NOFOLLOW);
    /// For files: a link is not followed, a pipe not waited for.
    pub const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

    impl Directory {
        /// Opens a directory, which may be a link.
        pub fn open(path: &Path) -> Result<Self, Refused> {
            Ok(Self(retry_on_intr(|| openat(CWD, path, ROOT, Mode::empty()))?))
        }

        pub fn enter(&self, name: &OsStr) -> Result<Self, Refused> {
            match retry_on_intr(|| openat(&self.0, name, BELOW, Mode::empty())) {
                Err(Errno::LOOP | Errno::NOTDIR) => Err(Refused::Odd(NO_DIRECTORY)),
                other => Ok(Self(other?)),
            }
        }

        pub fn open_file(&self, name: &OsStr) -> Result<File, Refused> {
            match retry_on_intr(|| openat(&self.0, name, FILE, Mode::empty())) {
                Err(Errno::LOOP) => Err(Refused::Odd(LINK)),
                other => Ok(other?.into()),
            }
        }

        pub fn remove(&self, name: &OsStr) -> Result<(), Refused> {
            let directory = match retry_on_intr(|| openat(&self.0, name, BELOW, Mode::empty())) {
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(&self.0, name, AtFlags::empty())?),
                other => Self(other?),
            };
            for entry in Dir::read_from(&directory.0)? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    directory.remove(std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes()))?;
                }
            }
            Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
        }
    }
}

#[cfg(not(unix))]
mod by_path {
    use super::{Directory, File, NO_DIRECTORY, OsStr, Path, Refused, fs, odd_kind};

    impl Directory {
        pub fn open(path: &Path) -> Result<Self, Refused> {
            Ok(Self(path.to_owned()))
        }

        pub fn enter(&self, name: &OsStr) -> Result<Self, Refused> {
            let path = self.0.join(name);
            if fs::symlink_metadata(&path)?.is_dir() { Ok(Self(path)) } else { Err(Refused::Odd(NO_DIRECTORY)) }
        }

        pub fn open_file(&self, name: &OsStr) -> Result<File, Refused> {
            let path = self.0.join(name);
            match odd_kind(&fs::symlink_metadata(&path)?) {
                Some(odd) => Err(Refused::Odd(odd)),
                None => Ok(File::open(path)?),
            }
        }

        pub fn remove(&self, name: &OsStr) -> Result<(), Refused> {
            let path = self.0.join(name);
            let removed =
                if fs::symlink_metadata(&path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            Ok(removed?)
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::{Local, Storage};
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

        let local = Local::new(&root);
        assert_eq!(local.get("a/b/file").unwrap(), "own");
        for (odd, said) in
            [("a/link", "a link"), ("a/pipe", "a pipe"), ("a/b", "a directory"), ("linked/b/file", "a link or a file")]
        {
            let error = local.get(odd).unwrap_err().to_string();
            assert!(error.contains(odd) && error.contains(said), "{error}");
        }
        assert!(local.get("a/b/none").unwrap_err().is_not_found());

        local.delete("linked/b").unwrap_err();
        local.delete("linked").unwrap();
        local.delete("a").unwrap();
        assert_eq!(fs::read(outside.join("b/file")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn a_store_may_itself_be_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        symlink("root", dir.path().join("link")).unwrap();
        Local::new(dir.path().join("root")).put("a/file", b"own").unwrap();
        assert_eq!(Local::new(dir.path().join("link")).get("a/file").unwrap(), "own");
    }
}
