//! The shape of a step array, and the numbers that its blocks and heads have in the model.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Shape of a step array: `[block, head, spatial, token]`, no axis empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepShape {
    /// Transformer blocks; 1 if averaged.
    pub blocks: usize,
    /// Attention heads; 1 if averaged.
    pub heads: usize,
    /// Latent positions.
    pub spatial: usize,
    /// Positions of the word's tokens.
    pub tokens: usize,
}

impl StepShape {
    /// A shape of four axes; `None` if there are not four, or one is empty or larger than any model's: more than 65,536
    /// blocks, heads or tokens, or 2⁴⁰ values in all.
    #[must_use]
    pub fn from_axes(axes: &[usize]) -> Option<Self> {
        let &[blocks, heads, spatial, tokens] = axes else { return None };
        let values = axes.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))?;
        let sane = [blocks, heads, tokens].iter().all(|&axis| axis <= 1 << 16) && spatial < 1 << 31;
        (sane && (1..=1 << 40).contains(&values)).then_some(Self { blocks, heads, spatial, tokens })
    }

    /// Its axes.
    #[must_use]
    pub const fn axes(self) -> [usize; 4] {
        [self.blocks, self.heads, self.spatial, self.tokens]
    }

    /// Number of values.
    #[must_use]
    pub const fn len(self) -> usize {
        self.blocks * self.heads * self.spatial * self.tokens
    }

    /// Never: no axis is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Number of values of one head of one block: `spatial * tokens`.
    #[must_use]
    pub const fn head_len(self) -> usize {
        self.spatial * self.tokens
    }
}

impl fmt::Display for StepShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.axes())
    }
}

/// The numbers of the blocks and heads along the axes of a step array, where they are not counted from 0: of a dump of
/// chosen ones.
///
/// An axis without numbers counts from 0; one of size 1 was averaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct AxisNumbers {
    /// Of the blocks, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Arc<[i32]>>,
    /// Of the heads, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<Arc<[i32]>>,
}

impl AxisNumbers {
    /// The same without numbers that only count.
    #[must_use]
    pub fn told_apart(self) -> Self {
        let counts =
            |numbers: &Arc<[i32]>| numbers.len() > 1 && numbers.iter().zip(0..).all(|(&own, place)| own == place);
        Self { blocks: self.blocks.filter(|own| !counts(own)), heads: self.heads.filter(|own| !counts(own)) }
    }

    /// The values of the metadata keys `block_idx` and `head_idx` that say the same: null, a number, or a list.
    #[must_use]
    pub fn as_metadata(&self) -> [serde_json::Value; 2] {
        [&self.blocks, &self.heads].map(|numbers| match numbers.as_deref() {
            None => serde_json::Value::Null,
            Some([only]) => (*only).into(),
            Some(several) => several.into(),
        })
    }

    /// How many axes have numbers.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.blocks.is_some()) + usize::from(self.heads.is_some())
    }

    /// Whether they fit an array of this shape: one number for each place.
    #[must_use]
    pub fn fit(&self, shape: StepShape) -> bool {
        let fit = |numbers: &Option<Arc<[i32]>>, size: usize| numbers.as_ref().is_none_or(|own| own.len() == size);
        fit(&self.blocks, shape.blocks) && fit(&self.heads, shape.heads)
    }

    /// The number of the block at a place; `None` if blocks were averaged.
    #[must_use]
    pub fn block(&self, shape: StepShape, place: usize) -> Option<i32> {
        number(self.blocks.as_deref(), shape.blocks, place)
    }

    /// The number of the head at a place; `None` if heads were averaged.
    #[must_use]
    pub fn head(&self, shape: StepShape, place: usize) -> Option<i32> {
        number(self.heads.as_deref(), shape.heads, place)
    }
}

fn number(numbers: Option<&[i32]>, size: usize, place: usize) -> Option<i32> {
    match numbers {
        Some(numbers) => numbers.get(place).copied(),
        None if size > 1 => i32::try_from(place).ok(),
        None => None,
    }
}

/// `6, 8, 10`, or of many `0 to 29`.
impl fmt::Display for AxisNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |name: &str, numbers: &Option<Arc<[i32]>>| {
            let numbers = numbers.as_deref()?;
            Some(match numbers {
                [only] => format!("{name} {only}"),
                [first, .., last] if numbers.len() > 8 => format!("{} {name}s from {first} to {last}", numbers.len()),
                _ => format!("{name}s {}", numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")),
            })
        };
        let parts: Vec<String> =
            [list("block", &self.blocks), list("head", &self.heads)].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_model() {
        let shape = StepShape { blocks: 4, heads: 1, spatial: 9, tokens: 1 };
        let chosen = AxisNumbers { blocks: Some([6, 8, 10, 12].into()), heads: None };
        assert_eq!((chosen.block(shape, 2), chosen.head(shape, 0)), (Some(10), None));
        assert!(chosen.fit(shape) && !chosen.fit(StepShape { blocks: 3, ..shape }));
        assert_eq!(AxisNumbers::default().block(shape, 2), Some(2));
        assert_eq!(chosen.to_string(), "blocks 6, 8, 10, 12");
        let counting = AxisNumbers { blocks: Some([0, 1, 2, 3].into()), heads: Some([0].into()) };
        assert_eq!(counting.told_apart(), AxisNumbers { blocks: None, heads: Some([0].into()) });
    }
}
