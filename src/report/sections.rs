//! The sections of a report: what is asked and drawn for each.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::page::{Block, Cell as Entry, Column, Figure as PageFigure, Graphic, Section, Table};
use super::{Made, Report, ReportError};
use crate::contents::Contents;
use crate::draw::{
    Backdrop, DrawError, Drawing, Drawn, HeadMatrix, HeadValue, Heatmap, Look, Moving, NONE, Overlay, Profile, Series,
    SideMatrix, WeightCurve, heads_by, in_words, text_of,
};
use crate::error::{ErrorKind, LayerError};
use crate::kernel::FramePlacement;
use crate::metrics::Metric;
use crate::progress::{Meter, Progress, Silent, Unit};
use crate::query::{Across, Align, Arrange, Filter, List, QueryError, TableName};
use crate::remedy::{OptionName, Remedy};
use crate::render::{Figure, FilmFormat, Style, number};
use crate::store::Store;

/// Words that have figures of their own, at the most.
const MOST_WORDS: usize = 8;
/// Videos whose maps are shown, at the most.
const MOST_VIDEOS: usize = 12;
/// Sides of a matrix, at the most.
const MOST_SIDES: usize = 40;
/// Heads in a table of the best and the worst.
const HEADS: usize = 10;
/// What heads are ranked by.
const RANKED_BY: &str = "top5";
/// Pixels to an inch of maps in the page.
const DPI: f64 = 144.0;
/// Sides of a film's panels, pixels.
const FILM: usize = 192;
/// Bytes of a film, at the most.
const LARGEST_FILM: usize = 3 << 20;

/// What is selected.
#[derive(Default)]
pub(super) struct Selected {
    /// Videos, each with a file that it was read from.
    pub videos: BTreeMap<String, PathBuf>,
    /// Words, each with its videos.
    pub words: BTreeMap<String, BTreeSet<String>>,
    /// Prompts, each with its videos.
    prompts: BTreeMap<String, BTreeSet<String>>,
    seeds: BTreeSet<String>,
    /// Weights of each word.
    weights: BTreeMap<String, BTreeSet<String>>,
}

impl Selected {
    /// What is selected of the table `steps`.
    pub fn of(store: &Store, filter: &Filter) -> Result<Self, ReportError> {
        let names = ["video_id", "token", "prompt", "seed", "weight", "source"];
        let columns = Some(names.map(str::to_owned).to_vec());
        let arrange = Arrange { columns, ..Arrange::default() };
        let list = List { table: TableName::Steps, filter: filter.clone(), arrange };
        let table = list.run(store)?.table;
        let mut selected = Self::default();
        for row in 0..table.height() {
            let text = |column| text_of(&table, column, row);
            let (video, token) = (text("video_id"), text("token"));
            selected.words.entry(token.clone()).or_default().insert(video.clone());
            selected.prompts.entry(text("prompt")).or_default().insert(video.clone());
            selected.seeds.insert(text("seed"));
            let weight = text("weight");
            if weight != NONE {
                selected.weights.entry(token).or_default().insert(weight);
            }
            selected.videos.entry(video).or_insert_with(|| PathBuf::from(text("source")));
        }
        if selected.videos.is_empty() {
            let remedy = Remedy::of("select others with {}", [OptionName::Where.any()]);
            return Err(DrawError::unfit("no step is selected", remedy).into());
        }
        Ok(selected)
    }

    /// Words that have more than one weight.
    fn varied(&self) -> impl Iterator<Item = &String> {
        let varied = self.weights.iter().filter(|(_, weights)| weights.len() > 1);
        varied.map(|(word, _)| word).take(MOST_WORDS)
    }
}

