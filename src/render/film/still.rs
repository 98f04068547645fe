//! Films of stills in one file: GIF, animated PNG and animated WebP. After the first picture, only the rectangle that
//! changed is written; all are played for ever.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::palette::{Indexed, indexed};
use super::{Change, Encoder, FilmError, FilmFormat, FilmShape, Frame, fraction, long, rgb, start, unfit};

/// A pixel for formats that count on as many pictures as were announced: it changes nothing.
const LEAST: Change = Change { left: 0, top: 0, width: 1, height: 1 };

/// Every picture has the 256 colours that suit it best; pictures without change are one, shown for longer.
pub(super) struct Gif {
    film: FilmShape,
    path: PathBuf,
    encoder: gif::Encoder<BufWriter<File>>,
    /// The picture whose end is not known yet, and the number of its first.
    shown: Option<(usize, gif::Frame<'static>)>,
    pushed: usize,
}

impl Gif {
    pub(super) fn create(path: &Path, film: FilmShape) -> Result<Self, FilmError> {
        let to = BufWriter::new(File::create(path).map_err(io_error(path))?);
        let encoder = gif::Encoder::new(to, short(film.width), short(film.height), &[]);
        let encoder = encoder.and_then(|mut encoder| encoder.set_repeat(gif::Repeat::Infinite).map(|()| encoder));
        Ok(Self { film, path: path.into(), encoder: encoder.map_err(gif_error(path))?, shown: None, pushed: 0 })
    }

    /// Writes the picture that ends here, in parts if it is shown for longer than a delay can say.
    fn write_shown(&mut self) -> Result<(), FilmError> {
        let Some((first, mut frame)) = self.shown.take() else { return Ok(()) };
        let hundredths = |picture| start(picture, self.film.fps, 100.0);
        let mut left = hundredths(self.pushed) - hundredths(first);
        while left > 0 {
            frame.delay = u16::try_from(left).unwrap_or(u16::MAX);
            left -= u64::from(frame.delay);
            self.encoder.write_frame(&frame).map_err(gif_error(&self.path))?;
        }
        Ok(())
    }
}

impl Encoder for Gif {
    fn push(&mut self, frame: &Frame<'_>) -> Result<(), FilmError> {
        if let Some(change) = frame.change {
            self.write_shown()?;
            // What is not seen does not cover what is: with it, every picture is whole, and goes when its time is over.
            let whole = Change { left: 0, top: 0, width: self.film.width, height: self.film.height };
            let part = if self.film.opaque { change } else { whole };
            let mut encoded = quantised(&frame.crop(part), part);
            if !self.film.opaque {
                encoded.dispose = gif::DisposalMethod::Background;
            }
            self.shown = Some((self.pushed, encoded));
        }
        self.pushed += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), FilmError> {
        self.write_shown()?;
        let mut to = self.encoder.into_inner().map_err(gif_error(&self.path))?;
        to.flush().map_err(io_error(&self.path))
    }
}

fn quantised(pixels: &[u8], part: Change) -> gif::Frame<'static> {
    let Indexed { indices, palette, transparent } = indexed(pixels, part.width, (part.left, part.top));
    gif::Frame {
        left: short(part.left),
        top: short(part.top),
        width: short(part.width),
        height: short(part.height),
        palette: Some(palette),
        transparent,
        buffer: indices.into(),
        ..gif::Frame::default()
    }
}

/// A side within a GIF.
fn short(side: usize) -> u16 {
    u16::try_from(side).unwrap_or(u16::MAX)
}

pub(super) struct Apng {
    film: FilmShape,
    path: PathBuf,
    writer: png::Writer<BufWriter<File>>,
}

impl Apng {
    pub(super) fn create(path: &Path, film: FilmShape) -> Result<Self, FilmError> {
        let to = BufWriter::new(File::create(path).map_err(io_error(path))?);
        let mut encoder = png::Encoder::new(to, long(film.width), long(film.height));
        encoder.set_color(if film.opaque { png::ColorType::Rgb } else { png::ColorType::Rgba });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(COMPRESSION);
        let (pictures, seconds) = fraction(film.fps);
        let writer = encoder
            .set_animated(long(film.frames), 0)
            .and_then(|()| encoder.set_frame_delay(seconds, pictures))
            .and_then(|()| encoder.write_header());
        Ok(Self { film, path: path.into(), writer: writer.map_err(png_error(path))? })
    }
}

/// Of pictures with noise, files are as small as with more work, in a fifth of the time; of a few flat colours, twice.
const COMPRESSION: png::Compression = png::Compression::Fast;

