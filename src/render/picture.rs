//! Pixels, and how they come from and become files.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::error::{ErrorKind, LayerError};

/// Colour of one pixel: red, green, blue.
pub(crate) type Rgb = [u8; 3];

/// The largest side of a picture, pixels.
const LARGEST_SIDE: u32 = 1 << 15;

/// A picture in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 4]`, C order: red, green, blue, opacity (straight).
    pub pixels: Vec<u8>,
}

/// Why a picture could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It cannot be encoded.
    #[error("a picture of {width} x {height} pixels cannot be encoded: {source}")]
    Encode {
        /// Pixels of a row.
        width: usize,
        /// Rows.
        height: usize,
        /// What the format's library says.
        source: image::ImageError,
    },
    /// A file is no picture that can be read.
    #[error("{}: no picture that can be read (PNG, JPEG, WebP or GIF expected): {source}", path.display())]
    Decode {
        /// The file.
        path: std::path::PathBuf,
        /// What the format's library says.
        source: image::ImageError,
    },
    /// A drawing cannot be made pixels.
    #[error("a drawing of {width} x {height} pixels cannot be made: {found}")]
    Drawing {
        /// Pixels of a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Why.
        found: String,
    },
}

impl LayerError for PictureError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Decode { .. } => ErrorKind::File,
            Self::Encode { .. } | Self::Drawing { .. } => ErrorKind::Unwritable,
        }
    }
}

impl Picture {
    /// A picture of one colour; `None`: nothing at all.
    pub(crate) fn filled(width: usize, height: usize, colour: Option<Rgb>) -> Self {
        let pixel = colour.map_or([0; 4], |[red, green, blue]| [red, green, blue, 255]);
        Self { width, height, pixels: pixel.repeat(width * height) }
    }

    /// Reads a PNG, JPEG, WebP or GIF file: of several frames the first.
    ///
    /// # Errors
    /// If it cannot be read, is none of these, or has more than 32,768 pixels to a side.
    pub fn read(path: &Path) -> Result<Self, PictureError> {
        let failed = |source: image::ImageError| PictureError::Decode { path: path.to_owned(), source };
        let mut reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
        if let Ok(reader) = &mut reader {
            let mut limits = Limits::default();
            (limits.max_image_width, limits.max_image_height) = (Some(LARGEST_SIDE), Some(LARGEST_SIDE));
            reader.limits(limits);
        }
        let mut decoder = reader.map_err(|error| failed(error.into()))?.into_decoder().map_err(failed)?;
        let orientation = decoder.orientation().map_err(failed)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
        image.apply_orientation(orientation);
        let image = image.into_rgba8();
        let (width, height) = image.dimensions();
        Ok(Self { width: width as usize, height: height as usize, pixels: image.into_raw() })
    }

    /// Whether no pixel shows what is behind it.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.pixels.as_chunks::<4>().0.iter().all(|pixel| pixel[3] == 255)
    }

    /// As the bytes of a PNG file.
    ///
    /// # Errors
    /// If the picture has no pixels, or more than PNG allows.
    pub fn to_png(&self) -> Result<Vec<u8>, PictureError> {
        self.encoded(ImageFormat::Png)
    }

    /// As the bytes of a WebP file, without loss.
    ///
    /// # Errors
    /// If the picture has no pixels, or more than WebP allows (16,383 to a side).
    pub fn to_webp(&self) -> Result<Vec<u8>, PictureError> {
        self.encoded(ImageFormat::WebP)
    }

    fn encoded(&self, format: ImageFormat) -> Result<Vec<u8>, PictureError> {
        let (width, height) = (self.width, self.height);
        let failed = |source| PictureError::Encode { width, height, source };
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        let image: Option<DynamicImage> = if self.is_opaque() {
            let rgb = self.pixels.as_chunks::<4>().0.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
            ImageBuffer::from_raw(side(width), side(height), rgb).map(DynamicImage::ImageRgb8)
        } else {
            ImageBuffer::from_raw(side(width), side(height), self.pixels.clone()).map(DynamicImage::ImageRgba8)
        };
        let mut bytes = Cursor::new(Vec::new());
        let nothing = || {
            let kind = image::error::ParameterErrorKind::DimensionMismatch;
            failed(image::ImageError::Parameter(image::error::ParameterError::from_kind(kind)))
        };
        image.filter(|_| width > 0 && height > 0).ok_or_else(nothing)?.write_to(&mut bytes, format).map_err(failed)?;
        Ok(bytes.into_inner())
    }

    /// The pixel at a place.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> [u8; 4] {
        self.pixels.as_chunks().0.get(y * self.width + x).copied().unwrap_or_default()
    }

    /// Lays another picture over this one, its upper left pixel at a place; what is outside is left out.
    pub(crate) fn lay(&mut self, over: &Self, (x, y): (usize, usize)) {
        let width = over.width.min(self.width.saturating_sub(x));
        let rows = over.pixels.chunks_exact(over.width.max(1) * 4);
        for (row, from) in rows.enumerate().take(self.height.saturating_sub(y)) {
            let start = ((y + row) * self.width + x) * 4;
            let to = &mut self.pixels[start..start + width * 4];
            for (below, above) in to.as_chunks_mut::<4>().0.iter_mut().zip(from.as_chunks::<4>().0) {
                *below = blended(*below, *above);
            }
        }
    }
}

/// What is seen where one pixel lies over another (Porter and Duff's `over`).
pub(crate) fn blended(below: [u8; 4], above: [u8; 4]) -> [u8; 4] {
    match (above[3], below[3]) {
        (255, _) => above,
        (0, _) => below,
        (opacity, 255) => {
            let opacity = u32::from(opacity);
            let mix = |part: usize| {
                let mixed = u32::from(above[part]) * opacity + u32::from(below[part]) * (255 - opacity);
                ((mixed + 127) / 255) as u8
            };
            [mix(0), mix(1), mix(2), 255]
        }
        _ => {
            let [over, under] = [above, below].map(|pixel| f32::from(pixel[3]) / 255.0);
            let whole = over + under * (1.0 - over);
            let mix = |part: usize| {
                let mixed = f32::from(above[part]) * over + f32::from(below[part]) * under * (1.0 - over);
                (mixed / whole).round() as u8
            };
            [mix(0), mix(1), mix(2), (whole * 255.0).round() as u8]
        }
    }
}
