//! The shape of a step array.

use std::fmt;

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