pub(super) fn overview(report: &Report<'_>, contents: &Contents, selected: &Selected) -> Section {
    let steps: usize = contents.videos.iter().flat_map(|video| &video.tokens).map(|word| word.steps.len()).sum();
    let shapes: BTreeSet<String> = contents
        .videos
        .iter()
        .flat_map(|video| &video.tokens)
        .filter_map(|word| word.shape.map(|[blocks, heads, ..]| format!("{blocks} × {heads}")))
        .collect();
    let grids: BTreeSet<String> = contents
        .videos
        .iter()
        .flat_map(|video| &video.tokens)
        .filter_map(|word| Some(word.grid?.to_string()))
        .collect();
    let listed = |names: BTreeSet<String>| {
        if names.is_empty() { "unknown".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
    };
    let facts = vec![
        ("videos".to_owned(), selected.videos.len().to_string()),
        ("prompts".to_owned(), selected.prompts.len().to_string()),
        ("seeds".to_owned(), selected.seeds.len().to_string()),
        ("words".to_owned(), selected.words.len().to_string()),
        ("step arrays".to_owned(), steps.to_string()),
        ("blocks × heads".to_owned(), listed(shapes)),
        ("frames × height × width".to_owned(), listed(grids)),
        ("size".to_owned(), bytes(contents.bytes.stored + contents.bytes.rollups + contents.bytes.index)),
    ];
    let mut notes = Vec::new();
    if let Some(all) = report.filter.text() {
        notes.push(format!("Only maps where `{all}` are looked at."));
    }
    if selected.prompts.len() > 1 {
        notes.push(
            "Prompts of different lengths are not compared by absolute attention: WAN pads the text with keys that are \
             all alike and takes none away, so that a word's mass depends on how long its prompt is. Shares of a map's \
             sum, entropies and similarities do not."
                .to_owned(),
        );
    }
    if selected.words.len() > MOST_WORDS {
        notes.push(format!("{MOST_WORDS} of {} words have figures of their own.", selected.words.len()));
    }
    if !contents.problems.is_empty() {
        notes.push(format!("{} of the store are damaged and left out.", count(contents.problems.len(), "part")));
    }
    let mut blocks = vec![Block::Facts(facts)];
    if !notes.is_empty() {
        blocks.push(Block::Notes(notes));
    }
    Section { id: "overview".into(), title: "What is in the store".into(), blocks }
}

/// What draws the sections.
pub(super) struct Sections<'a> {
    report: &'a Report<'a>,
    store: &'a Store,
    selected: &'a Selected,
    /// Those that have figures of their own.
    shown: Vec<&'a String>,
    look: Look,
    meter: Meter<'a>,
    /// Figures that could not be drawn.
    pub undrawn: Cell<usize>,
}

impl<'a> Sections<'a> {
    pub fn begin(report: &'a Report<'a>, store: &'a Store, selected: &'a Selected, progress: &'a dyn Progress) -> Self {
        let look = Look { style: Style { dpi: DPI, ..Style::default() }, ..Look::default() };
        let shown: Vec<&String> = selected.words.keys().take(MOST_WORDS).collect();
        let matrices = [selected.prompts.len(), selected.seeds.len()].iter().filter(|sides| **sides > 1).count();
        let figures =
            3 + selected.videos.len().min(MOST_VIDEOS) + shown.len() * (2 + matrices) + selected.varied().count();
        let meter = Meter::new(progress, Unit::Tasks, figures as u64);
        Self { report, store, selected, shown, look, meter, undrawn: Cell::new(0) }
    }

    pub fn words(&self) -> Result<Section, ReportError> {
        let filter = self.report.filter.clone();
        let mut blocks = vec![Block::Text(
            "Entropy says how widely a word's mean map spreads (1: evenly over all positions), the cosine how much of \
             the last step's map is there already. Bands are 95 % intervals of the mean over videos."
                .into(),
        )];
        let mut figures = Vec::new();
        for value in ["entropy_norm", "cosine_last"] {
            let series = Series { filter: filter.clone(), value: value.to_owned(), ..Series::default() };
            let caption = format!("{}, step by step", in_words(value));
            figures.push(self.figure(&Drawing::Evolution(series), caption)?);
        }
        let profile = Drawing::Frames(Profile { filter, ..Profile::default() });
        figures.push(self.figure(&profile, "Attention over the latent frames".into())?);
        blocks.push(Block::Figures(figures));
        Ok(Section { id: "words".into(), title: "Words".into(), blocks })
    }

