//! Films of pictures as they come, with a picture or two in memory, and the pictures of videos.
//!
//! GIF, animated PNG and animated WebP are written here (`still`: one file, picture after picture); MP4 and WebM are
//! written, and all videos read, by the program `ffmpeg` (`ffmpeg`).

mod ffmpeg;
mod palette;
mod still;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub use ffmpeg::{VideoFrames, count_frames, ffmpeg};

use super::Picture;
use crate::error::{ErrorKind, LayerError};

/// How a film is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilmFormat {
    /// GIF: plays everywhere, with 256 colours a picture.
    Gif,
    /// Animated PNG, without loss.
    Apng,
    /// Animated WebP, without loss.
    Webp,
    /// H.264 in MP4.
    Mp4,
    /// VP9 in WebM.
    Webm,
}

impl FilmFormat {
    /// All, with their names and the file extensions that stand for them.
    const NAMES: [(Self, &str, &[&str]); 5] = [
        (Self::Gif, "GIF", &["gif"]),
        (Self::Apng, "PNG", &["png", "apng"]),
        (Self::Webp, "WebP", &["webp"]),
        (Self::Mp4, "MP4", &["mp4"]),
        (Self::Webm, "WebM", &["webm"]),
    ];

    /// The format that a file's extension stands for, in letters of either case.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        let found = Self::NAMES.iter().find(|(_, _, extensions)| extensions.contains(&extension.as_str()));
        found.map(|(format, ..)| *format)
    }

    /// The name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(format, ..)| *format == self).map_or("", |(_, name, _)| name)
    }

    /// Whether the program `ffmpeg` writes it.
    #[must_use]
    pub fn needs_ffmpeg(self) -> bool {
        matches!(self, Self::Mp4 | Self::Webm)
    }

    /// The most pixels a side.
    fn longest_side(self) -> usize {
        match self {
            Self::Gif => u16::MAX.into(),
            Self::Apng => i32::MAX as usize,
            Self::Webp | Self::Mp4 | Self::Webm => 16384,
        }
    }

    /// The most pictures a second. Players show a GIF's picture of 1/100 s, and another's of up to 10 ms, for 1/10 s.
    fn highest_rate(self) -> f64 {
        match self {
            Self::Gif => 50.0,
            Self::Apng | Self::Webp => 90.0,
            Self::Mp4 | Self::Webm => 1000.0,
        }
    }
}

/// What is known of a film before its first picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilmShape {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// How many pictures come.
    pub frames: usize,
    /// Pictures a second: at least 0.01, and at most 50 for GIF, 90 for PNG and WebP, 1000 for others.
    pub fps: f64,
    /// That all pictures are opaque. What of them is not is laid over white, as it always is for MP4 and WebM, which
    /// know no opacity. GIF knows what is not seen at all, and takes all else as opaque.
    pub opaque: bool,
}

/// Why a film cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilmError {
    /// There is no `ffmpeg`.
    #[error(
        "{} is not installed: MP4 and WebM are written, and videos read, by ffmpeg; install it (apt install ffmpeg, \
         brew install ffmpeg, conda install -c conda-forge ffmpeg), name it with ATTNKIT_FFMPEG, or write a .gif, \
         .png or .webp film, which need nothing",
        program.display()
    )]
    NotInstalled {
        /// What was looked for.
        program: PathBuf,
    },
    /// `ffmpeg` failed.
    #[error("{}: ffmpeg failed ({status}): {said}", path.display())]
    Failed {
        /// The film.
        path: PathBuf,
        /// How it ended.
        status: Box<str>,
        /// The end of what it said.
        said: Box<str>,
    },
    /// The format has no place for the film.
    #[error("{}: not a film in {format}: {found}; expected {expected}", path.display())]
    Encode {
        /// The film.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
        /// What does not fit.
        found: Box<str>,
        /// What would.
        expected: Box<str>,
    },
    /// A picture is of another size than the film.
    #[error(
        "picture {picture} is of {} x {} pixels, and the film of {} x {}: all have one size",
        found.0, found.1, expected.0, expected.1
    )]
    Size {
        /// Which picture, from 0.
        picture: usize,
        /// Its width and height.
        found: (usize, usize),
        /// The film's.
        expected: (usize, usize),
    },
    /// A file or a pipe failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The film.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl LayerError for FilmError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotInstalled { .. } | Self::Failed { .. } | Self::Io { .. } => ErrorKind::File,
            Self::Encode { .. } | Self::Size { .. } => ErrorKind::Unwritable,
        }
    }
}

