//! Checks of the files that are not arrays: documents and parts against their hashes.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gc::{is_directory, tree_bytes};
use super::{
    ArrayKind, NOT_A_PART, Store, StoreError, UNFINISHED, VideoIndex, document_hash, durable, files, part, plain_group,
    root_document,
};

/// Something in a store that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The video, if it is of one.
    pub video_id: Option<String>,
    /// The word, if it is of one.
    pub token: Option<String>,
    /// The step, if it is of one.
    pub step: Option<i32>,
    /// The file or array, below the store (or a file of the dump).
    pub path: String,
    /// What was found and what was expected.
    pub error: String,
    /// Whether it is the dump that is not as it was when it was ingested, not the store.
    pub in_dump: bool,
}

impl Fault {
    /// Whether it is a commit that was not finished: the next ingest does.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.error == UNFINISHED
    }
}

impl Store {
    /// All parts that can be read, and what is wrong with parts.
    pub(crate) fn read_index_and_faults(&self) -> Result<(Vec<VideoIndex>, Vec<Fault>), StoreError> {
        let (parts, strays) = self.parts()?;
        let mut index = Vec::new();
        let mut faults: Vec<Fault> = strays.iter().map(|path| self.fault(path, NOT_A_PART)).collect();
        let read: Vec<_> = parts.into_par_iter().map(|path| (part::read_steps_part(&path), path)).collect();
        for (video, path) in read {
            match video {
                Ok(video) if self.layout.steps_part(&video.record.video_id) == path => index.push(video),
                // Of which video it should be, only its name still says.
                Ok(_) => faults.push(Fault { video_id: video_of(&path), ..self.fault(&path, NOT_A_PART) }),
                Err(error) => faults.push(Fault { video_id: video_of(&path), ..self.fault(&path, error) }),
            }
        }
        Ok((index, faults))
    }

    /// Opens a store, having written its root's document anew if that is damaged: the fault that was.
    pub(crate) fn open_to_mend(path: &Path) -> Result<(Self, Option<Fault>), StoreError> {
        let store = Self::at(path);
        let root = store.document_path("");
        let has_tables = store.layout.steps_dir().is_dir() && store.layout.heads_dir().is_dir();
        let fault = check_root(&root).err().filter(|_| has_tables).map(|error| store.fault(&root, error));
        if fault.is_some() {
            store.check_directories()?;
            durable::replace(&root, &root_document())?;
        }
        Ok((Self::open(path)?, fault))
    }

    /// Writes the documents that hold nothing of their own anew where they are damaged.
    pub(crate) fn mend_documents(&self) -> Result<(), StoreError> {
        let videos = self.read_index()?.into_iter().filter(|video| !video.rows.is_empty());
        let groups = videos.map(|video| self.layout.video(&video.record.video_id));
        for group in std::iter::once(self.layout.maps()).chain(groups).filter(|group| is_directory(group)) {
            let document = group.join("zarr.json");
            if files::read(&document).ok() != Some(plain_group()) {
                durable::replace(&document, &plain_group())?;
            }
        }
        Ok(())
    }

    /// Checks the documents that belong to no video.
    pub(crate) fn check_plain_documents(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let root = self.document_path("");
        if let Err(error) = check_root(&root) {
            faults.push(self.fault(&root, error));
        }
        faults.extend(self.check_plain_group("maps"));
        faults
    }

    /// Checks a video's documents.
    pub(crate) fn check_video_documents(&self, video: &VideoIndex) -> Vec<Fault> {
        let id = &video.record.video_id;
        let mut faults: Vec<Fault> = Vec::new();
        if !video.rows.is_empty() {
            faults.extend(self.check_plain_group(&self.layout.relative(&self.layout.video(id))));
        }
        for (path, hash) in &video.record.documents {
            let token = video.rows.iter().find(|row| path.starts_with(row.series_path())).map(|row| row.token.clone());
            let found = self.inside(path).and_then(|file| files::read(&file));
            let error = match found {
                Ok(text) if document_hash(&text) == *hash => continue,
                Ok(_) => "its contents are not those that were written".to_owned(),
                Err(error) => error.to_string(),
            };
            faults.push(Fault { video_id: None, token, step: None, path: path.clone(), error, in_dump: false });
        }
        for fault in &mut faults {
            fault.video_id = Some(id.clone());
        }
        faults
    }

    fn check_plain_group(&self, group: &str) -> Option<Fault> {
        let path = self.document_path(group);
        match files::read(&path) {
            Ok(text) if text == plain_group() => None,
            Ok(_) => Some(self.fault(&path, "its contents are not those that were written")),
            Err(error) => Some(self.fault(&path, error)),
        }
    }

    fn fault(&self, path: &Path, error: impl ToString) -> Fault {
        Fault {
            video_id: None,
            token: None,
            step: None,
            path: self.relative(path),
            error: error.to_string(),
            in_dump: false,
        }
    }

    /// Where the rows of a video are, below the store.
    pub(crate) fn steps_path(&self, video_id: &str) -> String {
        self.relative(&self.layout.steps_part(video_id))
    }

    /// Where the statistics of a video are, below the store.
    pub(crate) fn heads_path(&self, video_id: &str) -> String {
        self.relative(&self.layout.heads_part(video_id))
    }

    /// Bytes of the tables.
    pub(crate) fn index_bytes(&self) -> Result<u64, StoreError> {
        Ok(tree_bytes(&self.layout.steps_dir())? + tree_bytes(&self.layout.heads_dir())?)
    }

    /// Bytes of a word's `attention` array, and of its rollups.
    pub(crate) fn series_bytes(&self, series: &str) -> Result<(u64, u64), StoreError> {
        let bytes = |kind: ArrayKind| tree_bytes(&self.root().join(series).join(kind.name()));
        let of_rollups = ArrayKind::ALL[1..].iter().map(|&kind| bytes(kind)).sum::<Result<u64, _>>()?;
        Ok((bytes(ArrayKind::Attention)?, of_rollups))
    }

    /// `attributes.attnkit` of a word's group.
    pub(crate) fn series_attributes(&self, series: &str) -> Result<Value, StoreError> {
        let path = self.document_path(series);
        let mut document: Value =
            serde_json::from_slice(&files::read(&path)?).map_err(|error| StoreError::damaged(&path, error))?;
        let attributes = document.pointer_mut("/attributes/attnkit").map(Value::take);
        attributes.ok_or_else(|| StoreError::damaged(&path, "no attributes of attnkit"))
    }
}

/// The video that a part is called after.
fn video_of(part: &Path) -> Option<String> {
    super::decode_name(part.file_stem()?.to_str()?)
}

/// Checks the root's checksum over itself.
fn check_root(path: &Path) -> Result<(), String> {
    let text = files::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;
    let document: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let checksum =
        document.pointer("/attributes/attnkit/checksum").and_then(Value::as_str).ok_or("it has no checksum")?;
    if checksum.len() == part::NO_CHECKSUM.len()
        && document_hash(text.replace(checksum, part::NO_CHECKSUM).as_bytes()) == checksum
    {
        Ok(())
    } else {
        Err("its checksum is not that of its contents".into())
    }
}
