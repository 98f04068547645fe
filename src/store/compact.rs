//! Packing and unpacking: where the rows of videos are, not which they are. Both make a new index beside the present
//! one, with the same rows in other files, and put it in its place, so that whoever reads the directories sees each row
//! once at every instant.
//!
//! Files of the new index have names that none of the present one has: readers such as pyarrow list names first and
//! look at each afterwards, and silently leave out those that they do not find. Of such a list, all are found or those
//! that are opened are gone, which is an error.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::pack::{MISSING, Pack, PackWriter, PackedVideo, Table, VideoRows, with_videos_of_newer};
use super::storage::{Entry, EntryKind, Guard, Lock, join};
use super::{Heads, PACKED_TWICE, PartFiles, Store, StoreError, TWICE, VideoIndex, all, layout, new_generation, part};
use crate::progress::{Meter, Progress, Silent, Unit};

/// A pack with so many bytes is full. What has more than half of it stays as it is.
const PACK_BYTES: u64 = 128 << 20;
/// The most bytes of a pack's table before they are encoded, and its most rows: far from what no part may have.
const RAW_BYTES: usize = 1 << 30;
const ROWS: usize = 1 << 22;
/// The most small packs that are merged at once: of each, row groups are in memory.
const MERGED: usize = 4;
/// Bytes and number of videos that are read together, while those before are written.
const READ_BYTES: u64 = 32 << 20;
const READ_VIDEOS: usize = 512;
/// How often it is begun anew because something was committed meanwhile, without that.
const ATTEMPTS: usize = 20;
/// How long a listing of a directory may take that was begun before it was exchanged, and for each of its files.
const LISTING: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 500 });
const LISTING_A_FILE: Duration = Duration::from_micros(10);
/// From so many parts on, an ingest packs them at its end.
const MANY: usize = 256;

/// What packing did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// Videos that are in new packs.
    pub videos: u64,
    /// Those packs.
    pub packs: u64,
    /// Files of the index before and after.
    pub files: [u64; 2],
    /// Bytes of the index before and after.
    pub bytes: [u64; 2],
}

/// Where the rows of a video are that is packed.
enum Source {
    /// In parts of its own.
    Parts(OwnParts),
    /// In a small pack.
    Pack(Arc<Pack>, PackedVideo),
}

/// The keys of a video's own parts, and what is there.
struct OwnParts {
    video_id: String,
    steps: (String, Entry),
    heads: (String, Entry),
    /// `None` there: it has no rows of `text`.
    text: (String, Option<Entry>),
}

impl Source {
    fn video_id(&self) -> &str {
        match self {
            Self::Parts(parts) => &parts.video_id,
            Self::Pack(_, video) => &video.video_id,
        }
    }

    /// The name of the pack that it is in.
    fn pack(&self) -> Option<&str> {
        match self {
            Self::Parts(_) => None,
            Self::Pack(pack, _) => Some(&pack.name),
        }
    }

    /// The keys of the files that its rows are in.
    fn keys(&self) -> Vec<String> {
        match self {
            Self::Parts(OwnParts { steps, heads, text, .. }) => [&steps.0, &heads.0, &text.0].map(Clone::clone).into(),
            Self::Pack(pack, _) => pack.tables().map(|table| pack.key(table)).collect(),
        }
    }
}

/// An index that another one has taken the place of. It is removed when this is dropped, as soon as whoever was listing
/// a directory of it has come to the end: a listing that ends early would be one of fewer rows, and no error.
#[must_use]
pub(super) struct FormerIndex<'a> {
    store: &'a Store,
    key: String,
    until: Instant,
}

impl Drop for FormerIndex<'_> {
    fn drop(&mut self) {
        std::thread::sleep(self.until.saturating_duration_since(Instant::now()));
        self.store.remove_index(&self.key);
    }
}

