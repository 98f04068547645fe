//! `report`: what is in a store, as one HTML page that needs nothing beside it.

mod page;
mod sections;

use std::io::{self, Write};
use std::path::PathBuf;

use self::page::Page;
use self::sections::{Sections, Selected, count, overview, videos};
use crate::contents::Contents;
use crate::draw::{DrawError, Drawing, Moving};
use crate::error::{ErrorKind, LayerError};
use crate::progress::{Progress, Silent};
use crate::query::{Filter, QueryError};
use crate::remedy::Remedy;
use crate::store::{Store, StoreError};

/// What a figure or a table of a report was made by: each face has its own way to write that.
#[derive(Debug, Clone, Copy)]
pub enum Made<'a> {
    /// A drawing.
    Drawing(&'a Drawing),
    /// A film.
    Film(&'a Moving),
    /// A statement in SQL.
    Sql(&'a str),
}

/// What a report is of.
pub struct Report<'a> {
    /// The maps.
    pub filter: Filter,
    /// A directory that has the frames of each video, in a directory of the video's name; `None`: they are looked for
    /// beside the maps.
    pub frames: Option<PathBuf>,
    /// What stands above all; `None`: the store's name.
    pub title: Option<String>,
    /// How what made a figure is written below it.
    pub spelled: &'a (dyn Fn(Made<'_>) -> String + Sync),
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Something cannot be drawn.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// Something cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is no room for temporary files.
    #[error("a temporary file cannot be written: {0}")]
    Temporary(#[source] io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LayerError for ReportError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Draw(error) => error.kind(),
            Self::Query(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Temporary(_) => ErrorKind::File,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Draw(error) => error.remedy(),
            Self::Query(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Temporary(_) => None,
        }
    }
}

/// A report that is ready to be written.
pub struct Written {
    page: Page,
    /// Figures that could not be drawn, as where the store is damaged: the page says why.
    pub undrawn: usize,
}

impl Written {
    /// Writes it.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        self.page.write(&mut io::BufWriter::new(to))
    }
}

impl Report<'_> {
    /// Asks and draws all that is in it.
    ///
    /// # Errors
    /// If the store cannot be read, nothing is selected, or the work is stopped. What cannot be drawn of a store is
    /// said in its place.
    pub fn draw(&self, store: &Store, progress: &dyn Progress) -> Result<Written, ReportError> {
        let selected = Selected::of(store, &self.filter)?;
        let mut contents = Contents::of_store(store, &Silent)?;
        contents.videos.retain(|video| selected.videos.contains_key(&video.video_id));
        let drawing = Sections::begin(self, store, &selected, progress);
        let mut sections = vec![overview(self, &contents, &selected)];
        sections.push(drawing.words()?);
        sections.push(drawing.maps()?);
        sections.push(drawing.heads()?);
        sections.extend(drawing.matrices()?);
        sections.extend(drawing.weights()?);
        sections.push(videos(&contents));
        let place = store.place();
        let name = place.file_name().map_or_else(|| place.to_string_lossy(), |name| name.to_string_lossy());
        let title = self.title.clone().unwrap_or_else(|| name.into_owned());
        let subtitle =
            format!("{} of {}", count(selected.words.len(), "tracked word"), count(selected.videos.len(), "video"));
        let footer = format!("attnkit {}", env!("CARGO_PKG_VERSION"));
        Ok(Written { page: Page { title, subtitle, footer, sections }, undrawn: drawing.undrawn.get() })
    }
}