impl Encoder for Apng {
    fn push(&mut self, frame: &Frame<'_>) -> Result<(), FilmError> {
        let part = frame.change.unwrap_or(LEAST);
        let pixels = frame.crop(part);
        let pixels = if self.film.opaque { rgb(&pixels) } else { pixels };
        let writer = &mut self.writer;
        writer
            .set_frame_position(0, 0)
            .and_then(|()| writer.set_frame_dimension(long(part.width), long(part.height)))
            .and_then(|()| writer.set_frame_position(long(part.left), long(part.top)))
            .and_then(|()| writer.write_image_data(&pixels))
            .map_err(png_error(&self.path))
    }

    fn finish(self: Box<Self>) -> Result<(), FilmError> {
        self.writer.finish().map_err(png_error(&self.path))
    }
}

/// The container is of
/// [the WebP specification](https://developers.google.com/speed/webp/docs/riff_container#animation).
pub(super) struct Webp {
    film: FilmShape,
    path: PathBuf,
    to: File,
    /// Bytes of the file.
    written: u64,
    pushed: usize,
}

impl Webp {
    pub(super) fn create(path: &Path, film: FilmShape) -> Result<Self, FilmError> {
        let to = File::create(path).map_err(io_error(path))?;
        let mut webp = Self { film, path: path.into(), to, written: 0, pushed: 0 };
        let (animated, with_opacity) = (0b10, if film.opaque { 0 } else { 0b1_0000 });
        webp.write(&[
            b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0",
            &[animated | with_opacity, 0, 0, 0],
            &three_bytes(film.width - 1),
            &three_bytes(film.height - 1),
            // The background, of white that is not seen, and that it is played for ever.
            b"ANIM\x06\0\0\0\xff\xff\xff\0\0\0",
        ])?;
        Ok(webp)
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), FilmError> {
        let bytes = parts.concat();
        self.written += bytes.len() as u64;
        if self.written > u32::MAX.into() {
            let found = format!("more than 4 GiB after {} pictures", self.pushed);
            return Err(unfit(&self.path, FilmFormat::Webp, found, "less, or a film in PNG".into()));
        }
        self.to.write_all(&bytes).map_err(io_error(&self.path))
    }
}

impl Encoder for Webp {
    fn push(&mut self, frame: &Frame<'_>) -> Result<(), FilmError> {
        let part = frame.change.map_or(LEAST, at_even_pixels);
        let pixels = frame.crop(part);
        let (pixels, colour) = if self.film.opaque {
            (rgb(&pixels), image_webp::ColorType::Rgb8)
        } else {
            (pixels, image_webp::ColorType::Rgba8)
        };
        let mut still = Vec::new();
        image_webp::WebPEncoder::new(&mut still)
            .encode(&pixels, long(part.width), long(part.height), colour)
            .map_err(|error| unfit(&self.path, FilmFormat::Webp, error.to_string(), "another picture".into()))?;
        // Behind `RIFF`, a size and `WEBP`, a simple still is its chunk.
        let chunk = still.get(12..).unwrap_or_default();
        let milliseconds = |picture| start(picture, self.film.fps, 1000.0);
        let duration = milliseconds(self.pushed + 1) - milliseconds(self.pushed);
        let (replace, keep) = (0b10, 0b0);
        self.write(&[
            b"ANMF",
            &long(16 + chunk.len()).to_le_bytes(),
            &three_bytes(part.left / 2),
            &three_bytes(part.top / 2),
            &three_bytes(part.width - 1),
            &three_bytes(part.height - 1),
            &three_bytes(usize::try_from(duration).unwrap_or(usize::MAX)),
            &[replace | keep],
            chunk,
        ])?;
        self.pushed += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), FilmError> {
        let behind_size = u32::try_from(self.written - 8).unwrap_or(u32::MAX);
        self.to
            .seek(SeekFrom::Start(4))
            .and_then(|_| self.to.write_all(&behind_size.to_le_bytes()))
            .map_err(io_error(&self.path))
    }
}

/// A rectangle that begins where WebP can say.
fn at_even_pixels(part: Change) -> Change {
    let (left, top) = (part.left & !1, part.top & !1);
    Change { left, top, width: part.width + part.left - left, height: part.height + part.top - top }
}

/// A number that was checked to be in 24 bits.
fn three_bytes(number: usize) -> [u8; 3] {
    let [low, middle, high, _] = long(number).to_le_bytes();
    [low, middle, high]
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> FilmError {
    move |source| FilmError::Io { path: path.into(), source }
}

fn gif_error(path: &Path) -> impl Fn(gif::EncodingError) -> FilmError {
    move |error| match error {
        gif::EncodingError::Io(source) => io_error(path)(source),
        other => unfit(path, FilmFormat::Gif, other.to_string(), "another picture".into()),
    }
}

fn png_error(path: &Path) -> impl Fn(png::EncodingError) -> FilmError {
    move |error| match error {
        png::EncodingError::IoError(source) => io_error(path)(source),
        other => unfit(path, FilmFormat::Apng, other.to_string(), "another picture".into()),
    }
}
