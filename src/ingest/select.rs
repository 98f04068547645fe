//! What of the given dumps is ingested, and under which ids.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::IngestError;
use super::damage::Damage;
use super::findings::Findings;
use super::options::{IngestOptions, Names};
use super::plan::PlanTask;
use super::prompts::Prompts;
use super::report::{Event, Remark};
use crate::dump::{Dump, DumpError, StepFiles, Video};
use crate::progress::Progress;
use crate::store::{Snapshot, Store};

/// Files that are named where nothing of a dump is understood.
const PROBLEMS_NAMED: usize = 5;

/// Searches directories that must be dumps.
pub(super) fn find(dumps: &[impl AsRef<Path>], progress: &dyn Progress) -> Result<Dump, IngestError> {
    if let Some(store) = dumps.iter().map(AsRef::as_ref).find(|path| Store::is_at(path)) {
        return Err(IngestError::IsStore { path: store.to_owned() });
    }
    let dump = Dump::find_unless_cancelled(dumps, progress)?;
    if dump.videos.is_empty() && dump.problems.is_empty() {
        return Err(IngestError::nothing_found(dumps));
    }
    if dump.is_not_understood() {
        let named =
            dump.problems.iter().take(PROBLEMS_NAMED).map(DumpError::to_string).collect::<Vec<_>>().join("\n  ");
        let more = dump.problems.len().saturating_sub(PROBLEMS_NAMED);
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        let path = dumps.first().map(|path| path.as_ref().to_owned()).unwrap_or_default();
        return Err(IngestError::NothingUnderstood { path, problems: named + &more });
    }
    Ok(dump)
}

/// The videos to look at, with their ids in the store; those that are damaged may not be in the dump.
pub(super) struct Selected {
    pub videos: Vec<(Option<Video>, String)>,
    pub problems: Vec<DumpError>,
    pub warnings: Vec<DumpError>,
}

impl Selected {
    /// What is to plan, and what was found already. If it is damage that is mended, nothing but that is written.
    pub fn into_tasks(
        self,
        options: &IngestOptions,
        prompts: &Prompts,
        damage: Option<&Damage>,
    ) -> (Vec<PlanTask>, Findings) {
        let warnings = self.warnings.iter().map(|warning| Remark::new(&warning.path, warning.problem.to_string()));
        let remarks = warnings.chain(prompts.remarks()).collect();
        let options = Arc::new(options.clone());
        let task = |(video, video_id): (Option<Video>, String)| {
            let damage = damage.and_then(|damage| damage.of(&video_id)).cloned();
            PlanTask { video_id, video, damage, options: options.clone() }
        };
        let tasks = self.videos.into_iter().map(task).collect();
        (tasks, Findings { problems: self.problems, remarks, ..Findings::default() })
    }
}

/// Chooses the videos and words that the options name.
pub(super) fn select(mut dump: Dump, options: &IngestOptions, store: Option<&Store>) -> Result<Selected, IngestError> {
    // One word has one spelling in a store; only characters beyond ASCII have several.
    let has_spellings = dump.videos.iter().flat_map(|video| &video.series).any(|series| !series.token.is_ascii());
    let spellings = store.filter(|_| has_spellings).map(|store| store.of_one_state(Snapshot::spellings)).transpose()?;
    dump.unify_spellings(spellings.map(|(spellings, _)| spellings).unwrap_or_default());
    let (videos, tokens) = (Names::new(&options.videos)?, Names::new(&options.tokens)?);
    let nothing_selected = nothing_selected(&dump);
    let found = dump.videos.len();
    // The store's ids matter only where batches are told apart: else they are those of the directories.
    let in_batches = dump.videos.iter().any(|video| video.batch.is_some());
    let known = store.filter(|_| in_batches).map(|store| store.of_one_state(Snapshot::sources)).transpose()?;
    let known = known.map(|(known, _)| known).unwrap_or_default();
    let prefixed = |id: String| options.prefix.as_ref().map_or(id.clone(), |prefix| format!("{prefix}/{id}"));
    let with_id = |mut video: Video| {
        // What was ingested before other batches came beside it keeps its id.
        let alone = prefixed(video.name.clone());
        let id = if known.get(&video.dir) == Some(&alone) { alone } else { prefixed(video.id()) };
        let words = video.series.len();
        video.series.retain(|series| tokens.contains(&series.token));
        let selected = [&id, &video.id(), &video.name].into_iter().any(|name| videos.contains(name));
        (selected && (words == 0 || !video.series.is_empty())).then_some((Some(video), id))
    };
    let selected: Vec<_> = dump.videos.into_iter().filter_map(with_id).collect();
    if selected.is_empty() && found > 0 {
        return Err(nothing_selected);
    }
    Ok(Selected { videos: selected, problems: dump.problems, warnings: dump.warnings })
}

fn nothing_selected(dump: &Dump) -> IngestError {
    let words = dump.videos.iter().flat_map(|video| &video.series).map(|series| series.token.clone());
    IngestError::NothingSelected {
        videos: listed(dump.videos.iter().map(Video::id).collect()),
        words: listed(words.collect()),
    }
}

/// Some of the names that there are.
pub(super) fn listed(names: BTreeSet<String>) -> String {
    let more = if names.len() > 8 { format!(" and {} more", names.len() - 8) } else { String::new() };
    names.into_iter().take(8).collect::<Vec<_>>().join(", ") + &more
}

/// What there is to look at.
pub(super) fn found_in(selected: &Selected) -> Event<'static> {
    let videos = || selected.videos.iter().filter_map(|(video, _)| video.as_ref());
    let files = || videos().flat_map(|video| &video.series).flat_map(|series| &series.steps);
    let bytes = files().map(StepFiles::bytes).sum();
    Event::Found { videos: selected.videos.len(), steps: files().count() as u64, bytes }
}
