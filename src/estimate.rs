//! How large a dump and a store of it will be, before either is there: what each of the generator's settings costs.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::contents::Contents;
use crate::dtype::SourceDtype;
use crate::dump::{Dump, Video};
use crate::grid::Grid;
use crate::ingest::{self, IngestError, IngestOptions, PartOf};
use crate::progress::{Meter, Progress, Unit};
use crate::shape::{AxisNumbers, StepShape};
use crate::store::{ArrayKind, Codec, Rollups, SeriesLayout, has_step_arrays};

/// Bytes of a step's npy header.
const NPY_HEADER: u64 = 128;
/// Bytes of a step's metadata and of a video's summary, about.
const METADATA: u64 = 900;
/// Bytes that the tables have for each map, about.
pub const TABLES_PER_MAP: u64 = 117;
/// Bytes that the tables have for each video, about.
const TABLES_PER_VIDEO: u64 = 20_000;
/// Files of a store beside those of its videos: the root's document, two locks.
const STORE_FILES: u64 = 3;
/// Time that an ingest takes for each step and for each video, however small.
const SECONDS_PER_STEP: f64 = 0.0003;
const SECONDS_PER_VIDEO: f64 = 0.015;
/// Bytes beyond this are no dump's: an exabyte.
const LARGEST: u128 = 1_000_000_000_000_000_000;
/// Videos of a dump that are looked into to see how they compress.
const SAMPLED_VIDEOS: usize = 2;

/// A video diffusion transformer whose cross-attention is dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// WAN 2.1, 1.3 billion parameters: 30 blocks of 12 heads.
    Wan21Small,
    /// WAN 2.1, 14 billion parameters: 40 blocks of 40 heads.
    Wan21Large,
    /// WAN 2.2, 5 billion parameters: 30 blocks of 24 heads, on a coarser grid.
    Wan22Small,
}

impl Model {
    /// All.
    pub const ALL: [Self; 3] = [Self::Wan21Small, Self::Wan21Large, Self::Wan22Small];

    /// Its name: `wan2.1-1.3b`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wan21Small => "wan2.1-1.3b",
            Self::Wan21Large => "wan2.1-14b",
            Self::Wan22Small => "wan2.2-5b",
        }
    }

    /// Its transformer blocks and the heads of each.
    #[must_use]
    pub const fn blocks_and_heads(self) -> (usize, usize) {
        match self {
            Self::Wan21Small => (30, 12),
            Self::Wan21Large => (40, 40),
            Self::Wan22Small => (30, 24),
        }
    }

    /// The latent grid of a video: frames as `(n - 1) / 4 + 1`, height and width divided by 16 (WAN 2.2 5B: 32), by
    /// integer division. `None` if the video is too small for a grid.
    #[must_use]
    pub fn grid(self, frames: usize, height: usize, width: usize) -> Option<Grid> {
        let stride = if self == Self::Wan22Small { 32 } else { 16 };
        let grid = Grid { frames: frames.checked_sub(1)? / 4 + 1, height: height / stride, width: width / stride };
        (grid.spatial() > 0).then_some(grid)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Model {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| format!("`{name}` is not one of {}", names()))
    }
}

/// Words of videos that are dumped alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Words {
    /// Shape of a step array.
    pub shape: StepShape,
    /// Type of its elements.
    pub dtype: SourceDtype,
    /// Steps of each word.
    pub steps: u64,
    /// How many words of videos there are.
    pub count: u64,
}

/// What is to be estimated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// The words of all videos, by kind.
    pub words: Vec<Words>,
    /// Number of videos.
    pub videos: u64,
}

/// How well a codec compresses, and how fast an ingest with it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// Size of stored maps over that of their values, where blocks and heads are both kept.
    pub maps: f64,
    /// The same where blocks or heads are averaged: means have digits that single maps have not.
    pub averaged: f64,
    /// Size of rollups over that of their values, where blocks and heads are both kept.
    pub rollups: f64,
    /// The same where blocks or heads are averaged: some rollups then repeat the maps.
    pub averaged_rollups: f64,
    /// Bytes of step files that are ingested in a second.
    pub throughput: f64,
}

