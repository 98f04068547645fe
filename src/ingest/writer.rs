//! Writing a store step by step while a video is generated, with no dump in between. Every step is a commit of its own:
//! what `append` has returned from is in the store, whatever happens to the process afterwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::WriteError;
use super::commit::{WrittenSeries, stage_video};
use super::options::IngestOptions;
use super::plan::Committed;
use super::series::{SeriesTarget, SeriesWriter, describe_row};
use super::transform::rounded;
use crate::dump::{StepArray, StepMetadata, composed, micros, prompt_id};
use crate::grid::Grid;
use crate::shape::AxisNumbers;
use crate::store::storage::Guard;
use crate::store::{
    Codec, Generation, MetadataPatch, Recipe, Rollups, SeriesLayout, Snapshot, StepRow, Store, StoreError, TextRow,
    heads_schema, new_generation, text_after, text_batch, text_contradictions,
};

/// What is written of a video beside its steps, and how.
#[derive(Debug, Clone, Default)]
pub struct WriterOptions {
    /// Compression. Default: [`Codec::Balanced`].
    pub codec: Codec,
    /// Round values to so many bits of the fraction (lossy); `None`: not.
    pub bits: Option<u8>,
    /// Which means over blocks, heads and both are stored beside the maps.
    pub rollups: Rollups,
    /// The grid, where the video's size does not tell it.
    pub grid: Option<Grid>,
    /// The prompt's id. Default: what the video's id begins with, if that is like `prompt_000`.
    pub prompt_id: Option<String>,
    /// The template that the prompt is a variation of.
    pub template: Option<String>,
    /// Number of the variation.
    pub variation: Option<i32>,
    /// Whether the caller promises that no other process writes into the store: it need not have locks then.
    pub single_writer: bool,
}

/// A step of one word, as it is written.
#[derive(Debug, Clone, Copy)]
pub struct WordStep<'a> {
    /// The tracked word.
    pub token: &'a str,
    /// Its weight in the prompt.
    pub weight: Option<f64>,
    /// Its maps.
    pub array: &'a StepArray<'a>,
    /// What a dump would have beside the step.
    pub metadata: &'a StepMetadata,
}

/// A word whose next step fits behind those that are there.
struct BegunWord<'a> {
    target: SeriesTarget,
    row: StepRow,
    array: &'a StepArray<'a>,
    metadata: &'a StepMetadata,
    /// Its rows so far.
    stored: Vec<StepRow>,
}

/// Writes one video into a store.
#[derive(Debug)]
pub struct StoreWriter {
    store: Store,
    video_id: String,
    options: WriterOptions,
    /// Keeps `gc` away.
    _lock: Guard,
    /// By word: what this writer wrote and has replaced. It stays for one commit more, for whoever is reading it.
    superseded: HashMap<String, Generation>,
    /// Generations that this writer made, by word.
    own: HashMap<String, String>,
    /// How words beyond ASCII are spelled in the store, once one is written.
    spellings: Option<HashMap<String, String>>,
}

