//! The frames of a video, to lay maps over.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DrawError;
use crate::remedy::Remedy;
use crate::render::{Picture, VideoFrames, count_frames, ffmpeg};

/// Extensions of files that are frames.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Where the frames of a video are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backdrop {
    /// One picture a frame, in the order of their names (`frame_9` before `frame_10`).
    Directory(PathBuf),
    /// A video, read by ffmpeg.
    Video(PathBuf),
}

impl Backdrop {
    /// A directory or a file, whichever is there.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        if path.is_dir() { Self::Directory(path.to_owned()) } else { Self::Video(path.to_owned()) }
    }

    /// Whether a directory has frames in it.
    pub(crate) fn is_directory_of_frames(path: &Path) -> bool {
        list(path).is_ok()
    }

    /// Opens it.
    ///
    /// # Errors
    /// If there is no frame, or ffmpeg is needed and missing.
    pub(super) fn open(&self) -> Result<Frames, DrawError> {
        match self {
            Self::Directory(dir) => Ok(Frames::Files(list(dir)?)),
            Self::Video(path) => {
                let refused = |found: &str, remedy: &str| DrawError::Frames {
                    path: path.clone(),
                    found: found.to_owned(),
                    remedy: remedy.into(),
                };
                if !path.is_file() {
                    return Err(refused("no such file", "name a video, or a directory of frames"));
                }
                let count = count_frames(path, &ffmpeg())?;
                if count == 0 {
                    return Err(refused("a video of no frames", "name another one"));
                }
                Ok(Frames::Video(path.clone(), count))
            }
        }
    }
}

/// Frames that are there.
pub(super) enum Frames {
    Files(Vec<PathBuf>),
    Video(PathBuf, usize),
}

impl Frames {
    pub fn count(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::Video(_, count) => *count,
        }
    }

    /// Some of them, ascending, one after the other.
    pub fn read(
        &self,
        wanted: &[usize],
        mut each: impl FnMut(Picture) -> Result<(), DrawError>,
    ) -> Result<(), DrawError> {
        let mut size = None;
        let mut each = |picture: Picture, path: &Path, number: usize| {
            let found = (picture.width, picture.height);
            let expected = *size.get_or_insert(found);
            if found != expected {
                let (found, expected) =
                    (format!("{} x {}", found.0, found.1), format!("{} x {}", expected.0, expected.1));
                return Err(DrawError::Frames {
                    path: path.to_owned(),
                    found: format!("frame {number} is of {found} pixels, and those before it of {expected}"),
                    remedy: "name the frames of one video, and nothing else".into(),
                });
            }
            each(picture)
        };
        match self {
            Self::Files(files) => {
                for (number, file) in wanted.iter().filter_map(|number| Some((*number, files.get(*number)?))) {
                    each(Picture::read(file)?, file, number)?;
                }
            }
            Self::Video(path, _) => {
                let last = wanted.iter().max().map_or(0, |last| last + 1);
                for (number, frame) in VideoFrames::open(path, &ffmpeg())?.take(last).enumerate() {
                    let frame = frame?;
                    if wanted.contains(&number) {
                        each(frame, path, number)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, DrawError> {
    let refused = |found: String| DrawError::Frames {
        path: dir.to_owned(),
        found,
        remedy: Remedy::from("name the directory that has the frames, as PNG, JPEG or WebP, one file each"),
    };
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| refused(error.to_string()))?;
    let is_frame = |path: &PathBuf| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        !is_hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&&*extension)) && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_frame).collect();
    if files.is_empty() {
        return Err(refused("no frame in it".to_owned()));
    }
    files.sort_by(|a, b| by_number(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(files)
}

/// Names in the order of the numbers in them.
fn by_number(a: &str, b: &str) -> Ordering {
    let is_digit = |letter: char| letter.is_ascii_digit();
    let (mut a, mut b) = (a, b);
    while let (Some(first), Some(second)) = (a.chars().next(), b.chars().next()) {
        if is_digit(first) && is_digit(second) {
            let cut = |text: &str| text.find(|letter| !is_digit(letter)).unwrap_or(text.len());
            let ((own, rest), (other, others)) = (a.split_at(cut(a)), b.split_at(cut(b)));
            let bare = |digits: &str| digits.trim_start_matches('0').to_owned();
            let order = bare(own).len().cmp(&bare(other).len()).then_with(|| bare(own).cmp(&bare(other)));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (rest, others);
        } else if first == second {
            (a, b) = (&a[first.len_utf8()..], &b[second.len_utf8()..]);
        } else {
            return first.cmp(&second);
        }
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_the_order_of_their_numbers() {
        let mut names = ["frame_10.png", "frame_9.png", "frame_010b.png", "frame_2.png", "a.png", "frame_02.png"];
        names.sort_by(|a, b| by_number(a, b));
        let expected = ["a.png", "frame_2.png", "frame_02.png", "frame_9.png", "frame_10.png", "frame_010b.png"];
        assert_eq!(names, expected);
    }
}