/// Writes a film, picture by picture. One that is dropped before its end leaves a part of a file, and no `ffmpeg`.
pub struct FilmWriter {
    film: FilmShape,
    format: FilmFormat,
    path: PathBuf,
    encoder: Box<dyn Encoder>,
    /// The last picture.
    shown: Vec<u8>,
    pushed: usize,
}

/// What writes the pictures of one format.
trait Encoder: Send {
    /// One more picture.
    fn push(&mut self, frame: &Frame<'_>) -> Result<(), FilmError>;

    /// Nothing follows.
    fn finish(self: Box<Self>) -> Result<(), FilmError>;
}

impl FilmWriter {
    /// Begins a film in exactly this file, whatever its name; one that is there is overwritten. `ffmpeg` is the
    /// program for formats that need it: [`ffmpeg()`].
    ///
    /// # Errors
    /// If the format has no place for such a film, the file cannot be made, or there is no `ffmpeg`.
    pub fn create(path: &Path, format: FilmFormat, film: &FilmShape, ffmpeg: &Path) -> Result<Self, FilmError> {
        let film = FilmShape { opaque: film.opaque || format.needs_ffmpeg(), ..*film };
        let unfit = |found: String, expected: String| Err(unfit(path, format, found, expected));
        let (longest, rate) = (format.longest_side(), format.highest_rate());
        if ![film.width, film.height].iter().all(|side| (1..=longest).contains(side)) {
            let found = format!("pictures of {} x {} pixels", film.width, film.height);
            return unfit(found, format!("1 to {longest} a side"));
        }
        if !(0.01..=rate).contains(&film.fps) {
            return unfit(format!("{} pictures a second", film.fps), format!("0.01 to {rate}"));
        }
        if u32::try_from(film.frames).map_or(true, |frames| frames == 0) {
            return unfit(format!("{} pictures", film.frames), "at least one, and less than 2^32".into());
        }
        let encoder: Box<dyn Encoder> = match format {
            FilmFormat::Gif => Box::new(still::Gif::create(path, film)?),
            FilmFormat::Apng => Box::new(still::Apng::create(path, film)?),
            FilmFormat::Webp => Box::new(still::Webp::create(path, film)?),
            FilmFormat::Mp4 | FilmFormat::Webm => Box::new(ffmpeg::Video::create(path, format, film, ffmpeg)?),
        };
        Ok(Self { film, format, path: path.into(), encoder, shown: Vec::new(), pushed: 0 })
    }

    /// The next picture.
    ///
    /// # Errors
    /// If the picture is of another size than the film or one too many, or it cannot be written.
    pub fn push(&mut self, picture: &Picture) -> Result<(), FilmError> {
        let FilmShape { width, height, frames, opaque, .. } = self.film;
        let found = (picture.width, picture.height);
        if found != (width, height) || picture.pixels.len() != width * height * 4 {
            return Err(FilmError::Size { picture: self.pushed, found, expected: (width, height) });
        }
        if self.pushed == frames {
            return Err(unfit(&self.path, self.format, "one more picture".into(), format!("{frames}, as announced")));
        }
        let pixels = if opaque { over_white(&picture.pixels) } else { picture.pixels.as_slice().into() };
        let change = Change::between(&self.shown, &pixels, width);
        self.encoder.push(&Frame { pixels: &pixels, width, change })?;
        self.pushed += 1;
        if !self.format.needs_ffmpeg() {
            self.shown.clear();
            self.shown.extend_from_slice(&pixels);
        }
        Ok(())
    }

