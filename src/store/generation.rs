//! The arrays of one word as one commit has them: the owner of everything below a directory of `maps/<video>/`. Never
//! modified once a commit names it; what a later commit keeps of it is shared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::codec::crc32c;
use super::series::{Coordinate, array_document, chunk_key, group_document, to_text};
use super::shard::{ShardWriter, shard_index};
use super::storage::{Storage, join};
use super::{ArrayKind, ArraysRecord, Coordinates, SeriesLayout, StoreError, document_hash, layout};

/// What the attributes of a word of few steps tell.
const COORDINATES: &str = "coordinates";

/// The arrays of one word as one commit has them, or is to have them.
#[derive(Debug, Clone)]
pub struct Generation {
    storage: Arc<dyn Storage>,
    path: String,
}

impl Generation {
    pub(super) fn new(storage: Arc<dyn Storage>, path: String) -> Self {
        Self { storage, path }
    }

    /// Its directory, below the store.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How messages name it.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        self.storage.place(&self.path)
    }

    /// Where its `attention` is, below the store: what the column `array` says.
    #[must_use]
    pub fn attention(&self) -> String {
        join(&self.path, ArrayKind::Attention.name())
    }

    /// Begins a shard, by its number along the step axis, of one of the arrays that `layout` describes.
    pub(crate) fn shard(
        &self,
        layout: &SeriesLayout,
        kind: ArrayKind,
        number: usize,
    ) -> Result<ShardWriter, StoreError> {
        ShardWriter::create(&*self.storage, &self.shard_key(kind, number), layout, kind)
    }

    /// Takes a shard of another generation over as it is.
    pub(crate) fn share(&self, from: &Self, kind: ArrayKind, number: usize) -> Result<(), StoreError> {
        self.storage.link(&from.shard_key(kind, number), &self.shard_key(kind, number))
    }

    /// Appends the encoded inner chunks of the first `steps` steps of a shard, which `layout` describes, to one that
    /// was begun.
    pub(crate) fn copy_steps(
        &self,
        layout: &SeriesLayout,
        kind: ArrayKind,
        number: usize,
        steps: usize,
        into: &mut ShardWriter,
    ) -> Result<(), StoreError> {
        let key = self.shard_key(kind, number);
        let damaged = |found: &str| StoreError::damaged(self.storage.place(&key), found);
        let per_step = layout.chunks_per_step(kind);
        let shard = self.storage.get(&key)?;
        let index = shard_index(&shard, layout.steps_per_shard() * per_step)
            .ok_or_else(|| damaged("the index of the shard is damaged"))?;
        for [start, len] in index.into_iter().take(steps * per_step) {
            let chunk = start.checked_add(len).and_then(|end| shard.get(start..end));
            into.push_encoded(chunk.ok_or_else(|| damaged("a chunk of the shard is missing"))?)?;
        }
        Ok(())
    }

    /// Whether its shards are cut and encoded as `layout` says, so that they can serve a longer array too.
    pub(crate) fn matches(&self, layout: &SeriesLayout) -> bool {
        layout.kinds().all(|kind| {
            let Ok(text) = self.storage.get(&layout::document(&join(&self.path, kind.name()))) else { return false };
            let Ok(mut document) = serde_json::from_slice::<Value>(&text) else { return false };
            if let Some(steps) = document.pointer_mut("/shape/0") {
                *steps = layout.steps.into();
            }
            document == layout.document(kind)
        })
    }

    /// Writes the documents and coordinates of the arrays; `attributes` are those of attnkit. Returns the hash of each
    /// `zarr.json`, by its path below the store.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write_documents(
        &self,
        layout: &SeriesLayout,
        mut attributes: Value,
        coordinates: &Coordinates<'_>,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        if let Some(attributes) = attributes.as_object_mut() {
            // Of the generation whose attributes these may be.
            attributes.remove(COORDINATES);
            attributes.extend(coordinates.attribute().map(|told| (COORDINATES.to_owned(), told)));
        }
        let attributes = json!({"attnkit": attributes});
        let mut documents = vec![(self.path.clone(), group_document(attributes))];
        for kind in layout.kinds() {
            documents.push((join(&self.path, kind.name()), layout.document(kind)));
        }
        let codecs = json!([{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]);
        for Coordinate { name, dimension, dtype, bytes } in coordinates.arrays() {
            let array = join(&self.path, name);
            let fill = if dtype == "int32" { json!(0) } else { json!("NaN") };
            let shape = [bytes.len() / if dtype == "int32" { 4 } else { 8 }];
            let document = array_document(&shape, &shape, dtype, fill, codecs.clone(), &[dimension]);
            let chunk = crc32c(bytes).map_err(|found| StoreError::array(self.storage.place(&array), found))?;
            self.storage.write(&join(&array, &chunk_key(0, 1)), &chunk)?;
            documents.push((array, document));
        }
        let written = documents.into_iter().map(|(of, document)| {
            let (key, text) = (layout::document(&of), to_text(&document));
            self.storage.write(&key, &text)?;
            Ok((key, document_hash(&text)))
        });
        written.collect()
    }

    /// `attributes.attnkit` of its group.
    pub(crate) fn attributes(&self) -> Result<Value, StoreError> {
        let key = layout::document(&self.path);
        let damaged = |found: String| StoreError::damaged(self.storage.place(&key), found);
        let mut document: Value =
            serde_json::from_slice(&self.storage.get(&key)?).map_err(|error| damaged(error.to_string()))?;
        let attributes = document.pointer_mut("/attributes/attnkit").map(Value::take);
        attributes.ok_or_else(|| damaged("no attributes of attnkit".into()))
    }

    /// What a record tells of it.
    pub(crate) fn arrays(&self) -> Result<ArraysRecord, StoreError> {
        let (attention, rollups) = self.bytes()?;
        let lossy = self.attributes()?.get_mut("lossy").map(Value::take).unwrap_or_default();
        Ok(ArraysRecord { attention, rollups, lossy })
    }

    /// Bytes of its `attention`, and of its rollups.
    pub(crate) fn bytes(&self) -> Result<(u64, u64), StoreError> {
        let bytes = |kind: ArrayKind| self.storage.bytes_below(&join(&self.path, kind.name()));
        let of_rollups = ArrayKind::ALL[1..].iter().map(|&kind| bytes(kind)).sum::<Result<u64, _>>()?;
        Ok((bytes(ArrayKind::Attention)?, of_rollups))
    }

    /// Removes it. What no commit names and cannot be removed is left to `gc`.
    pub(crate) fn remove(&self) {
        if let Err(error) = self.storage.delete(&self.path) {
            tracing::debug!("{error}");
        }
    }

    /// File of a shard.
    fn shard_key(&self, kind: ArrayKind, number: usize) -> String {
        join(&join(&self.path, kind.name()), &chunk_key(number, kind.dimension_names().len()))
    }
}