impl Compression {
    /// Measured on synthetic bfloat16 values in float16, `[30, 12, 23850, 1]`, on two cores.
    pub const MEASURED: [Self; 4] = [
        Self::measured(Codec::Fast, [0.60, 1.0, 0.75, 0.56], 709e6),
        Self::measured(Codec::Balanced, [0.56, 0.74, 0.69, 0.41], 549e6),
        Self::measured(Codec::Small, [0.55, 0.74, 0.60, 0.41], 205e6),
        Self::measured(Codec::None, [1.0; 4], 660e6),
    ];

    const fn measured(codec: Codec, ratios: [f64; 4], throughput: f64) -> Self {
        let [maps, averaged, rollups, averaged_rollups] = ratios;
        Self { codec, maps, averaged, rollups, averaged_rollups, throughput }
    }
}

/// Sizes of a dump and its store for each of the generator's settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// What it is of.
    pub generation: Generation,
    /// What is assumed of codecs.
    pub compression: Vec<Compression>,
    /// One for each of the settings, the smallest first.
    pub settings: Vec<Setting>,
}

/// A choice of `store_per_block` and `store_per_head`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Whether blocks are kept apart.
    pub store_per_block: bool,
    /// Whether heads are kept apart.
    pub store_per_head: bool,
    /// Shape of a step array; of the first kind of words, if there are several.
    pub shape: [usize; 4],
    /// Bytes of a step array.
    pub step_bytes: u64,
    /// Bytes of all step arrays of a word.
    pub word_bytes: u64,
    /// Bytes of all step arrays of a video.
    pub video_bytes: u64,
    /// Bytes of all step arrays.
    pub values_bytes: u64,
    /// How many times smaller than full detail.
    pub times_smaller: f64,
    /// Bytes of the dump's files.
    pub dump_bytes: u64,
    /// Files of the dump: step files, metadata, summaries.
    pub dump_files: u64,
    /// Files of the store.
    pub store_files: u64,
    /// One for each codec.
    pub stores: Vec<StoreSize>,
}

/// Size of a store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreSize {
    /// The codec.
    pub codec: Codec,
    /// Bytes of the maps.
    pub maps_bytes: u64,
    /// Bytes of means over blocks, heads and both.
    pub rollups_bytes: u64,
    /// Bytes of the tables.
    pub tables_bytes: u64,
    /// Bytes in all.
    pub store_bytes: u64,
    /// Time of the ingest.
    pub ingest_seconds: f64,
}

impl Generation {
    /// A generation with `words` words tracked in each of `videos` videos.
    #[must_use]
    pub fn new(shape: StepShape, dtype: SourceDtype, steps: u64, words: u64, videos: u64) -> Self {
        Self { words: vec![Words { shape, dtype, steps, count: words * videos }], videos }
    }

    /// The same from numbers that somebody wrote down: blocks, heads and grid of a step array, steps of each of `words`
    /// words of each of `videos` videos. `None` if a step would have more values than an array can have, or all more
    /// than an exabyte.
    #[must_use]
    pub fn of_sizes(
        (blocks, heads, grid): (usize, usize, Grid),
        dtype: SourceDtype,
        steps: u32,
        words: u32,
        videos: u32,
    ) -> Option<Self> {
        let spatial = grid.frames.checked_mul(grid.height)?.checked_mul(grid.width)?;
        let shape = StepShape::from_axes(&[blocks, heads, spatial, 1])?;
        let count = u128::from(steps) * u128::from(words) * u128::from(videos);
        let bytes = count.checked_mul((shape.len() * dtype.size()) as u128)?;
        (bytes <= LARGEST).then(|| Self::new(shape, dtype, steps.into(), words.into(), videos.into()))
    }

    /// The same with elements of another type.
    #[must_use]
    pub fn with_dtype(mut self, dtype: SourceDtype) -> Self {
        self.words.iter_mut().for_each(|words| words.dtype = dtype);
        self
    }

