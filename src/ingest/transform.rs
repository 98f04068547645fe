//! The lossy settings: averaging over blocks or heads, pooling the grid, narrowing the type, rounding. All but the last
//! are computed in float64 and rounded once to the resulting type.

use std::borrow::Cow;

use half::f16;

use crate::dtype::Dtype;
use crate::dump::StepArray;
use crate::grid::Grid;
use crate::kernel::{Element, RoundingError, round};
use crate::shape::{AxisNumbers, StepShape};
use crate::store::Recipe;
use crate::values::{Values, with_values};

impl Recipe {
    /// Shape, grid and type of what this makes of a step.
    #[must_use]
    pub fn outcome(&self, shape: StepShape, grid: Option<Grid>, dtype: Dtype) -> (StepShape, Option<Grid>, Dtype) {
        let pooled = grid.map(|grid| Grid {
            height: grid.height.div_ceil(self.downsample),
            width: grid.width.div_ceil(self.downsample),
            ..grid
        });
        let shape = StepShape {
            blocks: if self.average_blocks { 1 } else { shape.blocks },
            heads: if self.average_heads { 1 } else { shape.heads },
            spatial: pooled.filter(|_| self.downsample > 1).map_or(shape.spatial, Grid::spatial),
            ..shape
        };
        (shape, pooled, self.dtype.unwrap_or(dtype))
    }

    /// Numbers of the blocks and heads of what this makes of a step: an axis that was averaged has none.
    #[must_use]
    pub fn numbers(&self, shape: StepShape, numbers: AxisNumbers) -> AxisNumbers {
        AxisNumbers {
            blocks: numbers.blocks.filter(|_| !self.average_blocks || shape.blocks == 1),
            heads: numbers.heads.filter(|_| !self.average_heads || shape.heads == 1),
        }
    }
}

/// Makes of a step what the recipe says. `grid` is the step's own; pooling needs it.
///
/// Returns also how far values are from what they would be without [`Recipe::bits`], if these are given.
pub(crate) fn transform<'a>(
    step: StepArray<'a>,
    recipe: &Recipe,
    grid: Option<Grid>,
) -> (StepArray<'a>, Option<RoundingError>) {
    let step = unrounded(step, recipe, grid);
    match rounded(&step, recipe.bits) {
        Some((rounded, error)) => (rounded, Some(error)),
        None => (step, None),
    }
}

/// A step whose values are rounded, and how far they are from what they were; `None`, if they are not to be.
pub(super) fn rounded(step: &StepArray<'_>, bits: Option<u8>) -> Option<(StepArray<'static>, RoundingError)> {
    let (values, error) = round(&step.values, bits?);
    let StepArray { shape, source_dtype, .. } = *step;
    Some((StepArray { shape, source_dtype, values }, error))
}

fn unrounded<'a>(step: StepArray<'a>, recipe: &Recipe, grid: Option<Grid>) -> StepArray<'a> {
    let grid = grid.filter(|grid| grid.spatial() == step.shape.spatial);
    let (shape, _, dtype) = recipe.outcome(step.shape, grid, step.values.dtype());
    let pool = grid.filter(|_| recipe.downsample > 1);
    if shape == step.shape && pool.is_none() {
        return StepArray { values: convert(step.values, dtype), ..step };
    }
    let mut values: Cow<'_, [f64]> = match step.values {
        Values::Float64(values) => values,
        other => with_values!(&other, values => values.iter().map(|value| value.to_f64()).collect()),
    };
    let StepShape { blocks, heads, tokens, .. } = step.shape;
    if recipe.average_blocks && blocks > 1 {
        values = mean_over(&values, 1, blocks).into();
    }
    if recipe.average_heads && heads > 1 {
        values = mean_over(&values, shape.blocks, heads).into();
    }
    if let Some(grid) = pool {
        values = pool_grid(&values, grid, tokens, recipe.downsample).into();
    }
    let values = Values::compute(dtype, shape.len(), |index| values.get(index).copied().unwrap_or(f64::NAN));
    StepArray { shape, values, ..step }
}

