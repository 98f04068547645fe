//! Rows of the store against files of the dump: are they of the same step, and of the same video?

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dump::{CALENDAR, Series, StepFiles, Video, content_hash, micros};
use crate::store::StepRow;

/// Where the stored rows came from, if they are of another video than that of the dump: none was read from its
/// directory, and of the steps that both have one has other contents, or there are no such.
pub(super) fn other_video(rows: &[StepRow], video: &Video) -> Option<PathBuf> {
    let first = rows.first()?;
    if rows.iter().any(|row| Path::new(&row.source).starts_with(&video.dir)) {
        return None;
    }
    let words: HashMap<&str, &Series> = video.series.iter().map(|series| (series.token.as_str(), series)).collect();
    let files_of = |row: &StepRow| {
        let steps = &words.get(row.token.as_str())?.steps;
        Some(&steps[steps.binary_search_by_key(&row.step, |files| files.step).ok()?])
    };
    let mut common = rows.iter().filter_map(|row| Some((row, files_of(row)?))).peekable();
    // A file that cannot be read tells nothing.
    let differs = |(row, files): (&StepRow, &StepFiles)| content_hash(files).is_ok_and(|hash| hash != row.content_hash);
    let elsewhere = Path::new(&first.source).ancestors().nth(2).unwrap_or(Path::new(&first.source));
    (common.peek().is_none() || common.any(differs)).then(|| elsewhere.to_owned())
}

/// What is before a video's own name in its id, with a `/` at its end.
pub(super) fn batch_of<'a>(video_id: &'a str, video: &Video) -> &'a str {
    video_id.strip_suffix(&video.name).unwrap_or_default()
}

/// Where a stored video came from, in words.
pub(super) fn origin(dir: &Path) -> String {
    if dir.as_os_str().is_empty() { "written without a dump".into() } else { format!("from {}", dir.display()) }
}

/// What a file of the dump is to a row of the store.
pub(super) enum Same {
    /// Path, sizes and modification times are those of the row.
    AsListed,
    /// The contents are.
    InContent,
    /// The contents differ.
    Not,
}

/// Whether files are those that a row was read from.
pub(super) fn compare(row: &StepRow, files: &StepFiles) -> Same {
    if Path::new(&row.source) == files.path() && row.source_signature == files.signature() {
        return Same::AsListed;
    }
    match content_hash(files) {
        Ok(hash) if hash == row.content_hash => Same::InContent,
        _ => Same::Not,
    }
}

/// Names the files in a row.
pub(super) fn update_source(row: &mut StepRow, files: &StepFiles) {
    row.source = files.path().to_string_lossy().into_owned();
    row.source_bytes = size(files.bytes());
    row.source_modified = micros(files.modified()).clamp(CALENDAR.start, CALENDAR.end - 1);
    row.source_signature = files.signature();
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
