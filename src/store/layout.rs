//! Where things are in a store: the only place that builds keys. A key is the path of a file below the store, with `/`,
//! as tables and documents name it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::names::{encode_name, encode_name_plainly};
use super::storage::join;

/// The arrays, video by video.
pub const MAPS: &str = "maps";
/// The tables.
pub const INDEX: &str = "index";
/// The parts of `steps`: what is committed.
pub const STEPS: &str = "index/steps";
/// The parts of `heads`.
pub const HEADS: &str = "index/heads";
/// The parts of `text`, of videos that have one.
pub const TEXT: &str = "index/text";
/// What is known of packed videos beside their rows.
pub const RECORDS: &str = "index/records";
/// The directories of the tables.
pub const TABLES: [&str; 4] = [STEPS, HEADS, TEXT, RECORDS];
/// What the name of a pack begins with: that of no video does.
const PACK: &str = "pack~~";
/// What the name of a part ends with.
const PART: &str = ".parquet";
/// Where parts wait until they are published.
pub const STAGED: &str = ".staged";
/// What the name of an index begins with that is to take the place of the present one.
const NEXT_INDEX: &str = ".index.";
/// Packs that were damaged and are taken apart.
pub const DAMAGED: &str = "damaged";
/// What writers lock.
pub const WRITERS: &str = ".writers";
/// The name of every document.
pub const DOCUMENT: &str = "zarr.json";

/// The document of a group or an array.
pub fn document(of: &str) -> String {
    join(of, DOCUMENT)
}

/// Where a video's arrays are: its key, and that which earlier versions gave it, if that is another.
pub fn video(video_id: &str) -> Names {
    Names::of(MAPS, video_id)
}

/// The names that the `steps` part of a video can have, the one first that it is given today: that, with the
/// generation of the index that it was taken over into, and the same of earlier versions.
pub fn steps_parts(video_id: &str, index: Option<&str>) -> Vec<String> {
    let Names { now, before } = Names::of(STEPS, video_id);
    [now].into_iter().chain(before).flat_map(|name| steps_parts_of(&name, index)).collect()
}

/// The same by the key without its extension.
fn steps_parts_of(name: &str, index: Option<&str>) -> impl Iterator<Item = String> + use<> {
    [Some(format!("{name}{PART}")), index.map(|index| taken_into(name, index))].into_iter().flatten()
}

/// The `heads` part beside a `steps` part.
pub fn heads_beside(steps_part: &str) -> String {
    join(HEADS, super::storage::split(steps_part).1)
}

/// The `text` part beside a `steps` part.
pub fn text_beside(steps_part: &str) -> String {
    join(TEXT, super::storage::split(steps_part).1)
}

/// Where the `steps` part of a commit waits until it is published.
pub fn staged_steps(video_id: &str, generation: &str) -> String {
    staged(video_id, generation, "steps")
}

/// Where the `heads` part of a commit waits until it is published.
pub fn staged_heads(video_id: &str, generation: &str) -> String {
    staged(video_id, generation, "heads")
}

/// Where the `text` part of a commit waits until it is published.
pub fn staged_text(video_id: &str, generation: &str) -> String {
    staged(video_id, generation, "text")
}

fn staged(video_id: &str, generation: &str, table: &str) -> String {
    join(STAGED, &format!("{}.{generation}.{table}", encode_name(video_id)))
}

/// Whether what waits to be published is a `steps` part.
pub fn is_staged_steps(key: &str) -> bool {
    key.ends_with(".steps")
}

/// The part of a table of a pack with a name.
pub fn pack(table: &str, name: &str) -> String {
    join(table, &format!("{PACK}{name}{PART}"))
}

/// The name of a pack, in that of a part; `None` if it is none of a pack's.
pub fn name_of_pack(part: &str) -> Option<&str> {
    let name = super::storage::split(part).1.strip_prefix(PACK)?.strip_suffix(PART)?;
    let (generation, index) = without_index(name);
    (is_generation(generation) && index.is_none_or(is_generation)).then_some(name)
}

