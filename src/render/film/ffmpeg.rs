//! Videos through the program `ffmpeg`: pictures go to it and come from it through pipes.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::{Encoder, FilmError, FilmFormat, FilmShape, Frame, Picture, fraction, rgb};

/// The program: what the environment variable `ATTNKIT_FFMPEG` names, or `ffmpeg` on the path.
#[must_use]
pub fn ffmpeg() -> PathBuf {
    std::env::var_os("ATTNKIT_FFMPEG").filter(|name| !name.is_empty()).unwrap_or_else(|| "ffmpeg".into()).into()
}

/// MP4 or WebM, for which colours are coded by BT.709, as players expect, and sides are even: the last column or row of
/// an odd one is there twice.
pub(super) struct Video {
    process: Process,
    stdin: Option<ChildStdin>,
}

impl Video {
    pub(super) fn create(path: &Path, format: FilmFormat, film: FilmShape, program: &Path) -> Result<Self, FilmError> {
        let size = format!("{}x{}", film.width.next_multiple_of(2), film.height.next_multiple_of(2));
        let (pictures, seconds) = fraction(film.fps);
        let rate = format!("{pictures}/{seconds}");
        let codec = match format {
            FilmFormat::Webm => "-c:v libvpx-vp9 -crf 24 -b:v 0 -row-mt 1 -deadline good -cpu-used 4 -f webm",
            _ => "-c:v libx264 -crf 16 -movflags +faststart -f mp4",
        };
        let mut command = command(program);
        command.args(["-y", "-f", "rawvideo", "-pixel_format", "rgb24"]);
        command.args(["-video_size", &size, "-framerate", &rate, "-i", "pipe:0"]);
        command.args(["-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp"]);
        command.args(
            "-pix_fmt yuv420p -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv".split(' '),
        );
        command.args(codec.split(' ')).arg(file_url(path)).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = Process::start(&mut command, path)?;
        let stdin = process.child.stdin.take();
        Ok(Self { process, stdin })
    }
}

impl Encoder for Video {
    fn push(&mut self, frame: &Frame<'_>) -> Result<(), FilmError> {
        let bytes = with_even_sides(frame);
        let hung_up = || Err(io::ErrorKind::BrokenPipe.into());
        let Err(source) = self.stdin.as_mut().map_or_else(hung_up, |stdin| stdin.write_all(&bytes)) else {
            return Ok(());
        };
        self.stdin = None;
        // That it hangs up is the least of what it says.
        self.process.end()?;
        Err(FilmError::Io { path: self.process.path.clone(), source })
    }

    fn finish(mut self: Box<Self>) -> Result<(), FilmError> {
        self.stdin = None;
        self.process.end()
    }
}

/// The colours, with the last column and row once more where the sides are odd.
fn with_even_sides(frame: &Frame<'_>) -> Vec<u8> {
    let colours = rgb(frame.pixels);
    let rows = colours.chunks_exact(frame.width * 3);
    let odd_row = if rows.len() % 2 == 1 { rows.clone().next_back() } else { None };
    if frame.width.is_multiple_of(2) {
        return [&colours, odd_row.unwrap_or_default()].concat();
    }
    rows.chain(odd_row).flat_map(|row| [row, &row[row.len() - 3..]]).flatten().copied().collect()
}

/// The pictures of a video, turned as it says, in the order in which they are shown; each once, however long. They are
/// opaque.
pub struct VideoFrames {
    program: PathBuf,
    process: Process,
    /// Nothing once the last picture has come.
    pictures: Option<BufReader<ChildStdout>>,
    any: bool,
}

impl VideoFrames {
    /// Begins to read a file of any format that `ffmpeg` reads, which is the program: [`ffmpeg()`].
    ///
    /// # Errors
    /// If there is no `ffmpeg`. What is wrong with the file, the first picture says.
    pub fn open(path: &Path, ffmpeg: &Path) -> Result<Self, FilmError> {
        Self::open_with(path, ffmpeg, "-fps_mode passthrough")
    }