fn convert(values: Values<'_>, dtype: Dtype) -> Values<'_> {
    if values.dtype() == dtype {
        return values;
    }
    match (values, dtype) {
        // The usual conversions, vectorised; the others by way of float64, with the same result.
        (Values::Float16(values), Dtype::Float32) => Values::Float32(values.iter().copied().map(f16::to_f32).collect()),
        (Values::Float32(values), Dtype::Float16) => {
            Values::Float16(values.iter().copied().map(f16::from_f32).collect())
        }
        (values, _) => Values::compute(dtype, values.len(), |index| values.get(index)),
    }
}

/// Mean over the middle axis of `[outer, count, inner]`.
fn mean_over(values: &[f64], outer: usize, count: usize) -> Vec<f64> {
    let inner = values.len() / (outer * count);
    let mut means = vec![0.0; outer * inner];
    for (means, group) in means.chunks_mut(inner).zip(values.chunks(count * inner)) {
        for slice in group.chunks(inner) {
            means.iter_mut().zip(slice).for_each(|(sum, value)| *sum += value);
        }
        for sum in means {
            *sum /= count as f64;
        }
    }
    means
}

/// Average pooling of `[…, frame, height, width, token]` by `factor`. Windows at the far edges may hold fewer
/// positions, and weigh as much less: a pooled value is the sum of its window over the positions of a whole one, so
/// that a map's mass stays where it was.
fn pool_grid(values: &[f64], grid: Grid, tokens: usize, factor: usize) -> Vec<f64> {
    let (height, width) = (grid.height.div_ceil(factor), grid.width.div_ceil(factor));
    let plane = grid.plane() * tokens;
    let mut pooled = Vec::with_capacity(values.len() / plane * height * width * tokens);
    for plane in values.chunks(plane) {
        for y in 0..height {
            for x in 0..width {
                for token in 0..tokens {
                    let rows = y * factor..((y + 1) * factor).min(grid.height);
                    let columns = x * factor..((x + 1) * factor).min(grid.width);
                    let sum: f64 = rows
                        .flat_map(|row| columns.clone().map(move |column| (row * grid.width + column) * tokens + token))
                        .map(|index| plane[index])
                        .sum();
                    pooled.push(sum / (factor * factor) as f64);
                }
            }
        }
    }
    pooled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::SourceDtype;
    use crate::ingest::IngestOptions;

    fn step(axes: [usize; 4]) -> StepArray<'static> {
        let shape = StepShape::from_axes(&axes).unwrap();
        let values = Values::compute(Dtype::Float32, shape.len(), |index| index as f64);
        StepArray { shape, source_dtype: SourceDtype::Float32, values }
    }

    #[test]
    fn averaging_keeps_the_axis_with_size_one() {
        let recipe = IngestOptions { average_blocks: true, average_heads: true, ..IngestOptions::default() }.recipe();
        let averaged = transform(step([2, 3, 4, 1]), &recipe, None).0;
        assert_eq!(averaged.shape.axes(), [1, 1, 4, 1]);
        assert_eq!((0..4).map(|i| averaged.values.get(i)).collect::<Vec<_>>(), [10.0, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn pooling_keeps_the_mass_also_at_the_edge() {
        let recipe = IngestOptions { downsample: 2, ..IngestOptions::default() }.recipe();
        let grid = Grid { frames: 1, height: 2, width: 3 };
        let pooled = transform(step([1, 1, 6, 1]), &recipe, Some(grid)).0;
        assert_eq!(pooled.shape.axes(), [1, 1, 2, 1]);
        // [[0, 1, 2], [3, 4, 5]]: sums 8 and 7, over four positions each.
        assert_eq!((pooled.values.get(0), pooled.values.get(1)), (2.0, 1.75));
    }

    #[test]
    fn types_convert_with_one_rounding() {
        let recipe = IngestOptions { dtype: Some(Dtype::Float16), ..IngestOptions::default() }.recipe();
        let narrowed = transform(step([1, 1, 6, 1]), &recipe, None).0;
        assert_eq!((narrowed.values.dtype(), narrowed.values.get(5)), (Dtype::Float16, 5.0));
    }
}