impl Store {
    /// Puts the rows of many small videos into a few files, by which tables of thousands of videos are listed and
    /// filtered in milliseconds. What is committed stays the same, and so does what anybody reads. The progress is in
    /// bytes of parts.
    ///
    /// # Errors
    /// If the index cannot be read or written; [`StoreError::Busy`], if others committed what was being packed again
    /// and again; and [`StoreError::Cancelled`].
    pub fn compact(&self, progress: &dyn Progress) -> Result<Compaction, StoreError> {
        let _writer = self.lock_for_writing()?;
        let _turn = self.storage.lock(Lock::Index)?;
        let mut busy = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            if let Some(done) = self.try_compact(&mut busy, progress)? {
                return Ok(done);
            }
        }
        Err(StoreError::Busy { path: self.place() })
    }

    /// Whether so many videos have parts of their own that packing them is worth it.
    pub(crate) fn is_worth_packing(&self) -> Result<bool, StoreError> {
        Ok(self.of_one_index(|| self.part_files())?.parts.len() >= MANY)
    }

    /// Puts videos that are packed into parts of their own, so that they can be committed anew. Until what is returned
    /// is dropped, nobody packs them again; `None`: none of them is packed.
    pub(super) fn unpack(&self, videos: &BTreeSet<&str>) -> Result<Option<(FormerIndex<'_>, Guard)>, StoreError> {
        let with_one = || {
            let mut packs = self.of_one_index(|| self.packs())?;
            packs.retain(|pack| videos.iter().any(|video| pack.video(video).is_some()));
            Ok::<_, StoreError>(packs)
        };
        if with_one()?.is_empty() {
            return Ok(None);
        }
        let turn = self.storage.lock(Lock::Index)?;
        // Somebody else may have taken some out while this one waited.
        let packs = with_one()?;
        if packs.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.unpack_from(videos, &packs)?, turn)))
    }

    /// Packs all that can be but videos that are busy; `None` if one of the others was committed meanwhile: it is busy.
    fn try_compact(
        &self,
        busy: &mut BTreeSet<String>,
        progress: &dyn Progress,
    ) -> Result<Option<Compaction>, StoreError> {
        let before = self.size_of_index(layout::INDEX)?;
        let mut sources = self.own_parts(busy)?;
        for (bytes, pack) in self.small_packs()?.into_iter().take(MERGED) {
            sources.extend(sources_of_pack(&pack, bytes));
        }
        sources.sort_by(by_video);
        let merged: HashSet<&str> = sources.iter().filter_map(|(source, _)| source.pack()).collect();
        // A pack alone stays what it is.
        if sources.len() < 2 || sources.iter().all(|(source, _)| source.pack().is_some()) && merged.len() < 2 {
            return Ok(Some(Compaction { files: [before.0; 2], bytes: [before.1; 2], ..Compaction::default() }));
        }
        let next = layout::next_index(&new_generation());
        let meter = Meter::new(progress, Unit::Bytes, sources.iter().map(|(_, bytes)| bytes).sum());
        let written = self.write_packs(&next, &sources, &meter).inspect_err(|_| self.remove_index(&next));
        let (packed, packs) = written?;
        let Some(_former) = self.put_if_unchanged(&next, &packed, busy)? else { return Ok(None) };
        let after = self.size_of_index(layout::INDEX)?;
        let videos = packed.len() as u64;
        Ok(Some(Compaction { videos, packs, files: [before.0, after.0], bytes: [before.1, after.1] }))
    }

    /// Takes videos out of their packs.
    fn unpack_from(&self, videos: &BTreeSet<&str>, packs: &[Arc<Pack>]) -> Result<FormerIndex<'_>, StoreError> {
        let next = layout::next_index(&new_generation());
        let meter = Meter::new(&Silent, Unit::Bytes, 0);
        let written = packs.iter().try_for_each(|pack| {
            let mut taken = pack.videos.iter().filter(|video| videos.contains(&*video.video_id));
            taken.try_for_each(|video| self.write_own_parts(&next, pack, video))?;
            let mut left: Vec<_> = sources_of_pack(pack, self.size_of_pack(pack)?).collect();
            left.retain(|(source, _)| !videos.contains(source.video_id()));
            self.write_packs(&next, &left, &meter).map(drop)
        });
        written.inspect_err(|_: &StoreError| self.remove_index(&next))?;
        let removed = packs.iter().flat_map(|pack| pack.tables().map(|table| pack.key(table))).collect();
        // Nobody else puts an index there, and packs are in no other way removed.
        let former = self.put_index(&next, &removed, &mut || Ok(true))?;
        former.ok_or_else(|| StoreError::Busy { path: self.place() })
    }

    /// The videos with parts of their own that can be packed, each with the bytes of these. One whose parts are
    /// damaged, or of a commit that was not finished, stays where it is.
    fn own_parts(&self, busy: &BTreeSet<String>) -> Result<Vec<(Source, u64)>, StoreError> {
        let PartFiles { parts, .. } = self.part_files()?;
        let own = parts.into_par_iter().filter_map(|(key, entry)| self.source_of_parts(&key, entry).transpose());
        let own: Vec<(Source, u64)> = own.collect::<Result<_, StoreError>>()?;
        Ok(own.into_iter().filter(|(source, _)| !busy.contains(source.video_id())).collect())
    }

    /// The packs that are not full, each with its bytes, the smallest first.
    fn small_packs(&self) -> Result<Vec<(u64, Arc<Pack>)>, StoreError> {
        let packs = self.packs()?.into_iter().map(|pack| Ok((self.size_of_pack(&pack)?, pack)));
        let mut packs = packs.collect::<Result<Vec<_>, StoreError>>()?;
        packs.retain(|(bytes, _)| *bytes < PACK_BYTES / 2);
        packs.sort_by_key(|(bytes, _)| *bytes);
        Ok(packs)
    }

    fn size_of_pack(&self, pack: &Pack) -> Result<u64, StoreError> {
        pack.tables().map(|table| self.storage.bytes_below(&pack.key(table))).sum()
    }

    fn source_of_parts(&self, steps: &str, entry: Entry) -> Result<Option<(Source, u64)>, StoreError> {
        let (heads, text) = (layout::heads_beside(steps), layout::text_beside(steps));
        let (of_heads, of_text) = (self.storage.entry(&heads)?, self.storage.entry(&text)?);
        let Some(of_heads) = of_heads else { return Ok(None) };
        let bytes = entry.bytes + of_heads.bytes + of_text.as_ref().map_or(0, |entry| entry.bytes);
        if bytes > PACK_BYTES / 2 {
            return Ok(None);
        }
        // What cannot be read stays.
        let Ok(footer) = self.known.check(&*self.storage, steps, &entry) else { return Ok(None) };
        let Some(video_id) = footer.video_id.filter(|video| self.steps_key(video) == *steps) else { return Ok(None) };
        let is_of_it = |key: &String| {
            let found = part::part_generation(&*self.storage, key);
            matches!(found, Ok(Some(found)) if found == footer.generation)
        };
        if !is_of_it(&heads) || of_text.is_some() && !is_of_it(&text) {
            return Ok(None);
        }
        let (steps, heads) = ((steps.to_owned(), entry), (heads, of_heads));
        Ok(Some((Source::Parts(OwnParts { video_id, steps, heads, text: (text, of_text) }), bytes)))
    }

    /// Writes packs into an index that is being made. Returns which videos are in them, all but those that cannot be
    /// read, and how many packs these are.
    fn write_packs<'a>(
        &self,
        index: &str,
        sources: &'a [(Source, u64)],
        meter: &Meter<'_>,
    ) -> Result<(Vec<&'a Source>, u64), StoreError> {
        let mut writer: Option<PackWriter<'_>> = None;
        let (mut packed, mut packs, mut size) = (Vec::new(), 0, [0, 0]);
        for some in runs(sources, READ_BYTES, READ_VIDEOS) {
            let read: Vec<_> = some.par_iter().map(|(source, _)| self.rows_of(source)).collect();
            for ((source, bytes), rows) in some.iter().zip(read) {
                meter.add(*bytes)?;
                let rows = match (rows, source) {
                    (Ok(rows), _) => rows,
                    // It stays in its own parts.
                    (Err(error), Source::Parts(_)) if error.is_of_one_file() => continue,
                    (Err(error), _) => return Err(error),
                };
                let [raw, rows_of_video] = rows.size();
                // What has more by itself stays in its own parts.
                if matches!(source, Source::Parts(_)) && (raw > RAW_BYTES || rows_of_video > ROWS) {
                    continue;
                }
                size = [size[0] + raw, size[1] + rows_of_video];
                let is_full =
                    |writer: &mut PackWriter<'_>| writer.bytes() >= PACK_BYTES || size[0] > RAW_BYTES || size[1] > ROWS;
                if let Some(full) = writer.take_if(is_full) {
                    full.finish()?;
                    size = [raw, rows_of_video];
                }
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => {
                        packs += 1;
                        writer.insert(PackWriter::begin(&*self.storage, index, &new_generation())?)
                    }
                };
                writer.add(rows)?;
                packed.push(source);
            }
        }
        writer.map_or(Ok(()), PackWriter::finish)?;
        Ok((packed, packs))
    }

    fn rows_of(&self, source: &Source) -> Result<VideoRows, StoreError> {
        let OwnParts { steps: (steps, _), heads: (heads, _), text: (text, of_text), .. } = match source {
            Source::Parts(parts) => parts,
            Source::Pack(pack, video) => return self.rows_of_packed(pack, video),
        };
        let (video, record) = part::read_steps_part_and_record(&*self.storage, steps)?;
        let (of_heads, heads) = part::read_heads_part(&*self.storage, heads)?;
        let text = of_text.as_ref().map(|_| part::read_text_part(&*self.storage, text)).transpose()?;
        let is_of_it = |generation: &String| *generation == video.generation;
        if !is_of_it(&of_heads) || !text.as_ref().is_none_or(|(generation, _)| is_of_it(generation)) {
            return Err(StoreError::damaged(self.storage.place(steps), super::UNFINISHED));
        }
        VideoRows::new(&video, record, heads.into_values().collect(), text.map(|(_, text)| text))
            .map_err(|error| StoreError::damaged(self.storage.place(steps), error))
    }

    fn is_as_it_was(&self, source: &Source) -> Result<bool, StoreError> {
        match source {
            Source::Parts(OwnParts { steps, heads, text, .. }) => {
                let is = |key: &str, entry: Option<&Entry>| Ok(self.storage.entry(key)?.as_ref() == entry);
                all([is(&steps.0, Some(&steps.1)), is(&heads.0, Some(&heads.1)), is(&text.0, text.1.as_ref())])
            }
            Source::Pack(..) => Ok(true),
        }
    }

    /// Writes parts of a packed video into an index that is being made.
    fn write_own_parts(&self, index: &str, pack: &Pack, video: &PackedVideo) -> Result<(), StoreError> {
        let (heads, text) = (self.packed_heads(pack, video)?, self.packed_text(pack, video)?);
        self.write_parts(index, &self.packed_video(pack, video)?, Some(&heads), text.as_ref())
    }

    /// Writes parts of a video into an index that is being made.
    pub(super) fn write_parts(
        &self,
        index: &str,
        video: &VideoIndex,
        heads: Option<&Heads>,
        text: Option<&RecordBatch>,
    ) -> Result<(), StoreError> {
        let (steps, generation) = (self.steps_key(&video.record.video_id), &video.generation);
        let parquet = |source| StoreError::Parquet { path: self.storage.place(&steps), source };
        let write = |key: &str, contents: &[u8]| self.storage.write(&layout::in_index(key, index), contents);
        if let Some(text) = text {
            write(&layout::text_beside(&steps), &part::text_part(generation, text).map_err(parquet)?)?;
        }
        if let Some(heads) = heads {
            write(&layout::heads_beside(&steps), &part::heads_part(generation, heads).map_err(parquet)?)?;
        }
        write(&steps, &part::steps_part(video).map_err(parquet)?)
    }

    /// Puts an index in the place of the present one, in which some videos are elsewhere; `None` if one of them was
    /// committed meanwhile: it is busy.
    fn put_if_unchanged(
        &self,
        next: &str,
        moved: &[&Source],
        busy: &mut BTreeSet<String>,
    ) -> Result<Option<FormerIndex<'_>>, StoreError> {
        let removed = moved.iter().flat_map(|source| source.keys()).collect();
        self.put_index(next, &removed, &mut || {
            let before = busy.len();
            for source in moved {
                if !self.is_as_it_was(source)? {
                    busy.insert(source.video_id().to_owned());
                }
            }
            Ok(busy.len() == before)
        })
    }

    /// Puts an index in the place of the present one, with all that is there but the files that are removed, if it is
    /// still so that it can be.
    pub(super) fn put_index(
        &self,
        next: &str,
        removed: &BTreeSet<String>,
        is_ready: &mut dyn FnMut() -> Result<bool, StoreError>,
    ) -> Result<Option<FormerIndex<'_>>, StoreError> {
        let is_put = self.storage.exchange(next, layout::INDEX, &mut || {
            if !is_ready()? {
                return Ok(false);
            }
            // Nobody sets an index aside now: what is left of one must not be put back, whatever becomes of this one.
            for entry in self.storage.list("")?.iter().filter(|entry| layout::is_index_set_aside(&entry.name)) {
                self.storage.delete(&entry.name)?;
            }
            for table in layout::TABLES {
                if let Some(odd) = self.storage.entry(table)?.and_then(|entry| entry.kind.in_place_of_directory()) {
                    return Err(StoreError::damaged(self.storage.place(table), odd));
                }
            }
            // Others may be about to publish into a directory that is not there yet.
            for table in [layout::STEPS, layout::HEADS, layout::TEXT] {
                self.storage.make_directory(&layout::in_index(table, next))?;
            }
            self.link_rest(layout::INDEX, next, removed)?;
            Ok(true)
        });
        match is_put {
            Ok(true) => {
                let files = self.size_of_index(next).map_or(0, |(files, _)| files);
                let stays = LISTING + LISTING_A_FILE * u32::try_from(files).unwrap_or(u32::MAX);
                Ok(Some(FormerIndex { store: self, key: next.to_owned(), until: Instant::now() + stays }))
            }
            not_put => {
                self.remove_index(next);
                not_put.map(|_| None)
            }
        }
    }

    /// Removes an index that is not the present one. What cannot be removed is left to `gc`.
    pub(super) fn remove_index(&self, index: &str) {
        if let Err(error) = self.storage.delete(index) {
            tracing::debug!("{error}");
        }
    }

    /// Puts back the index that a process had set aside when it died, on a file system that cannot exchange
    /// directories.
    pub(crate) fn restore_index(&self) -> Result<(), StoreError> {
        if self.storage.entry(layout::INDEX)?.is_some() {
            return Ok(());
        }
        let names = self.storage.list("")?.into_iter().map(|entry| entry.name);
        // There is one at most.
        let Some(aside) = names.filter(|name| layout::is_index_set_aside(name)).max() else { return Ok(()) };
        let mut if_missing = |_| {
            let is_missing = self.storage.entry(layout::INDEX)?.is_none();
            Ok(is_missing.then(|| vec![(aside.clone(), layout::INDEX.to_owned())]))
        };
        self.storage.publish(1, &mut if_missing).map(drop)
    }

    /// Refuses to write into a store of which it cannot be told what is packed.
    pub(super) fn check_packs(&self) -> Result<(), StoreError> {
        self.of_one_index(|| self.check_packs_now())
    }

    fn check_packs_now(&self) -> Result<(), StoreError> {
        for (generation, tables) in self.files_of_packs()? {
            let needed = [Table::Records, Table::Steps, Table::Heads];
            if let Some(missing) = needed.into_iter().find(|table| !tables.contains(table)) {
                let key = layout::pack(missing.directory(), &generation);
                return Err(StoreError::damaged(self.storage.place(&key), MISSING));
            }
        }
        let packs = self.packs()?;
        if let Some(older) = with_videos_of_newer(&packs).first() {
            return Err(StoreError::damaged(self.storage.place(&older.key(Table::Steps)), PACKED_TWICE));
        }
        let own: HashSet<String> = self.part_files()?.parts.into_iter().map(|(key, _)| key).collect();
        let packed = packs.iter().flat_map(|pack| &pack.videos).map(|video| self.steps_key(&video.video_id));
        match packed.into_iter().find(|key| own.contains(key)) {
            Some(key) => Err(StoreError::damaged(self.storage.place(&key), TWICE)),
            None => Ok(()),
        }
    }

    /// Gives all files of the index but some a second key in another one, where parts have other names.
    fn link_rest(&self, directory: &str, next: &str, removed: &BTreeSet<String>) -> Result<(), StoreError> {
        for entry in self.storage.list(directory)? {
            let key = join(directory, &entry.name);
            match entry.kind {
                EntryKind::File if removed.contains(&key) => {}
                EntryKind::File => self.storage.link(&key, &layout::taken_over(&key, next))?,
                EntryKind::Directory => {
                    self.storage.make_directory(&layout::in_index(&key, next))?;
                    self.link_rest(&key, next, removed)?;
                }
                EntryKind::Link | EntryKind::Other => {
                    let odd = "a link, a pipe or a device, which packing would lose; move it out of the index";
                    return Err(StoreError::damaged(self.storage.place(&key), odd));
                }
            }
        }
        Ok(())
    }

    /// Files of the index, and their bytes.
    fn size_of_index(&self, directory: &str) -> Result<(u64, u64), StoreError> {
        let entries = self.storage.list(directory)?;
        entries.iter().try_fold((0, 0), |(files, bytes), entry| match entry.kind {
            EntryKind::Directory => {
                let below = self.size_of_index(&join(directory, &entry.name))?;
                Ok((files + below.0, bytes + below.1))
            }
            _ => Ok((files + 1, bytes + entry.bytes)),
        })
    }
}

