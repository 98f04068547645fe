//! Step arrays from wherever they are: a store, or a dump as it is. One way to list, load and average them, for those
//! who look at data before they have ingested it. Questions with conditions and metrics are [`query`](crate::query)'s,
//! and need a store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use ndarray::Array4;
use rayon::prelude::*;
use serde_json::json;

use crate::dtype::Dtype;
use crate::dump::{
    Dump, DumpError, ReadOptions, Series, StepFiles, StepMetadata, StepReader, Video, composed, read_step_metadata,
    read_summary,
};
use crate::error::{ErrorKind, LayerError};
use crate::grid::Grid;
use crate::json::{Json, Object};
use crate::kernel::{Accumulator, Element, Reducer, Unlike};
use crate::progress::{Cancelled, Meter, Progress, Unit};
use crate::remedy::Remedy;
use crate::shape::{AxisNumbers, StepShape};
use crate::store::{ArrayKind, Snapshot, StepRow, Store, StoreError, StoredArray, VideoIndex};
use crate::values::{Values, with_values};

/// Steps of a word that are named one by one.
const FEW_STEPS: usize = 12;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The dump, or a file of it.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Neither a store nor a dump.
    #[error(
        "{}: neither a store nor a dump: found {found}; expected zarr.json, or directories such as \
         prompt_000_vid001/token_flower/ with step_000.npy in them, here or below",
        path.display()
    )]
    Neither {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Something that is not there.
    #[error("there is no {what} in {place}; there are {known}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Where.
        place: String,
        /// What there is instead.
        known: String,
    },
    /// A step file that cannot be used.
    #[error("step {step} cannot be used: {problem}")]
    Unusable {
        /// The step.
        step: i32,
        /// What is wrong with one of its files.
        #[source]
        problem: Arc<DumpError>,
    },
    /// Steps that do not stack.
    #[error(
        "step {step} is {found}, step {first_step} is {first}; steps of different shapes do not stack: load them one \
         by one"
    )]
    Mixed {
        /// The step that differs.
        step: i32,
        /// Its shape and type.
        found: String,
        /// The first step.
        first_step: i32,
        /// Its shape and type.
        first: String,
    },
    /// Steps that were folded in different ways.
    #[error(transparent)]
    Unlike(#[from] Unlike),
    /// Stopped by whoever asked.
    #[error("stopped before everything was read")]
    Cancelled,
}

impl LayerError for SourceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Dump(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Neither { .. } | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Unusable { .. } | Self::Mixed { .. } | Self::Unlike(_) => ErrorKind::Dump,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Dump(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Unusable { problem, .. } => problem.remedy(),
            _ => None,
        }
    }
}

impl From<Cancelled> for SourceError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// A store or a dump.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// What it holds is looked up anew for each question: a generator may be writing.
    Store(Store),
    Dump(BTreeMap<String, DumpedVideo>, ReadOptions),
}

#[derive(Debug)]
struct DumpedVideo {
    video: Video,
    /// What of it cannot be used.
    problems: Vec<Arc<DumpError>>,
}

/// One word of one video.
enum Word<'a> {
    Store(Snapshot, Vec<StepRow>),
    Dump(&'a Series, &'a [Arc<DumpError>], ReadOptions),
}

/// Which axes a mean is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Over {
    /// Denoising steps.
    pub steps: bool,
    /// Transformer blocks.
    pub blocks: bool,
    /// Attention heads.
    pub heads: bool,
}

/// Step arrays, one behind the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// `[step, block, head, spatial, token]`; a mean has size 1 where it was taken.
    pub shape: [usize; 5],
    /// The values, C order.
    pub values: Values<'static>,
}

/// The array of one step, `[block, head, spatial, token]`, of the type that it is stored in; bfloat16 as float32.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// binary16.
    Float16(Array4<f16>),
    /// binary32.
    Float32(Array4<f32>),
    /// binary64.
    Float64(Array4<f64>),
}

/// Does the same with the array of whatever type.
macro_rules! with_array {
    ($array:expr, $name:ident => $body:expr) => {
        match $array {
            Array::Float16($name) => $body,
            Array::Float32($name) => $body,
            Array::Float64($name) => $body,
        }
    };
}

impl Array {
    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> StepShape {
        let (blocks, heads, spatial, tokens) = with_array!(self, array => array.dim());
        StepShape { blocks, heads, spatial, tokens }
    }

