//! A question that has been planned on one state of a store: its work, and what is made of the reduced maps.

use std::ops::Range;

use rayon::prelude::*;

use super::answer::{Answer, Arrange};
use super::cut::Bounds;
use super::error::QueryError;
use super::explain::Explain;
use super::key::Key;
use super::merge::{Assembly, Merger};
use super::selection::{Selected, SelectedStep};
use super::task::{Folded, Grain, Reduction, Task, window};
use super::work::{Group, Work};
use crate::progress::{Meter, Progress, Unit};
use crate::remedy::Note;
use crate::store::{Snapshot, Store};

/// What is done to answer a question, planned on one state of a store.
///
/// ```
/// use attnkit::query::{Average, Filter, Grain, Partial, Question, Task};
/// # use attnkit::ingest::{self, IngestOptions};
/// # use attnkit::progress::Silent;
/// # use attnkit::store::Store;
/// # let dir = tempfile::tempdir()?;
/// # let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/variants/gzip");
/// # let path = dir.path().join("store");
/// # ingest::run(&[dump], &path, &IngestOptions::default(), &Silent)?;
///
/// let question = Question::from_json(r#"{"question": "average", "over": ["block", "head", "step"]}"#)?;
/// let store = Store::open(&path)?;
/// let plan = question.plan(&store.snapshot())?;
/// let mut merger = plan.merger();
/// for task in plan.tasks(Grain::Coarse) {
///     // In another process, which opened the same store:
///     let partial = Task::from_bytes(&task.to_bytes()?)?.run(&Store::open(&path)?.snapshot())?;
///     merger.accept(Partial::from_bytes(&partial.to_bytes()?)?)?;
/// }
/// assert_eq!(merger.finish()?.maps, question.run(&store, &Silent)?.maps);
/// # Ok::<(), attnkit::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    pub(super) snapshot: Snapshot,
    pub(super) work: Work,
    /// How much is selected.
    pub(super) selected: Selected,
    pub(super) ending: Box<dyn Ending>,
    /// How the answer is ordered and cut.
    pub(super) arrange: Arrange,
}

/// What a question makes of reduced maps.
pub(super) trait Ending: std::fmt::Debug + Send + Sync {
    /// Nothing is made yet.
    fn begin<'a>(&'a self, plan: &'a Plan) -> Box<dyn Assembly + 'a>;

    /// What it does, in words, one after the other.
    fn explain(&self, plan: &Plan) -> Vec<String>;
}

impl Plan {
    /// Plans the reduction of steps to one map for each distinct value of `keys`, and what is made of these.
    pub(super) fn new(
        snapshot: &Snapshot,
        steps: &[SelectedStep],
        keys: &[Key],
        reduction: Reduction,
        ending: impl Ending + 'static,
    ) -> Result<Self, QueryError> {
        let work = Work::plan(snapshot, steps, keys, reduction, &Bounds::default())?;
        Ok(Self::of(snapshot, work, Selected::of(steps), ending))
    }

    pub(super) fn of(snapshot: &Snapshot, work: Work, selected: Selected, ending: impl Ending + 'static) -> Self {
        Self { snapshot: snapshot.clone(), work, selected, ending: Box::new(ending), arrange: Arrange::default() }
    }

    /// Without work: the tables answer by themselves.
    pub(super) fn of_table(snapshot: &Snapshot, question: impl Ending + 'static) -> Self {
        Self::of(snapshot, Work::default(), Selected::default(), question)
    }

    /// The same, with an answer that is ordered and cut.
    pub(super) fn arranged(self, arrange: &Arrange) -> Self {
        Self { arrange: arrange.clone(), ..self }
    }

    /// What tells groups apart.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.work.keys
    }

    /// The groups of maps that become one map each.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.work.groups
    }

    /// What the user should know of it.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.work.notes
    }

    /// Bytes that will be decoded.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        self.work.decoded_bytes()
    }

    /// All that is to be done, cut for those who do it; none for a question that the tables answer by themselves.
    pub fn tasks(&self, grain: Grain) -> impl Iterator<Item = Task> {
        let Work { portions, bundles, fingerprint, .. } = &self.work;
        let ranges: Vec<Range<usize>> = match grain {
            Grain::Fine => (0..portions.len()).map(|number| number..number + 1).collect(),
            Grain::Coarse => bundles.clone(),
        };
        #[allow(clippy::cast_possible_truncation)] // there are far fewer than 2^32
        let task = |range: Range<usize>| Task {
            plan: *fingerprint,
            first: range.start as u32,
            portions: portions[range].to_vec(),
        };
        ranges.into_iter().map(task)
    }

    /// Merges what tasks leave, of either grain and in any order.
    #[must_use]
    pub fn merger(&self) -> Merger<'_> {
        Merger::new(&self.work, &self.arrange, self.ending.begin(self))
    }

    /// Does all tasks on the threads of this process, a window of them at a time.
    ///
    /// # Errors
    /// If an array is damaged, the store has moved on, or the work was stopped.
    pub fn run(&self, progress: &dyn Progress) -> Result<Answer, QueryError> {
        self.run_for_writing(progress).map(Answer::resampled)
    }

    /// The same, of which maps may be yet to be resampled.
    pub(super) fn run_for_writing(&self, progress: &dyn Progress) -> Result<Answer, QueryError> {
        let meter = Meter::new(progress, Unit::Bytes, self.decoded_bytes());
        let mut merger = self.merger();
        let mut number = 0;
        for portions in self.work.portions.chunks(window()) {
            let folded: Vec<Folded> = portions
                .par_iter()
                .map(|portion| {
                    let folded = portion.run(&self.snapshot)?;
                    meter.add(portion.decoded_bytes())?;
                    Ok(folded)
                })
                .collect::<Result<_, QueryError>>()?;
            for folded in folded {
                merger.take(number..number + 1, folded)?;
                number += 1;
            }
            merger.hand_on()?;
        }
        merger.finish_for_writing()
    }

    /// What will be done.
    ///
    /// # Errors
    /// If an array that will be read is not there.
    pub fn explain(&self) -> Result<Explain, QueryError> {
        Explain::of(&self.snapshot, &self.work, self.selected, self.ending.explain(self))
    }
}

/// Plans a question on one state of a store, and answers it.
pub(super) fn run(
    store: &Store,
    plan: impl FnMut(&Snapshot) -> Result<Plan, QueryError>,
    progress: &dyn Progress,
) -> Result<Answer, QueryError> {
    store.of_one_state(plan)?.0.run(progress)
}

/// The same, of which maps may be yet to be resampled.
pub(super) fn run_for_writing(
    store: &Store,
    plan: impl FnMut(&Snapshot) -> Result<Plan, QueryError>,
    progress: &dyn Progress,
) -> Result<Answer, QueryError> {
    store.of_one_state(plan)?.0.run_for_writing(progress)
}

/// Plans a question on one state of a store, and says what would be done.
pub(super) fn explain(
    store: &Store,
    plan: impl FnMut(&Snapshot) -> Result<Plan, QueryError>,
) -> Result<Explain, QueryError> {
    store.of_one_state(plan)?.0.explain()
}
