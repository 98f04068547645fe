//! Taking a damaged pack apart: what of it is sound is written anew, the rest is set aside.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use super::super::storage::{Lock, join};
use super::super::{Store, StoreError, decode_name, layout, new_generation};
use super::{Pack, PackWriter, PackedVideo, Table, sealed};

/// What was sound of a damaged pack, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// Videos whose rows are lost, as far as their names are known.
    pub lost: BTreeSet<String>,
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
    pub(crate) fn salvage(&self, generation: &str) -> Result<Salvaged, StoreError> {
        let _writer = self.storage.lock(Lock::Writer)?;
        let (pack, mut lost) = self.sound_records(generation)?;
        let next = layout::next_index(&new_generation());
        if let Err(error) = self.write_salvaged(&next, &pack, &mut lost) {
            self.remove_index(&next);
            return Err(error);
        }
        let keys: Vec<String> = Table::ALL.iter().map(|table| layout::pack(table.directory(), generation)).collect();
        let aside = join(layout::DAMAGED, generation);
        for key in &keys {
            if self.storage.entry(key)?.is_some() {
                self.storage.link(key, &layout::in_index(key, &aside))?;
            }
        }
        let is_there = |key: &String| Ok::<_, StoreError>(self.storage.entry(key)?.is_some());
        let is_ready = || Ok(keys.iter().map(is_there).collect::<Result<Vec<_>, _>>()?.contains(&true));
        self.put_index(&next, &keys.iter().cloned().collect(), &is_ready)?;
        Ok(Salvaged { lost, aside })
    }

    /// The videos whose records can be read, and the names of the others.
    fn sound_records(&self, generation: &str) -> Result<(Pack, BTreeSet<String>), StoreError> {
        let mut pack = Pack { generation: generation.to_owned(), videos: Vec::new() };
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
        // Of the others, rows tell the names; where these are damaged too, directories of arrays that nobody names do.
        let steps = pack.key(Table::Steps);
        let of_steps = |footer: &ArrowReaderMetadata| {
            let groups = 0..footer.metadata().num_row_groups();
            let ids = groups
                .map(|group| sound(sealed::row_group(&*self.storage, &steps, footer, group, Some(&["video_id"]))));
            ids.collect::<Result<Option<Vec<_>>, StoreError>>()
        };
        let rows =
            sound(self.footer_of_pack(&steps, Table::Steps))?.map(|footer| of_steps(&footer)).transpose()?.flatten();
        let lost = match rows {
            Some(rows) => {
                let columns = rows.iter().filter_map(|rows| rows.column_by_name("video_id"));
                let ids = columns.flat_map(|ids| ids.as_string::<i32>().iter().flatten().map(str::to_owned));
                ids.filter(|id| !known.contains(&**id)).collect()
            }
            None => {
                let directories =
                    self.storage.list(layout::MAPS)?.into_iter().filter_map(|entry| decode_name(&entry.name));
                let is_lost = |id: &String| {
                    let is_committed = matches!(self.storage.entry(&self.steps_key(id)), Ok(Some(_)));
                    !known.contains(&**id) && !is_committed && !matches!(self.packed(id), Ok(Some(_)))
                };
                directories.filter(is_lost).collect()
            }
        };
        Ok((pack, lost))
    }

    /// Writes what is sound of a pack into an index that is being made.
    fn write_salvaged(&self, index: &str, pack: &Pack, lost: &mut BTreeSet<String>) -> Result<(), StoreError> {
        let mut writer = None;
        for video in &pack.videos {
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
                    lost.insert(video.video_id.clone());
                }
            }
        }
        writer.map_or(Ok(()), PackWriter::finish)
    }

    /// Writes parts of a video of which not all is sound into an index that is being made; false if its rows are not.
    fn write_what_is_sound(&self, index: &str, pack: &Pack, video: &PackedVideo) -> Result<bool, StoreError> {
        let Some(rows) = sound(self.packed_video(pack, video))? else { return Ok(false) };
        let heads = sound(self.packed_heads(pack, video))?;
        let text = sound(self.packed_text(pack, video))?.flatten();
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