    fn open_with(path: &Path, ffmpeg: &Path, as_they_are: &str) -> Result<Self, FilmError> {
        let mut command = command(ffmpeg);
        command.arg("-i").arg(file_url(path)).args(["-map", "0:V:0"]).args(as_they_are.split(' '));
        // Such a picture says its size.
        command.args("-f image2pipe -c:v ppm -pix_fmt rgb24 pipe:1".split(' '));
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()), path)?;
        let pictures = process.child.stdout.take().map(|stdout| BufReader::with_capacity(1 << 16, stdout));
        Ok(Self { program: ffmpeg.into(), process, pictures, any: false })
    }

    /// After the last picture: what `ffmpeg` said of a file that it could read only in part.
    #[must_use]
    pub fn complaint(&self) -> Option<&str> {
        self.process.said.as_deref().filter(|said| !said.is_empty())
    }

    /// After the last picture, whether it was.
    fn end(&mut self) -> Option<Result<Picture, FilmError>> {
        match self.process.end() {
            Ok(()) if self.any => None,
            Ok(()) => Some(Err(self.process.failed("it gave no pictures"))),
            // Before version 5.1.
            Err(FilmError::Failed { said, .. }) if !self.any && said.contains("'fps_mode'") => {
                match Self::open_with(&self.process.path, &self.program, "-vsync 0") {
                    Ok(older) => *self = older,
                    Err(error) => return Some(Err(error)),
                }
                self.next()
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Iterator for VideoFrames {
    type Item = Result<Picture, FilmError>;

    fn next(&mut self) -> Option<Self::Item> {
        match read_ppm(self.pictures.as_mut()?) {
            Ok(Some(picture)) => {
                self.any = true;
                Some(Ok(picture))
            }
            Ok(None) => {
                self.pictures = None;
                self.end()
            }
            Err(source) => {
                self.pictures = None;
                let failed = self.process.end().err();
                Some(Err(failed.unwrap_or_else(|| FilmError::Io { path: self.process.path.clone(), source })))
            }
        }
    }
}

/// The next of PPM pictures one after the other, as `ffmpeg` writes them, or nothing at their end.
fn read_ppm(from: &mut impl BufRead) -> io::Result<Option<Picture>> {
    if from.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut header = Vec::new();
    for _ in 0..3 {
        from.take(64).read_until(b'\n', &mut header)?;
    }
    let header = String::from_utf8_lossy(&header);
    let not_ppm = || io::Error::new(io::ErrorKind::InvalidData, format!("expected a PPM picture, found {header:?}"));
    let mut words = header.split_ascii_whitespace();
    let (format, mut number) = (words.next(), || words.next()?.parse::<usize>().ok());
    let (Some("P6"), Some(width), Some(height), Some(255)) = (format, number(), number(), number()) else {
        return Err(not_ppm());
    };
    let size = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3)).ok_or_else(not_ppm)?;
    let mut colours = Vec::new();
    from.take(size as u64).read_to_end(&mut colours)?;
    if colours.len() < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let opaque = |&[red, green, blue]: &[u8; 3]| [red, green, blue, 255];
    Ok(Some(Picture { width, height, pixels: colours.as_chunks().0.iter().flat_map(opaque).collect() }))
}

/// How many pictures a video has, by its packets, without decoding them: a file that is cut or damaged may give others.
///
/// # Errors
/// If the file cannot be read, or there is no `ffmpeg`.
pub fn count_frames(path: &Path, ffmpeg: &Path) -> Result<usize, FilmError> {
    let mut command = command(ffmpeg);
    command.arg("-i").arg(file_url(path)).args("-map 0:V:0 -c copy -progress pipe:1 -f null -".split(' '));
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()), path)?;
    let mut frames = None;
    for line in process.child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line.map_err(|source| FilmError::Io { path: path.into(), source })?;
        frames = line.strip_prefix("frame=").and_then(|count| count.trim().parse().ok()).or(frames);
    }
    process.end()?;
    frames.ok_or_else(|| process.failed("it counted no pictures"))
}

/// `ffmpeg`, which says errors alone, and asks nothing.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-nostdin", "-nostats", "-v", "error"]);
    // What the keyboard interrupts is ours alone, and ends it in order.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// A file's name that is neither an option nor an address.
fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

/// A running program, which ends with this at the latest.
struct Process {
    path: PathBuf,
    child: Child,
    stderr: Option<JoinHandle<String>>,
    /// What it said, once it has ended.
    said: Option<String>,
}

impl Process {
    fn start(command: &mut Command, path: &Path) -> Result<Self, FilmError> {
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FilmError::NotInstalled { program: command.get_program().into() },
            _ => FilmError::Io { path: command.get_program().into(), source },
        })?;
        let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || last_lines(BufReader::new(stderr))));
        Ok(Self { path: path.into(), child, stderr, said: None })
    }

    /// Waits for its end; its pipes are closed.
    fn end(&mut self) -> Result<(), FilmError> {
        let status = self.child.wait().map_err(|source| FilmError::Io { path: self.path.clone(), source })?;
        if let Some(thread) = self.stderr.take() {
            self.said = thread.join().ok();
        }
        let said = self.said.as_deref().unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let said = if said.is_empty() { "it said nothing" } else { said };
        Err(FilmError::Failed { path: self.path.clone(), status: status.to_string().into(), said: said.into() })
    }

    /// That it ended well, and yet not as it should.
    fn failed(&self, what: &str) -> FilmError {
        let said = self.said.as_deref().unwrap_or_default();
        let said = [what, said].join(if said.is_empty() { "" } else { ": " }).into();
        FilmError::Failed { path: self.path.clone(), status: "exit status: 0".into(), said }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last six lines, of which each is cut; all is read, so that nobody waits.
fn last_lines(mut from: impl BufRead) -> String {
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while from.by_ref().take(400).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        line.clear();
        if !text.is_empty() {
            lines.push_back(text);
        }
        if lines.len() > 6 {
            lines.pop_front();
        }
    }
    lines.make_contiguous().join("\n")
}