    /// Ends the film.
    ///
    /// # Errors
    /// If pictures are missing, or the rest cannot be written.
    pub fn finish(self) -> Result<(), FilmError> {
        if self.pushed < self.film.frames {
            let (found, expected) =
                (format!("{} pictures", self.pushed), format!("{}, as announced", self.film.frames));
            return Err(unfit(&self.path, self.format, found, expected));
        }
        self.encoder.finish()
    }
}

fn unfit(path: &Path, format: FilmFormat, found: String, expected: String) -> FilmError {
    FilmError::Encode { path: path.into(), format: format.name(), found: found.into(), expected: expected.into() }
}

/// A picture of the film's size, and where it differs from the last.
struct Frame<'a> {
    pixels: &'a [u8],
    width: usize,
    change: Option<Change>,
}

impl Frame<'_> {
    /// The pixels of a rectangle.
    fn crop(&self, Change { left, top, width, height }: Change) -> Vec<u8> {
        let rows = self.pixels.chunks_exact(self.width * 4).skip(top).take(height);
        rows.flat_map(|row| &row[left * 4..(left + width) * 4]).copied().collect()
    }
}

/// The least rectangle that holds all that differs between two pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Change {
    /// Nothing if they are the same. What differs from no picture is the whole.
    fn between(shown: &[u8], pixels: &[u8], width: usize) -> Option<Self> {
        let whole = Self { left: 0, top: 0, width, height: pixels.len() / (width * 4) };
        if shown.len() != pixels.len() {
            return Some(whole);
        }
        let differ = |(was, is): &(&[u8], &[u8])| was != is;
        let rows = || shown.chunks_exact(width * 4).zip(pixels.chunks_exact(width * 4));
        let (top, bottom) = (rows().position(|row| differ(&row))?, rows().rposition(|row| differ(&row))?);
        let (mut left, mut right) = (width, 0);
        for (was, is) in rows().skip(top).take(bottom - top + 1) {
            let columns = || was.chunks_exact(4).zip(is.chunks_exact(4));
            left = columns().take(left).position(|pixel| differ(&pixel)).unwrap_or(left);
            right = columns().skip(right).rposition(|pixel| differ(&pixel)).map_or(right, |column| right + column + 1);
        }
        Some(Self { left, top, width: right - left, height: bottom - top + 1 })
    }
}

/// The picture with all that is not opaque laid over white.
fn over_white(pixels: &[u8]) -> Cow<'_, [u8]> {
    if pixels.iter().skip(3).step_by(4).all(|opacity| *opacity == 255) {
        return pixels.into();
    }
    #[expect(clippy::cast_possible_truncation)] // a mean of bytes
    let laid = |colour: u8, opacity: u16| ((u16::from(colour) * opacity + 255 * (255 - opacity) + 127) / 255) as u8;
    let flat = |&[red, green, blue, opacity]: &[u8; 4]| {
        let opacity = opacity.into();
        [laid(red, opacity), laid(green, opacity), laid(blue, opacity), 255]
    };
    pixels.as_chunks().0.iter().flat_map(flat).collect()
}

/// The colours alone.
fn rgb(pixels: &[u8]) -> Vec<u8> {
    pixels.as_chunks::<4>().0.iter().flat_map(|[red, green, blue, _]| [*red, *green, *blue]).collect()
}

/// When a picture begins, in a format's units of time. All are counted from the film's beginning, so that rounding does
/// not add up.
fn start(picture: usize, fps: f64, units_a_second: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 2^32 pictures of 100 s
    let units = (f64::from(long(picture)) / fps * units_a_second).round() as u64;
    units
}

/// A rate as pictures in so many seconds, as exact as two numbers of 16 bits allow: 24000 in 1001 for 23.976023976.
fn fraction(fps: f64) -> (u16, u16) {
    let mut best = (f64::INFINITY, (1, 1));
    for seconds in 1..=u16::MAX {
        let pictures = (fps * f64::from(seconds)).round();
        if pictures > f64::from(u16::MAX) || best.0 < 1e-9 {
            break;
        }
        let error = (pictures / f64::from(seconds) / fps - 1.0).abs();
        if pictures >= 1.0 && error < best.0 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 1 to 2^16
            let pictures = pictures as u16;
            best = (error, (pictures, seconds));
        }
    }
    best.1
}

