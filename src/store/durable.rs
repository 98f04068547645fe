//! Writing files so that they survive a crash: contents before names, names before what refers to them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::StoreError;

/// Writes a new file and flushes it to disk. Its name is durable once its directory is flushed too.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let mut file = File::create(path).map_err(StoreError::io(path))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(StoreError::io(path))
}

/// Creates a directory and its parents, all durable.
pub(super) fn create_dir_all(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    create_dir_all(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(StoreError::io(path)(error)),
        _ => sync_dir(parent),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    // Directories can be flushed on Unix only; elsewhere a rename is durable by itself.
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io(path))?;
    }
    Ok(())
}

/// Writes a file under another name first and renames it, so that readers see all of it or nothing.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(path);
    let unique = format!(".{}.{:016x}", path.file_name().unwrap_or_default().to_string_lossy(), fastrand::u64(..));
    let staged = dir.join(unique);
    write(&staged, contents)?;
    fs::rename(&staged, path).map_err(StoreError::io(path))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_below_the_current_one_too() {
        let name = format!("attnkit-test-{:016x}", fastrand::u64(..));
        create_dir_all(Path::new(&name)).unwrap();
        fs::remove_dir(&name).unwrap();
    }
}