    /// The same values as float32: exactly, but for those of a float64 array, which are rounded.
    #[must_use]
    pub fn to_f32(&self) -> Array4<f32> {
        #[allow(clippy::cast_possible_truncation)] // that is the rounding
        let round = |value: f64| value as f32;
        with_array!(self, array => array.mapv(|value| round(value.to_f64())))
    }

    /// The same values as float64, exactly.
    #[must_use]
    pub fn to_f64(&self) -> Array4<f64> {
        with_array!(self, array => array.mapv(Element::to_f64))
    }
}

/// The array, if it is of that type; else it is given back.
macro_rules! array_of_type {
    ($($kind:ident: $type:ty),+) => {$(
        impl TryFrom<Array> for Array4<$type> {
            type Error = Array;

            fn try_from(array: Array) -> Result<Self, Array> {
                match array {
                    Array::$kind(array) => Ok(array),
                    other => Err(other),
                }
            }
        }
    )+};
}
array_of_type!(Float16: f16, Float32: f32, Float64: f64);

impl Source {
    /// Opens a store, or finds the dump below a directory.
    ///
    /// # Errors
    /// If `path` is neither, or cannot be read.
    pub fn open(path: impl AsRef<Path>, options: ReadOptions) -> Result<Self, SourceError> {
        let path = path.as_ref().to_owned();
        if path.join("zarr.json").exists() {
            let store = Store::open(&path)?;
            return Ok(Self { path, kind: Kind::Store(store) });
        }
        let neither = |found| Err(SourceError::Neither { path: path.clone(), found });
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return neither("nothing"),
            Ok(metadata) if !metadata.is_dir() => return neither("a file"),
            _ => {}
        }
        let dump = Dump::find(&[&path])?;
        if dump.videos.is_empty() && dump.problems.is_empty() {
            return neither("no attention maps");
        }
        let problems: Vec<Arc<DumpError>> = dump.problems.into_iter().map(Arc::new).collect();
        let of = |video: Video| {
            let problems = problems.iter().filter(|problem| problem.path.starts_with(&video.dir)).cloned().collect();
            (video.id(), DumpedVideo { video, problems })
        };
        let videos = dump.videos.into_iter().map(of).collect();
        Ok(Self { path, kind: Kind::Dump(videos, options) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ids of the videos, sorted.
    ///
    /// # Errors
    /// If a store's index cannot be read.
    pub fn videos(&self) -> Result<Vec<String>, SourceError> {
        match &self.kind {
            Kind::Store(store) => Ok(store.snapshot().videos()?),
            Kind::Dump(videos, _) => Ok(videos.keys().cloned().collect()),
        }
    }

    /// The tracked words of a video, sorted.
    ///
    /// # Errors
    /// If there is no such video.
    pub fn tokens(&self, video: &str) -> Result<Vec<String>, SourceError> {
        match &self.kind {
            Kind::Store(store) => {
                let index = self.stored(&store.snapshot(), video)?;
                Ok(index.series().filter_map(|rows| Some(rows.first()?.token.clone())).collect())
            }
            Kind::Dump(videos, _) => {
                Ok(self.dumped(videos, video)?.video.series.iter().map(|series| series.token.clone()).collect())
            }
        }
    }

    /// The steps of a word, ascending.
    ///
    /// # Errors
    /// If there is no such video or word.
    pub fn steps(&self, video: &str, token: &str) -> Result<Vec<i32>, SourceError> {
        Ok(self.word(video, token)?.steps())
    }

    /// The metadata of a step, with the keys of its JSON file; of a step that is split into files, as that of the
    /// whole.
    ///
    /// # Errors
    /// If there is no such step, or its metadata cannot be read.
    pub fn metadata(&self, video: &str, token: &str, step: i32) -> Result<Object, SourceError> {
        let word = self.word(video, token)?;
        let place = word.place(step)?;
        match (&self.kind, &word) {
            (Kind::Store(store), Word::Store(_, rows)) => {
                Ok(self.stored(&store.snapshot(), video)?.metadata_of(&rows[place]))
            }
            (_, Word::Store(_, rows)) => Ok(rows[place].to_metadata()),
            (_, Word::Dump(series, _, options)) => {
                let files = &series.steps[place];
                let mut metadata = dumped_metadata(files)?;
                if files.is_split() {
                    let shape = shape_of(files, series, options)?;
                    let (numbers, _) = metadata.numbers(shape, &series.split);
                    metadata.raw.extend(described_as_whole(shape, &numbers));
                }
                Ok(metadata.raw)
            }
        }
    }

    /// The `summary.json` of a video, if it has one.
    ///
    /// # Errors
    /// If there is no such video, or the summary cannot be read.
    pub fn summary(&self, video: &str) -> Result<Option<Object>, SourceError> {
        match &self.kind {
            Kind::Store(store) => Ok(self.stored(&store.snapshot(), video)?.record.summary),
            Kind::Dump(videos, _) => {
                let summary = self.dumped(videos, video)?.video.summary.as_deref();
                Ok(summary.map(read_summary).transpose()?.map(|read| read.0))
            }
        }
    }

    /// The shape of a word's step arrays: of the first that can be read. `None` if none can.
    ///
    /// # Errors
    /// If there is no such video or word.
    pub fn shape(&self, video: &str, token: &str) -> Result<Option<StepShape>, SourceError> {
        match self.word(video, token)? {
            Word::Store(_, rows) => Ok(rows.first().map(|row| row.shape)),
            Word::Dump(series, _, options) => {
                Ok(series.steps.iter().find_map(|files| shape_of(files, series, &options).ok()))
            }
        }
    }

    /// The grid that a word's positions unflatten to, where it is known.
    ///
    /// # Errors
    /// If there is no such video or word.
    pub fn grid(&self, video: &str, token: &str) -> Result<Option<Grid>, SourceError> {
        match self.word(video, token)? {
            Word::Store(_, rows) => Ok(rows.first().and_then(|row| row.grid)),
            Word::Dump(series, _, options) => {
                let of = |files: &StepFiles| {
                    let spatial = shape_of(files, series, &options).ok()?.spatial;
                    dumped_metadata(files).ok()?.grid(spatial).ok()
                };
                Ok(series.steps.iter().find_map(of))
            }
        }
    }

    /// The array of one step.
    ///
    /// # Errors
    /// If it is not there, or damaged.
    pub fn step(&self, video: &str, token: &str, step: i32) -> Result<Array, SourceError> {
        fn shaped<T: Clone>(shape: StepShape, values: std::borrow::Cow<'_, [T]>) -> Array4<T> {
            let axes = (shape.blocks, shape.heads, shape.spatial, shape.tokens);
            Array4::from_shape_vec(axes, values.into_owned()).unwrap_or_else(|_| unreachable!("readers check lengths"))
        }
        let word = self.word(video, token)?;
        let place = word.place(step)?;
        let mut reader = WordReader::open(&word, Over::default())?;
        reader.read(place, |values, shape| match values {
            Values::Float16(values) => Array::Float16(shaped(shape, values)),
            Values::Float32(values) => Array::Float32(shaped(shape, values)),
            Values::Float64(values) => Array::Float64(shaped(shape, values)),
        })
    }

    /// The arrays of some steps (`None`: all), in the order given and the type that they are stored in; bfloat16 as
    /// float32.
    ///
    /// # Errors
    /// If something is not there or damaged, or the steps are not of one shape and type.
    pub fn load(
        &self,
        video: &str,
        token: &str,
        steps: Option<&[i32]>,
        progress: &dyn Progress,
    ) -> Result<Stack, SourceError> {
        let word = self.word(video, token)?;
        let (numbers, places) = word.places(steps)?;
        let mut reader = WordReader::open(&word, Over::default())?;
        let all = Meter::new(progress, Unit::Steps, places.len() as u64);
        let (first, shape) = reader.read(places[0], |values, shape| (values.into_owned(), shape))?;
        all.add(1)?;
        let rest = Rest { reader: &reader, numbers: &numbers, places: &places, shape, all: &all };
        let values = match first {
            first if places.len() == 1 => first,
            Values::Float16(first) => Values::Float16(rest.stack(&first)?.into()),
            Values::Float32(first) => Values::Float32(rest.stack(&first)?.into()),
            Values::Float64(first) => Values::Float64(rest.stack(&first)?.into()),
        };
        let [blocks, heads, spatial, tokens] = shape.axes();
        Ok(Stack { shape: [places.len(), blocks, heads, spatial, tokens], values })
    }

    /// The mean of some steps (`None`: all) over steps, blocks and heads as asked, float32. Sums accumulate in float64.
    /// Only a few steps are held at a time; a store's rollups are read where they answer.
    ///
    /// # Errors
    /// As [`load`](Self::load); steps may differ in type.
    pub fn mean(
        &self,
        video: &str,
        token: &str,
        steps: Option<&[i32]>,
        over: Over,
        progress: &dyn Progress,
    ) -> Result<Stack, SourceError> {
        let word = self.word(video, token)?;
        let (numbers, places) = word.places(steps)?;
        let all = Meter::new(progress, Unit::Steps, places.len() as u64);
        let reader = WordReader::open(&word, over)?;
        let mut values = Vec::new();
        let mut found: Option<Folded> = None;
        // A window at a time, merged in order: the same bits whatever the number of threads.
        let numbered: Vec<(i32, usize)> = numbers.into_iter().zip(places).collect();
        for window in numbered.chunks(rayon::current_num_threads() * 2) {
            let folded: Vec<Folded> = window
                .par_iter()
                .map_init(
                    || reader.clone(),
                    |reader, &(step, place)| {
                        let folded = reader.read(place, |values, shape| Folded::of(step, &values, shape, over))?;
                        all.add(1)?;
                        Ok(folded)
                    },
                )
                .collect::<Result<_, SourceError>>()?;
            for mut step in folded {
                if !over.steps {
                    values.extend(std::mem::take(&mut step.maps).into_iter().flat_map(Accumulator::finish));
                }
                match &mut found {
                    None => found = Some(step),
                    Some(first) => first.merge(step)?,
                }
            }
        }
        let Some(found) = found else { return Err(SourceError::Cancelled) };
        values.extend(found.maps.into_iter().flat_map(Accumulator::finish));
        let StepShape { blocks, heads, spatial, tokens } = found.kept;
        let steps = if over.steps { 1 } else { numbered.len() };
        Ok(Stack { shape: [steps, blocks, heads, spatial, tokens], values: Values::Float32(values.into()) })
    }

    fn stored(&self, snapshot: &Snapshot, video: &str) -> Result<VideoIndex, SourceError> {
        snapshot.read_video(video)?.ok_or_else(|| self.no_video(video))
    }

    fn dumped<'a>(
        &self,
        videos: &'a BTreeMap<String, DumpedVideo>,
        video: &str,
    ) -> Result<&'a DumpedVideo, SourceError> {
        videos.get(video).ok_or_else(|| self.no_video(video))
    }

