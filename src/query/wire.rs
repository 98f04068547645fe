//! Tasks, and what they leave, as bytes for another process.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::task::{Folded, Partial, Piece, Placed, Portion, Reduction, Task, in_chunk};
use crate::dtype::Dtype;
use crate::error::Cause;
use crate::kernel::{Accumulator, Reducer};
use crate::message::{Kind, MessageError};
use crate::store::ArrayKind;

/// What a task's bytes may become: far more than a bundle has.
const LARGEST_TASK: u64 = 128 << 20;
/// So many chunks of the smallest maps are a portion; nothing else is there more often.
const MOST: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskHead {
    plan: Hex,
    first: u32,
    /// Bytes of the portions, before they are compressed.
    bytes: u64,
}

/// Portions, with what they share written once.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Portions {
    #[serde(deserialize_with = "countable")]
    arrays: Vec<Arc<str>>,
    #[serde(deserialize_with = "countable")]
    placed: Vec<Arc<[Placed]>>,
    #[serde(deserialize_with = "countable")]
    groups: Vec<Arc<[u32]>>,
    #[serde(deserialize_with = "countable")]
    sent: Vec<SentPortion>,
}

/// A list of [`MOST`] at most: an empty list in it is two characters, and some dozen bytes in memory.
fn countable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(list: D) -> Result<Vec<T>, D::Error> {
    struct Countable<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Countable<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of {MOST} at most")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some(one) = list.next_element()? {
                if found.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                found.push(one);
            }
            Ok(found)
        }
    }

    list.deserialize_seq(Countable(PhantomData))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentPortion {
    array: usize,
    kind: ArrayKind,
    dtype: Dtype,
    spatial: usize,
    tokens: usize,
    maps_per_chunk: usize,
    weight: u32,
    positions: Range<usize>,
    reduction: Reduction,
    placed: usize,
    /// Row, chunk, groups.
    pieces: Vec<(u32, u32, usize)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartialHead {
    plan: Hex,
    portions: Range<u32>,
    positions: Range<usize>,
    reducer: Reducer,
    skipna: bool,
    groups: Vec<u32>,
}

/// 128 bits, as JSON has them: it has no numbers of so many.
#[derive(Serialize, Deserialize)]
struct Hex(String);

impl Hex {
    fn of(number: u128) -> Self {
        Self(format!("{number:032x}"))
    }

    fn number(&self, kind: Kind) -> Result<u128, MessageError> {
        u128::from_str_radix(&self.0, 16).map_err(|error| kind.damaged(error))
    }
}

/// What was met already, each under the number that it got.
struct Known<'a, T: ?Sized> {
    numbers: HashMap<*const T, usize>,
    all: &'a mut Vec<Arc<T>>,
}

impl<'a, T: ?Sized> Known<'a, T> {
    fn new(all: &'a mut Vec<Arc<T>>) -> Self {
        Self { numbers: HashMap::new(), all }
    }

    fn number(&mut self, one: &Arc<T>) -> usize {
        *self.numbers.entry(Arc::as_ptr(one)).or_insert_with(|| {
            self.all.push(one.clone());
            self.all.len() - 1
        })
    }
}

impl Portions {
    fn of(portions: &[Portion]) -> Self {
        let mut all = Self::default();
        let (mut arrays, mut placed, mut groups) =
            (Known::new(&mut all.arrays), Known::new(&mut all.placed), Known::new(&mut all.groups));
        let sent = portions.iter().map(|portion| SentPortion {
            array: arrays.number(&portion.array),
            kind: portion.kind,
            dtype: portion.dtype,
            spatial: portion.spatial,
            tokens: portion.tokens,
            maps_per_chunk: portion.maps_per_chunk,
            weight: portion.weight,
            positions: portion.positions.clone(),
            reduction: portion.reduction,
            placed: placed.number(&portion.placed),
            pieces: portion.pieces.iter().map(|piece| (piece.row, piece.chunk, groups.number(&piece.groups))).collect(),
        });
        all.sent = sent.collect();
        all
    }