    pub fn maps(&self) -> Result<Section, ReportError> {
        // The first video of each prompt before the second of any.
        let mut order: Vec<(usize, &String)> = Vec::new();
        for videos in self.selected.prompts.values() {
            order.extend(videos.iter().enumerate());
        }
        order.sort();
        let mut seen = BTreeSet::new();
        let videos: Vec<&String> =
            order.into_iter().map(|(_, video)| video).filter(|video| seen.insert(*video)).collect();
        let mut figures = Vec::new();
        let mut film = None;
        let mut alone = 0;
        for video in videos.iter().take(MOST_VIDEOS) {
            let filter = Filter { video: Some((*video).clone()), ..self.report.filter.clone() };
            let prompt = self
                .selected
                .prompts
                .iter()
                .find(|(_, videos)| videos.contains(*video))
                .map(|(prompt, _)| prompt.clone());
            let caption = prompt.filter(|prompt| prompt != NONE).unwrap_or_else(|| (*video).clone());
            match self.frames_of(video, &self.selected.videos[*video]) {
                Some(dir) => {
                    let backdrop = Backdrop::at(&dir);
                    if film.is_none() {
                        film = self.film(video, &filter, &backdrop)?;
                    }
                    let overlay = Overlay::new(filter, backdrop);
                    let mut drawing = Drawing::Overlay(overlay.clone());
                    let mut drawn = drawing.draw(self.store, &self.look, &Silent);
                    // As many frames as no causal decoder makes.
                    if matches!(drawn, Err(DrawError::Unfit { .. })) {
                        drawing = Drawing::Overlay(Overlay { placement: FramePlacement::Even, ..overlay });
                        drawn = drawing.draw(self.store, &self.look, &Silent);
                    }
                    figures.push(self.figure_of(&drawing, drawn, caption)?);
                }
                None => {
                    alone += 1;
                    let heatmap = Drawing::Heatmap(Heatmap { filter, ..Heatmap::default() });
                    figures.push(self.figure(&heatmap, caption)?);
                }
            }
        }
        let mut blocks = vec![Block::Text(
            "Means over denoising steps, blocks and heads. A row for each word; the colours of a figure go from the \
             1st to the 99th percentile of its values."
                .into(),
        )];
        let mut notes = Vec::new();
        if alone > 0 {
            notes.push(format!("No frames were found for {}: maps stand alone there.", count(alone, "video")));
        }
        if videos.len() > MOST_VIDEOS {
            notes.push(format!(
                "{MOST_VIDEOS} of {} videos are shown: at least one of each prompt, as far as that goes.",
                videos.len()
            ));
        }
        if !notes.is_empty() {
            blocks.push(Block::Notes(notes));
        }
        blocks.extend(film.map(Block::Figure));
        blocks.push(Block::Figures(figures));
        Ok(Section { id: "maps".into(), title: "Mean maps".into(), blocks })
    }

