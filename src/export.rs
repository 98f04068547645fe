//! Writing a store back as a dump: step files, metadata and summaries in the generator's layout.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dtype::{Dtype, SourceDtype};
use crate::dump::{Exported, StepArray, StepMetadata, as_component, beyond, prompt_id, write_npy};
use crate::error::{ErrorKind, LayerError};
use crate::json::{Json, Object};
use crate::progress::{Cancelled, Meter, Progress, Unit};
use crate::query::{Filter, QueryError, StepSet};
use crate::remedy::Remedy;
use crate::store::{ArrayKind, Snapshot, StepRow, Store, StoreError, VideoIndex, document_hash};
use crate::values::Values;

/// What the names of words' directories begin with.
const TOKEN_PREFIX: &str = "token_";

/// How video directories are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `prompt_000_vid001/`, as documented.
    #[default]
    Flat,
    /// `prompt_000/vid001/`, as current generators write; ids that do not divide so stay flat.
    Nested,
}

/// How step files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// `.npy`
    #[default]
    #[serde(rename = "npy")]
    Npy,
    /// `.npy.gz`
    #[serde(rename = "npy.gz")]
    #[cfg_attr(feature = "cli", value(name = "npy.gz"))]
    NpyGzip,
}

/// What is exported, and how.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// How video directories are laid out.
    pub layout: Layout,
    /// How step files are written.
    pub format: Format,
    /// Only steps of which at least one map matches; `None`: all.
    pub filter: Option<Filter>,
}

/// What an export wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportReport {
    /// Videos.
    pub videos: u64,
    /// Steps.
    pub steps: u64,
    /// Bytes of the step files.
    pub bytes: u64,
    /// Steps that an export that was interrupted had written already.
    pub resumed: u64,
}

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The steps to export cannot be told.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something is in the way.
    #[error("{}: exists and is not empty; export writes into a new directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// An export was interrupted here that is not this one.
    #[error("{}: an export of something else was interrupted here ({found}), and this one is {wanted}: name another \
        directory, or remove this one", path.display())]
    Interrupted {
        /// The directory.
        path: PathBuf,
        /// What was exported.
        found: String,
        /// What is to be.
        wanted: String,
    },
    /// The target is in the store itself.
    #[error("{}: is inside the store; export writes elsewhere", path.display())]
    InsideStore {
        /// The directory.
        path: PathBuf,
    },
    /// Two videos or words that would get one directory.
    #[error("{}: both {first} and {second} would be written here; export them apart", path.display())]
    Clash {
        /// The directory.
        path: PathBuf,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// Stopped by whoever asked.
    #[error("stopped; the same export goes on from there")]
    Cancelled,
}

impl LayerError for ExportError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Query(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Export,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Query(error) => error.remedy(),
            _ => None,
        }
    }
}

impl From<Cancelled> for ExportError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// What tells one export from another: it is written first and goes last, so that an export that was interrupted is
/// known, and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    store: PathBuf,
    /// Of the commits that are exported.
    generations: String,
    layout: String,
    format: String,
    condition: Option<String>,
}

/// Name of the marker, in the directory that is exported into.
const MARKER: &str = ".attnkit-export.json";
/// What names of files begin with that are not in their places yet.
const STAGED: &str = ".attnkit-";

impl Marker {
    fn new(store: &Store, index: &[VideoIndex], options: &ExportOptions) -> Self {
        let generations: Vec<&str> = index.iter().map(|video| video.generation.as_str()).collect();
        Self {
            store: fs::canonicalize(store.place()).unwrap_or_else(|_| store.place()),
            generations: document_hash(generations.join(" ").as_bytes()),
            layout: format!("{:?}", options.layout),
            format: format!("{:?}", options.format),
            condition: options.filter.as_ref().and_then(Filter::text),
        }
    }

