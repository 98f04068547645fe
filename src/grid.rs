//! The latent grid: how the flat `spatial` axis unflattens into frames, height and width,
//! and how to find it from the size of the generated video.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, LayerError};
use crate::remedy::{OptionName, Remedy};

/// Latent grid of a map, C order: `spatial = frames * height * width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grid {
    /// Latent frames.
    pub frames: usize,
    /// Latent rows of a frame.
    pub height: usize,
    /// Latent columns of a frame.
    pub width: usize,
}

impl Grid {
    /// Number of positions.
    #[must_use]
    pub const fn spatial(self) -> usize {
        self.frames * self.height * self.width
    }

    /// Positions of one frame.
    #[must_use]
    pub const fn plane(self) -> usize {
        self.height * self.width
    }

    /// `(frame, y, x)` of a flat position.
    #[must_use]
    pub const fn position(self, index: usize) -> (usize, usize, usize) {
        (index / self.plane(), index % self.plane() / self.width, index % self.width)
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.frames, self.height, self.width)
    }
}

impl std::str::FromStr for Grid {
    type Err = String;

    /// Reads `FRAMESxHEIGHTxWIDTH`, such as `15x30x53`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sizes: Vec<usize> = text
            .split('x')
            .map(|size| size.parse().ok().filter(|&size| size > 0 && size <= 1 << 20))
            .collect::<Option<_>>()
            .unwrap_or_default();
        match sizes[..] {
            [frames, height, width] => Ok(Self { frames, height, width }),
            _ => Err(format!("`{text}` is not FRAMESxHEIGHTxWIDTH, such as 15x30x53")),
        }
    }
}

/// Size of a generated video as its metadata gives it: pixels and frames, or already latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VideoSize {
    /// Number of frames.
    pub frames: Option<i64>,
    /// Height in pixels.
    pub height: Option<i64>,
    /// Width in pixels.
    pub width: Option<i64>,
}

/// Why no grid could be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// The metadata does not give the size of the video.
    #[error("the metadata gives no video size, so {spatial} positions stay flat")]
    UnknownSize {
        /// Positions to unflatten.
        spatial: usize,
    },
    /// No known convention gives `spatial` positions.
    #[error("no grid of {spatial} positions fits the video size; tried {tried}")]
    NoneFits {
        /// Positions to unflatten.
        spatial: usize,
        /// The grids that were tried.
        tried: String,
    },
    /// Conventions give several grids of `spatial` positions.
    #[error("several grids of {spatial} positions fit the video size: {fitting}")]
    SeveralFit {
        /// Positions to unflatten.
        spatial: usize,
        /// The grids that fit.
        fitting: String,
    },
}

impl LayerError for GridError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Argument
    }

    fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::SeveralFit { .. } => Remedy::of("choose one with {}", [OptionName::Grid.any()]),
            Self::UnknownSize { .. } | Self::NoneFits { .. } => {
                Remedy::of("name the grid with {}", [OptionName::Grid.any()])
            }
        })
    }
}

/// Finds the grid of `spatial` positions from the size of the video.
///
/// Tries every pairing of the known conventions and takes the one whose product is `spatial`: frames as
/// `(n - 1) / 4 + 1` (the causal video autoencoder of WAN) or already latent; height and width divided by 16 (WAN 2.1:
/// 8 by the autoencoder, 2 by the patches), by 32 (the 5B model of WAN 2.2) or already latent. All divisions are
/// integer.
///
/// # Errors
/// If the size is not known, or if no grid or more than one fits.
pub fn infer_grid(spatial: usize, video: VideoSize) -> Result<Grid, GridError> {
    let size = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0 && n <= 1 << 20);
    let (Some(frames), Some(height), Some(width)) = (size(video.frames), size(video.height), size(video.width)) else {
        return Err(GridError::UnknownSize { spatial });
    };
    let mut tried: Vec<Grid> = Vec::new();
    for frames in [(frames - 1) / 4 + 1, frames] {
        for divisor in [16, 32, 1] {
            let grid = Grid { frames, height: height / divisor, width: width / divisor };
            if !tried.contains(&grid) {
                tried.push(grid);
            }
        }
    }
    let list = |grids: &[Grid]| grids.iter().map(Grid::to_string).collect::<Vec<_>>().join(", ");
    let fitting: Vec<Grid> = tried.iter().copied().filter(|grid| grid.spatial() == spatial && spatial > 0).collect();
    match fitting[..] {
        [grid] => Ok(grid),
        [] => Err(GridError::NoneFits { spatial, tried: list(&tried) }),
        _ => Err(GridError::SeveralFit { spatial, fitting: list(&fitting) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(frames: i64, height: i64, width: i64) -> VideoSize {
        VideoSize { frames: Some(frames), height: Some(height), width: Some(width) }
    }

    #[test]
    fn wan_conventions_are_recognised() {
        assert_eq!(infer_grid(23_850, video(57, 480, 848)), Ok(Grid { frames: 15, height: 30, width: 53 }));
        assert_eq!(infer_grid(1_170, video(3, 240, 416)), Ok(Grid { frames: 3, height: 15, width: 26 }));
        assert_eq!(infer_grid(576, video(13, 192, 192)), Ok(Grid { frames: 4, height: 12, width: 12 }));
        assert_eq!(infer_grid(21 * 22 * 40, video(81, 704, 1280)), Ok(Grid { frames: 21, height: 22, width: 40 }));
        assert_eq!(infer_grid(90, video(2, 5, 9)), Ok(Grid { frames: 2, height: 5, width: 9 }));
    }

    #[test]
    fn what_was_tried_is_said() {
        let error = infer_grid(577, video(13, 192, 192)).unwrap_err();
        assert!(error.to_string().contains("4x12x12"), "{error}");
        assert!(matches!(infer_grid(577, VideoSize::default()), Err(GridError::UnknownSize { .. })));
        assert!(matches!(infer_grid(1, video(1, 16, 16)), Ok(Grid { frames: 1, height: 1, width: 1 })));
    }

    #[test]
    fn positions_are_in_c_order() {
        let grid = Grid { frames: 2, height: 3, width: 5 };
        assert_eq!(grid.position(15 + 2 * 5 + 4), (1, 2, 4));
        assert_eq!("2x3x5".parse(), Ok(grid));
        assert!("2x3".parse::<Grid>().is_err());
        assert!("0x3x5".parse::<Grid>().is_err());
    }
}