/// The videos of a pack of so many bytes.
fn sources_of_pack(pack: &Arc<Pack>, bytes: u64) -> impl Iterator<Item = (Source, u64)> + '_ {
    let each = bytes / (pack.videos.len() as u64).max(1);
    pack.videos.iter().map(move |video| (Source::Pack(pack.clone(), video.clone()), each))
}

fn by_video((a, _): &(Source, u64), (b, _): &(Source, u64)) -> Ordering {
    a.video_id().cmp(b.video_id())
}

/// Slices of so many bytes and videos at most, but for single ones that are larger.
fn runs(sources: &[(Source, u64)], bytes: u64, videos: usize) -> Vec<&[(Source, u64)]> {
    let mut runs = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (at, (_, own)) in sources.iter().enumerate() {
        if at > start && (sum + own > bytes || at - start == videos) {
            runs.push(&sources[start..at]);
            (start, sum) = (at, 0);
        }
        sum += own;
    }
    if start < sources.len() {
        runs.push(&sources[start..]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::super::storage::Storage;
    use super::super::trial::{stores, values, written_of};
    use super::super::{Snapshot, StagedCommit, TextRow, text_batch};
    use super::*;

    const VIDEOS: [&str; 4] = ["_a", "b c", "d", "e"];

    /// Stages the next state of a video; of some, with rows of `text`.
    fn staged(store: &Store, video: &str, values: &[f32]) -> (VideoIndex, StagedCommit) {
        let (mut index, heads) = written_of(video, store, values);
        let text = |step: i32| TextRow {
            call: None,
            step,
            block: 0,
            head: 0,
            text_entropy: 1.0,
            sink_key: step,
            sink_mass: 1.0,
            sum_error: None,
        };
        index.record.has_text = video != "d";
        let rows: Vec<TextRow> = index.rows.iter().map(|row| text(row.step)).collect();
        let text = index.record.has_text.then(|| text_batch(video, &rows).unwrap());
        let base = store.committed(video).unwrap();
        let staged = store.stage(&index, &heads, text.as_ref(), base.as_deref()).unwrap();
        (index, staged)
    }

    /// Commits the next state of a video.
    fn commit(store: &Store, video: &str, values: &[f32]) -> VideoIndex {
        let (index, staged) = staged(store, video, values);
        assert_eq!(store.publish(&[staged]).unwrap(), [true]);
        index
    }

    type Told = Vec<(VideoIndex, Option<Heads>, Option<(String, arrow::array::RecordBatch)>, Vec<f32>)>;

    /// All that a store says.
    fn told(snapshot: &Snapshot) -> Told {
        let of_video = |video: VideoIndex| {
            let (heads, text) =
                (snapshot.read_heads(&video).unwrap(), snapshot.read_text(&video.record.video_id).unwrap());
            assert_eq!(snapshot.read_video(&video.record.video_id).unwrap().as_ref(), Some(&video));
            let values = values(snapshot, &video).unwrap();
            (video, heads, text, values)
        };
        snapshot.read_index().unwrap().into_iter().map(of_video).collect()
    }

    /// Names of the files of a table that readers see.
    fn files(storage: &dyn Storage, table: &str) -> Vec<String> {
        let mut names: Vec<String> = storage.list(table).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_packed_store_says_what_it_said_before() {
        for (store, storage, _dir) in stores() {
            for (number, video) in (1_u8..).zip(VIDEOS) {
                commit(&store, video, &[f32::from(number), 0.5]);
            }
            let before = told(&store.snapshot());
            assert_eq!(before.len(), VIDEOS.len());
            let packed = store.compact(&Silent).unwrap();
            assert_eq!((packed.videos, packed.packs, packed.files), (4, 1, [11, 4]));
            for table in layout::TABLES {
                let names = files(&*storage, table);
                assert!(names.len() == 1 && layout::name_of_pack(&names[0]).is_some(), "{names:?}");
            }
            for store in [&store, &Store::open_on(storage.clone()).unwrap()] {
                assert_eq!(told(&store.snapshot()), before);
                let snapshot = store.snapshot();
                let (index, faults) = snapshot.read_index_and_faults().unwrap();
                assert_eq!((index.len(), faults), (4, vec![]));
                assert_eq!(snapshot.heads_of(&snapshot.parts().unwrap()).unwrap().len(), 1);
                assert_eq!((store.garbage().unwrap(), store.left_out()), (vec![], vec![]));
                assert_eq!(snapshot.read_video("f").unwrap(), None);
                assert!(store.has_text("b c").unwrap() && !store.has_text("d").unwrap());
                assert_eq!(store.committed("d").unwrap(), Some(before[2].0.generation.clone()));
            }
            assert_eq!(store.compact(&Silent).unwrap().videos, 0);
            store.gc(&Silent).unwrap();
            assert_eq!(told(&store.snapshot()), before);
        }
    }

    /// Packs some videos, beside the packs that there are.
    fn pack_some(store: &Store, videos: &[&str]) {
        pack_while(store, videos, || ());
    }

    /// The same, and something else before they are there.
    fn pack_while(store: &Store, videos: &[&str], other: impl FnOnce()) {
        let mut own = store.own_parts(&BTreeSet::new()).unwrap();
        own.retain(|(source, _)| videos.contains(&source.video_id()));
        own.sort_by(by_video);
        let next = layout::next_index(&new_generation());
        let packed = store.write_packs(&next, &own, &Meter::new(&Silent, Unit::Bytes, 0)).unwrap().0;
        assert_eq!(packed.len(), videos.len());
        other();
        assert!(store.put_if_unchanged(&next, &packed, &mut BTreeSet::new()).unwrap().is_some());
    }

    /// A reader that has listed names, and looks at each after the index was exchanged, finds none of them: otherwise
    /// it would read a few files, and take these for all.
    #[test]
    fn no_file_of_an_index_has_the_name_of_one_of_the_former() {
        for (store, storage, _dir) in stores() {
            let _ = VIDEOS.map(|video| commit(&store, video, &[1.0]));
            let listed = || layout::TABLES.map(|table| BTreeSet::from_iter(files(&*storage, table)));
            // One pack has no text.
            pack_some(&store, &["b c", "e"]);
            pack_some(&store, &["_a"]);
            pack_some(&store, &["d"]);
            let mut before = listed();
            assert_eq!(before.each_ref().map(BTreeSet::len), [3, 3, 2, 3]);
            let mut is_another = |names: [usize; 4]| {
                let now = listed();
                assert!(before.iter().zip(&now).all(|(before, now)| before.is_disjoint(now)), "{before:?} {now:?}");
                assert_eq!(now.each_ref().map(BTreeSet::len), names);
                before = now;
            };
            // Out of one pack; the other ones stay.
            commit(&store, "e", &[2.0, 3.0]);
            is_another([4, 4, 3, 3]);
            let told_before = told(&store.snapshot());
            // Out of another one, which was its alone.
            commit(&store, "_a", &[2.0, 3.0]);
            is_another([4, 4, 3, 2]);
            assert_eq!(told(&store.snapshot())[1..], told_before[1..]);
            // Both at once, where one is packed.
            let both = ["d", "_a"].map(|video| staged(&store, video, &[9.0]).1);
            assert_eq!(store.publish(&both).unwrap(), [true; 2]);
            is_another([4, 4, 3, 1]);
            // What is committed meanwhile is taken over, and begun anew under its name.
            let mut before = BTreeSet::new();
            pack_while(&store, &["d"], || {
                commit(&store, "f", &[1.0]);
                before = BTreeSet::from_iter(files(&*storage, layout::STEPS));
            });
            is_another([5, 5, 4, 2]);
            assert!(before.is_disjoint(&BTreeSet::from_iter(files(&*storage, layout::STEPS))));
            commit(&store, "f", &[2.0, 3.0]);
            assert_eq!(files(&*storage, layout::STEPS).len(), 5);
            store.compact(&Silent).unwrap();
            is_another([1, 1, 1, 1]);
            assert_eq!(told(&store.snapshot()).len(), 5);
        }
    }

    /// Strangers' files do not tell which index there is.
    #[test]
    fn files_that_are_no_parts_of_an_index_hide_none_of_it() {
        let (store, storage, _dir) = stores().swap_remove(0);
        for video in VIDEOS {
            commit(&store, video, &[1.0]);
        }
        pack_some(&store, &["d"]);
        let before = told(&store.snapshot());
        let part = files(&*storage, layout::STEPS).into_iter().find(|name| name.starts_with("e@")).unwrap();
        let part = storage.get(&join(layout::STEPS, &part)).unwrap();
        for stray in ["a@b.parquet", "e@0000000000000000.parquet", "e (1)@ffffffffffffffff.parquet"] {
            storage.put(&join(layout::STEPS, stray), &part).unwrap();
        }
        let store = Store::open_on(storage).unwrap();
        assert_eq!(told(&store.snapshot()), before);
        assert_eq!(store.left_out().len(), 3);
    }

    /// Between staging and publishing, what a video's parts are called may change.
    #[test]
    fn what_was_staged_takes_the_name_that_there_is_now() {
        for (store, storage, _dir) in stores() {
            for video in VIDEOS {
                commit(&store, video, &[1.0]);
            }
            let before = told(&store.snapshot());
            let (index, staged) = staged(&store, "e", &[2.0]);
            pack_some(&store, &["d"]);
            assert_eq!(store.publish(&[staged]).unwrap(), [true]);
            assert_eq!(files(&*storage, layout::STEPS).len(), 4);
            assert_eq!(store.snapshot().read_video("e").unwrap(), Some(index));
            let (index, staged) = self::staged(&store, "e", &[3.0]);
            store.compact(&Silent).unwrap();
            assert_eq!(store.publish(&[staged]).unwrap(), [true]);
            assert_eq!(files(&*storage, layout::STEPS).len(), 2);
            let now = told(&store.snapshot());
            assert_eq!((&now[..3], &now[3].0), (&before[..3], &index));
            // But for the arrays of both commits before.
            assert_eq!((store.garbage().unwrap().len(), store.left_out()), (2, vec![]));
        }
    }

    #[test]
    fn a_packed_video_is_committed_anew_and_packed_again() {
        for (store, storage, _dir) in stores() {
            let _ = VIDEOS.map(|video| commit(&store, video, &[1.0]));
            store.compact(&Silent).unwrap();
            let before = told(&store.snapshot());
            let seen = store.snapshot();
            seen.read_index().unwrap();
            let new = commit(&store, "b c", &[2.0, 3.0]);
            assert_eq!(files(&*storage, layout::STEPS).len(), 2);
            // Of the state that was seen there is nothing any more; what is there is whole.
            assert!(matches!(seen.read_video("b c"), Err(StoreError::MovedOn { .. })));
            let (index, _) = store.of_one_state(Snapshot::read_index).unwrap();
            assert_eq!(
                index.iter().map(|video| &video.generation).collect::<Vec<_>>(),
                [&before[0].0.generation, &new.generation, &before[2].0.generation, &before[3].0.generation]
            );
            let between = told(&store.snapshot());
            assert_eq!((&between[0], &between[2..]), (&before[0], &before[2..]));
            let packed = store.compact(&Silent).unwrap();
            assert_eq!((packed.videos, files(&*storage, layout::STEPS).len()), (4, 1));
            assert_eq!(told(&store.snapshot()), between);
            // All at once, and the pack is gone.
            let news = VIDEOS.map(|video| written_of(video, &store, &[9.0]));
            let staged = news.each_ref().map(|(index, heads)| {
                let base = store.committed(&index.record.video_id).unwrap();
                store.stage(index, heads, None, base.as_deref()).unwrap()
            });
            assert_eq!(store.publish(&staged).unwrap(), [true; 4]);
            assert_eq!(files(&*storage, layout::RECORDS), [""; 0]);
            assert_eq!(store.snapshot().read_index().unwrap().len(), 4);
            assert!(storage.list("").unwrap().iter().all(|entry| !layout::is_next_index(&entry.name)));
        }
    }

    /// Whatever is flipped in a pack, nothing is read of it as if it were sound.
    #[test]
    fn a_flipped_bit_anywhere_in_a_pack_is_found() {
        let (store, storage, _dir) = stores().pop().unwrap();
        let _ = VIDEOS.map(|video| commit(&store, video, &[1.0, 2.0]));
        store.compact(&Silent).unwrap();
        let before = told(&store.snapshot());
        let packs: Vec<String> = layout::TABLES.iter().map(|table| join(table, &files(&*storage, table)[0])).collect();
        for key in packs {
            let sound = storage.get(&key).unwrap();
            for at in (0..sound.len()).step_by(7) {
                let mut flipped = sound.to_vec();
                flipped[at] ^= 1 << (at % 8);
                storage.put(&key, &flipped).unwrap();
                let store = Store::open_on(storage.clone()).unwrap();
                let (_, faults) = store.snapshot().read_index_and_faults().unwrap();
                assert!(faults.iter().any(|fault| fault.path == key), "byte {at} of {key}: {faults:?}");
                // What is read is sound, or there is an error.
                let snapshot = store.snapshot();
                for video in snapshot.read_index().unwrap_or_default() {
                    let expected = before.iter().find(|(sound, ..)| sound.generation == video.generation).unwrap();
                    assert_eq!(video, expected.0);
                    if let Ok(heads) = snapshot.read_heads(&video) {
                        assert_eq!(heads, expected.1);
                    }
                    if let Ok(text) = snapshot.read_text(&video.record.video_id) {
                        assert_eq!(text, expected.2);
                    }
                }
            }
            storage.put(&key, &sound).unwrap();
        }
    }

    #[test]
    fn of_a_damaged_pack_what_is_sound_is_kept() {
        let (mut without_heads, mut lost_by_name) = (0, 0);
        for table in layout::TABLES {
            let (store, storage, _dir) = stores().pop().unwrap();
            let _ = VIDEOS.map(|video| commit(&store, video, &[1.0, 2.0]));
            store.compact(&Silent).unwrap();
            let before = told(&store.snapshot());
            let packed: Vec<(String, bytes::Bytes)> = layout::TABLES
                .iter()
                .map(|table| join(table, &files(&*storage, table)[0]))
                .map(|key| (key.clone(), storage.get(&key).unwrap()))
                .collect();
            let key = join(table, &files(&*storage, table)[0]);
            let sound = storage.get(&key).unwrap();
            for at in (0..sound.len()).step_by(sound.len() / 40) {
                let mut flipped = sound.to_vec();
                flipped[at] ^= 1;
                storage.put(&key, &flipped).unwrap();
                let name = layout::name_of_pack(&key).unwrap();
                let salvaged = Store::open_on(storage.clone()).unwrap().salvage(name).unwrap();
                let aside = layout::in_index(&key, &salvaged.aside);
                assert_eq!(storage.get(&aside).unwrap(), flipped);
                let store = Store::open_on(storage.clone()).unwrap();
                let snapshot = store.snapshot();
                let index = snapshot.read_index().unwrap();
                let names = index.iter().map(|video| video.record.video_id.clone());
                let all: BTreeSet<String> = names.chain(salvaged.lost.keys().cloned()).collect();
                assert_eq!(all.iter().map(String::as_str).collect::<Vec<_>>(), VIDEOS, "{at} {table}");
                assert_eq!(all.len(), index.len() + salvaged.lost.len());
                for video in &index {
                    let expected = before.iter().find(|(sound, ..)| sound.generation == video.generation).unwrap();
                    assert_eq!(*video, expected.0);
                    let heads = snapshot.read_heads(video).unwrap();
                    without_heads += usize::from(heads.is_none());
                    assert!(heads.is_none() || heads == expected.1);
                    let text = snapshot.read_text(&video.record.video_id).unwrap();
                    assert!(text.is_none() || text == expected.2);
                }
                lost_by_name += salvaged.lost.len();
                assert_eq!((store.garbage().unwrap(), store.left_out()), (vec![], vec![]));
                // As it was, for the next byte.
                for table in layout::TABLES {
                    for name in files(&*storage, table) {
                        storage.delete(&join(table, &name)).unwrap();
                    }
                }
                storage.delete(layout::DAMAGED).unwrap();
                for (key, contents) in &packed {
                    storage.put(key, contents).unwrap();
                }
            }
        }
        assert!(without_heads > 0 && lost_by_name > 0, "{without_heads} {lost_by_name}");
    }

    #[test]
    fn where_a_record_of_packs_is_lost_nobody_writes() {
        for (store, storage, _dir) in stores() {
            let _ = VIDEOS.map(|video| commit(&store, video, &[1.0]));
            store.compact(&Silent).unwrap();
            let records = join(layout::RECORDS, &files(&*storage, layout::RECORDS)[0]);
            let sound = storage.get(&records).unwrap();
            storage.delete(&records).unwrap();
            let store = Store::open_on(storage.clone()).unwrap();
            assert!(store.lock_for_writing().err().unwrap().to_string().contains("index/records"));
            assert_eq!(store.garbage().unwrap(), []);
            let (_, faults) = store.snapshot().read_index_and_faults().unwrap();
            assert!(faults.iter().any(|fault| fault.path == records), "{faults:?}");
            storage.put(&records, &sound[..sound.len() / 2]).unwrap();
            assert!(Store::open_on(storage.clone()).unwrap().lock_for_writing().is_err());
            storage.put(&records, &sound).unwrap();
            Store::open_on(storage).unwrap().lock_for_writing().unwrap();
        }
    }

    #[test]
    fn what_was_set_aside_is_put_back() {
        let (store, storage, _dir) = stores().swap_remove(0);
        commit(&store, "d", &[1.0]);
        let before = told(&store.snapshot());
        let place = storage.place("");
        std::fs::rename(place.join("index"), place.join(".index.0123456789abcdef.old")).unwrap();
        store.lock_for_writing().unwrap();
        assert_eq!(told(&store.snapshot()), before);
        std::fs::rename(place.join("index"), place.join(".index.0123456789abcdef.old")).unwrap();
        store.gc(&Silent).unwrap();
        assert_eq!((told(&store.snapshot()), store.garbage().unwrap()), (before, vec![]));
    }

    #[test]
    fn videos_are_read_a_few_at_a_time() {
        let pack = Arc::new(Pack { name: String::new(), videos: Vec::new() });
        let source = |bytes: u64| (Source::Pack(pack.clone(), PackedVideo::default()), bytes);
        let sources: Vec<_> = [60, 60, 60, 10, 200, 1].into_iter().map(source).collect();
        let sizes = |most, videos| runs(&sources, most, videos).iter().map(|run| run.len()).collect::<Vec<_>>();
        assert_eq!(sizes(128, usize::MAX), [2, 2, 1, 1]);
        assert_eq!(sizes(u64::MAX, 4), [4, 2]);
        assert_eq!((sizes(1000, 100), runs(&[], 1, 1).len()), (vec![6], 0));
    }
}