    /// Puts it into an empty directory; true if it is there already.
    fn place(&self, out: &Path) -> Result<bool, ExportError> {
        let path = out.join(MARKER);
        let text = |marker: &Self| serde_json::to_string(marker).unwrap_or_default();
        match fs::read(&path).ok().and_then(|found| serde_json::from_slice::<Self>(&found).ok()) {
            Some(found) if found == *self => return Ok(true),
            Some(found) => {
                let (found, wanted) = (text(&found), text(self));
                return Err(ExportError::Interrupted { path: out.to_owned(), found, wanted });
            }
            None => {}
        }
        let is_other = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(STAGED.as_bytes());
        if fs::read_dir(out).is_ok_and(|entries| entries.flatten().any(|entry| is_other(&entry))) {
            return Err(ExportError::NotEmpty { path: out.to_owned() });
        }
        create_dir(out)?;
        write_file(&path, text(self).as_bytes())?;
        Ok(false)
    }
}

/// Where a word is written to.
struct Word {
    dir: PathBuf,
    /// What was lost when it was ingested.
    lossy: serde_json::Map<String, serde_json::Value>,
}

/// Writes the store back as a dump below `out`, in `out/attention_maps`. Its progress counts steps.
///
/// Arrays that were ingested without loss are bit for bit those of the dump (bfloat16 as the float32 it was widened
/// to). What the store knows and a generator's keys do not tell (ids, weights, templates) is written into the metadata
/// under the key `attnkit`, and read from there by the next ingest. Each file is written beside its place, flushed and
/// renamed; an export that was interrupted goes on where it stopped when it is asked for again.
///
/// # Errors
/// If `out` is not empty and holds no such export that was interrupted, the store is damaged, or a file cannot be
/// written; and [`ExportError::Cancelled`].
pub fn run(
    store: &Store,
    out: &Path,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<ExportReport, ExportError> {
    let ExportOptions { layout, format, filter } = options;
    if is_inside(out, &store.place()) {
        return Err(ExportError::InsideStore { path: out.to_owned() });
    }
    let root = out.join("attention_maps");
    let chosen = filter.as_ref().map(|filter| StepSet::find(store, filter)).transpose()?;
    let is_chosen = |row: &&StepRow| chosen.as_ref().is_none_or(|chosen| chosen.contains(row));
    let (mut index, snapshot) = store.of_one_state(Snapshot::read_index)?;
    if chosen.is_some() {
        index.retain(|video| video.rows.iter().any(|row| is_chosen(&row)));
    }
    let is_resumed = Marker::new(store, &index, options).place(out)?;
    let mut taken: std::collections::HashMap<PathBuf, String> = std::collections::HashMap::new();
    let mut tasks = Vec::new();
    for video in &index {
        let dir = root.join(video_dir(&video.record.video_id, *layout));
        claim(&mut taken, &dir, &video.record.video_id)?;
        create_dir(&dir)?;
        if let Some(summary) = &video.record.summary {
            let summary = match &chosen {
                None => summary.clone(),
                Some(_) => summary_of(summary, &video.rows.iter().filter(is_chosen).collect::<Vec<_>>()),
            };
            write_file(&dir.join("summary.json"), &Json::Object(summary).to_pretty())?;
        }
        for rows in video.series() {
            let Some(first) = rows.iter().find(is_chosen) else { continue };
            let word = dir.join(format!("{TOKEN_PREFIX}{}", as_component(&first.token)));
            claim(&mut taken, &word, &format!("word `{}` of {}", first.token, first.video_id))?;
            create_dir(&word)?;
            let attributes = snapshot.generation(first.series_path())?.attributes()?;
            let word =
                Arc::new(Word { dir: word, lossy: attributes["lossy"].as_object().cloned().unwrap_or_default() });
            tasks.extend(rows.iter().filter(is_chosen).map(|row| (video, word.clone(), row)));
        }
    }
    let resumed = AtomicU64::new(0);
    let all = tasks.len() as u64;
    let meter = Meter::new(progress, Unit::Steps, all);
    let write = |(video, word, row): &(&VideoIndex, Arc<Word>, &StepRow)| {
        let path = word.path(row, *format);
        let bytes = match fs::symlink_metadata(&path) {
            // It was renamed into place whole, behind its metadata.
            Ok(found) if is_resumed && found.is_file() => {
                resumed.fetch_add(1, Ordering::Relaxed);
                found.len()
            }
            _ => export_step(&snapshot, video, row, word, &path, *format)?,
        };
        meter.add(1)?;
        Ok::<u64, ExportError>(bytes)
    };
    let bytes = tasks.par_iter().map(write).try_reduce(|| 0, |a, b| Ok(a + b))?;
    let dirs: BTreeSet<&Path> =
        tasks.iter().flat_map(|(_, word, _)| word.dir.ancestors().take_while(|dir| dir.starts_with(out))).collect();
    dirs.into_iter().try_for_each(sync_dir)?;
    let marker = out.join(MARKER);
    fs::remove_file(&marker).map_err(|source| ExportError::Write { path: marker, source })?;
    Ok(ExportReport { videos: index.len() as u64, steps: all, bytes, resumed: resumed.into_inner() })
}

/// The summary of a video of which some steps are exported.
fn summary_of(whole: &Object, rows: &[&StepRow]) -> Object {
    let steps: BTreeSet<i32> = rows.iter().map(|row| row.step).collect();
    let mut summary = whole.clone();
    if let Some(Json::Object(targets)) = summary.get_mut("target_tokens") {
        targets.retain(|word, _| rows.iter().any(|row| row.token == *word));
    }
    let stored = steps.iter().map(|&step| Json::from(i128::from(step))).collect();
    for (key, value) in [("total_stored", Json::from(steps.len() as i128)), ("stored_steps", Json::Array(stored))] {
        if let Some(known) = summary.get_mut(key) {
            *known = value;
        }
    }
    summary
}

/// Whether a directory that may not be there yet would be below another, links resolved.
fn is_inside(dir: &Path, root: &Path) -> bool {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let known = absolute.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok());
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    known.is_some_and(|known| known.starts_with(root))
}