    fn no_video(&self, video: &str) -> SourceError {
        SourceError::NotFound {
            what: format!("video `{video}`"),
            place: self.path.display().to_string(),
            known: few(&self.videos().unwrap_or_default()),
        }
    }

    fn word(&self, video: &str, token: &str) -> Result<Word<'_>, SourceError> {
        let composed_token = composed(token);
        let is_word = |own: &str| own == token || composed(own) == composed_token;
        let found = match &self.kind {
            Kind::Store(store) => {
                let snapshot = store.snapshot();
                let rows = self.stored(&snapshot, video)?.rows.into_iter().filter(|row| is_word(&row.token));
                Some(rows.collect::<Vec<_>>()).filter(|rows| !rows.is_empty()).map(|rows| Word::Store(snapshot, rows))
            }
            Kind::Dump(videos, options) => {
                let DumpedVideo { video, problems } = self.dumped(videos, video)?;
                let series = video.series.iter().find(|series| is_word(&series.token));
                series.map(|series| Word::Dump(series, problems, options.clone()))
            }
        };
        match found {
            Some(word) => Ok(word),
            None => Err(SourceError::NotFound {
                what: format!("word `{token}`"),
                place: format!("video `{video}`"),
                known: few(&self.tokens(video)?),
            }),
        }
    }
}

