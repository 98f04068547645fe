//! A dump as a source, as it was found.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::many::ValuesMut;
use super::origin::{Origin, StepsReader, Word};
use super::{Over, SourceError};
use crate::dtype::Dtype;
use crate::dump::{
    Dump, DumpError, FileFormat, ReadOptions, Series, StepFiles, StepMetadata, StepPeek, StepReader, Video,
    read_step_metadata, read_summary,
};
use crate::grid::Grid;
use crate::json::{Json, Object};
use crate::shape::{AxisNumbers, StepShape};
use crate::values::Values;

/// The videos of a dump.
#[derive(Debug)]
pub(super) struct Dumped {
    videos: BTreeMap<String, DumpedVideo>,
    options: ReadOptions,
}

#[derive(Debug)]
struct DumpedVideo {
    video: Video,
    /// What of it cannot be used.
    problems: Vec<Arc<DumpError>>,
}

impl Dumped {
    pub fn new(dump: Dump, options: ReadOptions) -> Self {
        let problems: Vec<Arc<DumpError>> = dump.problems.into_iter().map(Arc::new).collect();
        let of = |video: Video| {
            let problems = problems.iter().filter(|problem| problem.path.starts_with(&video.dir)).cloned().collect();
            (video.id(), DumpedVideo { video, problems })
        };
        Self { videos: dump.videos.into_iter().map(of).collect(), options }
    }
}

impl Origin for Dumped {
    fn videos(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.videos.keys().cloned().collect())
    }

    fn tokens(&self, video: &str) -> Result<Option<Vec<String>>, SourceError> {
        let words = |found: &DumpedVideo| found.video.series.iter().map(|series| series.token.clone()).collect();
        Ok(self.videos.get(video).map(words))
    }

    fn summary(&self, video: &str) -> Result<Option<Option<Object>>, SourceError> {
        let Some(found) = self.videos.get(video) else { return Ok(None) };
        Ok(Some(found.video.summary.as_deref().map(read_summary).transpose()?.map(|read| read.0)))
    }

    fn word(&self, video: &str, is_word: &dyn Fn(&str) -> bool) -> Result<Option<Box<dyn Word + '_>>, SourceError> {
        let Some(DumpedVideo { video, problems }) = self.videos.get(video) else { return Ok(None) };
        let series = video.series.iter().find(|series| is_word(&series.token));
        Ok(series.map(|series| Box::new(DumpedWord { series, problems, options: &self.options }) as Box<dyn Word>))
    }
}

/// A word of a dump.
struct DumpedWord<'a> {
    series: &'a Series,
    problems: &'a [Arc<DumpError>],
    options: &'a ReadOptions,
}

impl DumpedWord<'_> {
    /// Shape of a step: from its head, where that tells it.
    fn shape_of(&self, files: &StepFiles) -> Result<StepShape, SourceError> {
        let mut reader = StepReader::new(self.options.clone());
        match reader.peek(files, &self.series.split)? {
            Some(peek) => Ok(peek.shape),
            None => Ok(reader.read(files, &self.series.split)?.array.shape),
        }
    }
}

impl Word for DumpedWord<'_> {
    fn steps(&self) -> Vec<i32> {
        self.series.steps.iter().map(|files| files.step).collect()
    }

    /// A step whose files are damaged is no step of the dump.
    fn problem_of(&self, step: i32) -> Option<Arc<DumpError>> {
        let stem = format!("step_{step:03}");
        let is_of_step = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let rest = name.strip_prefix(&stem);
            path.starts_with(&self.series.dir)
                && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        self.problems.iter().find(|problem| is_of_step(&problem.path)).cloned()
    }

    fn metadata(&self, place: usize) -> Result<Object, SourceError> {
        let files = &self.series.steps[place];
        let mut metadata = read_metadata(files)?;
        if files.is_split() {
            let shape = self.shape_of(files)?;
            let (numbers, _) = metadata.numbers(shape, &self.series.split);
            metadata.raw.extend(described_as_whole(shape, &numbers));
        }
        Ok(metadata.raw)
    }

    fn shape(&self) -> Option<StepShape> {
        self.series.steps.iter().find_map(|files| self.shape_of(files).ok())
    }

    fn grid(&self) -> Option<Grid> {
        let of = |files: &StepFiles| {
            let spatial = self.shape_of(files).ok()?.spatial;
            read_metadata(files).ok()?.grid(spatial).ok()
        };
        self.series.steps.iter().find_map(of)
    }

    fn reader(&self, _: Over) -> Result<Box<dyn StepsReader + '_>, SourceError> {
        Ok(Box::new(DumpedSteps::new(self.series, self.options)))
    }
}

/// Reads step files of a word.
struct DumpedSteps<'a> {
    series: &'a Series,
    options: &'a ReadOptions,
    reader: StepReader,
}

impl<'a> DumpedSteps<'a> {
    fn new(series: &'a Series, options: &'a ReadOptions) -> Self {
        Self { series, options, reader: StepReader::new(options.clone()) }
    }
}

impl StepsReader for DumpedSteps<'_> {
    fn read(&mut self, place: usize, visit: &mut dyn FnMut(Values<'_>, StepShape)) -> Result<(), SourceError> {
        let array = self.reader.read_array(&self.series.steps[place], &self.series.split)?;
        visit(array.values, array.shape);
        Ok(())
    }

    fn outline(&self, places: &[usize]) -> Result<Option<(StepShape, Dtype)>, SourceError> {
        let Some(&first) = places.first() else { return Ok(None) };
        let is_plain = |&place: &usize| match &self.series.steps[place].parts[..] {
            [only] if !only.is_part() && only.format == FileFormat::Npy => Some(only.tensor.bytes),
            _ => None,
        };
        let Some(fewest) = places.iter().map(is_plain).min().flatten() else { return Ok(None) };
        let Some(StepPeek { shape, dtype }) = self.reader.peek(&self.series.steps[first], &self.series.split)? else {
            return Ok(None);
        };
        let bytes = (shape.len() as u64).saturating_mul(dtype.stored().size() as u64);
        Ok((bytes <= fewest).then(|| (shape, dtype.stored())))
    }

    fn read_into(&self, place: usize, shape: StepShape, target: ValuesMut<'_>) -> Result<bool, SourceError> {
        let [file] = &self.series.steps[place].parts[..] else { return Ok(false) };
        let (dtype, target) = target.bytes();
        Ok(self.reader.read_into(file, shape, dtype, target)?)
    }

    fn another(&self) -> Box<dyn StepsReader + '_> {
        Box::new(Self::new(self.series, self.options))
    }
}

fn read_metadata(files: &StepFiles) -> Result<StepMetadata, SourceError> {
    let path = files.parts.first().map_or(Path::new(""), |part| part.metadata.as_path());
    Ok(read_step_metadata(path)?.0)
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
