//! The store's promises, tried on every storage there is.

use std::sync::Arc;

use serde_json::json;

use super::storage::conformance::storages;
use super::storage::{Memory, Storage, join};
use super::*;
use crate::dtype::Dtype;
use crate::kernel::StepMeasurer;
use crate::progress::Silent;
use crate::provenance::Provenance;
use crate::shape::{AxisNumbers, StepShape};

const SHAPE: StepShape = StepShape { blocks: 2, heads: 3, spatial: 40, tokens: 1 };
const VIDEO: &str = "v";
const HEADS: &str = "index/heads/v.parquet";
const STEPS: &str = "index/steps/v.parquet";

/// A store in every storage, and what keeps its files.
pub(super) fn stores() -> Vec<(Store, Arc<dyn Storage>, Option<tempfile::TempDir>)> {
    let with_store = |(storage, dir): (Arc<dyn Storage>, Option<tempfile::TempDir>)| {
        (Store::create_on(storage.clone()).unwrap(), storage, dir)
    };
    storages().into_iter().map(with_store).collect()
}

/// The next commit of the video, of one word whose steps hold one value each; nothing of it is committed yet.
fn written(store: &Store, values: &[f32]) -> (VideoIndex, Heads) {
    written_of(VIDEO, store, values)
}

/// The same of another video.
pub(super) fn written_of(video: &str, store: &Store, values: &[f32]) -> (VideoIndex, Heads) {
    let layout = SeriesLayout {
        shape: SHAPE,
        dtype: Dtype::Float32,
        steps: values.len(),
        codec: Codec::Fast,
        rollups: Rollups::None,
    };
    let generation = store.create_generation(video, "word").unwrap();
    let mut shard = generation.shard(&layout, ArrayKind::Attention, 0).unwrap();
    let (numbers, mut rows, mut heads) = (AxisNumbers::default(), Vec::new(), Vec::new());
    for (step, &value) in (0..).zip(values) {
        let values = vec![value; SHAPE.len()];
        for chunk in values.chunks(layout.chunk_len(ArrayKind::Attention)) {
            shard.push(bytemuck::cast_slice(chunk)).unwrap();
        }
        let measured = StepMeasurer::new(SHAPE, None).measure(&values);
        heads.extend(measured.maps.iter().map(|map| HeadRow::new(step, SHAPE, &numbers, None, map)));
        rows.push(row(video, &generation, step));
    }
    shard.finish().unwrap();
    let steps: Vec<i32> = rows.iter().map(|row| row.step).collect();
    let timesteps = vec![f64::NAN; steps.len()];
    let coordinates = Coordinates { steps: &steps, timesteps: &timesteps, numbers: &numbers };
    let documents = generation.write_documents(&layout, json!({}), &coordinates).unwrap();
    let record = VideoRecord { video_id: video.into(), documents, ..VideoRecord::default() };
    let heads = Heads::from([("word".to_owned(), heads_batch(video, "word", &heads).unwrap())]);
    (VideoIndex { generation: new_generation(), record, rows }, heads)
}

fn row(video: &str, generation: &Generation, step: i32) -> StepRow {
    StepRow {
        video_id: video.into(),
        prompt_id: None,
        prompt: None,
        template: None,
        variation: None,
        seed: None,
        cfg_scale: None,
        token: "word".into(),
        token_ids: Vec::new(),
        token_texts: Vec::new(),
        weight: None,
        step,
        timestep: None,
        total_steps: None,
        aggregation_method: None,
        shape: SHAPE,
        numbers: AxisNumbers::default(),
        grid: None,
        dtype: Dtype::Float32,
        video_width: None,
        video_height: None,
        video_frames: None,
        threshold_applied: None,
        provenance: Provenance::default(),
        array: generation.attention(),
        row: u32::try_from(step).unwrap(),
        source: String::new(),
        source_bytes: 0,
        source_modified: 0,
        source_signature: String::new(),
        content_hash: String::new(),
        rounding: None,
    }
}

/// Commits the next state of the video, whatever is there.
fn commit(store: &Store, values: &[f32]) -> VideoIndex {
    let (index, heads) = written(store, values);
    let base = store.committed(VIDEO).unwrap();
    assert!(store.commit(&index, &heads, None, base.as_deref()).unwrap());
    index
}