impl Word<'_> {
    fn steps(&self) -> Vec<i32> {
        match self {
            Self::Store(_, rows) => rows.iter().map(|row| row.step).collect(),
            Self::Dump(series, ..) => series.steps.iter().map(|files| files.step).collect(),
        }
    }

    /// Where a step is among those of the word.
    fn place(&self, step: i32) -> Result<usize, SourceError> {
        let steps = self.steps();
        steps.binary_search(&step).map_err(|_| {
            // A step whose files are damaged is no step of the dump: say why.
            if let Self::Dump(series, problems, _) = self {
                let stem = format!("step_{step:03}");
                let of_step = |problem: &&Arc<DumpError>| {
                    let name = problem.path.file_name().unwrap_or_default().to_string_lossy();
                    let rest = name.strip_prefix(&stem);
                    problem.path.starts_with(&series.dir)
                        && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
                };
                if let Some(problem) = problems.iter().find(of_step) {
                    return SourceError::Unusable { step, problem: problem.clone() };
                }
            }
            SourceError::NotFound {
                what: format!("step {step}"),
                place: "this word".into(),
                known: match &steps[..] {
                    [] => "none".into(),
                    [first, .., last] if steps.len() > FEW_STEPS => {
                        format!("{} steps from {first} to {last}", steps.len())
                    }
                    few => few.iter().map(i32::to_string).collect::<Vec<_>>().join(", "),
                },
            }
        })
    }

    /// Numbers and places of the steps asked for: at least one.
    fn places(&self, steps: Option<&[i32]>) -> Result<(Vec<i32>, Vec<usize>), SourceError> {
        let numbers = steps.map_or_else(|| self.steps(), <[i32]>::to_vec);
        if numbers.is_empty() {
            let (what, place) = ("step".to_owned(), "what is asked for".to_owned());
            return Err(SourceError::NotFound {
                what,
                place,
                known: few(&self.steps().iter().map(i32::to_string).collect::<Vec<_>>()),
            });
        }
        let places = numbers.iter().map(|&step| self.place(step)).collect::<Result<_, _>>()?;
        Ok((numbers, places))
    }
}

