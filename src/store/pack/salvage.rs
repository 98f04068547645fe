//! Taking a damaged pack apart: what of it is sound is written anew, the rest is set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};

use super::super::storage::{EntryKind, Lock, join};
use super::super::{Heads, Store, StoreError, VideoRecord, decode_name, layout, new_generation, text_schema};
use super::{Pack, PackWriter, PackedVideo, Table, sealed};

/// What was sound of a damaged pack, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// Videos whose rows are lost, as far as their names are known, and what else is known of them.
    pub lost: BTreeMap<String, Option<VideoRecord>>,
    /// Where the damaged files are now.
    pub aside: String,
}

impl Store {
    /// Takes a damaged pack apart. Videos whose rows are sound are packed anew; one whose statistics are not gets parts
    /// of its own without them, as after an interrupted commit; one whose rows or record are not is in the store no
    /// more. The damaged files are set aside.
    ///
    /// # Errors
    /// If the index cannot be read or written.
    pub(crate) fn salvage(&self, name: &str) -> Result<Salvaged, StoreError> {
        let (_writer, _turn) = (self.storage.lock(Lock::Writer)?, self.storage.lock(Lock::Index)?);
        let name = &self.name_now(name)?;
        let others = self.packs_but(name)?;
        let (pack, lost) = self.sound_records(name, &others)?;
        let mut lost = lost.into_iter().map(|video| (video, None)).collect();
        let next = layout::next_index(&new_generation());
        let keys: Vec<String> = Table::ALL.iter().map(|table| pack.key(*table)).collect();
        let aside = join(layout::DAMAGED, name);
        let written = self.write_salvaged(&next, &pack, &others, &mut lost);
        written.and_then(|()| self.set_aside(&keys, &aside)).inspect_err(|_| self.remove_index(&next))?;
        let is_there = |key: &String| Ok::<_, StoreError>(self.storage.entry(key)?.is_some());
        let mut is_ready = || Ok(keys.iter().map(is_there).collect::<Result<Vec<_>, _>>()?.contains(&true));
        let _former = self.put_index(&next, &keys.iter().cloned().collect(), &mut is_ready)?;
        // Of some, only their arrays tell.
        for video in self.lost_videos()? {
            lost.entry(video).or_insert(None);
        }
        Ok(Salvaged { lost, aside })
    }

    /// The name that a pack has now: when another one was taken apart, those that stayed have other names.
    fn name_now(&self, name: &str) -> Result<String, StoreError> {
        let names = self.files_of_packs()?;
        let is_of_it = |now: &&String| layout::generation_of_pack(now) == layout::generation_of_pack(name);
        let now = names.keys().find(|now| *now == name).or_else(|| names.keys().find(is_of_it));
        Ok(now.map_or_else(|| name.to_owned(), String::clone))
    }

    /// The videos whose records can be read, and the names of the others.
    fn sound_records(&self, name: &str, others: &[Arc<Pack>]) -> Result<(Pack, BTreeSet<String>), StoreError> {
        let mut pack = Pack { name: name.to_owned(), videos: Vec::new() };
        let records = pack.key(Table::Records);
        if let Some(footer) = sound(self.footer_of_pack(&records, Table::Records))? {
            for group in 0..footer.metadata().num_row_groups() {
                let first = group * Table::Records.group();
                if let Some(rows) = sound(sealed::row_group(&*self.storage, &records, &footer, group, None))? {
                    pack.videos
                        .extend((0..rows.num_rows()).filter_map(|row| PackedVideo::of_record(&rows, row, first + row)));
                }
            }
        }
        let known: BTreeSet<&str> = pack.videos.iter().map(|video| &*video.video_id).collect();
        // Of records that cannot be read whole, the names may be; of the others, rows tell them.
        let mut names = self.sound_ids(name, Table::Records)?;
        names.extend(self.sound_ids(name, Table::Steps)?);
        let mut lost = BTreeSet::new();
        for name in names.into_iter().filter(|name| !known.contains(&**name)) {
            if !self.is_committed(&name, others)? {
                lost.insert(name);
            }
        }
        Ok((pack, lost))
    }

    /// Ids of videos in the row groups of a pack's table whose ids can be read.
    fn sound_ids(&self, name: &str, table: Table) -> Result<BTreeSet<String>, StoreError> {
        let key = layout::pack(table.directory(), name);
        let mut found = BTreeSet::new();
        let Some(footer) = sound(self.footer_of_pack(&key, table))? else { return Ok(found) };
        for group in 0..footer.metadata().num_row_groups() {
            let rows = sound(sealed::row_group(&*self.storage, &key, &footer, group, Some(&["video_id"])))?;
            let ids = rows.as_ref().and_then(|rows| rows.column_by_name("video_id"));
            found.extend(ids.into_iter().flat_map(|ids| ids.as_string::<i32>().iter().flatten().map(str::to_owned)));
        }
        Ok(found)
    }