impl StoreWriter {
    /// Opens the store at `path`, which is created if it is not there. A video that is there already is gone on with.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn open(
        path: impl AsRef<Path>,
        video_id: impl Into<String>,
        mut options: WriterOptions,
    ) -> Result<Self, StoreError> {
        let store = Store::create(path)?.as_single_writer(options.single_writer);
        let video_id = video_id.into();
        let lock = store.lock_for_writing()?;
        store.mend(&video_id)?;
        options.prompt_id = options.prompt_id.or_else(|| prompt_id(&video_id));
        Ok(Self {
            store,
            video_id,
            options,
            _lock: lock,
            superseded: HashMap::new(),
            own: HashMap::new(),
            spellings: None,
        })
    }

    /// Writes and commits a step of a word. Returns false, and writes nothing, if the store has it already with the
    /// same values (with [`WriterOptions::bits`], with values that are rounded to the same).
    ///
    /// `metadata` is what a dump would have beside the step: `timestep`, `prompt`, `seed`, `video_height` and so on.
    ///
    /// # Errors
    /// If the step does not fit behind those that are there, or the store cannot be written.
    pub fn append(
        &mut self,
        token: &str,
        weight: Option<f64>,
        step: i32,
        array: &StepArray<'_>,
        metadata: &StepMetadata,
    ) -> Result<bool, WriteError> {
        let is_new = self.append_words(step, &[WordStep { token, weight, array, metadata }], &[])?;
        Ok(is_new == [true])
    }

    /// Writes a step of several words, and what is known of the whole text axis at this step, which is one commit: all
    /// of it is in the store, or nothing. Returns which words were new; the others are there already with the same
    /// values.
    ///
    /// # Errors
    /// As [`append`](Self::append), or if a word is there twice.
    pub fn append_words(
        &mut self,
        step: i32,
        words: &[WordStep<'_>],
        text: &[TextRow],
    ) -> Result<Vec<bool>, WriteError> {
        let spelled: Vec<String> = words.iter().map(|word| self.spelled(word.token)).collect::<Result<_, _>>()?;
        if let Some(twice) = spelled.iter().enumerate().find(|(place, token)| spelled[..*place].contains(token)) {
            return Err(WriteError::Twice { token: twice.1.clone(), step });
        }
        self.check_text(step, words, text)?;
        let hashed = |word: &WordStep<'_>| format!("{:032x}", xxh3_128(word.array.values.bytes()));
        let hashes: Vec<String> = words.par_iter().map(hashed).collect();
        let rounded: Vec<_> = words.par_iter().map(|word| rounded(word.array, self.options.bits)).collect();
        loop {
            let committed = self.committed()?;
            let mut begun = Vec::new();
            let mut is_new = Vec::new();
            for (((word, token), hash), rounded) in words.iter().zip(&spelled).zip(&hashes).zip(&rounded) {
                let stored = rounded.as_ref().map_or(*word, |(array, _)| WordStep { array, ..*word });
                let new = self.begin(&stored, token, step, hash, &committed)?;
                is_new.push(new.is_some());
                begun.extend(new.map(|mut new| {
                    new.row.rounding = rounded.as_ref().map(|(_, error)| *error);
                    new
                }));
            }
            if begun.is_empty() && !self.adds_text(text, &committed)? {
                return Ok(is_new);
            }
            let is_kept = |row: &&StepRow| begun.iter().all(|word| word.target.token != row.token);
            let kept = committed.rows().iter().filter(is_kept).cloned().collect();
            let (own, summary) = (new_generation(), committed.summary());
            let staged = self.write_all(&mut begun, &committed).and_then(|written| {
                Ok(stage_video(&self.store, &self.video_id, own, summary, kept, written, text, &committed)?)
            });
            // Where that fails in the end, a part may name what was written: it is left to `gc`.
            if let Ok(staged) = &staged
                && self.store.publish(std::slice::from_ref(staged))? == [true]
            {
                for word in begun {
                    self.supersede(&word.target, word.stored.first().map(StepRow::series_path));
                }
                return Ok(is_new);
            }
            // No commit names what was begun; where another writer committed this video meanwhile, its words are to be
            // kept.
            for word in &begun {
                self.store.discard(&word.target.path);
            }
            staged?;
        }
    }

    /// Whether rows of `text` can be of a step with these words.
    fn check_text(&self, step: i32, words: &[WordStep<'_>], text: &[TextRow]) -> Result<(), WriteError> {
        let refused = |found: String| Err(WriteError::Text { step, found });
        if words.is_empty() && !text.is_empty() {
            return refused("the step has no words".into());
        }
        if let Some(other) = text.iter().find(|row| row.step != step) {
            return refused(format!("they are of step {}", other.step));
        }
        let batch = text_batch(&self.video_id, text).map_err(|error| self.damaged(error))?;
        match text_contradictions(&batch, &self.video_id, &HashSet::from([step])) {
            Some(found) => refused(found),
            None => Ok(()),
        }
    }

    /// Whether rows of `text` are others than those that are committed.
    fn adds_text(&self, text: &[TextRow], committed: &Committed) -> Result<bool, WriteError> {
        if text.is_empty() {
            return Ok(false);
        }
        let added = text_batch(&self.video_id, text).map_err(|error| self.damaged(error))?;
        let steps = committed.rows().iter().map(|row| row.step).collect();
        let after = text_after(committed.text.as_ref(), &added, &steps).map_err(|error| self.damaged(error))?;
        Ok(committed.text.as_ref() != Some(&after))
    }

    fn damaged(&self, error: ArrowError) -> StoreError {
        StoreError::Damaged { path: self.store.place(), found: error.into() }
    }

    /// A word's next step as it is to be written; `None` if the store has it already.
    fn begin<'a>(
        &self,
        word: &WordStep<'a>,
        token: &str,
        step: i32,
        content_hash: &str,
        committed: &Committed,
    ) -> Result<Option<BegunWord<'a>>, WriteError> {
        let WordStep { array, metadata, .. } = *word;
        let (numbers, mut odd) = metadata.numbers(array.shape, &AxisNumbers::default());
        if let Some(found) = odd.pop() {
            return Err(WriteError::Numbers { token: token.to_owned(), step, found });
        }
        let stored: Vec<StepRow> = committed.rows().iter().filter(|row| row.token == token).cloned().collect();
        if let Some(row) = stored.iter().find(|row| row.step == step)
            && self.holds(row, array)?
        {
            return Ok(None);
        }
        self.check_video(array, metadata, committed.rows())?;
        self.check(token, step, array, &numbers, &stored, committed)?;
        let recipe = committed.recipe(token).cloned().unwrap_or_else(|| self.recipe());
        let target = self.target(token, word.weight, array, metadata, recipe, &stored);
        let target = SeriesTarget { numbers, ..target };
        let mut row = target.row(step, stored.len());
        describe_row(&mut row, metadata, false);
        content_hash.clone_into(&mut row.content_hash);
        row.source_modified = micros(SystemTime::now());
        row.template.clone_from(&self.options.template);
        row.variation = self.options.variation;
        Ok(Some(BegunWord { target, row, array, metadata, stored }))
    }

    /// Writes the new generation of each word.
    fn write_all(&self, begun: &mut [BegunWord<'_>], committed: &Committed) -> Result<Vec<WrittenSeries>, WriteError> {
        for word in &mut *begun {
            let generation = self.store.create_generation(&self.video_id, &word.target.token)?;
            generation.path().clone_into(&mut word.target.path);
            word.row.array = generation.attention();
        }
        begun.par_iter().map(|word| self.write(word, committed)).collect()
    }

    /// The word as the store spells it already, if the same characters are composed otherwise there.
    fn spelled(&mut self, token: &str) -> Result<String, StoreError> {
        if token.is_ascii() {
            return Ok(token.to_owned());
        }
        let known = match &mut self.spellings {
            Some(known) => known,
            unknown => unknown.insert(self.store.of_one_state(Snapshot::spellings)?.0),
        };
        Ok(known.entry(composed(token)).or_insert_with(|| token.to_owned()).clone())
    }

    /// The committed state of the video.
    fn committed(&self) -> Result<Committed, StoreError> {
        /// How often another writer may commit between the two reads.
        const ATTEMPTS: usize = 20;
        let mut committed = Committed::default();
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.snapshot();
            let previous = snapshot.read_video(&self.video_id)?;
            let heads = previous.as_ref().map(|index| snapshot.read_heads(index)).transpose()?.flatten();
            let is_whole = previous.is_none() || heads.is_some();
            let text = snapshot.read_text(&self.video_id)?.map(|(_, text)| text);
            committed = Committed { text, ..Committed::new(previous, heads) };
            if is_whole {
                break;
            }
            // Waits for a commit that is under way.
            self.store.mend(&self.video_id)?;
        }
        Ok(committed)
    }

    /// Whether a stored step has the values of `array`.
    fn holds(&self, row: &StepRow, array: &StepArray<'_>) -> Result<bool, StoreError> {
        if row.shape != array.shape || row.dtype != array.values.dtype() {
            return Ok(false);
        }
        let stored = self.store.snapshot().open_array(&row.array)?.read_step(row.row.into())?;
        Ok(stored == array.values.bytes())
    }

    /// Whether a step is of the video that is there.
    fn check_video(&self, array: &StepArray<'_>, metadata: &StepMetadata, rows: &[StepRow]) -> Result<(), WriteError> {
        let other = |what, stored: String, found: String| {
            let video_id = self.video_id.clone();
            Err(WriteError::OtherVideo { video_id, what, stored, found })
        };
        let spatial = array.shape.spatial;
        let grid = self.options.grid.or_else(|| metadata.grid(spatial).ok());
        for row in rows {
            if let (Some(stored), Some(found)) = (&row.prompt, &metadata.prompt)
                && stored != found
            {
                return other("the prompt", format!("`{stored}`"), format!("`{found}`"));
            }
            if let (Some(stored), Some(found)) = (row.seed, metadata.seed)
                && stored != found
            {
                return other("seed", stored.to_string(), found.to_string());
            }
            if let (Some(stored), Some(found)) = (row.total_steps, metadata.total_steps)
                && stored != found
            {
                return other("total_steps", stored.to_string(), found.to_string());
            }
            if let (Some(stored), Some(found)) = (&row.provenance.scheduler, &metadata.provenance.scheduler)
                && stored != found
            {
                return other("scheduler", stored.clone(), found.clone());
            }
            if let (Some(stored), Some(found)) = (row.grid, grid)
                && stored != found
                && row.shape.spatial == spatial
            {
                return other("grid", stored.to_string(), found.to_string());
            }
        }
        Ok(())
    }

    /// Whether a step fits behind those that are there.
    fn check(
        &self,
        token: &str,
        step: i32,
        array: &StepArray<'_>,
        numbers: &AxisNumbers,
        stored: &[StepRow],
        committed: &Committed,
    ) -> Result<(), WriteError> {
        let token = token.to_owned();
        if step < 0 {
            return Err(WriteError::Negative { token, step });
        }
        let spatial = array.shape.spatial;
        if let Some(grid) = self.options.grid.filter(|grid| grid.spatial() != spatial) {
            return Err(WriteError::Grid { token, grid, spatial });
        }
        if committed.previous.is_some() && committed.heads.is_none() {
            return Err(self.lost_statistics());
        }
        let Some(last) = stored.last() else { return Ok(()) };
        // Otherwise its values may differ for that alone.
        if let Some(recipe) = committed.recipe(&token).filter(|recipe| recipe.bits != self.options.bits) {
            let differences = recipe.differences(&Recipe { bits: self.options.bits, ..recipe.clone() });
            return Err(WriteError::Settings { video_id: self.video_id.clone(), token, differences });
        }
        if stored.iter().any(|row| row.step == step) {
            return Err(WriteError::Exists { video_id: self.video_id.clone(), token, step });
        }
        if last.step > step {
            return Err(WriteError::Order { token, step, last: last.step });
        }
        if last.shape != array.shape || last.dtype != array.values.dtype() || last.numbers != *numbers {
            let of = |numbers: &AxisNumbers| if numbers.count() > 0 { format!(" of {numbers}") } else { String::new() };
            let found = format!("{} {}{}", array.values.dtype(), array.shape, of(numbers));
            let expected = format!("{} {}{}", last.dtype, last.shape, of(&last.numbers));
            return Err(WriteError::Mixed { token, step, found, expected });
        }
        let own = self.recipe();
        let stored = committed
            .recipe(&token)
            .map(|stored| (Recipe { codec: own.codec, grid: own.grid, ..stored.clone() }, own.for_stored(stored)));
        match stored {
            Some((stored, own)) if stored != own => {
                let differences = stored.differences(&own);
                Err(WriteError::Settings { video_id: self.video_id.clone(), token, differences })
            }
            _ if !committed.has_heads(&token) => Err(self.lost_statistics()),
            _ => Ok(()),
        }
    }

    fn lost_statistics(&self) -> WriteError {
        let found = format!("the statistics of video {} are lost: give the video another id", self.video_id);
        StoreError::Damaged { path: self.store.place(), found: found.into() }.into()
    }

    fn recipe(&self) -> Recipe {
        let WriterOptions { codec, bits, rollups, grid, .. } = self.options;
        IngestOptions { codec, bits, rollups, grid, ..IngestOptions::default() }.recipe()
    }

    fn target(
        &self,
        token: &str,
        weight: Option<f64>,
        array: &StepArray<'_>,
        metadata: &StepMetadata,
        recipe: Recipe,
        stored: &[StepRow],
    ) -> SeriesTarget {
        let spatial = array.shape.spatial;
        let grid = match stored.first() {
            Some(row) => row.grid,
            None => self.options.grid.or_else(|| metadata.grid(spatial).ok()),
        };
        SeriesTarget {
            video_id: self.video_id.clone(),
            prompt_id: self.options.prompt_id.clone(),
            token: token.to_owned(),
            weight: weight.or_else(|| stored.first().and_then(|row| row.weight)),
            path: String::new(),
            layout: SeriesLayout {
                shape: array.shape,
                dtype: array.values.dtype(),
                steps: stored.len() + 1,
                codec: recipe.codec,
                rollups: recipe.rollups,
            },
            grid,
            numbers: AxisNumbers::default(),
            recipe,
            source: PathBuf::new(),
            source_dtype: array.source_dtype,
            source_arrays: Vec::new(),
            lossy: metadata.exported.lossy.clone(),
        }
    }

    /// Writes the word's new generation: full shards are shared with the old one, the last is copied chunk by chunk and
    /// goes on.
    fn write(&self, word: &BegunWord<'_>, committed: &Committed) -> Result<WrittenSeries, WriteError> {
        let BegunWord { target, row, array, metadata, stored } = word;
        let (layout, generation) = (&target.layout, self.store.generation_at(&target.path)?);
        let old = stored.first().map(|row| self.store.generation_at(row.series_path())).transpose()?;
        let old_layout = SeriesLayout { steps: stored.len(), ..*layout };
        if old.as_ref().is_some_and(|old| !old.matches(&old_layout)) {
            let (video_id, token) = (target.video_id.clone(), target.token.clone());
            let differences = "its arrays are cut otherwise: another version of attnkit wrote them".into();
            return Err(WriteError::Settings { video_id, token, differences });
        }
        let carried: Vec<StepRow> =
            stored.iter().map(|row| StepRow { array: generation.attention(), ..row.clone() }).collect();
        let last_shard = stored.len() / layout.steps_per_shard();
        let damaged = |error: ArrowError| StoreError::Damaged { path: generation.place(), found: error.into() };
        let mut writer = SeriesWriter::begin(target, generation.clone(), last_shard)?.in_parallel();
        if let Some(old) = &old {
            writer.take_over(old, &old_layout)?;
        }
        writer.push(row.step, &array.values)?;
        let (new, _) = writer.finish()?;
        let old_heads = committed.heads.as_ref().and_then(|heads| heads.get(&target.token));
        let heads = concat_batches(&heads_schema(), old_heads.into_iter().chain([&new])).map_err(damaged)?;
        let record = committed.previous.as_ref().map(|index| &index.record);
        let mut patches: BTreeMap<i32, MetadataPatch> =
            record.and_then(|record| record.metadata.get(&target.token)).cloned().unwrap_or_default();
        let patch = MetadataPatch::between(&row.to_metadata(), &metadata.raw, &[]);
        if !patch.set.is_empty() {
            patches.insert(row.step, MetadataPatch { unset: Vec::new(), ..patch });
        }
        let rows = carried.into_iter().chain([row.clone()]).collect();
        Ok(WrittenSeries::document(&self.store, target, rows, heads, patches, None)?)
    }

    /// Removes what this writer replaced before; what it has just replaced stays for those who are reading it.
    fn supersede(&mut self, target: &SeriesTarget, old: Option<&str>) {
        let token = &target.token;
        let own = self.own.insert(token.clone(), target.path.clone());
        // What others wrote is left to `gc`.
        let replaced = old.filter(|old| own.as_deref() == Some(old));
        let replaced = replaced.and_then(|old| self.store.generation_at(old).ok());
        let before = match replaced {
            Some(replaced) => self.superseded.insert(token.clone(), replaced),
            None => self.superseded.remove(token),
        };
        if let Some(generation) = before {
            generation.remove();
        }
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.superseded.values().for_each(Generation::remove);
    }
}