/// What a part is called, and the generation of the index that it was taken over into, if it was.
fn without_index(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(name, index)| (name, Some(index)))
}

fn is_generation(digits: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == 16 && digits.bytes().all(is_digit)
}

/// The generation of a pack with a name.
pub fn generation_of_pack(name: &str) -> &str {
    without_index(name).0
}

/// The encoded name of the video that a part is of; `None` if it is no part of a single one.
pub fn video_of_part(part: &str) -> Option<&str> {
    let name = super::storage::split(part).1.strip_suffix(PART)?;
    let (name, index) = without_index(name);
    (super::names::is_encoded(name) && index.is_none_or(is_generation)).then_some(name)
}

fn is_part(key: &str) -> bool {
    name_of_pack(key).is_some() || video_of_part(key).is_some()
}

/// The index that a part was taken over into, if it was there before that.
pub fn index_of_part(part: &str) -> Option<&str> {
    let name = part.strip_suffix(PART).filter(|_| is_part(part))?;
    without_index(super::storage::split(name).1).1
}

/// The key that a part has in an index that is to take the place of the one in which it has another; of another file,
/// the same but for that of the index.
pub fn taken_over(part: &str, index: &str) -> String {
    let generation = index.strip_prefix(NEXT_INDEX).unwrap_or(index);
    let name = part.strip_suffix(PART).filter(|_| is_part(part)).map(|name| without_index(name).0);
    in_index(&name.map_or_else(|| part.to_owned(), |name| taken_into(name, generation)), index)
}

/// The key of a part, without its extension, that was taken over into an index.
fn taken_into(name: &str, generation: &str) -> String {
    format!("{name}@{generation}{PART}")
}

/// Where an index is made that is to take the place of the present one.
pub fn next_index(generation: &str) -> String {
    format!("{NEXT_INDEX}{generation}")
}

/// Whether something in the root is an index that was to take the place of the present one, or has had its.
pub fn is_next_index(name: &str) -> bool {
    name.starts_with(NEXT_INDEX)
}

/// Whether it is an index that was there, set aside for a moment.
pub fn is_index_set_aside(name: &str) -> bool {
    is_next_index(name) && name.ends_with(".old")
}

/// A key of the present index in another one.
pub fn in_index(key: &str, index: &str) -> String {
    key.strip_prefix(INDEX).map_or_else(|| key.to_owned(), |below| format!("{index}{below}"))
}

/// Directory of a word's arrays in that of its video.
pub fn series(video: &str, token: &str, generation: &str) -> String {
    join(video, &format!("{}@{generation}", encode_name(token)))
}

/// Of the video that a word's arrays belong to: what its `steps` part may be called, and where its arrays are.
pub fn video_of_series<'a>(series: &'a str, index: Option<&str>) -> Option<(Vec<String>, &'a str)> {
    let (video, _) = series.strip_prefix(MAPS)?.strip_prefix('/')?.split_once('/')?;
    Some((steps_parts_of(&join(STEPS, video), index).collect(), series.get(..MAPS.len() + 1 + video.len())?))
}

/// The keys that something of a video can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The one that is given today.
    pub now: String,
    /// The one that earlier versions gave; where a store has it, it stays.
    pub before: Option<String>,
}

impl Names {
    fn of(directory: &str, video_id: &str) -> Self {
        let now = join(directory, &encode_name(video_id));
        let before = || join(directory, &encode_name_plainly(video_id));
        Self { now, before: video_id.starts_with('_').then(before) }
    }
}

/// A new generation: 11 hexadecimal digits of time, 5 at random.
pub fn new_generation() -> String {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    format!("{:011x}{:05x}", millis & 0xFFF_FFFF_FFFF, fastrand::u32(..1 << 20))
}