fn export_step(
    snapshot: &Snapshot,
    video: &VideoIndex,
    row: &StepRow,
    word: &Word,
    path: &Path,
    format: Format,
) -> Result<u64, ExportError> {
    let dtype = row.dtype;
    let array = snapshot.open_series(row.series_path(), ArrayKind::Attention, row.shape, dtype)?;
    let bytes = array.read_step(row.row.into())?;
    let source_dtype = match dtype {
        Dtype::Float16 => SourceDtype::Float16,
        Dtype::Float32 => SourceDtype::Float32,
        Dtype::Float64 => SourceDtype::Float64,
    };
    let step = StepArray { shape: row.shape, source_dtype, values: Values::from_ne_bytes(dtype, &bytes) };
    let metadata = Json::Object(metadata_of(video, row, word));
    write_file(&word.dir.join(format!("{}_metadata.json", stem(row))), &metadata.to_pretty())?;
    replace(path, |file| match format {
        Format::Npy => write_npy(&step, file),
        Format::NpyGzip => {
            let mut packed = GzEncoder::new(file, Compression::default());
            write_npy(&step, &mut packed).and_then(|()| packed.finish().map(drop))
        }
    })
}

/// What the names of a step's files begin with.
fn stem(row: &StepRow) -> String {
    format!("step_{:03}", row.step)
}

impl Word {
    /// The file of a step.
    fn path(&self, row: &StepRow, format: Format) -> PathBuf {
        self.dir.join(match format {
            Format::Npy => format!("{}.npy", stem(row)),
            Format::NpyGzip => format!("{}.npy.gz", stem(row)),
        })
    }
}

