//! Planes of a map as pixels.

use std::str::FromStr;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

/// What lies between the positions of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Nothing: each position is a rectangle of one colour.
    Nearest,
    /// Straight lines between centres.
    #[default]
    Bilinear,
    /// Catmull and Rom's cubic.
    Bicubic,
    /// Lanczos' windowed sinc, of three lobes.
    Lanczos,
}

impl Filter {
    /// Their names.
    pub const NAMES: [&'static str; 4] = ["nearest", "bilinear", "bicubic", "lanczos"];
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nearest" => Ok(Self::Nearest),
            "bilinear" => Ok(Self::Bilinear),
            "bicubic" => Ok(Self::Bicubic),
            "lanczos" => Ok(Self::Lanczos),
            _ => Err(format!("`{text}` is none of {}", Self::NAMES.join(", "))),
        }
    }
}

/// One plane of a map: rows from the top, columns from the left.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width]`, C order.
    pub values: Vec<f32>,
}

impl Plane {
    /// On another number of rows and columns. Positions are areas, not points: centres lie at (i + ½) · n / m, and
    /// values are extended beyond the outermost centres. Where a value is not finite, nothing is
    /// interpolated: it would spread.
    #[must_use]
    pub fn resized(&self, (height, width): (usize, usize), filter: Filter) -> Self {
        let algorithm = match filter {
            Filter::Nearest => return self.nearest((height, width)),
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
        };
        // What is not finite would spread through the filter.
        if self.values.iter().any(|value| !value.is_finite()) {
            return self.nearest((height, width));
        }
        let side = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let from: Vec<F32> = self.values.iter().map(|&value| F32::new(value)).collect();
        let resized = || {
            let from = TypedImageRef::new(side(self.width), side(self.height), &from).ok()?;
            let mut to = TypedImage::<F32>::new(side(width), side(height));
            let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(algorithm));
            Resizer::new().resize_typed(&from, &mut to, &options).ok()?;
            Some(to.pixels().iter().map(|pixel| pixel.0).collect())
        };
        match resized() {
            Some(values) => Self { height, width, values },
            None => self.nearest((height, width)),
        }
    }

    fn nearest(&self, (height, width): (usize, usize)) -> Self {
        let columns: Vec<usize> = (0..width).map(|x| (2 * x + 1) * self.width / (2 * width)).collect();
        let row = |y: usize| &self.values[(2 * y + 1) * self.height / (2 * height) * self.width..][..self.width];
        let values = (0..height).flat_map(|y| columns.iter().map(move |&x| row(y)[x])).collect();
        Self { height, width, values }
    }
}