/// The values of a video's steps, one of each.
pub(super) fn values(snapshot: &Snapshot, index: &VideoIndex) -> Result<Vec<f32>, StoreError> {
    let first = |row: &StepRow| {
        let step = snapshot.open_array(&row.array)?.read_step(row.row.into())?;
        Ok(bytemuck::pod_read_unaligned(&step[..4]))
    };
    index.rows.iter().map(first).collect()
}

#[test]
fn what_is_committed_is_read() {
    for (store, storage, _dir) in stores() {
        assert_eq!(store.snapshot().videos().unwrap(), [""; 0]);
        let index = commit(&store, &[1.0, 2.0]);
        let snapshot = Store::open_on(storage).unwrap().snapshot();
        assert_eq!(snapshot.read_video(VIDEO).unwrap().as_ref(), Some(&index));
        assert_eq!(snapshot.read_index().unwrap(), std::slice::from_ref(&index));
        assert_eq!(values(&snapshot, &index).unwrap(), [1.0, 2.0]);
        assert_eq!(snapshot.read_heads(&index).unwrap().unwrap()["word"].num_rows(), 12);
        assert_eq!(snapshot.read_video("w").unwrap(), None);
        assert_eq!(store.garbage().unwrap(), []);
        assert_eq!(snapshot.check_root(), None);
        assert_eq!(snapshot.check_video_documents(&index), []);
    }
}

#[test]
fn of_two_commits_on_one_base_the_first_counts() {
    for (store, storage, _dir) in stores() {
        let (first, second) = (written(&store, &[1.0]), written(&store, &[2.0]));
        assert!(store.commit(&first.0, &first.1, None, None).unwrap());
        assert!(!store.commit(&second.0, &second.1, None, None).unwrap());
        assert_eq!(store.snapshot().read_video(VIDEO).unwrap(), Some(first.0.clone()));
        let hidden = |entry: &storage::Entry| entry.name.starts_with('.');
        assert!(!storage.list(layout::STEPS).unwrap().iter().any(hidden));
        assert!(store.commit(&second.0, &second.1, None, Some(&first.0.generation)).unwrap());
    }
}

#[test]
fn a_commit_that_was_interrupted_is_a_writers_to_finish_and_no_readers() {
    for (store, storage, _dir) in stores() {
        let old = commit(&store, &[1.0]);
        let (old_heads, old_steps) = (storage.get(HEADS).unwrap(), storage.get(STEPS).unwrap());
        let new = commit(&store, &[1.0, 2.0]);
        let new_steps = storage.get(STEPS).unwrap();
        // As it is between the two parts.
        storage.write(&layout::staged_steps(VIDEO, &new.generation), &new_steps).unwrap();
        storage.put(STEPS, &old_steps).unwrap();

        let state = || [STEPS, HEADS].map(|key| storage.get(key).unwrap());
        let before = state();
        let snapshot = store.snapshot();
        assert_eq!(snapshot.read_video(VIDEO).unwrap(), Some(old.clone()));
        assert_eq!(snapshot.read_heads(&old).unwrap(), None);
        assert_eq!(snapshot.heads_of(&snapshot.parts().unwrap()).unwrap(), []);
        let left_out = snapshot.left_out();
        assert!(left_out.len() == 1 && left_out[0].1.contains(UNFINISHED), "{left_out:?}");
        assert_eq!(state(), before);

        // Arrays that a writer took back are named by nobody.
        let document = layout::document(&new.rows[0].array);
        let contents = storage.get(&document).unwrap();
        storage.delete(&document).unwrap();
        store.mend(VIDEO).unwrap();
        assert_eq!(state(), before);
        storage.put(&document, &contents).unwrap();
        store.mend(VIDEO).unwrap();
        assert_eq!(store.snapshot().read_video(VIDEO).unwrap().as_ref(), Some(&new));
        assert_eq!(store.snapshot().heads_of(&store.snapshot().parts().unwrap()).unwrap().len(), 1);
        // Where no part waits, nothing is to finish.
        storage.put(HEADS, &old_heads).unwrap();
        store.mend(VIDEO).unwrap();
        assert_eq!(store.snapshot().read_video(VIDEO).unwrap(), Some(new));
    }
}

