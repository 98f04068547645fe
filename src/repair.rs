//! Mending a store: what is damaged is written anew, from what is sound of the store and from the dump, and nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, LayerError};
use crate::ingest::{self, Damage, IngestError, IngestOptions, PartOf, Quarantined};
use crate::progress::Progress;
use crate::remedy::Remedy;
use crate::store::{Fault, Recipe, Salvaged, Snapshot, Store, StoreError, VideoIndex, VideoRecord, name_of_pack};
use crate::verify::{self, VerifyError, VerifyOptions};

/// How a store is mended.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Directories of the dumps that damaged values are read from; none: only what the store's own values tell is
    /// mended.
    pub dumps: Vec<PathBuf>,
    /// The prefix that the dump's videos were ingested with.
    pub prefix: Option<String>,
    /// File of the prompts that the videos were generated from, for videos whose rows are damaged.
    pub prompts: Option<PathBuf>,
    /// Whether the caller promises that no other process writes into the store: it need not have locks then.
    pub single_writer: bool,
    /// Threads; 0: one per core.
    pub threads: usize,
}

/// What was mended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RepairReport {
    /// What was damaged, sorted.
    pub found: Vec<Fault>,
    /// What still is.
    pub left: Vec<Fault>,
    /// Steps that were read from the dump.
    pub steps_read: u64,
    /// Files of the dump that could not be used.
    pub quarantined: Vec<Quarantined>,
    /// Wall time.
    pub seconds: f64,
}

/// Why a store could not be mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be told what is damaged.
    #[error(transparent)]
    Verify(VerifyError),
    /// The dump cannot be read, or the store not be written.
    #[error(transparent)]
    Ingest(IngestError),
    /// Stopped by whoever asked.
    #[error("stopped; what was mended stays so, and the same repair goes on from there")]
    Cancelled,
}

impl LayerError for RepairError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Verify(error) => error.kind(),
            Self::Ingest(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Verify(error) => error.remedy(),
            Self::Ingest(error) => error.remedy(),
            Self::Cancelled => None,
        }
    }
}

impl From<VerifyError> for RepairError {
    fn from(error: VerifyError) -> Self {
        if matches!(error, VerifyError::Cancelled) { Self::Cancelled } else { Self::Verify(error) }
    }
}

impl From<IngestError> for RepairError {
    fn from(error: IngestError) -> Self {
        if matches!(error, IngestError::Cancelled) { Self::Cancelled } else { Self::Ingest(error) }
    }
}

