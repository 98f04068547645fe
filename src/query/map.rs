//! One spatial map: unflattened to the grid, and on request resampled to the size of the video.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, AnswerKind, Arrange, Statistics, shape_columns};
use super::average::{EachMap, MapRows};
use super::error::{QueryError, few};
use super::explain::Explain;
use super::filter::Filter;
use super::key::Key;
use super::merge::{Assembly, Reduced};
use super::plan::{self, Ending, Plan};
use super::selection::{SelectedStep, Selection};
use super::task::Reduction;
use crate::grid::{Grid, VideoSize, infer_grid};
use crate::kernel::{FramePlacement, Pooling, Resampled};
use crate::progress::Progress;
use crate::remedy::{CommandName, OptionName, Remedy};
use crate::store::{Snapshot, Store, series_of};

/// Values of a resampled map, at the most.
const LARGEST_MAP: usize = 1 << 30;

/// A question for the map of one step of one word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpatialMap {
    /// The maps that are averaged: of one step of one word in one video.
    pub filter: Filter,
    /// How they become one.
    pub reduction: Reduction,
    /// Height and width to resample to, pixels.
    pub size: Option<(usize, usize)>,
    /// Frames to resample to.
    pub frames: Option<usize>,
    /// Where latent frames lie among these.
    pub placement: FramePlacement,
    /// Order, number and columns of the rows.
    pub arrange: Arrange,
}

impl SpatialMap {
    /// What will be done to answer it on a state of a store.
    ///
    /// # Errors
    /// If the store cannot be read, or not one step of one word is selected; if the map cannot be of the size asked
    /// for, or its grid is not known and the size does not tell it.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<Plan, QueryError> {
        let Selection { steps } = Selection::find(snapshot, &self.filter)?;
        let one = |what: &str, option: OptionName, names: BTreeSet<&str>| match names.len() {
            ..=1 => Ok(()),
            count => Err(QueryError::question(
                format!("a map is of one {what}; {count} are selected: {}", few(&names)),
                Remedy::of(
                    "choose one with {}, or average over all with {}",
                    [option.any(), CommandName::Average.here()],
                ),
            )),
        };
        one("video", OptionName::Video, steps.iter().map(|step| &*step.video_id).collect())?;
        one("word", OptionName::Token, steps.iter().map(|step| &*step.token).collect())?;
        let numbers: Vec<String> = steps.iter().map(|step| step.step.to_string()).collect();
        one("step", OptionName::Step, numbers.iter().map(String::as_str).collect())?;
        let resampling = steps.first().map(|step| self.resampling(snapshot, step)).transpose()?.flatten();
        let keys = [Key::Video, Key::Token, Key::TokenIndex, Key::Step];
        let ending = OneMap { each: EachMap { with_values: true, kind: AnswerKind::Map }, resampling };
        Ok(Plan::new(snapshot, &steps, &keys, self.reduction, ending)?.arranged(&self.arrange))
    }

    /// What answering will do.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn explain(&self, store: &Store) -> Result<Explain, QueryError> {
        plan::explain(store, |snapshot| self.plan(snapshot))
    }

    /// One row with its map; one for each token position if the word has several.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), or if an array is damaged.
    pub fn run(&self, store: &Store, progress: &dyn Progress) -> Result<Answer, QueryError> {
        plan::run(store, |snapshot| self.plan(snapshot), progress)
    }

    /// How the map is resampled, if it is.
    fn resampling(&self, snapshot: &Snapshot, step: &SelectedStep) -> Result<Option<Resampling>, QueryError> {
        if self.size.is_none() && self.frames.is_none() {
            return Ok(None);
        }
        let from = step.grid.map_or_else(|| self.grid_of(step.shape.spatial), Ok)?;
        let to = self.target(from)?;
        let pooling = pooling_of(snapshot, &step.array)?.filter(|_| self.size.is_some());
        Ok(Some(Resampling { from, to, placement: self.placement, pooling }))
    }

    /// The grid that a map is resampled to.
    fn target(&self, grid: Grid) -> Result<Grid, QueryError> {
        let target = Grid {
            frames: self.frames.unwrap_or(grid.frames),
            height: self.size.map_or(grid.height, |size| size.0),
            width: self.size.map_or(grid.width, |size| size.1),
        };
        let axes = [target.frames, target.height, target.width];
        if axes.contains(&0) {
            return Err(QueryError::question(
                format!("a map of {target} has no values"),
                "ask for a size of at least 1x1, and 1 frame",
            ));
        }
        if self.frames.is_some() && !self.placement.fits(grid.frames, target.frames) {
            return Err(QueryError::question(
                format!(
                    "{} latent frames cannot be placed in {} frames as a causal VAE decodes them",
                    grid.frames, target.frames
                ),
                Remedy::of(
                    &format!(
                        "such a video has {} (WAN, 4 to a latent frame) or {} (LTX, 8), or any other whole number of \
                         them to one; {{}} stretches them",
                        4 * (grid.frames - 1) + 1,
                        8 * (grid.frames - 1) + 1
                    ),
                    [OptionName::Time.is("even")],
                ),
            ));
        }
        let values = axes.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
        if values.is_none_or(|values| values > LARGEST_MAP) {
            return Err(QueryError::question(
                format!("a map of {target} would have more than {LARGEST_MAP} values"),
                Remedy::of(
                    "ask for a smaller {} or fewer {}",
                    [OptionName::Size.unsaid(), OptionName::Frames.unsaid()],
                ),
            ));
        }
        Ok(target)
    }

    /// The grid, where the dump did not tell it: from the size asked for, by the conventions of video models.
    fn grid_of(&self, spatial: usize) -> Result<Grid, QueryError> {
        let number = |size: Option<usize>| size.and_then(|size| i64::try_from(size).ok());
        let video = VideoSize {
            frames: number(self.frames),
            height: number(self.size.map(|size| size.0)),
            width: number(self.size.map(|size| size.1)),
        };
        infer_grid(spatial, video).map_err(|error| {
            QueryError::question(
                format!("the grid of these {spatial} positions is not known: {error}"),
                Remedy::of(
                    "give the size of the whole video with {} and {}, or ingest again with {}",
                    [OptionName::Size.any(), OptionName::Frames.any(), OptionName::Grid.any()],
                ),
            )
        })
    }
}

