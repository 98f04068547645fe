//! How the maps of a step came about: which call of which model, and what stands for the word on its text axis.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the maps of a step came about, as far as that is told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Which call of classifier-free guidance.
    pub call: Option<Call>,
    /// The negative prompt.
    pub negative_prompt: Option<String>,
    /// How the weights of words act on the embeddings; `None` if they do not, or that is not known.
    pub weighting: Option<String>,
    /// Which of the pipeline's transformers: `transformer`, or `transformer_2` of WAN 2.2.
    pub model: Option<String>,
    /// How many positions of the text axis stand for the word.
    pub pieces: Option<i32>,
    /// What was made of them.
    pub pooling: Option<Pooling>,
    /// Which they are.
    pub positions: Option<Vec<i32>>,
    /// Positions of the text axis that the prompt takes, its end token among them; padding is behind.
    pub text_length: Option<i32>,
    /// Blocks that did not run at this step, as a step cache left them out.
    pub skipped: Option<Vec<i32>>,
    /// The scheduler.
    pub scheduler: Option<String>,
    /// Where the model is from.
    pub model_id: Option<String>,
    /// Strength of guidance at this step.
    #[serde(with = "crate::json::exact::option")]
    pub guidance_scale: Option<f64>,
    /// Versions of what ran it, a JSON object.
    pub library_versions: Option<String>,
}

impl Provenance {
    /// The same with what follows for an array with so many tokens, of a word of so many ids: where they are told,
    /// there are as many pieces, and generators store their mean.
    #[must_use]
    pub(crate) fn completed(self, ids: usize, tokens: usize) -> Self {
        let told = self.positions.as_ref().map_or(ids, Vec::len);
        let pieces = self.pieces.or_else(|| i32::try_from(told).ok().filter(|&pieces| pieces > 0));
        let pooling = self.pooling.or_else(|| match usize::try_from(pieces?) {
            Ok(pieces) if pieces == tokens => Some(Pooling::Each),
            Ok(_) if tokens == 1 => Some(Pooling::Mean),
            _ => None,
        });
        Self { pieces, pooling, ..self }
    }
}

/// A call of classifier-free guidance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// With the prompt.
    Cond,
    /// With the negative prompt.
    Uncond,
}

/// What was made of the positions that stand for a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// One token: their mean.
    Mean,
    /// One token: their sum.
    Sum,
    /// A token for each.
    Each,
}

impl Call {
    const ALL: [Self; 2] = [Self::Cond, Self::Uncond];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cond => "cond",
            Self::Uncond => "uncond",
        }
    }
}

impl Pooling {
    const ALL: [Self; 3] = [Self::Mean, Self::Sum, Self::Each];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Each => "each",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|call| call.name() == name);
        found.ok_or_else(|| format!("`{name}` is neither cond nor uncond"))
    }
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|pooling| pooling.name() == name);
        found.ok_or_else(|| format!("`{name}` is not one of mean, sum, each"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_pooling_follow_where_they_are_not_told() {
        let of = |told: Provenance, ids, tokens| {
            let completed = told.completed(ids, tokens);
            (completed.pieces, completed.pooling)
        };
        let nothing = Provenance::default;
        let positions = |positions: &[i32]| Provenance { positions: Some(positions.to_vec()), ..nothing() };
        assert_eq!(of(nothing(), 0, 1), (None, None));
        assert_eq!(of(nothing(), 1, 1), (Some(1), Some(Pooling::Each)));
        assert_eq!(of(nothing(), 3, 1), (Some(3), Some(Pooling::Mean)));
        assert_eq!(of(nothing(), 3, 3), (Some(3), Some(Pooling::Each)));
        assert_eq!(of(nothing(), 3, 2), (Some(3), None));
        assert_eq!(of(positions(&[4, 5]), 1, 1), (Some(2), Some(Pooling::Mean)));
        let told = Provenance { pooling: Some(Pooling::Sum), ..positions(&[4, 5]) };
        assert_eq!(of(told, 0, 1), (Some(2), Some(Pooling::Sum)));
    }
}