    /// Whether a video is in one of some packs, or has parts of its own.
    fn is_committed(&self, video_id: &str, packs: &[Arc<Pack>]) -> Result<bool, StoreError> {
        let is_packed = packs.iter().any(|pack| pack.video(video_id).is_some());
        Ok(is_packed || self.storage.entry(&self.steps_key(video_id))?.is_some())
    }

    /// The other packs that can be read.
    fn packs_but(&self, name: &str) -> Result<Vec<Arc<Pack>>, StoreError> {
        let names = self.files_of_packs()?.into_keys().filter(|other| other != name);
        let packs = names.map(|other| sound(self.pack(&other))).collect::<Result<Vec<_>, _>>()?;
        Ok(packs.into_iter().flatten().collect())
    }

    /// Gives the files of a pack second keys, where they have none yet.
    fn set_aside(&self, keys: &[String], aside: &str) -> Result<(), StoreError> {
        for key in keys {
            let there = layout::in_index(key, aside);
            if self.storage.entry(key)?.is_some() && self.storage.entry(&there)?.is_none() {
                self.storage.link(key, &there)?;
            }
        }
        Ok(())
    }

    /// Videos that have arrays and no commit, as long as there are packs that were damaged: theirs may be in one of
    /// them.
    pub(in crate::store) fn lost_videos(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut lost = BTreeSet::new();
        if self.entries(layout::DAMAGED)?.is_empty() {
            return Ok(lost);
        }
        let packs = self.packs_but("")?;
        for entry in self.storage.list(layout::MAPS)?.into_iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let directory = join(layout::MAPS, &entry.name);
            let Some(id) = decode_name(&entry.name).or_else(|| self.id_of_arrays(&directory)) else { continue };
            if !self.is_committed(&id, &packs)? {
                lost.insert(id);
            }
        }
        Ok(lost)
    }

    /// The id of the video that arrays are of, as they say it themselves.
    fn id_of_arrays(&self, video: &str) -> Option<String> {
        let words = self.storage.list(video).ok()?.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
        words.into_iter().find_map(|word| {
            let attributes = self.generation_at(&join(video, &word.name)).ok()?.attributes().ok()?;
            Some(attributes.get("video_id")?.as_str()?.to_owned())
        })
    }

    /// Writes what is sound of a pack into an index that is being made.
    fn write_salvaged(
        &self,
        index: &str,
        pack: &Pack,
        others: &[Arc<Pack>],
        lost: &mut BTreeMap<String, Option<VideoRecord>>,
    ) -> Result<(), StoreError> {
        let mut writer = None;
        // What another pack has, too, stays there.
        let is_elsewhere = |video: &&PackedVideo| others.iter().any(|other| other.video(&video.video_id).is_some());
        for video in pack.videos.iter().filter(|video| !is_elsewhere(video)) {
            match sound(self.rows_of_packed(pack, video))? {
                Some(rows) => {
                    let writer = match &mut writer {
                        Some(writer) => writer,
                        None => writer.insert(PackWriter::begin(&*self.storage, index, &new_generation())?),
                    };
                    writer.add(rows)?;
                }
                None if self.write_what_is_sound(index, pack, video)? => {}
                None => {
                    lost.insert(video.video_id.clone(), sound(self.packed_record(pack, video))?);
                }
            }
        }
        writer.map_or(Ok(()), PackWriter::finish)
    }

    /// Writes parts of a video of which not all is sound into an index that is being made; false if its rows are not.
    fn write_what_is_sound(&self, index: &str, pack: &Pack, video: &PackedVideo) -> Result<bool, StoreError> {
        let Some(rows) = sound(self.packed_video(pack, video))? else { return Ok(false) };
        // Of nothing, nothing is damaged.
        let heads = if video.heads.is_empty() { Some(Heads::new()) } else { sound(self.packed_heads(pack, video))? };
        let text = match &video.text {
            Some(rows) if rows.is_empty() => Some(RecordBatch::new_empty(text_schema())),
            _ => sound(self.packed_text(pack, video))?.flatten(),
        };
        self.write_parts(index, &rows, heads.as_ref(), text.as_ref())?;
        Ok(true)
    }
}

/// What was read; nothing, if it is damaged.
fn sound<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_of_one_file() => Ok(None),
        Err(error) => Err(error),
    }
}