#[test]
fn a_commit_of_three_parts_is_finished_wherever_it_was_interrupted() {
    const TEXT: &str = "index/text/v.parquet";
    let row = |step: i32| TextRow {
        call: None,
        step,
        block: 0,
        head: 0,
        text_entropy: 1.0,
        sink_key: 0,
        sink_mass: 1.0,
        sum_error: None,
    };
    for published in 0..=3 {
        for (store, storage, _dir) in stores() {
            let commit = |values: &[f32], base: Option<&str>| {
                let (index, heads) = written(&store, values);
                let rows: Vec<TextRow> = index.rows.iter().map(|of_step| row(of_step.step)).collect();
                let text = text_batch(VIDEO, &rows).unwrap();
                assert!(store.commit(&index, &heads, Some(&text), base).unwrap());
                (index, text)
            };
            let (old, old_text) = commit(&[1.0], None);
            let before = [TEXT, HEADS, STEPS].map(|key| storage.get(key).unwrap());
            let (new, new_text) = commit(&[1.0, 2.0], Some(&old.generation));
            let after = [TEXT, HEADS, STEPS].map(|key| storage.get(key).unwrap());
            let staged = [layout::staged_text, layout::staged_heads, layout::staged_steps];
            for part in published..3 {
                storage.put([TEXT, HEADS, STEPS][part], &before[part]).unwrap();
                storage.write(&staged[part](VIDEO, &new.generation), &after[part]).unwrap();
            }
            let snapshot = store.snapshot();
            let (of_commit, whole) = if published == 3 { (&new, 1) } else { (&old, usize::from(published == 0)) };
            assert_eq!(snapshot.read_video(VIDEO).unwrap().as_ref(), Some(of_commit));
            assert_eq!(snapshot.text_of(&snapshot.parts().unwrap()).unwrap().len(), whole, "{published}");

            store.mend(VIDEO).unwrap();
            let snapshot = store.snapshot();
            // Of one whose first part waits still, nothing is seen, and it is begun anew.
            let (expected, text) = if published == 0 { (old, old_text) } else { (new, new_text) };
            assert_eq!(snapshot.read_text(VIDEO).unwrap(), Some((expected.generation.clone(), text)));
            assert_eq!(snapshot.read_video(VIDEO).unwrap(), Some(expected));
            assert_eq!(snapshot.heads_of(&snapshot.parts().unwrap()).unwrap().len(), 1);
            store.gc(&Silent).unwrap();
            assert_eq!(store.garbage().unwrap(), []);
            assert!(storage.get(TEXT).is_ok());
        }
    }
}

#[test]
fn gc_finishes_what_was_interrupted_and_removes_what_no_commit_names() {
    for (store, storage, _dir) in stores() {
        let old = commit(&store, &[1.0]);
        let old_steps = storage.get(STEPS).unwrap();
        let new = commit(&store, &[2.0]);
        storage.write(&layout::staged_steps(VIDEO, &new.generation), &storage.get(STEPS).unwrap()).unwrap();
        storage.put(STEPS, &old_steps).unwrap();
        let begun = written(&store, &[3.0]).0;
        storage.write("index/heads/.v.0.heads", b"begun").unwrap();

        let writer = store.lock_for_writing().unwrap();
        assert!(matches!(store.gc(&Silent), Err(StoreError::Busy { .. })));
        drop(writer);
        let removed: Vec<PathBuf> = store.gc(&Silent).unwrap().into_iter().map(|garbage| garbage.path).collect();
        let series = |index: &VideoIndex| storage.place(index.rows[0].series_path());
        let mut expected = vec![storage.place("index/heads/.v.0.heads"), series(&old), series(&begun)];
        expected.sort();
        assert_eq!(removed, expected);
        let snapshot = store.snapshot();
        assert_eq!(values(&snapshot, &snapshot.read_video(VIDEO).unwrap().unwrap()).unwrap(), [2.0]);
    }
}