    /// The portions; `None` if they name what is not there.
    fn received(self) -> Option<Vec<Portion>> {
        let Self { arrays, placed, groups, sent } = self;
        let received = |sent: SentPortion| {
            let pieces = sent.pieces.into_iter().map(|(row, chunk, of)| {
                let groups = groups.get(of)?.clone();
                Some(Piece { row, chunk, groups })
            });
            Some(Portion {
                array: arrays.get(sent.array)?.clone(),
                kind: sent.kind,
                dtype: sent.dtype,
                spatial: sent.spatial,
                tokens: sent.tokens,
                maps_per_chunk: sent.maps_per_chunk,
                weight: sent.weight,
                positions: sent.positions,
                reduction: sent.reduction,
                placed: placed.get(sent.placed)?.clone(),
                pieces: pieces.collect::<Option<_>>()?,
            })
        };
        sent.into_iter().map(received).collect()
    }
}

/// Whether a portion can be run: nothing that it names lies outside of what it says it is of.
fn is_sound(portion: &Portion) -> bool {
    let Portion { spatial, tokens, maps_per_chunk, positions, placed, pieces, .. } = portion;
    let elements = spatial.checked_mul(*tokens).and_then(|map| map.checked_mul(*maps_per_chunk));
    let bytes = elements.and_then(|elements| elements.checked_mul(portion.dtype.size()));
    bytes.is_some_and(|bytes| bytes > 0 && bytes.checked_mul(pieces.len().max(1)).is_some())
        && positions.start <= positions.end
        && positions.end <= *spatial
        && placed.is_sorted_by_key(|placed| placed.map)
        && placed.iter().all(|placed| (placed.token as usize) < *tokens)
        && pieces.iter().all(|piece| {
            let is_countable = (piece.chunk as usize + 1).checked_mul(*maps_per_chunk).is_some();
            let of_chunk = || in_chunk(placed, piece.chunk, *maps_per_chunk);
            is_countable && of_chunk().iter().all(|placed| (placed.local as usize) < piece.groups.len())
        })
}

impl Task {
    /// As bytes: some kB.
    ///
    /// # Errors
    /// If it is too large to be sent, which no task of a plan is.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MessageError> {
        let portions =
            serde_json::to_vec(&Portions::of(&self.portions)).map_err(|error| Kind::Task.unsendable(error))?;
        let bytes = portions.len() as u64;
        if bytes > LARGEST_TASK {
            return Err(Kind::Task.unsendable(format!("it has {bytes} bytes; {LARGEST_TASK} are the most")));
        }
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
        let packed = packed.write_all(&portions).and_then(|()| packed.finish());
        let packed = packed.map_err(|error| Kind::Task.unsendable(error))?;
        Kind::Task.to_bytes(&TaskHead { plan: Hex::of(self.plan), first: self.first, bytes }, &packed)
    }

    /// Of bytes.
    ///
    /// # Errors
    /// If these are no task's, or one of another version of attnkit, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let damaged = |found: Cause| Kind::Task.damaged(found);
        let (head, packed): (TaskHead, _) = Kind::Task.of_bytes(bytes)?;
        if head.bytes > LARGEST_TASK {
            return Err(damaged(format!("it has {} bytes; {LARGEST_TASK} are the most", head.bytes).into()));
        }
        let mut json = Vec::new();
        let mut unpacked = DeflateDecoder::new(packed).take(head.bytes + 1);
        unpacked.read_to_end(&mut json).map_err(|error| damaged(error.into()))?;
        if json.len() as u64 != head.bytes || unpacked.get_ref().total_in() != packed.len() as u64 {
            return Err(damaged("it is of another length than it says".into()));
        }
        let portions: Portions = serde_json::from_slice(&json).map_err(|error| damaged(error.into()))?;
        let portions = portions.received().filter(|portions| portions.iter().all(is_sound));
        let portions = portions.ok_or_else(|| damaged("it names what it does not have".into()))?;
        let is_one_range = portions.windows(2).all(|pair| pair[0].positions == pair[1].positions);
        let is_counted = u32::try_from(portions.len()).is_ok_and(|len| head.first.checked_add(len).is_some());
        if !is_one_range || !is_counted {
            return Err(damaged("its portions do not belong together".into()));
        }
        Ok(Self { plan: head.plan.number(Kind::Task)?, first: head.first, portions })
    }
}

