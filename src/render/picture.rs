//! Pixels, and how they become a PNG file.

/// Colour of one pixel: red, green, blue.
pub(super) type Rgb = [u8; 3];

/// A picture in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`, C order: red, green, blue.
    pub pixels: Vec<u8>,
}

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("a picture of {width} x {height} pixels cannot be encoded: {source}")]
pub struct PictureError {
    width: usize,
    height: usize,
    source: png::EncodingError,
}

impl Picture {
    /// A picture of one colour.
    pub(super) fn filled(width: usize, height: usize, colour: Rgb) -> Self {
        Self { width, height, pixels: colour.repeat(width * height) }
    }

    /// Colours a rectangle that lies inside the picture.
    pub(super) fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), colour: Rgb) {
        for row in y..y + height {
            let start = (row * self.width + x) * 3;
            self.pixels[start..start + width * 3].as_chunks_mut().0.fill(colour);
        }
    }

    /// As the bytes of a PNG file.
    ///
    /// # Errors
    /// If the picture has no pixels, or more than PNG allows.
    pub fn to_png(&self) -> Result<Vec<u8>, PictureError> {
        let failed = |source| PictureError { width: self.width, height: self.height, source };
        let mut bytes = Vec::new();
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }
}