    /// A film of the first video that has frames; none, if they are not as many as its maps have.
    fn film(&self, video: &str, filter: &Filter, backdrop: &Backdrop) -> Result<Option<PageFigure>, ReportError> {
        let moving = Moving { backdrop: Some(backdrop.clone()), ..Moving::new(filter.clone()) };
        let look = Look { size: Some((FILM, FILM)), style: Style { dpi: 96.0, ..Style::default() }, ..Look::default() };
        let film = match moving.begin(self.store, &look, &Silent) {
            Err(error @ DrawError::Query(QueryError::Cancelled)) => return Err(error.into()),
            Err(_) => return Ok(None),
            Ok(film) => film,
        };
        let file = tempfile::NamedTempFile::new().map_err(ReportError::Temporary)?;
        match film.write(file.path(), FilmFormat::Webp, &Silent) {
            Err(error @ DrawError::Query(QueryError::Cancelled)) => return Err(error.into()),
            // Of frames that cannot be read, the figures say so.
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let bytes = std::fs::read(file.path()).map_err(ReportError::Temporary)?;
        if bytes.len() > LARGEST_FILM {
            return Ok(None);
        }
        Ok(Some(PageFigure {
            picture: Graphic::Webp(bytes),
            alt: format!("a film of the maps of {video} over its frames"),
            caption: format!("{video}: its words, frame by frame"),
            command: Some((self.report.spelled)(Made::Film(&moving))),
        }))
    }

    pub fn heads(&self) -> Result<Section, ReportError> {
        let mut blocks = vec![Block::Text(format!(
            "How concentrated each head is on a word: the {}, a mean over videos and steps.",
            in_words(RANKED_BY)
        ))];
        let mut figures = Vec::new();
        let mut rows = Vec::new();
        for &word in &self.shown {
            let filter = Filter { token: Some(word.clone()), ..self.report.filter.clone() };
            let matrix = HeadMatrix {
                filter: filter.clone(),
                value: HeadValue::Statistic(RANKED_BY.to_owned()),
                ..HeadMatrix::default()
            };
            figures.push(self.figure(&Drawing::Heads(matrix), format!("heads of {word}"))?);
            let mut heads = heads_by(self.store, &filter, &[RANKED_BY, "entropy_norm", "spread"]).unwrap_or_default();
            heads.retain(|(_, values)| values[0].is_finite());
            heads.sort_by(|a, b| b.1[0].total_cmp(&a.1[0]));
            if let (Some(((block @ Some(_), head @ Some(_)), _)), Some((video, dir))) =
                (heads.first(), self.framed(word))
            {
                let [block, head] = [*block, *head];
                let filter = Filter { video: Some(video.clone()), block, head, ..filter };
                let over = Drawing::Overlay(Overlay::new(filter, Backdrop::at(&dir)));
                figures.push(self.figure(&over, format!("{word}: its most concentrated head, over {video}"))?);
            }
            let shown = heads.len().min(HEADS);
            let rest = heads.len().saturating_sub(HEADS).min(HEADS);
            let worst = heads.len() - rest;
            for (rank, ((block, head), values)) in
                heads.iter().enumerate().filter(|(rank, _)| *rank < shown || *rank >= worst)
            {
                let number = |number: Option<i64>| number.map_or(Entry::Missing, |number| Entry::Number(number as f64));
                let mut cells =
                    vec![Entry::Text(word.clone()), Entry::Number((rank + 1) as f64), number(*block), number(*head)];
                cells.extend(values.iter().map(|value| Entry::Number(*value)));
                rows.push(cells);
            }
        }
        blocks.push(Block::Figures(figures));
        if !rows.is_empty() {
            let column =
                |name: &str, about: &str, numeric: bool| Column { name: name.into(), about: about.into(), numeric };
            blocks.push(Block::Table(Table {
                caption: format!("The {HEADS} most and the {HEADS} least concentrated heads of each word"),
                columns: vec![
                    column("word", "the tracked word", false),
                    column("rank", "1: the most concentrated", true),
                    column("block", "transformer block", true),
                    column("head", "attention head", true),
                    column(RANKED_BY, &in_words(RANKED_BY), true),
                    column("entropy_norm", &in_words("entropy_norm"), true),
                    column("spread", &in_words("spread"), true),
                ],
                rows,
                command: Some((self.report.spelled)(Made::Sql(&format!(
                    "SELECT token, block, head, avg({RANKED_BY}) AS {RANKED_BY} FROM heads GROUP BY token, block, head \
                     ORDER BY {RANKED_BY} DESC"
                )))),
            }));
        }
        Ok(Section { id: "heads".into(), title: "Heads".into(), blocks })
    }

    pub fn matrices(&self) -> Result<Option<Section>, ReportError> {
        let mut figures = Vec::new();
        let mut notes = Vec::new();
        for (across, count) in
            [(Across::Prompt, self.selected.prompts.len()), (Across::Seed, self.selected.seeds.len())]
        {
            if count < 2 {
                continue;
            }
            if count > MOST_SIDES {
                notes.push(format!("There are {count} {}s: a matrix of so many could not be read.", across.name()));
                continue;
            }
            for &word in &self.shown {
                let filter = Filter { token: Some(word.clone()), ..self.report.filter.clone() };
                let matrix =
                    SideMatrix { align: Align::Mean, metric: Metric::Cosine, ..SideMatrix::new(filter, across) };
                let drawing = Drawing::Matrix(matrix);
                // A word that is in one prompt alone has nothing to be compared with.
                if self.can_answer(&drawing)? {
                    figures.push(self.figure(&drawing, format!("{word} across {}s", across.name()))?);
                }
            }
        }
        if figures.is_empty() && notes.is_empty() {
            return Ok(None);
        }
        let mut blocks = vec![Block::Text("Cosine similarity of a word's mean maps, pair by pair.".into())];
        if !notes.is_empty() {
            blocks.push(Block::Notes(notes));
        }
        blocks.push(Block::Figures(figures));
        Ok(Some(Section { id: "alike".into(), title: "Across prompts and seeds".into(), blocks }))
    }

    pub fn weights(&self) -> Result<Option<Section>, ReportError> {
        let mut figures = Vec::new();
        for word in self.selected.varied() {
            let filter = Filter { token: Some(word.clone()), ..self.report.filter.clone() };
            let drawing = Drawing::Weights(WeightCurve { filter, ..WeightCurve::default() });
            if self.can_answer(&drawing)? {
                figures.push(self.figure(&drawing, format!("{word} by its weight"))?);
            }
        }
        if figures.is_empty() {
            return Ok(None);
        }
        let text = "The sum of a word's mean map at each weight, over that at the weight nearest to 1. Where prompts \
                    of several texts have these weights, the texts differ, too.";
        let blocks = vec![Block::Text(text.into()), Block::Figures(figures)];
        Ok(Some(Section { id: "weights".into(), title: "Weights".into(), blocks }))
    }

    /// A drawing; where it cannot be drawn, that is said in its place.
    fn figure(&self, drawing: &Drawing, caption: String) -> Result<PageFigure, ReportError> {
        self.figure_of(drawing, drawing.draw(self.store, &self.look, &Silent), caption)
    }

    fn figure_of(
        &self,
        drawing: &Drawing,
        drawn: Result<Drawn, DrawError>,
        caption: String,
    ) -> Result<PageFigure, ReportError> {
        self.meter.add(1).map_err(QueryError::from)?;
        let command = Some((self.report.spelled)(Made::Drawing(drawing)));
        Ok(match drawn {
            Err(error @ DrawError::Query(QueryError::Cancelled)) => return Err(error.into()),
            Err(error) => {
                // What has no answer in these maps is no fault.
                if matches!(error.kind(), ErrorKind::Store | ErrorKind::File) {
                    self.undrawn.set(self.undrawn.get() + 1);
                }
                PageFigure { picture: Graphic::None, alt: format!("not drawn: {error}"), caption, command }
            }
            Ok(Drawn { figure, notes, .. }) => {
                let noted = notes.iter().map(|note| format!(" Note: {}.", note.text));
                let caption =
                    caption + ".".repeat(usize::from(!notes.is_empty())).as_str() + &noted.collect::<String>();
                PageFigure { picture: graphic(&figure)?, alt: figure.description, caption, command }
            }
        })
    }

    /// Whether there is something to compare.
    fn can_answer(&self, drawing: &Drawing) -> Result<bool, ReportError> {
        match drawing.question().plan(&self.store.snapshot()) {
            Err(QueryError::Cancelled) => Err(QueryError::Cancelled.into()),
            Err(_) => Ok(false),
            Ok(_) => Ok(true),
        }
    }

    /// The first video of a word whose frames are there, and where.
    fn framed(&self, word: &String) -> Option<(&String, PathBuf)> {
        let mut videos = self.selected.words.get(word)?.iter();
        videos.find_map(|video| Some((video, self.frames_of(video, self.selected.videos.get(video)?)?)))
    }

    /// The frames of a video, if they are where they are looked for.
    fn frames_of(&self, video: &str, source: &Path) -> Option<PathBuf> {
        let mut candidates = Vec::new();
        let of = |root: &Path| {
            let videos = ["mp4", "webm", "mkv", "mov", "avi", "gif"].map(|extension| format!("{video}.{extension}"));
            [root.join(video), root.join("frames").join(video)]
                .into_iter()
                .chain(videos.iter().flat_map(|name| [root.join(name), root.join("videos").join(name)]))
                .collect::<Vec<_>>()
        };
        if let Some(frames) = &self.report.frames {
            candidates.extend(of(frames));
        } else if source.is_absolute() {
            // …/attention_maps/VIDEO/token_WORD/step_000.npy, or one directory more.
            candidates.extend(source.ancestors().skip(3).take(3).flat_map(of));
        }
        let is_of_frames = |path: &PathBuf| path.is_file() || path.is_dir() && Backdrop::is_directory_of_frames(path);
        candidates.into_iter().find(is_of_frames)
    }
}

pub(super) fn videos(contents: &Contents) -> Section {
    let column = |name: &str, about: &str, numeric: bool| Column { name: name.into(), about: about.into(), numeric };
    let rows = contents.videos.iter().map(|video| {
        let words = video.tokens.iter().map(|word| match word.weight {
            Some(weight) if weight != 1.0 => format!("{} ({})", word.token, number(weight, 3)),
            _ => word.token.clone(),
        });
        vec![
            Entry::Text(video.video_id.clone()),
            video.prompt.clone().map_or(Entry::Missing, Entry::Text),
            video.seed.map_or(Entry::Missing, |seed| Entry::Text(seed.to_string())),
            Entry::Text(words.collect::<Vec<_>>().join(", ")),
            Entry::Number(video.tokens.iter().map(|word| word.steps.len()).max().unwrap_or(0) as f64),
        ]
    });
    let table = Table {
        caption: "Videos".into(),
        columns: vec![
            column("video", "its id", false),
            column("prompt", "what it was generated from, without weights", false),
            column("seed", "of the random numbers", false),
            column("words", "tracked words, with their weights", false),
            column("steps", "denoising steps that are stored", true),
        ],
        rows: rows.collect(),
        command: None,
    };
    Section { id: "videos".into(), title: "Videos".into(), blocks: vec![Block::Table(table)] }
}

/// Lines as SVG; maps, of which an SVG would be larger, as pixels.
fn graphic(figure: &Figure) -> Result<Graphic, DrawError> {
    if figure.is_of_maps() {
        return Ok(Graphic::Webp(figure.to_picture()?.to_webp()?));
    }
    Ok(Graphic::Svg(figure.to_svg()?))
}

pub(super) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["bytes", "kB", "MB", "GB"].into_iter();
    for unit in units.by_ref() {
        if size < 1000.0 {
            return format!("{} {unit}", number(size, 3));
        }
        size /= 1000.0;
    }
    format!("{} TB", number(size, 3))
}