impl Partial {
    /// As bytes.
    ///
    /// # Errors
    /// Never, in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MessageError> {
        let Folded { positions, groups } = &self.folded;
        let (reducer, skipna) = groups.first().map_or((Reducer::Mean, false), |(_, folded)| folded.manner());
        let head = PartialHead {
            plan: Hex::of(self.plan),
            portions: self.portions.clone(),
            positions: positions.clone(),
            reducer,
            skipna,
            groups: groups.iter().map(|(group, _)| *group).collect(),
        };
        let mut tail = Vec::new();
        for (_, folded) in groups {
            folded.write_to(&mut tail);
        }
        Kind::Partial.to_bytes(&head, &tail)
    }

    /// Of bytes.
    ///
    /// # Errors
    /// If these are not what a task leaves, or of another version of attnkit, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let (head, mut tail): (PartialHead, _) = Kind::Partial.of_bytes(bytes)?;
        let positions = head.positions.len();
        let mut groups = Vec::new();
        for group in head.groups {
            let (folded, rest) = Accumulator::read_from(tail, head.reducer, head.skipna, positions)
                .ok_or_else(|| Kind::Partial.damaged("it is cut off, or counts more values than maps"))?;
            groups.push((group, folded));
            tail = rest;
        }
        if !tail.is_empty() {
            return Err(Kind::Partial.damaged("it has more than it says"));
        }
        let plan = head.plan.number(Kind::Partial)?;
        Ok(Self { plan, portions: head.portions, folded: Folded { positions: head.positions, groups } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cut::Bounds;
    use super::super::key::Key;
    use super::super::selection::{Maps, SelectedStep};
    use super::super::work::{Arrays, Work};
    use super::*;
    use crate::grid::Grid;
    use crate::shape::{AxisNumbers, StepShape};
    use crate::store::StoreError;

    fn task() -> Task {
        let placed: Arc<[Placed]> =
            [Placed { map: 0, token: 0, local: 0 }, Placed { map: 1, token: 0, local: 1 }].into();
        let groups: Arc<[u32]> = [4, 5].into();
        let piece = |row| Piece { row, chunk: 0, groups: groups.clone() };
        let portion = Portion {
            array: "maps/v/w@1/attention".into(),
            kind: ArrayKind::Attention,
            dtype: Dtype::Float16,
            spatial: 24,
            tokens: 1,
            maps_per_chunk: 2,
            weight: 1,
            positions: 0..24,
            reduction: Reduction::default(),
            placed: placed.clone(),
            pieces: vec![piece(0), piece(1)],
        };
        let later = Portion { pieces: vec![piece(2)], ..portion.clone() };
        Task { plan: u128::MAX - 3, first: 7, portions: vec![portion, later] }
    }

    #[test]
    fn what_a_task_names_and_does_not_have_is_found() {
        assert_eq!(Task::from_bytes(&task().to_bytes().unwrap()).unwrap(), task());
        let changes: [fn(&mut Portion); 9] = [
            |portion| portion.tokens = 0,
            |portion| portion.spatial = usize::MAX,
            |portion| portion.maps_per_chunk = usize::MAX / 24,
            |portion| portion.positions = 0..25,
            |portion| portion.positions = Range { start: 5, end: 4 },
            |portion| portion.placed = [Placed { map: 1, token: 0, local: 2 }].into(),
            |portion| portion.placed = [Placed { map: 1, token: 1, local: 0 }].into(),
            |portion| portion.placed = portion.placed.iter().copied().rev().collect(),
            |portion| portion.pieces[0].groups = [].into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut task = task();
            change(&mut task.portions[0]);
            let error = Task::from_bytes(&task.to_bytes().unwrap()).unwrap_err().to_string();
            assert!(error.contains("does not have"), "{number}: {error}");
        }
        let mut apart = task();
        apart.portions[1].positions = 0..3;
        let uncounted = Task { first: u32::MAX, ..task() };
        for task in [apart, uncounted] {
            let error = Task::from_bytes(&task.to_bytes().unwrap()).unwrap_err().to_string();
            assert!(error.contains("belong together"), "{error}");
        }
    }

    #[test]
    fn a_task_is_no_larger_than_it_says_and_has_no_more_lists_than_chunks() {
        let packed = |json: &[u8]| {
            let mut packed = DeflateEncoder::new(Vec::new(), Compression::best());
            packed.write_all(json).unwrap();
            packed.finish().unwrap()
        };
        let of = |bytes: u64, json: &[u8]| {
            let head = TaskHead { plan: Hex::of(1), first: 0, bytes };
            Task::from_bytes(&Kind::Task.to_bytes(&head, &packed(json)).unwrap()).unwrap_err().to_string()
        };
        let spaces = vec![b' '; 1 << 20];
        assert!(of(10, &spaces).contains("another length"));
        assert!(of(1 << 21, &spaces).contains("another length"));
        assert!(of(u64::MAX, &spaces).contains("are the most"));
        let many = |lists: usize| {
            let groups = vec!["[]"; lists].join(",");
            let json = format!(r#"{{"arrays":[],"placed":[],"groups":[{groups}],"sent":[]}}"#);
            of(json.len() as u64, json.as_bytes())
        };
        assert!(many(MOST + 1).contains("expected a list of 1048576 at most"), "{}", many(MOST + 1));
        let head = TaskHead { plan: Hex::of(1), first: 0, bytes: 2 };
        let more = [packed(b"{}"), vec![0]].concat();
        let error = Task::from_bytes(&Kind::Task.to_bytes(&head, &more).unwrap()).unwrap_err().to_string();
        assert!(error.contains("another length"), "{error}");
    }

    proptest! {
        #[test]
        fn changed_bytes_are_found(
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
            end in any::<prop::sample::Index>(),
        ) {
            let partial = Partial {
                plan: 3,
                portions: 2..5,
                folded: Folded { positions: 0..4, groups: vec![(1, Accumulator::new(Reducer::Std, true, 4))] },
            };
            let bytes = partial.to_bytes().unwrap();
            prop_assert_eq!(Partial::from_bytes(&bytes).unwrap(), partial);
            for bytes in [bytes, task().to_bytes().unwrap()] {
                let mut changed = bytes.clone();
                changed[at.index(bytes.len())] ^= 1 << bit;
                let cut_off = &bytes[..end.index(bytes.len())];
                prop_assert!(Task::from_bytes(&changed).is_err() && Partial::from_bytes(&changed).is_err());
                prop_assert!(Task::from_bytes(cut_off).is_err() && Partial::from_bytes(cut_off).is_err());
            }
        }
    }

    /// Full detail of WAN 2.1 1.3B, without rollups: 12 heads a block, of which a chunk holds 6.
    struct Full;

    const FULL: StepShape = StepShape { blocks: 30, heads: 12, spatial: 23_850, tokens: 1 };

    impl Arrays for Full {
        fn chunks_of_step(&self, _: &SelectedStep, kind: ArrayKind) -> Result<(usize, usize), StoreError> {
            assert_eq!(kind, ArrayKind::Attention);
            Ok((60, 6 * FULL.spatial))
        }

        fn has(&self, _: &str) -> bool {
            false
        }

        fn damaged(&self, path: &str, found: String) -> StoreError {
            panic!("{path}: {found}")
        }
    }

    #[test]
    fn a_question_over_430_gb_is_some_thousand_tasks_of_some_kb() {
        let step = |video: &Arc<str>, token: &Arc<str>, array: &Arc<str>, step: u32| SelectedStep {
            video_id: video.clone(),
            prompt: None,
            text: None,
            seed: None,
            token: token.clone(),
            weight: None,
            step: step.try_into().unwrap(),
            timestep: None,
            shape: FULL,
            numbers: Arc::new(AxisNumbers::default()),
            grid: Some(Grid { frames: 15, height: 30, width: 53 }),
            dtype: Dtype::Float16,
            array: array.clone(),
            row: step,
            maps: Maps::All,
        };
        let mut steps = Vec::new();
        for video in 0..100 {
            let video: Arc<str> = format!("prompt_{video:03}_vid001").into();
            for token in 0..5 {
                let token: Arc<str> = format!("word {token}").into();
                let array = format!("maps/{video}/{token}@0123456789abcdef/attention").into();
                steps.extend((0..50).map(|number| step(&video, &token, &array, number)));
            }
        }
        for keys in [
            &[][..],
            &[Key::Token, Key::Step],
            &[Key::Video, Key::Token, Key::TokenIndex, Key::Step],
            &[Key::Block, Key::Head],
        ] {
            let work = Work::plan(&Full, &steps, keys, Reduction::default(), &Bounds::default()).unwrap();
            assert_eq!(work.decoded_bytes(), 25_000 * 60 * 6 * 23_850 * 2);
            assert!(work.bundles.len() < 2000, "{keys:?}: {} tasks", work.bundles.len());
            let largest = work.bundles.iter().step_by(50).map(|bundle| {
                let task = Task { plan: 1, first: 0, portions: work.portions[bundle.clone()].to_vec() };
                task.to_bytes().unwrap().len()
            });
            let largest = largest.max().unwrap();
            assert!(largest < 10_000, "{keys:?}: {largest} bytes");
        }
    }
}