#[test]
fn a_snapshot_is_of_one_state_and_says_when_that_is_gone() {
    for (store, _, _dir) in stores() {
        let old = commit(&store, &[1.0, 2.0]);
        let (snapshot, late) = (store.snapshot(), store.snapshot());
        let parts = snapshot.parts().unwrap();
        assert_eq!(late.read_video(VIDEO).unwrap().as_ref(), Some(&old));

        let new = commit(&store, &[3.0]);
        // The arrays of the state are still there; its tables are not.
        assert_eq!(values(&snapshot, &old).unwrap(), [1.0, 2.0]);
        let moved_on = |error: StoreError| {
            assert!(matches!(error, StoreError::MovedOn { .. }), "{error}");
        };
        moved_on(snapshot.read_video(VIDEO).unwrap_err());
        moved_on(snapshot.read_index().unwrap_err());
        // For those who only look up names and places, what is there now will do.
        assert_eq!(snapshot.readable().unwrap(), std::slice::from_ref(&new));
        assert_eq!(store.of_one_state(Snapshot::read_index).unwrap().0, std::slice::from_ref(&new));
        moved_on(snapshot.heads_of(&parts).unwrap_err());
        moved_on(late.parts().unwrap_err());
        #[cfg(feature = "query")]
        moved_on(snapshot.columns(&parts[0], &steps_schema()).err().unwrap());

        store.gc(&Silent).unwrap();
        // What is open is read as it was; what is opened is not there.
        assert_eq!(values(&snapshot, &old).unwrap(), [1.0, 2.0]);
        moved_on(values(&late, &old).unwrap_err());
        assert_eq!(values(&store.snapshot(), &new).unwrap(), [3.0]);
    }
}

#[test]
fn an_array_that_is_missing_though_it_is_committed_is_damage() {
    for (store, storage, _dir) in stores() {
        let index = commit(&store, &[1.0, 2.0]);
        let array = &index.rows[0].array;
        storage.delete(&join(array, "c.0.0.0.0.0")).unwrap();
        let error = values(&store.snapshot(), &index).unwrap_err();
        assert!(matches!(error, StoreError::Array { .. }) && error.to_string().contains("missing"), "{error}");
        storage.delete(array).unwrap();
        let error = values(&store.snapshot(), &index).unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
}

#[test]
fn one_damaged_part_is_left_out_and_named() {
    for (store, storage, _dir) in stores() {
        commit(&store, &[1.0]);
        let part = storage.get(STEPS).unwrap();
        storage.put("index/steps/w.parquet", &part).unwrap();
        storage.put("index/steps/X.parquet", &part).unwrap();
        let snapshot = store.snapshot();
        assert_eq!(snapshot.videos().unwrap(), [VIDEO]);
        let named: Vec<PathBuf> = snapshot.left_out().into_iter().map(|(path, _)| path).collect();
        assert_eq!(named, ["index/steps/X.parquet", "index/steps/w.parquet"].map(|key| storage.place(key)));
        let mut flipped = part.to_vec();
        flipped[part.len() / 2] ^= 1;
        storage.put(STEPS, &flipped).unwrap();
        assert_eq!(store.snapshot().videos().unwrap(), [""; 0]);
        assert!(store.snapshot().read_video(VIDEO).is_err());
        // It is looked at again once it is another.
        storage.put(STEPS, &part).unwrap();
        assert_eq!(store.snapshot().videos().unwrap(), [VIDEO]);
    }
}

#[test]
fn a_place_with_other_things_in_it_is_no_room_for_a_store() {
    for (storage, _dir) in storages() {
        assert!(matches!(Store::open_on(storage.clone()), Err(StoreError::NotAStore { .. })));
        storage.put("thesis.tex", b"").unwrap();
        assert!(matches!(Store::create_on(storage.clone()), Err(StoreError::NotAStore { .. })));
        storage.delete("thesis.tex").unwrap();
        storage.put(".zarr.json.0123", b"begun by another").unwrap();
        Store::create_on(storage.clone()).unwrap();
        Store::open_on(storage).unwrap();
    }
    assert!(matches!(Store::open_on(Arc::new(Memory::new())), Err(StoreError::NotAStore { .. })));
}

#[cfg(unix)]
#[test]
fn nothing_is_written_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (place, outside) = (dir.path().join("store"), dir.path().join("outside"));
    let store = Store::create(&place).unwrap();
    commit(&store, &[1.0]);
    std::fs::rename(place.join("maps/v"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, place.join("maps/v")).unwrap();
    assert!(store.create_generation(VIDEO, "word").is_err());
}
