//! Writers for answers: tables for people, CSV, JSON, Parquet, Arrow for programs, npy, Zarr and PNG for maps.
//!
//! A file is written beside its final place and renamed, so that a failure leaves what was there.

mod npy;
#[cfg(feature = "render")]
mod png;
mod table;
mod text;
mod trend;
mod zarr;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use polars::prelude::{CompatLevel, CsvWriter, DataFrame, IpcWriter, JsonFormat, JsonWriter, PlSmallStr, SerWriter};

use crate::error::{Cause, ErrorKind, LayerError};
use crate::query::{Answer, QueryError, caught};
use crate::remedy::Remedy;

#[cfg(feature = "render")]
pub use png::picture;
pub(crate) use text::{visible, visible_lines};
pub use trend::trends;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people; the most telling ones of many.
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// Parquet, with the maps in a column `values`.
    Parquet,
    /// An Arrow IPC file, with the maps in a column `values`.
    Arrow,
    /// The maps, stacked, as a numpy file; the rows that they belong to in a `.json` beside it.
    Npy,
    /// The maps as a labelled Zarr array.
    Zarr,
    /// A single map as a picture, frame beside frame; of a word of several pieces theirs, one below the other.
    Png,
}

impl Format {
    /// All, with their names and the file extensions that stand for them.
    pub const ALL: [(Self, &'static str, &'static [&'static str]); 9] = [
        (Self::Table, "table", &["txt"]),
        (Self::Csv, "csv", &["csv"]),
        (Self::Json, "json", &["json"]),
        (Self::Jsonl, "jsonl", &["jsonl", "ndjson"]),
        (Self::Parquet, "parquet", &["parquet"]),
        (Self::Arrow, "arrow", &["arrow", "feather", "ipc"]),
        (Self::Npy, "npy", &["npy"]),
        (Self::Zarr, "zarr", &["zarr"]),
        (Self::Png, "png", &["png"]),
    ];

    /// The format that a file's extension stands for.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(OsStr::to_str)?.to_lowercase();
        Self::ALL.into_iter().find(|(.., extensions)| extensions.contains(&&*extension)).map(|(format, ..)| format)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(format, ..)| *format == self).map_or("", |(_, name, _)| name)
    }

    /// Whether the maps themselves are written, not only what is said of them.
    #[must_use]
    pub const fn has_values(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow | Self::Npy | Self::Zarr | Self::Png)
    }

    /// Whether it can be printed on a terminal.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Table | Self::Csv | Self::Json | Self::Jsonl)
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>().join(", ");
        Self::ALL
            .into_iter()
            .find(|(_, name, _)| *name == text)
            .map(|(format, ..)| format)
            .ok_or_else(|| format!("`{text}` is none of {}", names()))
    }
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The answer does not fit the format.
    #[error("{found}")]
    Unfit {
        /// What does not fit: in words, or what a library says.
        #[source]
        found: Cause,
        /// What to try.
        remedy: Remedy,
    },
    /// The table could not be encoded.
    #[error("{}: {source}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the format's library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something is in the way.
    #[error("{}: is in the way: it does not belong to an answer of this name", path.display())]
    InTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// A link, which is not written through.
    #[error("{}: is a link to {}, and answers are not written through links", path.display(), to.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        to: PathBuf,
    },
    /// The answer itself.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl LayerError for OutputError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Write { .. } => ErrorKind::File,
            Self::InTheWay { .. } => ErrorKind::Exists,
            Self::Unfit { .. } => ErrorKind::Argument,
            Self::Encode { .. } | Self::Link { .. } => ErrorKind::Unwritable,
            Self::Query(error) => error.kind(),
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::Unfit { remedy, .. } => remedy.clone(),
            Self::Link { .. } => "name the file itself, or remove the link".into(),
            Self::InTheWay { .. } => "remove it, or name another file".into(),
            Self::Query(error) => return error.remedy(),
            Self::Write { .. } | Self::Encode { .. } => return None,
        })
    }
}

impl OutputError {
    fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        // What is written is a temporary file beside it; its name would not help.
        move |source| {
            let source = if source.get_ref().is_some() && source.kind() != std::io::ErrorKind::Other {
                source.kind().into()
            } else {
                source
            };
            Self::Write { path, source }
        }
    }
}

/// How tables for people are drawn.
#[derive(Debug, Clone, Copy)]
pub struct TableStyle {
    /// Characters of a line; `None`: as many as it takes.
    pub width: Option<usize>,
    /// Rows to show.
    pub rows: usize,
    /// How advice on what shows more is written; `None`: there is none.
    pub advice: Option<fn(&Remedy) -> String>,
}

