//! Many steps of a word: stacked, or folded into a mean.

use half::f16;
use rayon::prelude::*;

use super::origin::{StepsReader, read};
use super::{Over, SourceError};
use crate::dtype::Dtype;
use crate::kernel::{Accumulator, Element, Reducer, Unlike};
use crate::progress::Meter;
use crate::shape::StepShape;
use crate::values::{Values, with_values};

/// Memory for values, of whichever type.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// binary16.
    Float16(&'a mut [f16]),
    /// binary32.
    Float32(&'a mut [f32]),
    /// binary64.
    Float64(&'a mut [f64]),
}

impl<'a> ValuesMut<'a> {
    /// Their number, and their type.
    pub(super) const fn outline(&self) -> (usize, Dtype) {
        match self {
            Self::Float16(target) => (target.len(), Dtype::Float16),
            Self::Float32(target) => (target.len(), Dtype::Float32),
            Self::Float64(target) => (target.len(), Dtype::Float64),
        }
    }

    /// Their type, and the memory as bytes.
    pub(super) fn bytes(self) -> (Dtype, &'a mut [u8]) {
        match self {
            Self::Float16(target) => (Dtype::Float16, bytemuck::cast_slice_mut(target)),
            Self::Float32(target) => (Dtype::Float32, bytemuck::cast_slice_mut(target)),
            Self::Float64(target) => (Dtype::Float64, bytemuck::cast_slice_mut(target)),
        }
    }
}

/// Steps that are to stack.
pub(super) struct Steps<'a> {
    pub reader: &'a dyn StepsReader,
    pub numbers: &'a [i32],
    pub places: &'a [usize],
    /// Of each step.
    pub shape: StepShape,
    pub all: &'a Meter<'a>,
}

impl Steps<'_> {
    /// All steps, of which the first was read already.
    pub fn behind<T: Stacked>(&self, first: &[T]) -> Result<Vec<T>, SourceError> {
        let mut stack = bytemuck::zeroed_vec(self.shape.len() * self.places.len());
        let (head, rest) = stack.split_at_mut(self.shape.len());
        head.copy_from_slice(first);
        self.read(1, rest)?;
        Ok(stack)
    }

    /// All steps.
    pub fn stacked<T: Stacked>(&self) -> Result<Vec<T>, SourceError> {
        let mut stack = bytemuck::zeroed_vec(self.shape.len() * self.places.len());
        self.read(0, &mut stack)?;
        Ok(stack)
    }

    /// Those from the one with number `first` on, into memory for so many.
    pub fn read<T: Stacked>(&self, first: usize, target: &mut [T]) -> Result<(), SourceError> {
        let steps = target.par_chunks_mut(self.shape.len().max(1));
        let steps = steps.zip(self.numbers.par_iter().zip(self.places).skip(first));
        steps
            .map_init(
                || self.reader.another(),
                |reader, (target, (&step, &place))| {
                    if reader.read_into(place, self.shape, T::memory(target))? {
                        return Ok(self.all.add(1)?);
                    }
                    read(&mut **reader, place, |values, shape| {
                        match T::of(&values).filter(|_| shape == self.shape) {
                            Some(values) => {
                                target.copy_from_slice(values);
                                Ok(())
                            }
                            None => {
                                let found = format!("{} {shape}", values.dtype());
                                let first = format!("{} {}", T::DTYPE, self.shape);
                                Err(SourceError::Mixed { step, found, first_step: self.numbers[0], first })
                            }
                        }
                    })??;
                    Ok(self.all.add(1)?)
                },
            )
            .collect::<Result<(), SourceError>>()
    }
}

/// A type that steps are stacked in.
pub(super) trait Stacked: bytemuck::Pod + Send + Sync {
    const DTYPE: Dtype;
    fn of<'a>(values: &'a Values<'_>) -> Option<&'a [Self]>;
    fn memory(target: &mut [Self]) -> ValuesMut<'_>;
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

            fn memory(target: &mut [Self]) -> ValuesMut<'_> {
                ValuesMut::$variant(target)
            }
        }
    };
}
stacked!(f16, Float16);
stacked!(f32, Float32);
stacked!(f64, Float64);

/// What is folded of one step, or of several.
pub(super) struct Folded {
    /// The first of the steps.
    step: i32,
    /// Its shape, as it was read.
    shape: StepShape,
    /// The shape of the mean.
    pub kept: StepShape,
    /// By block and head, where they are kept.
    pub maps: Vec<Accumulator>,
}

impl Folded {
    pub fn of(step: i32, values: &Values<'_>, shape: StepShape, over: Over) -> Self {
        let blocks = if over.blocks { 1 } else { shape.blocks };
        let heads = if over.heads { 1 } else { shape.heads };
        let kept = StepShape { blocks, heads, ..shape };
        Self { step, shape, kept, maps: with_values!(values, values => fold(values, shape, kept)) }
    }

    pub fn merge(&mut self, other: Self) -> Result<(), SourceError> {
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