/// Reads steps of one word one after the other: their arrays, or where the store has them their rollups.
enum WordReader<'a> {
    Stored { rows: &'a [StepRow], array: Arc<StoredArray>, kind: ArrayKind, dtype: Dtype },
    Dumped { series: &'a Series, options: ReadOptions, reader: StepReader },
}

impl Clone for WordReader<'_> {
    /// With buffers of its own.
    fn clone(&self) -> Self {
        match self {
            Self::Stored { rows, array, kind, dtype } => {
                Self::Stored { rows, array: array.clone(), kind: *kind, dtype: *dtype }
            }
            Self::Dumped { series, options, .. } => {
                Self::Dumped { series, options: options.clone(), reader: StepReader::new(options.clone()) }
            }
        }
    }
}

impl<'a> WordReader<'a> {
    fn open(word: &'a Word<'_>, over: Over) -> Result<Self, SourceError> {
        match word {
            Word::Dump(series, _, options) => {
                Ok(Self::Dumped { series, options: options.clone(), reader: StepReader::new(options.clone()) })
            }
            Word::Store(snapshot, rows) => {
                let wanted = match over {
                    Over { blocks: true, heads: true, .. } => ArrayKind::Mean,
                    Over { blocks: true, .. } => ArrayKind::MeanBlock,
                    Over { heads: true, .. } => ArrayKind::MeanHead,
                    Over { .. } => ArrayKind::Attention,
                };
                let damaged =
                    |found: String| StoreError::Damaged { path: snapshot.store().place(), found: found.into() };
                let first = rows.first().ok_or_else(|| damaged("a word without rows".into()))?;
                let there = snapshot.has_array(&format!("{}/{}", first.series_path(), wanted.name()));
                let kind = if there { wanted } else { ArrayKind::Attention };
                let dtype = first.dtype;
                let array = snapshot.open_series(first.series_path(), kind, first.shape, dtype)?;
                Ok(Self::Stored { rows, array, kind, dtype: kind.dtype(dtype) })
            }
        }
    }

    /// Reads the step at a place; `visit` gets its values and their shape, with size 1 where a rollup has no axis.
    fn read<R>(&mut self, place: usize, visit: impl FnOnce(Values<'_>, StepShape) -> R) -> Result<R, SourceError> {
        match self {
            Self::Stored { rows, array, kind, dtype } => {
                let row = &rows[place];
                let bytes = array.read_step(row.row.into())?;
                let shape = StepShape {
                    blocks: if matches!(kind, ArrayKind::Mean | ArrayKind::MeanBlock) { 1 } else { row.shape.blocks },
                    heads: if matches!(kind, ArrayKind::Mean | ArrayKind::MeanHead) { 1 } else { row.shape.heads },
                    ..row.shape
                };
                if bytes.len() != shape.len() * dtype.size() {
                    let found =
                        format!("the row of step {} says {}; the array has steps of others", row.step, row.shape);
                    return Err(StoreError::Damaged { path: PathBuf::from(&row.array), found: found.into() }.into());
                }
                Ok(visit(Values::from_ne_bytes(*dtype, &bytes), shape))
            }
            Self::Dumped { series, reader, .. } => {
                let step = reader.read(&series.steps[place], &series.split)?;
                Ok(visit(step.array.values, step.array.shape))
            }
        }
    }
}

/// Steps after the first, which are to stack behind it.
struct Rest<'a> {
    reader: &'a WordReader<'a>,
    numbers: &'a [i32],
    places: &'a [usize],
    shape: StepShape,
    all: &'a Meter<'a>,
}