/// A step's metadata as it was, and what the store knows beyond that.
fn metadata_of(video: &VideoIndex, row: &StepRow, word: &Word) -> Object {
    let mut metadata = video.metadata_of(row);
    let (own, _) = StepMetadata::from_object(metadata.clone());
    let of_name = row.video_id.rsplit('/').next().unwrap_or_default();
    let is_named = as_component(&row.video_id) == row.video_id && !row.video_id.starts_with(TOKEN_PREFIX);
    let beyond = Exported {
        video_id: (!is_named).then(|| row.video_id.clone()),
        prompt_id: row.prompt_id.clone().filter(|id| prompt_id(of_name).as_ref() != Some(id)),
        template: row.template.clone(),
        variation: row.variation,
        grid: row.grid.filter(|grid| own.grid(row.shape.spatial).ok() != Some(*grid)),
        lossy: word.lossy.clone(),
        ..beyond(&row.token, row.weight, &own)
    };
    beyond.add_to(&mut metadata);
    metadata
}

/// Directory of a video: each part of its id is one component.
fn video_dir(video_id: &str, layout: Layout) -> PathBuf {
    let mut parts: Vec<&str> = video_id.split('/').collect();
    let last = parts.pop().unwrap_or_default();
    let mut dir: PathBuf = parts.into_iter().map(as_component).collect();
    match last.split_once("_vid").filter(|_| layout == Layout::Nested) {
        Some((prompt, number))
            if is_number(prompt.strip_prefix("prompt_").unwrap_or_default()) && is_number(number) =>
        {
            dir.push(as_component(prompt));
            dir.push(as_component(&format!("vid{number}")));
        }
        // A directory of this name would be taken for a word's.
        _ if last.starts_with(TOKEN_PREFIX) => dir.push(format!("_{}", as_component(last))),
        _ => dir.push(as_component(last)),
    }
    dir
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn claim(taken: &mut std::collections::HashMap<PathBuf, String>, dir: &Path, owner: &str) -> Result<(), ExportError> {
    match taken.insert(dir.to_owned(), owner.to_owned()) {
        Some(first) => Err(ExportError::Clash { path: dir.to_owned(), first, second: owner.to_owned() }),
        None => Ok(()),
    }
}

fn create_dir(dir: &Path) -> Result<(), ExportError> {
    fs::create_dir_all(dir).map_err(|source| ExportError::Write { path: dir.to_owned(), source })
}

fn write_file(path: &Path, text: &[u8]) -> Result<(), ExportError> {
    replace(path, |file| file.write_all(text)).map(drop)
}

/// Writes a file beside its place, flushes it, and renames it. What is left of it if that is interrupted has the same
/// name the next time. Returns its bytes.
fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<u64, ExportError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = path.with_file_name(format!("{STAGED}{name}"));
    let written = || {
        let _ = fs::remove_file(&staged);
        let mut file = BufWriter::new(File::create_new(&staged)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        file.metadata().map(|found| found.len())
    };
    written().map_err(|source| ExportError::Write { path: path.to_owned(), source })
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> Result<(), ExportError> {
    let synced = if cfg!(unix) { File::open(dir).and_then(|dir| dir.sync_all()) } else { Ok(()) };
    synced.map_err(|source| ExportError::Write { path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_those_of_the_generator_and_never_leave_the_target() {
        let dir = |id, layout| video_dir(id, layout).display().to_string();
        assert_eq!(dir("prompt_000_vid001", Layout::Flat), "prompt_000_vid001");
        assert_eq!(dir("prompt_000_vid001", Layout::Nested), "prompt_000/vid001");
        assert_eq!(dir("p000_b001_s000", Layout::Nested), "p000_b001_s000");
        assert_eq!(dir("gzip/prompt_000_vid001", Layout::Flat), "gzip/prompt_000_vid001");
        assert_eq!(dir("../../x", Layout::Flat), "___/___/x");
        assert_eq!(dir("token_x", Layout::Flat), "_token_x");
        assert_eq!(dir(".x", Layout::Flat), "_.x");
    }
}
