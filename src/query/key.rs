//! What tells groups of maps apart, and the values that it has.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::selection::SelectedStep;

/// What tells groups of maps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The video.
    Video,
    /// The prompt: its id, or its text where it has none.
    Prompt,
    /// The random seed.
    Seed,
    /// The tracked word.
    Token,
    /// The word's weight in the prompt.
    Weight,
    /// Position among the word's tokens.
    TokenIndex,
    /// Denoising step.
    Step,
    /// The scheduler's timestep.
    Timestep,
    /// Transformer block.
    Block,
    /// Attention head.
    Head,
}

impl Key {
    /// Name of its column.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::Video => "video_id",
            Self::Prompt => "prompt",
            Self::Seed => "seed",
            Self::Token => "token",
            Self::Weight => "weight",
            Self::TokenIndex => "token_index",
            Self::Step => "step",
            Self::Timestep => "timestep",
            Self::Block => "block",
            Self::Head => "head",
        }
    }

    /// Its value for a map.
    pub(super) fn of(self, step: &SelectedStep, place: Place) -> KeyValue {
        let number = |number: Option<i32>| number.map_or(KeyValue::Null, |number| KeyValue::Int(number.into()));
        match self {
            Self::Video => KeyValue::Text(step.video_id.clone()),
            Self::Prompt => step.prompt.clone().map_or(KeyValue::Null, KeyValue::Text),
            Self::Seed => step.seed.map_or(KeyValue::Null, KeyValue::Int),
            Self::Token => KeyValue::Text(step.token.clone()),
            Self::Weight => step.weight.map_or(KeyValue::Null, KeyValue::float),
            Self::TokenIndex => KeyValue::Int(place.token as i128),
            Self::Step => KeyValue::Int(step.step.into()),
            Self::Timestep => step.timestep.map_or(KeyValue::Null, KeyValue::float),
            Self::Block => number(step.numbers.block(step.shape, place.block)),
            Self::Head => number(step.numbers.head(step.shape, place.head)),
        }
    }
}

/// Where in a step array a map is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub block: usize,
    pub head: usize,
    pub token: usize,
}

/// A value that tells a group apart, ordered as people order it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyValue {
    /// There is none.
    Null,
    /// A number of something.
    Int(i128),
    /// A float, as bits that order as it does.
    Float(u64),
    /// A name.
    Text(Arc<str>),
}

impl KeyValue {
    const SIGN: u64 = 1 << 63;

    pub(super) fn float(value: f64) -> Self {
        let bits = value.to_bits();
        Self::Float(if bits & Self::SIGN == 0 { bits | Self::SIGN } else { !bits })
    }

    /// As a number, if it is one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(value) => Some(value as f64),
            Self::Float(bits) => Some(f64::from_bits(if bits & Self::SIGN == 0 { !bits } else { bits & !Self::SIGN })),
            Self::Null | Self::Text(_) => None,
        }
    }

    /// Whether it is the number that a text stands for, however that is written (`3`, `3.0`, `3e0`).
    pub(super) fn is_number(&self, text: &str) -> bool {
        /// Floats have all integers below this.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match (self, text.parse::<i128>(), text.parse::<f64>()) {
            (Self::Int(own), Ok(integer), _) => *own == integer,
            (Self::Int(own), Err(_), Ok(number)) => number.abs() < EXACT && *own as f64 == number,
            (Self::Float(_), _, Ok(number)) => self.as_f64() == Some(number),
            _ => false,
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.as_f64()) {
            (Self::Text(text), _) => f.write_str(text),
            (Self::Int(value), _) => value.fmt(f),
            (_, Some(value)) => value.fmt(f),
            _ => f.write_str("none"),
        }
    }
}