impl Rest<'_> {
    fn stack<T: Stacked>(&self, first: &[T]) -> Result<Vec<T>, SourceError> {
        let len = self.shape.len();
        let mut stack = bytemuck::zeroed_vec(len * self.places.len());
        let (head, rest) = stack.split_at_mut(len);
        head.copy_from_slice(first);
        let steps = rest.par_chunks_mut(len).zip(self.numbers.par_iter().zip(self.places).skip(1));
        steps
            .map_init(
                || self.reader.clone(),
                |reader, (target, (&step, &place))| {
                    reader.read(place, |values, shape| match T::of(&values).filter(|_| shape == self.shape) {
                        Some(values) => {
                            target.copy_from_slice(values);
                            Ok(())
                        }
                        None => {
                            let found = format!("{} {shape}", values.dtype());
                            let first = format!("{} {}", T::DTYPE, self.shape);
                            Err(SourceError::Mixed { step, found, first_step: self.numbers[0], first })
                        }
                    })??;
                    Ok(self.all.add(1)?)
                },
            )
            .collect::<Result<(), SourceError>>()?;
        Ok(stack)
    }
}

/// A type that steps are stacked in.
trait Stacked: bytemuck::Pod + Send + Sync {
    const DTYPE: Dtype;
    fn of<'a>(values: &'a Values<'_>) -> Option<&'a [Self]>;
}