    /// What a dump has: shapes, types and steps of its words, as far as they can be told.
    #[must_use]
    pub fn of_dump(contents: &Contents) -> Self {
        let mut words: Vec<Words> = Vec::new();
        for series in contents.videos.iter().flat_map(|video| &video.tokens) {
            let shape = series.shape.and_then(|axes| StepShape::from_axes(&axes));
            let dtype = series.dtype.as_deref().map(str::parse);
            let (Some(shape), Some(Ok(dtype))) = (shape, dtype) else { continue };
            let one = Words { shape, dtype, steps: series.steps.len() as u64, count: 1 };
            match words.iter_mut().find(|known| Words { count: 1, ..**known } == one) {
                Some(known) => known.count += 1,
                None => words.push(one),
            }
        }
        Self { words, videos: contents.videos.len() as u64 }
    }

    /// Estimates sizes for all settings that leave something of what there is: of maps that are averaged over blocks
    /// already, only those without blocks.
    #[must_use]
    pub fn estimate(&self, compression: &[Compression], rollups: Rollups) -> Estimate {
        let keeps = |block: bool, head: bool| {
            let fits = |words: &Words| (!block || words.shape.blocks > 1) && (!head || words.shape.heads > 1);
            (!block && !head) || self.words.iter().any(fits)
        };
        let full: u64 = self.words.iter().map(Words::values_bytes).sum();
        let settings = [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .filter(|&(block, head)| keeps(block, head))
            .map(|(block, head)| self.setting(block, head, full, compression, rollups))
            .collect();
        Estimate { generation: self.clone(), compression: compression.to_vec(), settings }
    }

    fn setting(&self, block: bool, head: bool, full: u64, compression: &[Compression], rollups: Rollups) -> Setting {
        let words: Vec<Words> = self.words.iter().map(|words| words.averaged(!block, !head)).collect();
        let sum = |of: &dyn Fn(&Words) -> u64| words.iter().map(|words| of(words) * words.count).sum::<u64>();
        let steps = sum(&|words| words.steps);
        let values_bytes: u64 = words.iter().map(Words::values_bytes).sum();
        let dump_bytes = values_bytes + steps * (NPY_HEADER + METADATA) + self.videos * METADATA;
        let first = words.first();
        let step_bytes = first.map_or(0, Words::step_bytes);
        let store_of = |compression: &Compression| {
            let bytes = |kinds: &dyn Fn(ArrayKind) -> bool, ratio: &dyn Fn(&Words) -> f64| -> u64 {
                words.iter().map(|words| round(words.stored_bytes(rollups, kinds) as f64 * ratio(words))).sum()
            };
            let is_map = |kind| kind == ArrayKind::Attention;
            let of_maps = |words: &Words| if words.is_averaged() { compression.averaged } else { compression.maps };
            let maps_bytes = bytes(&is_map, &of_maps);
            let of_rollups =
                |words: &Words| if words.is_averaged() { compression.averaged_rollups } else { compression.rollups };
            let rollups_bytes = bytes(&|kind| !is_map(kind), &of_rollups);
            let maps = sum(&|words| words.steps * (words.shape.blocks * words.shape.heads * words.shape.tokens) as u64);
            let tables_bytes = maps * TABLES_PER_MAP + self.videos * TABLES_PER_VIDEO;
            StoreSize {
                codec: compression.codec,
                maps_bytes,
                rollups_bytes,
                tables_bytes,
                store_bytes: maps_bytes + rollups_bytes + tables_bytes,
                ingest_seconds: dump_bytes as f64 / compression.throughput
                    + steps as f64 * SECONDS_PER_STEP
                    + self.videos as f64 * SECONDS_PER_VIDEO,
            }
        };
        Setting {
            store_per_block: block,
            store_per_head: head,
            shape: first.map_or([0; 4], |words| words.shape.axes()),
            step_bytes,
            word_bytes: step_bytes * first.map_or(0, |words| words.steps),
            video_bytes: values_bytes / self.videos.max(1),
            values_bytes,
            times_smaller: full as f64 / values_bytes.max(1) as f64,
            dump_bytes,
            dump_files: 2 * steps + self.videos,
            store_files: sum(&|words| words.files(rollups))
                + self.videos * SeriesLayout::FILES_OF_A_VIDEO
                + STORE_FILES,
            stores: compression.iter().map(store_of).collect(),
        }
    }
}

impl Words {
    fn step_bytes(&self) -> u64 {
        (self.shape.len() * self.dtype.size()) as u64
    }