/// A number that was checked to be in 32 bits.
fn long(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use image::AnimationDecoder;
    use image::codecs::gif::GifDecoder;
    use image::codecs::png::PngDecoder;
    use image::codecs::webp::WebPDecoder;

    use super::*;

    /// A film of a steady ground with a square that moves, of few colours; some of it not seen, if it may be.
    fn pictures((width, height): (usize, usize), frames: usize, opaque: bool) -> Vec<Picture> {
        let pixel = |frame: usize, x: usize, y: usize| {
            let square = (frame..frame + 3).contains(&x) && (frame / 2..frame / 2 + 3).contains(&y);
            let opacity = if !opaque && (x + frame).is_multiple_of(5) { 0 } else { 255 };
            if square { [250, 20, 30, opacity] } else { [byte(x * 3), byte(y * 4), 90, opacity] }
        };
        let picture = |frame| {
            let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            Picture { width, height, pixels: places.flat_map(|(x, y)| pixel(frame, x, y)).collect() }
        };
        (0..frames).map(picture).collect()
    }

    fn byte(number: usize) -> u8 {
        u8::try_from(number & !15).unwrap()
    }

    fn film(pictures: &[Picture], fps: f64, opaque: bool) -> FilmShape {
        FilmShape { width: pictures[0].width, height: pictures[0].height, frames: pictures.len(), fps, opaque }
    }

    fn write(path: &Path, pictures: &[Picture], fps: f64, opaque: bool) -> Result<(), FilmError> {
        let format = FilmFormat::of_path(path).unwrap();
        let mut writer = FilmWriter::create(path, format, &film(pictures, fps, opaque), &ffmpeg())?;
        pictures.iter().try_for_each(|picture| writer.push(picture))?;
        writer.finish()
    }

    /// Pixels and milliseconds of each frame, as the `image` crate reads them.
    fn read(path: &Path) -> Vec<(Vec<u8>, f64)> {
        let bytes = BufReader::new(File::open(path).unwrap());
        let frames = match FilmFormat::of_path(path).unwrap() {
            FilmFormat::Gif => GifDecoder::new(bytes).unwrap().into_frames(),
            FilmFormat::Apng => PngDecoder::new(bytes).unwrap().apng().unwrap().into_frames(),
            _ => WebPDecoder::new(bytes).unwrap().into_frames(),
        };
        let frames = frames.collect_frames().unwrap().into_iter();
        let milliseconds = |frame: &image::Frame| {
            let (above, below) = frame.delay().numer_denom_ms();
            f64::from(above) / f64::from(below)
        };
        frames
            .map(|frame| (milliseconds(&frame), frame))
            .map(|(ms, frame)| (frame.into_buffer().into_raw(), ms))
            .collect()
    }

    /// What of a pixel is seen.
    fn seen(pixels: &[u8]) -> Vec<[u8; 4]> {
        pixels.as_chunks::<4>().0.iter().map(|pixel| if pixel[3] == 0 { [0; 4] } else { *pixel }).collect()
    }

    fn ffmpeg_is_there() -> bool {
        Command::new(ffmpeg()).arg("-version").output().is_ok()
    }

    #[test]
    fn films_without_loss_are_read_by_others_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["film.gif", "film.png", "film.webp"] {
            for (size, frames, opaque) in
                [((61, 33), 9, true), ((61, 33), 9, false), ((1, 1), 2, true), ((16, 16), 1, true)]
            {
                let path = folder.path().join(name);
                let pictures = pictures(size, frames, opaque);
                write(&path, &pictures, 16.0, opaque).unwrap();
                let back = read(&path);
                assert_eq!(back.len(), frames, "{name} {size:?}");
                for (index, (picture, (pixels, _))) in pictures.iter().zip(&back).enumerate() {
                    assert_eq!(seen(pixels), seen(&picture.pixels), "{name} {size:?} {opaque} {index}");
                }
            }
        }
    }

    #[test]
    fn pictures_without_change_take_a_pixel() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["film.png", "film.webp"] {
            let path = folder.path().join(name);
            let still = vec![pictures((80, 60), 1, false).remove(0); 4];
            write(&path, &still[..1], 16.0, false).unwrap();
            let one = path.metadata().unwrap().len();
            write(&path, &still, 16.0, false).unwrap();
            assert!(path.metadata().unwrap().len() < one + 3 * 150, "{name}");
            assert!(
                read(&path).iter().all(|(pixels, _)| seen(pixels) == seen(&still[0].pixels)) && read(&path).len() == 4
            );
        }
    }

    #[test]
    fn rounded_times_do_not_add_up() {
        let folder = tempfile::tempdir().unwrap();
        for (name, unit) in [("film.gif", 10.0), ("film.webp", 1.0)] {
            for fps in [0.5, 16.0, 24.0, 29.97] {
                let path = folder.path().join(name);
                write(&path, &pictures((40, 20), 30, true), fps, true).unwrap();
                let mut end = 0.0;
                for (number, (_, milliseconds)) in (1..).zip(read(&path)) {
                    end += milliseconds;
                    let exact = f64::from(number) * 1000.0 / fps;
                    assert!((end - exact).abs() <= unit / 2.0 + 1e-6, "{name} at {fps}: {end} for {exact}");
                }
            }
        }
        assert_eq!([16.0, 0.5, 29.97, 24000.0 / 1001.0].map(fraction), [(16, 1), (1, 2), (2997, 100), (24000, 1001)]);
    }

    #[test]
    fn a_gif_shows_what_does_not_change_for_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.gif");
        let [one, other] = [0, 4].map(|frame| pictures((20, 20), 5, true).remove(frame));
        write(&path, &[one.clone(), one.clone(), one, other.clone(), other], 4.0, true).unwrap();
        assert_eq!(read(&path).iter().map(|frame| frame.1).collect::<Vec<_>>(), [750.0, 500.0]);
        // Longer than one delay can say.
        let still = vec![pictures((3, 3), 1, true).remove(0); 10];
        write(&path, &still, 0.01, true).unwrap();
        let parts: Vec<f64> = read(&path).iter().map(|frame| frame.1).collect();
        assert_eq!(parts, [655_350.0, 344_650.0]);
    }

    #[test]
    fn many_colours_in_a_gif_are_near_on_average_and_flat_ones_exact() {
        let (width, height) = (128, 96);
        let place = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let smooth =
            |(x, y): (usize, usize)| [x * 3 / 2, y * 2, x / 2 + y, 255].map(|part| u8::try_from(part).unwrap());
        let pixels: Vec<u8> = place.flat_map(|(x, y)| if y < 16 { [255; 4] } else { smooth((x, y)) }).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.gif");
        write(&path, &[Picture { width, height, pixels: pixels.clone() }], 16.0, true).unwrap();
        let back = read(&path).remove(0).0;
        assert_eq!(back[..width * 16 * 4], pixels[..width * 16 * 4]);
        for corner in (16..height - 8).step_by(8).flat_map(|y| (0..width).step_by(8).map(move |x| (x, y))) {
            for axis in 0..3 {
                let mean = |pixels: &[u8]| -> f64 {
                    let at = |index: usize| ((corner.1 + index / 8) * width + corner.0 + index % 8) * 4 + axis;
                    (0..64).map(|index| f64::from(pixels[at(index)])).sum::<f64>() / 64.0
                };
                assert!((mean(&back) - mean(&pixels)).abs() < 9.0, "{corner:?} {} {}", mean(&back), mean(&pixels));
            }
        }
    }

    #[test]
    fn a_few_colours_too_many_for_a_gif_stay_close() {
        let pixels: Vec<u8> =
            (0..300_usize).flat_map(|x| [byte(x / 2), 100, u8::try_from(x % 256).unwrap(), 255]).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.gif");
        write(&path, &[Picture { width: 300, height: 1, pixels: pixels.clone() }], 16.0, true).unwrap();
        let worst = read(&path).remove(0).0.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!((1..=6).contains(&worst), "{worst}");
    }

    #[test]
    fn what_a_film_cannot_be_is_said_before_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let film = FilmShape { width: 16385, height: 2, frames: 3, fps: 16.0, opaque: true };
        let says = |format: FilmFormat, film: &FilmShape| {
            let path = folder.path().join("film");
            FilmWriter::create(&path, format, film, &ffmpeg()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let wide = says(FilmFormat::Webp, &film);
        assert!(wide.ends_with("in WebP: pictures of 16385 x 2 pixels; expected 1 to 16384 a side"), "{wide}");
        let fast = says(FilmFormat::Gif, &FilmShape { fps: 60.0, ..film });
        assert!(fast.ends_with("60 pictures a second; expected 0.01 to 50"), "{fast}");
        assert!(says(FilmFormat::Gif, &FilmShape { fps: f64::NAN, ..film }).contains("NaN pictures a second"));
        assert!(says(FilmFormat::Apng, &FilmShape { frames: 0, ..film }).contains("0 pictures"));
        assert_eq!(says(FilmFormat::Apng, &film), "");
    }

    #[test]
    fn pictures_are_of_one_size_and_as_many_as_announced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.png");
        let film = FilmShape { width: 4, height: 4, frames: 2, fps: 16.0, opaque: true };
        let begin = || FilmWriter::create(&path, FilmFormat::Apng, &film, &ffmpeg()).unwrap();
        let mut writer = begin();
        let (fits, other) = (pictures((4, 4), 1, true).remove(0), pictures((4, 5), 1, true).remove(0));
        writer.push(&fits).unwrap();
        let error = writer.push(&other).unwrap_err();
        assert!(matches!(error, FilmError::Size { picture: 1, found: (4, 5), expected: (4, 4) }), "{error}");
        writer.push(&fits).unwrap();
        assert!(writer.push(&fits).unwrap_err().to_string().ends_with("one more picture; expected 2, as announced"));
        writer.finish().unwrap();
        let few = begin().finish().unwrap_err().to_string();
        assert!(few.ends_with("0 pictures; expected 2, as announced"), "{few}");
    }

    #[test]
    fn only_what_changed_is_found() {
        let mut picture = vec![7; 6 * 5 * 4];
        let before = picture.clone();
        assert_eq!(Change::between(&before, &picture, 6), None);
        picture[(6 + 4) * 4] = 0;
        picture[(3 * 6 + 2) * 4 + 1] = 0;
        assert_eq!(Change::between(&before, &picture, 6), Some(Change { left: 2, top: 1, width: 3, height: 3 }));
        assert_eq!(over_white(&[0, 100, 200, 0, 0, 100, 200, 128])[..], [255, 255, 255, 255, 127, 177, 227, 255]);
    }

    #[test]
    fn videos_keep_pictures_and_colours() {
        if !ffmpeg_is_there() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for (name, size) in [("-a:b%03d.mp4", (64, 48)), ("é.webm", (65, 47)), ("film.mp4", (33, 49))] {
            let path = folder.path().join(name);
            let written: Vec<Picture> = [[230, 30, 40], [20, 200, 60], [30, 40, 220], [128, 128, 128]]
                .into_iter()
                .map(|[r, g, b]| Picture {
                    width: size.0,
                    height: size.1,
                    pixels: [r, g, b, 255].repeat(size.0 * size.1),
                })
                .collect();
            write(&path, &written, 24.0, true).unwrap();
            let back: Vec<Picture> = VideoFrames::open(&path, &ffmpeg()).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!((back.len(), count_frames(&path, &ffmpeg()).unwrap()), (4, 4));
            for (picture, written) in back.iter().zip(&written) {
                assert_eq!((picture.width, picture.height), (size.0.next_multiple_of(2), size.1.next_multiple_of(2)));
                let mut off =
                    picture.pixels.iter().zip(written.pixels[..4].iter().cycle()).map(|(a, b)| a.abs_diff(*b));
                assert!(off.all(|off| off <= 6), "{name}");
            }
        }
    }

    #[test]
    fn what_ffmpeg_cannot_read_it_says_why() {
        if !ffmpeg_is_there() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.mp4");
        std::fs::write(&path, "no video").unwrap();
        let mut frames = VideoFrames::open(&path, &ffmpeg()).unwrap();
        let error = frames.next().unwrap().unwrap_err();
        assert!(matches!(&error, FilmError::Failed { said, .. } if said.contains("Invalid data")), "{error}");
        assert!(frames.next().is_none());
        assert!(matches!(count_frames(&path, &ffmpeg()), Err(FilmError::Failed { .. })));
    }

    #[test]
    fn without_ffmpeg_it_is_said_what_to_install() {
        let nowhere = Path::new("/nowhere/ffmpeg");
        let film = film(&pictures((4, 4), 1, true), 16.0, true);
        let error = FilmWriter::create(Path::new("film.mp4"), FilmFormat::Mp4, &film, nowhere).err().unwrap();
        assert!(matches!(error, FilmError::NotInstalled { .. }));
        assert!(error.to_string().starts_with("/nowhere/ffmpeg is not installed: MP4"), "{error}");
        assert!(VideoFrames::open(Path::new("film.mp4"), nowhere).is_err());
    }

    /// A program in place of `ffmpeg`. A shell writes it: a file that this process has open for writing could not run.
    #[cfg(unix)]
    fn instead(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("ffmpeg");
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod +x "$1""#, "sh"]).arg(&path).arg(script);
        assert!(shell.status().unwrap().success());
        path
    }

    #[cfg(unix)]
    #[test]
    fn an_ffmpeg_that_dies_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let flood =
            "i=0; while [ $i -lt 20000 ]; do echo all the same >&2; i=$((i+1)); done; echo no space >&2; exit 3";
        let program = instead(folder.path(), flood);
        let picture = Picture { width: 200, height: 80, pixels: vec![255; 200 * 80 * 4] };
        let film = FilmShape { frames: 1000, ..film(std::slice::from_ref(&picture), 16.0, true) };
        let path = folder.path().join("film.mp4");
        let mut writer = FilmWriter::create(&path, FilmFormat::Mp4, &film, &program).unwrap();
        let error = (0..1000).find_map(|_| writer.push(&picture).err()).unwrap();
        assert_eq!(writer.push(&picture).unwrap_err().to_string(), error.to_string());
        let FilmError::Failed { said, status, .. } = error else { panic!("{error}") };
        assert!(said.ends_with("\nno space") && said.lines().count() == 6 && status.contains('3'), "{said} {status}");
    }

    #[cfg(unix)]
    #[test]
    fn a_film_that_is_dropped_leaves_no_ffmpeg() {
        let folder = tempfile::tempdir().unwrap();
        let program = instead(folder.path(), "exec sleep 100");
        let film = film(&pictures((4, 4), 1, true), 16.0, true);
        let begun = Instant::now();
        drop(FilmWriter::create(&folder.path().join("film.mp4"), FilmFormat::Mp4, &film, &program).unwrap());
        drop(VideoFrames::open(&folder.path().join("film.mp4"), &program).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(50));
    }

    #[cfg(unix)]
    #[test]
    fn an_older_ffmpeg_is_asked_in_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"case "$*" in *-fps_mode*) echo "Unrecognized option 'fps_mode'." >&2; exit 1;; esac
printf 'P6\n1 1\n255\nabcP6\n2 1\n255\nabcdef'; echo damaged >&2"#;
        let mut frames = VideoFrames::open(Path::new("any.mp4"), &instead(folder.path(), script)).unwrap();
        let sizes: Vec<_> = frames.by_ref().map(|picture| picture.unwrap()).map(|p| (p.width, p.height)).collect();
        assert_eq!((sizes, frames.complaint()), (vec![(1, 1), (2, 1)], Some("damaged")));
    }

    #[test]
    fn formats_are_told_by_name() {
        let of = |name: &str| FilmFormat::of_path(Path::new(name));
        assert_eq!(
            [of("a.GIF"), of("a.apng"), of("a.b/c.webm")].map(Option::unwrap).map(FilmFormat::name),
            ["GIF", "PNG", "WebM"]
        );
        assert_eq!((of("gif"), of("a.mov")), (None, None));
    }
}