macro_rules! stacked {
    ($type:ty, $variant:ident) => {
        impl Stacked for $type {
            const DTYPE: Dtype = Dtype::$variant;
            fn of<'a>(values: &'a Values<'_>) -> Option<&'a [Self]> {
                match values {
                    Values::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}
stacked!(f16, Float16);
stacked!(f32, Float32);
stacked!(f64, Float64);

/// What is folded of one step, or of several.
struct Folded {
    /// The first of the steps.
    step: i32,
    /// Its shape, as it was read.
    shape: StepShape,
    /// The shape of the mean.
    kept: StepShape,
    /// By block and head, where they are kept.
    maps: Vec<Accumulator>,
}

impl Folded {
    fn of(step: i32, values: &Values<'_>, shape: StepShape, over: Over) -> Self {
        let blocks = if over.blocks { 1 } else { shape.blocks };
        let heads = if over.heads { 1 } else { shape.heads };
        let kept = StepShape { blocks, heads, ..shape };
        Self { step, shape, kept, maps: with_values!(values, values => fold(values, shape, kept)) }
    }

    fn merge(&mut self, other: Self) -> Result<(), SourceError> {
        if other.shape != self.shape {
            let (found, first) = (other.shape.to_string(), self.shape.to_string());
            return Err(SourceError::Mixed { step: other.step, found, first_step: self.step, first });
        }
        let merged = self.maps.iter_mut().zip(other.maps).map(|(own, more)| own.merge(more));
        Ok(merged.collect::<Result<(), Unlike>>()?)
    }
}

/// Folds the maps of a step over the axes that are 1 in `kept` and not in `shape`.
fn fold<T: Element>(values: &[T], shape: StepShape, kept: StepShape) -> Vec<Accumulator> {
    let groups = (0..kept.blocks).flat_map(|block| (0..kept.heads).map(move |head| (block, head)));
    let range = |kept: usize, all: usize, index: usize| if kept == all { index..index + 1 } else { 0..all };
    let mut scratch = Vec::new();
    groups
        .map(|(block, head)| {
            let heads = range(kept.heads, shape.heads, head);
            let maps: Vec<&[T]> = range(kept.blocks, shape.blocks, block)
                .flat_map(|block| heads.clone().map(move |head| block * shape.heads + head))
                .map(|map| &values[map * shape.head_len()..][..shape.head_len()])
                .collect();
            let mut accumulator = Accumulator::new(Reducer::Mean, false, shape.head_len());
            accumulator.fold(&maps, 1, &mut scratch);
            accumulator
        })
        .collect()
}

fn dumped_metadata(files: &StepFiles) -> Result<StepMetadata, SourceError> {
    let path = files.parts.first().map_or(Path::new(""), |part| part.metadata.as_path());
    Ok(read_step_metadata(path)?.0)
}

/// Shape of a step: from its head, where that tells it.
fn shape_of(files: &StepFiles, series: &Series, options: &ReadOptions) -> Result<StepShape, SourceError> {
    let mut reader = StepReader::new(options.clone());
    match reader.peek(files, &series.split)? {
        Some(peek) => Ok(peek.shape),
        None => Ok(reader.read(files, &series.split)?.array.shape),
    }
}

/// Keys of metadata that speak of one file of a step, for the whole step.
fn described_as_whole(shape: StepShape, numbers: &AxisNumbers) -> Object {
    let [block_idx, head_idx] = numbers.as_metadata();
    let keys = json!({
        "attention_shape": shape.axes(),
        "num_blocks": shape.blocks,
        "num_heads": shape.heads,
        "block_idx": block_idx,
        "head_idx": head_idx,
        "aggregation_method": "per_step_full",
    });
    match keys.into() {
        Json::Object(keys) => keys,
        _ => Object::new(),
    }
}

/// A list for people: not more than they would read.
fn few(names: &[String]) -> String {
    const MOST: usize = 8;
    match names.len() {
        0 => "none".into(),
        1..=MOST => names.join(", "),
        all => format!("{} and {} more", names[..MOST].join(", "), all - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{self, IngestOptions};
    use crate::progress::Silent;

    const VARIANTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants");

    struct Stopped;

    impl Progress for Stopped {
        fn is_cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_dump_and_its_store_give_the_same_arrays_and_means() {
        for variant in ["gzip", "torch", "split"] {
            let dir = tempfile::tempdir().unwrap();
            let path = Path::new(VARIANTS).join(variant);
            ingest::run(&[&path], dir.path().join("store"), &IngestOptions::default(), &Silent).unwrap();
            let dump = Source::open(&path, ReadOptions::default()).unwrap();
            let store = Source::open(dir.path().join("store"), ReadOptions::default()).unwrap();
            assert_eq!(dump.videos().unwrap(), store.videos().unwrap());
            for video in &dump.videos().unwrap() {
                assert_eq!(dump.summary(video).unwrap(), store.summary(video).unwrap());
                for token in &dump.tokens(video).unwrap() {
                    let of = |source: &Source| source.load(video, token, None, &Silent).unwrap();
                    assert_eq!(of(&dump), of(&store));
                    assert_eq!(dump.grid(video, token).unwrap(), store.grid(video, token).unwrap());
                    let step = dump.steps(video, token).unwrap()[0];
                    let metadata = |source: &Source| source.metadata(video, token, step).unwrap();
                    assert_eq!(metadata(&dump)["prompt"], metadata(&store)["prompt"]);
                    for over in [
                        Over { blocks: true, ..Over::default() },
                        Over { heads: true, ..Over::default() },
                        Over { blocks: true, heads: true, steps: false },
                    ] {
                        let of = |source: &Source| source.mean(video, token, None, over, &Silent).unwrap();
                        assert_eq!(of(&dump), of(&store), "{over:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let dump = Source::open(Path::new(VARIANTS).join("gzip"), ReadOptions::default()).unwrap();
        let said = |error: SourceError| error.to_string();
        assert!(said(dump.tokens("nope").unwrap_err()).contains("prompt_000_vid001"));
        assert!(said(dump.steps("prompt_000_vid001", "nope").unwrap_err()).contains("circle"));
        let missing = dump.load("prompt_000_vid001", "circle", Some(&[7]), &Silent).unwrap_err();
        assert!(said(missing).contains("there are 0, "));
        let empty = tempfile::tempdir().unwrap();
        let nothing = Source::open(empty.path(), ReadOptions::default()).unwrap_err();
        assert!(matches!(nothing, SourceError::Neither { .. }));
        let stopped = dump.load("prompt_000_vid001", "circle", None, &Stopped);
        assert!(matches!(stopped, Err(SourceError::Cancelled)));
    }
}