    fn values_bytes(&self) -> u64 {
        self.step_bytes() * self.steps * self.count
    }

    fn averaged(self, blocks: bool, heads: bool) -> Self {
        let one_if = |averaged: bool, size: usize| if averaged { 1 } else { size };
        let StepShape { blocks: of_blocks, heads: of_heads, .. } = self.shape;
        let shape = StepShape { blocks: one_if(blocks, of_blocks), heads: one_if(heads, of_heads), ..self.shape };
        Self { shape, ..self }
    }

    const fn is_averaged(&self) -> bool {
        self.shape.blocks == 1 || self.shape.heads == 1
    }

    fn layout(&self, rollups: Rollups) -> SeriesLayout {
        let steps = usize::try_from(self.steps).unwrap_or(usize::MAX);
        SeriesLayout { shape: self.shape, dtype: self.dtype.stored(), steps, codec: Codec::default(), rollups }
    }

    /// Files of a word, whose steps are taken to count from 0.
    fn files(&self, rollups: Rollups) -> u64 {
        let steps = 0..i32::try_from(self.steps).unwrap_or(i32::MAX);
        self.layout(rollups).files(has_step_arrays(steps), &AxisNumbers::default())
    }

    /// Bytes of the values of some of the arrays of all words, uncompressed.
    fn stored_bytes(&self, rollups: Rollups, kinds: &dyn Fn(ArrayKind) -> bool) -> u64 {
        let layout = self.layout(rollups);
        let bytes =
            |kind: ArrayKind| kind.step_axes(self.shape).iter().product::<usize>() * layout.dtype_of(kind).size();
        layout.kinds().filter(|&kind| kinds(kind)).map(bytes).sum::<usize>() as u64 * self.steps * self.count
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // sizes are positive, and an estimate
fn round(bytes: f64) -> u64 {
    bytes.round() as u64
}

/// How well each codec compresses a dump: a few of its steps are read and compressed, nothing is left behind. `None` if
/// none of them can be read. Its progress counts what is compressed in one way.
///
/// # Errors
/// If the dump cannot be read, and [`IngestError::Cancelled`].
pub fn measure(dump: &Path, progress: &dyn Progress) -> Result<Option<Vec<Compression>>, IngestError> {
    let has_steps = |video: &Video| video.series.iter().any(|series| !series.steps.is_empty());
    let videos: Vec<Video> = Dump::find(&[dump])?.videos.into_iter().filter(has_steps).take(SAMPLED_VIDEOS).collect();
    if videos.is_empty() {
        return Ok(None);
    }
    // Each codec with and without rollups and averages, and once to see whether there is something.
    let meter = Meter::new(progress, Unit::Tasks, 4 * Compression::MEASURED.len() as u64 + 1);
    // Of a sample: its bytes in the store, and those of its values.
    let compressed = |codec: Codec, rollups: Rollups, average_heads: bool| -> Result<(f64, f64), IngestError> {
        let options = IngestOptions { codec, rollups, average_heads, ..IngestOptions::default() };
        let outcome =
            ingest::dry_run_of(Dump { videos: videos.clone(), ..Dump::default() }, &options, &PartOf(progress))?;
        meter.add(1).map_err(|_| IngestError::Cancelled)?;
        Ok((outcome.bytes_out_estimate as f64, outcome.bytes_raw.max(1) as f64))
    };
    if compressed(Codec::None, Rollups::None, false)?.0 == 0.0 {
        return Ok(None);
    }
    let ratio =
        |codec, rollups, average_heads| compressed(codec, rollups, average_heads).map(|(stored, raw)| stored / raw);
    let sample = Generation::of_dump(&Contents::of_videos(&videos, progress).map_err(|_| IngestError::Cancelled)?);
    let values = |kinds: &dyn Fn(ArrayKind) -> bool, averaged: bool| -> f64 {
        let words = sample.words.iter().map(|words| words.averaged(false, averaged));
        words.map(|words| words.stored_bytes(Rollups::All, kinds)).sum::<u64>().max(1) as f64
    };
    let is_map = |kind| kind == ArrayKind::Attention;
    // How much larger than the maps their rollups are.
    let share = |averaged: bool| values(&|kind| !is_map(kind), averaged) / values(&is_map, averaged);
    let mut measured = Compression::MEASURED;
    for compression in &mut measured {
        let codec = compression.codec;
        compression.maps = ratio(codec, Rollups::None, false)?;
        compression.averaged = ratio(codec, Rollups::None, true)?;
        compression.rollups = (ratio(codec, Rollups::All, false)? - compression.maps) / share(false);
        compression.averaged_rollups = (ratio(codec, Rollups::All, true)? - compression.averaged) / share(true);
    }
    Ok(Some(measured.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn full() -> Estimate {
        let shape = StepShape { blocks: 30, heads: 12, spatial: 23_850, tokens: 1 };
        Generation::new(shape, SourceDtype::Float16, 50, 5, 100).estimate(&Compression::MEASURED, Rollups::default())
    }

    #[test]
    fn full_detail_of_the_documented_model_is_430_gigabytes() {
        let estimate = full();
        let [.., all] = &estimate.settings[..] else { panic!("no setting") };
        assert_eq!((all.step_bytes, all.values_bytes), (17_172_000, 429_300_000_000));
        assert_eq!(all.dump_files, 50_100);
        assert_eq!(
            estimate.settings.iter().map(|setting| setting.times_smaller).collect::<Vec<_>>(),
            [360.0, 30.0, 12.0, 1.0]
        );
        let shapes: Vec<[usize; 4]> = estimate.settings.iter().map(|setting| setting.shape).collect();
        assert_eq!(shapes, [[1, 1, 23_850, 1], [1, 12, 23_850, 1], [30, 1, 23_850, 1], [30, 12, 23_850, 1]]);
    }

    #[test]
    fn sizes_that_no_machine_has_are_none() {
        let of = |grid: &str, steps| {
            let shape = (30, 12, grid.parse::<Grid>().unwrap());
            Generation::of_sizes(shape, SourceDtype::Float16, steps, 5, 100)
        };
        assert_eq!(of("15x30x53", 50), Some(full().generation));
        assert_eq!(of("15x30x53", u32::MAX), None);
        assert_eq!(of("1048576x1048576x1048576", 1), None);
    }

    #[test]
    fn models_have_their_grids() {
        assert_eq!(Model::Wan21Small.grid(57, 480, 848).unwrap().to_string(), "15x30x53");
        assert_eq!(Model::Wan21Large.grid(81, 480, 832).unwrap().to_string(), "21x30x52");
        assert_eq!(Model::Wan22Small.grid(121, 704, 1280).unwrap().to_string(), "31x22x40");
        assert_eq!(Model::Wan21Small.grid(0, 480, 848), None);
        assert_eq!("wan2.1-14b".parse(), Ok(Model::Wan21Large));
    }

    /// Files and sizes are those of a real ingest, compression as measured on the dump itself.
    #[test]
    fn an_estimate_of_a_dump_is_near_what_an_ingest_leaves() {
        let dump = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/dataset"));
        let generation = Generation::of_dump(&Contents::of_dump(dump, &Silent).unwrap());
        let estimate = generation.estimate(&measure(dump, &Silent).unwrap().unwrap(), Rollups::default());
        let dir = tempfile::tempdir().unwrap();
        let report = ingest::run(&[dump], dir.path().join("s"), &IngestOptions::default(), &Silent).unwrap();
        let setting = estimate.settings.last().unwrap();
        assert_eq!(setting.dump_files, count_files(&dump.join("attention_maps")));
        assert_eq!(setting.store_files, count_files(&dir.path().join("s")));
        let store = &setting.stores[1];
        let ratio = (store.maps_bytes + store.rollups_bytes) as f64 / report.bytes_out as f64;
        assert!((0.8..1.25).contains(&ratio), "estimated {store:?}, found {}", report.bytes_out);
    }

    fn count_files(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
    }
}