/// How the maps of a word were pooled when they were ingested, if they were.
fn pooling_of(snapshot: &Snapshot, array: &str) -> Result<Option<Pooling>, QueryError> {
    let attributes = snapshot.generation(series_of(array))?.attributes()?;
    let lossy = &attributes["lossy"];
    let size = |value: &serde_json::Value| usize::try_from(value.as_u64()?).ok();
    let grid = &lossy["downsampled_from"];
    let pooling = || {
        Some(Pooling {
            factor: size(&lossy["downsample"])?,
            height: size(&grid["height"])?,
            width: size(&grid["width"])?,
        })
    };
    Ok(pooling())
}

/// From one grid to another.
#[derive(Debug)]
struct Resampling {
    from: Grid,
    to: Grid,
    placement: FramePlacement,
    /// How the maps were pooled when they were ingested, if they were.
    pooling: Option<Pooling>,
}

impl Resampling {
    /// The answer with the statistics of every map when it is resampled; the maps themselves are those of
    /// [`Answer::resampled`].
    fn apply(&self, mut answer: Answer) -> Result<Answer, QueryError> {
        let Self { from, to, placement, pooling } = *self;
        let maps = answer.maps.as_ref();
        let resampled: Vec<Resampled> = (0..maps.map_or(0, |maps| maps.maps.len()))
            .map(|index| Resampled::new(maps.map_or(&[], |maps| maps.get(index)), from, to, placement, pooling))
            .collect();
        let shapes = vec![(0, Some(to), to.spatial()); resampled.len()];
        let shape = shape_columns(&shapes).into_iter().filter(|column| column.name() != "n");
        for column in shape.chain(Statistics::of_resampled(&resampled).columns()?) {
            answer.table.with_column(column)?;
        }
        answer.unmade = resampled;
        Ok(answer)
    }
}

/// The map of the only group, and of each further token position.
#[derive(Debug)]
struct OneMap {
    each: EachMap,
    resampling: Option<Resampling>,
}

struct OneMapRows<'a> {
    rows: MapRows<'a>,
    resampling: Option<&'a Resampling>,
}

impl Ending for OneMap {
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a> {
        Box::new(OneMapRows { rows: MapRows::new(plan, &self.each), resampling: self.resampling.as_ref() })
    }

    fn explain(&self, plan: &Plan) -> Vec<String> {
        let resampled = self.resampling.as_ref().map(|resampling| format!("resample to {}", resampling.to));
        resampled.into_iter().chain(self.each.explain(plan)).collect()
    }
}

impl Assembly for OneMapRows<'_> {
    fn take(&mut self, reduced: Vec<Reduced>) -> Result<(), QueryError> {
        self.rows.take(reduced)
    }

    fn answer(self: Box<Self>) -> Result<Answer, QueryError> {
        let answer = self.rows.answer()?;
        match self.resampling {
            Some(resampling) => resampling.apply(answer),
            None => Ok(answer),
        }
    }
}