#[cfg(test)]
#[cfg(feature = "query")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dtype::Dtype;
    use crate::json::Json;
    use crate::progress::Silent;
    use crate::query::{Average, Filter};
    use crate::values::Values;
    use crate::verify::{self, VerifyOptions};

    /// Large enough that a shard holds two steps.
    const SHAPE: [usize; 4] = [2, 3, 4 << 20, 1];

    fn step(axes: [usize; 4], number: i32) -> StepArray<'static> {
        let len = axes.iter().product();
        let values = Values::compute(Dtype::Float16, len, |index| f64::from(number) + (index % 7) as f64);
        StepArray::new(&axes, values, None).unwrap()
    }

    fn metadata(step: i32) -> StepMetadata {
        let object =
            serde_json::json!({"timestep": 1000.0 - f64::from(step), "prompt": "a flower", "seed": 7, "extra": [1, 2]});
        StepMetadata::from_object(Json::from(object).as_object().unwrap().clone()).0
    }

    fn verified(store: &Store) {
        let report = verify::run(store, &VerifyOptions::default(), &Silent).unwrap();
        assert_eq!(report.faults, [], "{report:?}");
    }

    #[test]
    fn every_append_is_in_the_store_and_nothing_is_left_behind() {
        for (axes, steps) in [([2, 3, 12, 1], 5), (SHAPE, 5)] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = StoreWriter::open(dir.path(), "prompt_003_vid001", WriterOptions::default()).unwrap();
            let store = Store::open(dir.path()).unwrap();
            for number in 0..steps {
                for token in ["flower", "two trees"] {
                    assert!(writer.append(token, Some(2.5), number, &step(axes, number), &metadata(number)).unwrap());
                    assert!(!writer.append(token, None, number, &step(axes, number), &metadata(number)).unwrap());
                }
                let index = store.snapshot().read_video("prompt_003_vid001").unwrap().unwrap();
                assert_eq!(index.rows.len(), 2 * (usize::try_from(number).unwrap() + 1));
                let row = index.rows.iter().rfind(|row| row.token == "flower").unwrap();
                assert_eq!((row.prompt_id.as_deref(), row.weight, row.seed), (Some("prompt_003"), Some(2.5), Some(7)));
                assert_eq!(index.metadata_of(row)["extra"], serde_json::json!([1, 2]).into());
                let bytes = store.snapshot().open_array(&row.array).unwrap().read_step(row.row.into()).unwrap();
                assert_eq!(bytes, step(axes, number).values.bytes());
            }
            drop(writer);
            verified(&store);
            assert_eq!(store.garbage().unwrap(), []);
            let all = Average::new(Filter::parse("token = 'flower'").unwrap()).run(&store, &Silent).unwrap();
            assert_eq!(all.table.height(), usize::try_from(steps).unwrap());
        }
    }

    fn text_row(step: i32, head: i32) -> TextRow {
        let call = Some(crate::provenance::Call::Cond);
        TextRow { call, step, block: 0, head, text_entropy: 1.5, sink_key: 3, sink_mass: 0.5, sum_error: Some(1e-7) }
    }

    #[test]
    fn the_words_of_a_step_are_one_commit_with_what_is_known_of_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let small = [2, 3, 12, 1];
        let mut writer = StoreWriter::open(dir.path(), "v1", WriterOptions::default()).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut generations = BTreeSet::new();
        for number in 0..4 {
            let (array, metadata) = (step(small, number), metadata(number));
            let word = |token| WordStep { token, weight: None, array: &array, metadata: &metadata };
            let text = [text_row(number, 0), text_row(number, 1)];
            let words = [word("flower"), word("tree"), word(":pad")];
            assert_eq!(writer.append_words(number, &words, &text).unwrap(), [true; 3]);
            assert_eq!(writer.append_words(number, &words, &text).unwrap(), [false; 3]);
            let snapshot = store.snapshot();
            let index = snapshot.read_video("v1").unwrap().unwrap();
            assert!(generations.insert(index.generation.clone()));
            let (generation, rows) = snapshot.read_text("v1").unwrap().unwrap();
            assert_eq!((generation, rows.num_rows()), (index.generation, 2 * (usize::try_from(number).unwrap() + 1)));
        }
        // Of words one of which does not fit, none is written.
        let (array, other, metadata) = (step(small, 4), step([2, 3, 13, 1], 4), metadata(4));
        let fits = WordStep { token: "flower", weight: None, array: &array, metadata: &metadata };
        let before = store.snapshot().read_video("v1").unwrap();
        for words in [[fits, WordStep { token: "tree", array: &other, ..fits }], [fits, fits]] {
            let refused = writer.append_words(4, &words, &[]).unwrap_err().to_string();
            assert!(refused.contains("[2, 3, 13, 1]") || refused.contains("twice"), "{refused}");
        }
        assert_eq!(store.snapshot().read_video("v1").unwrap(), before);
        // A word alone is a commit that keeps the text's rows.
        assert!(writer.append("flower", None, 4, &array, &metadata).unwrap());
        drop(writer);
        verified(&store);
        assert_eq!(store.garbage().unwrap(), []);
        let rows = store.snapshot().read_text("v1").unwrap().unwrap().1.num_rows();
        assert_eq!(rows, 8);
        let counted = crate::query::Sql::new("SELECT step, COUNT(*) AS n FROM text GROUP BY step").run(&store).unwrap();
        assert_eq!(counted.table.height(), 4);
    }

    #[test]
    fn a_video_is_gone_on_with_and_what_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = |options| StoreWriter::open(dir.path(), "v1", options).unwrap();
        let small = [2, 3, 12, 1];
        let mut writer = open(WriterOptions::default());
        writer.append("flower", None, 0, &step(small, 0), &metadata(0)).unwrap();
        writer.append("flower", None, 4, &step(small, 4), &metadata(4)).unwrap();
        drop(writer);
        let mut writer = open(WriterOptions { codec: Codec::Fast, ..WriterOptions::default() });
        let mut refused = |number, array: StepArray<'_>| {
            writer.append("flower", None, number, &array, &metadata(number)).unwrap_err().to_string()
        };
        assert!(refused(4, step(small, 9)).contains("already, with other values"));
        assert!(refused(2, step(small, 2)).contains("ascending order"));
        assert!(refused(5, step([2, 3, 13, 1], 5)).contains("[2, 3, 13, 1]"));
        assert!(writer.append("flower", None, 5, &step(small, 5), &metadata(5)).unwrap());
        drop(writer);
        let mut writer = open(WriterOptions { rollups: Rollups::All, ..WriterOptions::default() });
        let refused = writer.append("flower", None, 6, &step(small, 6), &metadata(6)).unwrap_err();
        assert!(refused.to_string().contains("rollups"), "{refused}");
        drop(writer);
        verified(&Store::open(dir.path()).unwrap());
    }
}
