//! Where things are in a store: the only place that builds its paths.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::names::{encode_name, encode_name_plainly};

/// The paths of a store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub fn video(&self, video_id: &str) -> PathBuf {
        named(&self.maps(), video_id, "")
    }

    pub fn steps_dir(&self) -> PathBuf {
        self.root.join("index").join("steps")
    }

    pub fn heads_dir(&self) -> PathBuf {
        self.root.join("index").join("heads")
    }

    pub fn steps_part(&self, video_id: &str) -> PathBuf {
        named(&self.steps_dir(), video_id, ".parquet")
    }

    pub fn heads_part(&self, video_id: &str) -> PathBuf {
        self.heads_dir().join(self.steps_part(video_id).file_name().unwrap_or_default())
    }

    /// Where the `steps` part of a commit waits for its rename.
    pub fn staged_steps(&self, video_id: &str, generation: &str) -> PathBuf {
        self.steps_dir().join(format!(".{}.{generation}.steps", encode_name(video_id)))
    }

    /// Where the `heads` part of a commit waits for its rename.
    pub fn staged_heads(&self, video_id: &str, generation: &str) -> PathBuf {
        self.heads_dir().join(format!(".{}.{generation}.heads", encode_name(video_id)))
    }

    /// Directory of a word's arrays, below the store.
    pub fn series(&self, video_id: &str, token: &str, generation: &str) -> String {
        format!("{}/{}@{generation}", self.relative(&self.video(video_id)), encode_name(token))
    }

    pub fn writers(&self) -> PathBuf {
        self.root.join(".writers")
    }

    /// A path below the root as tables and documents name it: with `/`.
    pub fn relative(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    }
}

/// What is of a video in a directory. Where a store has it under the name that earlier versions gave it, it stays
/// there.
fn named(dir: &Path, video_id: &str, extension: &str) -> PathBuf {
    let name = dir.join(encode_name(video_id) + extension);
    if !video_id.starts_with('_') {
        return name;
    }
    let plain = dir.join(encode_name_plainly(video_id) + extension);
    if plain.exists() && !name.exists() { plain } else { name }
}

/// A new generation: 11 hexadecimal digits of time, 5 at random.
pub(crate) fn new_generation() -> String {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    format!("{:011x}{:05x}", millis & 0xFFF_FFFF_FFFF, fastrand::u32(..1 << 20))
}