/// Verifies a store and mends what is damaged: documents, tables, statistics, rollups and coordinates from its own
/// values, damaged values from the dump, where its files are what was ingested. All that is sound stays as it is; each
/// video is committed whole, as by an ingest. Its progress counts steps verified.
///
/// # Errors
/// If the store or a dump cannot be read at all, or the store not be written; and [`RepairError::Cancelled`]. What
/// could not be mended is in [`RepairReport::left`].
pub fn run(path: &Path, options: &RepairOptions, progress: &dyn Progress) -> Result<RepairReport, RepairError> {
    let start = Instant::now();
    let (store, root) = Store::open_to_mend(path)?;
    let store = store.as_single_writer(options.single_writer);
    store.restore_index()?;
    let mut found = verify::run(&store, &VerifyOptions::default(), progress)?.faults;
    found.extend(root);
    found.sort();
    let mut report = RepairReport { found, ..RepairReport::default() };
    if report.found.is_empty() {
        return Ok(report);
    }
    let mut faults = report.found.clone();
    // Of an earlier repair, too.
    let of_lost = report.found.iter().filter(|fault| fault.is_of_lost_video());
    let mut lost: BTreeMap<String, String> =
        of_lost.filter_map(|fault| Some((fault.video_id.clone()?, fault.path.clone()))).collect();
    let mut records = BTreeMap::new();
    let packs: BTreeSet<&str> = report.found.iter().filter_map(|fault| name_of_pack(&fault.path)).collect();
    for pack in &packs {
        let Salvaged { lost: videos, aside } = store.salvage(pack)?;
        for (video, record) in videos {
            records.extend(record.map(|record| (video.clone(), record)));
            lost.insert(video, aside.clone());
        }
    }
    if !packs.is_empty() {
        // What of them is missing is seen now, video by video.
        faults = verify::run(&Store::open(path)?, &VerifyOptions::default(), progress)?.faults;
    }
    let store = Store::open(path)?;
    let (index, _) = store.of_one_state(Snapshot::read_index)?;
    // Those of which it is known how they were ingested are ingested so again.
    let usual = usual_settings(&index, &records);
    let mut damages = vec![(usual, damage(&store, &index, &faults))];
    for video in lost.keys() {
        let own = records.get(video).and_then(|record| in_one_way(record.recipe.values()));
        let own = own.map(|own| IngestOptions { every: damages[0].0.every, ..own });
        let place = own.as_ref().map_or(Some(0), |own| damages.iter().position(|(settings, _)| settings == own));
        let place = place.unwrap_or_else(|| {
            damages.push((own.unwrap_or_default(), Damage::default()));
            damages.len() - 1
        });
        damages[place].1.add_rows(video);
    }
    for (settings, damage) in damages.into_iter().filter(|(_, damage)| !damage.is_empty()) {
        let settings = IngestOptions {
            prefix: options.prefix.clone(),
            prompts: options.prompts.clone(),
            single_writer: options.single_writer,
            threads: options.threads,
            ..settings
        };
        let written = ingest::mend(&options.dumps, path, &damage, &settings, &PartOf(progress))?;
        report.steps_read += written.ingested;
        report.quarantined.extend(written.quarantined);
    }
    let of_faults = faults.iter().filter_map(|fault| fault.video_id.clone());
    let videos = of_faults.chain(lost.keys().cloned()).collect();
    let again = VerifyOptions { videos: Some(videos), ..VerifyOptions::default() };
    let store = Store::open(path)?;
    report.left = verify::run(&store, &again, progress)?.faults;
    for (video, aside) in lost {
        let is_told = report.left.iter().any(|fault| fault.video_id.as_ref() == Some(&video));
        if store.committed(&video)?.is_none() && !is_told {
            report.left.push(Fault::of_lost_video(&video, &aside));
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// What is to be written anew.
fn damage(store: &Store, index: &[VideoIndex], faults: &[Fault]) -> Damage {
    let mut damage = Damage::default();
    for fault in faults {
        let Some(video_id) = &fault.video_id else { continue };
        if fault.path == store.steps_file(video_id) {
            damage.add_rows(video_id);
            continue;
        }
        let Some(video) = index.iter().find(|video| video.record.video_id == *video_id) else { continue };
        let of_fault = video.series().filter(|rows| match (&fault.token, rows.first()) {
            (Some(token), Some(first)) => first.token == *token,
            // Statistics of all words; documents that are of none are mended by themselves.
            (None, _) => fault.path == store.heads_file(video_id),
            _ => false,
        });
        for rows in of_fault {
            let Some(first) = rows.first() else { continue };
            let series = first.series_path();
            let of_values = [
                format!("{series}/attention"),
                format!("{series}/attention/zarr.json"),
                // Of what the values are cannot be told without it.
                format!("{series}/zarr.json"),
            ];
            let is_of_values = of_values.contains(&fault.path);
            let steps = rows.iter().map(|row| row.step);
            let damaged = steps.filter(|step| is_of_values && fault.step.is_none_or(|damaged| damaged == *step));
            damage.add_word(video_id, &first.token, damaged);
        }
    }
    damage
}

/// How the videos of a store were ingested, if all were in one way: what is not known of a video whose rows are
/// damaged.
fn usual_settings(index: &[VideoIndex], lost: &BTreeMap<String, VideoRecord>) -> IngestOptions {
    let records = index.iter().map(|video| &video.record).chain(lost.values());
    let Some(settings) = in_one_way(records.flat_map(|record| record.recipe.values())) else {
        return IngestOptions::default();
    };
    let steps = index.iter().flat_map(|video| &video.rows).map(|row| row.step.unsigned_abs());
    let every = steps.fold(0, gcd).max(1);
    IngestOptions { every, ..settings }
}

/// How words were ingested, if all were in one way.
fn in_one_way<'a>(mut recipes: impl Iterator<Item = &'a Recipe>) -> Option<IngestOptions> {
    let first = recipes.next()?;
    recipes.all(|recipe| recipe == first).then(|| first.as_options(&IngestOptions::default()))
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
