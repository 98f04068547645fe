//! The element types of step arrays: those a dump may hold and those a store holds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Element type of an array in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary16.
    Float16,
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary64.
    Float64,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Float16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// Bits of the fraction.
    #[must_use]
    pub const fn fraction_bits(self) -> u8 {
        match self {
            Self::Float16 => 10,
            Self::Float32 => 23,
            Self::Float64 => 52,
        }
    }

    /// The name that Zarr, numpy and torch use: `float16`, `float32`, `float64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float16 => "float16",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Dtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Float16, Self::Float32, Self::Float64]
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| format!("`{name}` is not one of float16, float32, float64"))
    }
}

/// Element type of a step file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceDtype {
    /// IEEE 754 binary16.
    Float16,
    /// The upper half of a binary32; only torch files have it.
    BFloat16,
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary64.
    Float64,
}

impl SourceDtype {
    /// The type that holds every such value exactly in a store: itself, except that bfloat16 is widened to float32.
    #[must_use]
    pub const fn stored(self) -> Dtype {
        match self {
            Self::Float16 => Dtype::Float16,
            Self::BFloat16 | Self::Float32 => Dtype::Float32,
            Self::Float64 => Dtype::Float64,
        }
    }

    /// Bytes of one element in a file.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::BFloat16 => 2,
            _ => self.stored().size(),
        }
    }

    /// The name that torch uses, without `torch.`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BFloat16 => "bfloat16",
            _ => self.stored().name(),
        }
    }
}

impl std::str::FromStr for SourceDtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Float16, Self::BFloat16, Self::Float32, Self::Float64]
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| format!("`{name}` is not one of float16, bfloat16, float32, float64"))
    }
}

impl fmt::Display for SourceDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