/// Names of the columns that people want to see: all, or the most telling of an answer with statistics.
#[must_use]
pub fn telling_columns(answer: &Answer) -> Vec<&str> {
    table::telling(answer).into_iter().map(|column| column.name().as_str()).collect()
}

/// The answer as text, in one of the text formats.
///
/// # Errors
/// If it cannot be encoded.
pub fn to_text(answer: &Answer, format: Format, style: TableStyle) -> Result<Vec<u8>, OutputError> {
    let mut text = Vec::new();
    encode(answer, format, style, &mut text).map_err(|error| error.at(Path::new("standard output")))?;
    Ok(text)
}

/// Writes the answer to a file (for Zarr: a directory). Returns what was written beside it, too.
///
/// # Errors
/// If the answer has no maps and the format is for maps, or the file cannot be written.
pub fn write_file(answer: &Answer, format: Format, path: &Path) -> Result<Vec<PathBuf>, OutputError> {
    let resampled;
    let answer = match format {
        Format::Zarr | Format::Png if !answer.unmade.is_empty() => {
            resampled = answer.clone().resampled();
            &resampled
        }
        _ => answer,
    };
    match format {
        Format::Npy => return npy::write(answer, path),
        Format::Zarr => zarr::write(answer, path)?,
        #[cfg(feature = "render")]
        Format::Png => png::write(answer, path)?,
        #[cfg(not(feature = "render"))]
        Format::Png => {
            return Err(OutputError::Unfit {
                found: "this build of attnkit draws no pictures: build it with the feature `render`".into(),
                remedy: "write it as npy".into(),
            });
        }
        _ => {
            let style = TableStyle { width: None, rows: usize::MAX, advice: None };
            replace(path, |file| encode(answer, format, style, file).map_err(|error| error.at(path)))?;
        }
    }
    Ok(Vec::new())
}

enum Encoding {
    Library(Box<dyn std::error::Error + Send + Sync>),
    Io(std::io::Error),
    Output(OutputError),
}

impl Encoding {
    fn at(self, path: &Path) -> OutputError {
        match self {
            Self::Library(source) => OutputError::Encode { path: path.to_owned(), source },
            Self::Io(source) => OutputError::write(path)(source),
            Self::Output(error) => error,
        }
    }
}

impl From<polars::error::PolarsError> for Encoding {
    fn from(error: polars::error::PolarsError) -> Self {
        Self::Library(error.into())
    }
}

impl From<ParquetError> for Encoding {
    fn from(error: ParquetError) -> Self {
        Self::Library(error.into())
    }
}

impl From<ArrowError> for Encoding {
    fn from(error: ArrowError) -> Self {
        Self::Library(error.into())
    }
}

/// Writes an answer in a format that polars knows, or as a table. A value that it cannot write is an error, and nothing
/// worse.
fn encode(answer: &Answer, format: Format, style: TableStyle, to: impl Write + Send) -> Result<(), Encoding> {
    caught(|| Ok(encode_unguarded(answer, format, style, to)))?
}

fn encode_unguarded(
    answer: &Answer,
    format: Format,
    style: TableStyle,
    mut to: impl Write + Send,
) -> Result<(), Encoding> {
    let with_values = || answer.table_with_values().map_err(|error| Encoding::Output(error.into()));
    match format {
        Format::Table => to.write_all(table::draw(answer, style).as_bytes()).map_err(Encoding::Io)?,
        Format::Csv => {
            let mut table = text::flattened(&answer.table)?;
            // Readers skip lines of nothing.
            let null = if table.width() == 1 { "\"\"" } else { "" };
            CsvWriter::new(to).with_null_value(PlSmallStr::from_static(null)).finish(&mut table)?;
        }
        Format::Json => {
            let mut table = text::with_integers(&answer.table)?;
            JsonWriter::new(&mut to).with_json_format(JsonFormat::Json).finish(&mut table)?;
            to.write_all(b"\n").map_err(Encoding::Io)?;
        }
        Format::Jsonl => {
            JsonWriter::new(to)
                .with_json_format(JsonFormat::JsonLines)
                .finish(&mut text::with_integers(&answer.table)?)?;
        }
        Format::Arrow => write_arrow(&mut with_values()?, to)?,
        Format::Parquet => write_parquet(&mut with_values()?, to)?,
        Format::Npy | Format::Zarr | Format::Png => {}
    }
    Ok(())
}

/// With texts and lists as every reader knows them: pandas cannot read views inside lists.
fn write_arrow(table: &mut DataFrame, to: impl Write) -> Result<(), Encoding> {
    Ok(IpcWriter::new(to).with_compat_level(CompatLevel::oldest()).finish(table)?)
}

fn write_parquet(table: &mut DataFrame, to: impl Write + Send) -> Result<(), Encoding> {
    let mut rows = Vec::new();
    write_arrow(table, &mut rows)?;
    let rows = FileReader::try_new(std::io::Cursor::new(rows), None)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by(concat!("attnkit ", env!("CARGO_PKG_VERSION")).into())
        .build();
    let mut writer = ArrowWriter::try_new(to, rows.schema(), Some(properties))?;
    for batch in rows {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}

/// Writes a file that is whole or not there: beside `path`, renamed into place.
pub(crate) fn write_whole(path: &Path, contents: &[u8]) -> Result<(), OutputError> {
    replace(path, |file| file.write_all(contents).map_err(OutputError::write(path)))
}

/// Lets something else write a file beside `path`, and renames it into place.
#[cfg(feature = "cli")]
pub(crate) fn replace_by<E: From<OutputError>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    Ok(Staged::write_by(path, |_, staged| write(staged))?.place()?)
}

/// Writes a file beside `path` and renames it into place.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    Staged::write(path, write)?.place()
}

/// A file that is whole and on disk, beside its place.
struct Staged {
    path: PathBuf,
    /// `None`: it is no file (/dev/null, a pipe), and was written to.
    file: Option<tempfile::NamedTempFile>,
}

impl Staged {
    fn write(
        path: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), OutputError>,
    ) -> Result<Self, OutputError> {
        Self::write_by(path, |file, _| {
            let mut file = BufWriter::new(file);
            write(&mut file)?;
            file.flush().map_err(OutputError::write(path))
        })
    }

    /// Written by whoever is given the file, and where it is.
    fn write_by<E: From<OutputError>>(
        path: &Path,
        write: impl FnOnce(&File, &Path) -> Result<(), E>,
    ) -> Result<Self, E> {
        let failed = || OutputError::write(path);
        let is_file = path.metadata().map_or(true, |found| found.is_file());
        if !is_file {
            write(&File::create(path).map_err(failed())?, path)?;
            return Ok(Self { path: path.to_owned(), file: None });
        }
        if path.is_symlink() {
            let to = std::fs::read_link(path).unwrap_or_default();
            return Err(OutputError::Link { path: path.to_owned(), to }.into());
        }
        remove_leftovers(directory_of(path));
        let file = tempfile::Builder::new().prefix(LEFTOVER).tempfile_in(directory_of(path)).map_err(failed())?;
        // Where there are no locks, leftovers stay.
        let _ = file.as_file().lock();
        write(file.as_file(), file.path())?;
        #[cfg(unix)]
        {
            // Readable by others, as files that are simply created are.
            use std::os::unix::fs::PermissionsExt;
            let permissions = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(file.path(), permissions).map_err(failed())?;
        }
        // Contents are on disk before their name.
        file.as_file().sync_all().map_err(failed())?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    /// Gives it its name, durably.
    fn place(self) -> Result<(), OutputError> {
        let Some(file) = self.file else { return Ok(()) };
        file.persist(&self.path).map_err(|error| OutputError::write(&self.path)(error.error))?;
        if cfg!(unix) {
            let dir = File::open(directory_of(&self.path));
            dir.and_then(|dir| dir.sync_all()).map_err(OutputError::write(&self.path))?;
        }
        Ok(())
    }
}

/// What names of files begin with that are not yet in their places.
const LEFTOVER: &str = ".attnkit-";
/// How old what a killed command left must be to be taken for that: younger files may not be locked yet.
const LEFTOVER_AGE: Duration = Duration::from_mins(1);

/// Removes what killed commands left in a directory: whoever still writes such a file holds its lock.
fn remove_leftovers(dir: &Path) {
    let of_dir = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in of_dir.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(LEFTOVER.as_bytes())) {
        let is_old = |found: &std::fs::Metadata| {
            found.is_file() && found.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFTOVER_AGE))
        };
        let is_left = entry.metadata().is_ok_and(|found| is_old(&found))
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_left {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// For a format of maps and an answer without.
fn maps_of(answer: &Answer, format: Format) -> Result<&crate::query::Maps, OutputError> {
    answer.maps.as_ref().ok_or_else(|| OutputError::Unfit {
        found: format!("{} holds maps, and this answer is a table", format.name()).into(),
        remedy: "write it as csv, json, jsonl, parquet or arrow".into(),
    })
}
