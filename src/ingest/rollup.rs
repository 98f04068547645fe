//! Rollups of words that are in a store already: added, or taken away, from the store's own values.

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::options::{IngestOptions, Names};
use super::report::{Observer, Quarantined};
use super::select::listed;
use super::{IngestError, local};
use crate::store::{Recipe, Snapshot, Store, VideoIndex};

/// What became of the rollups of a store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RollupReport {
    /// Words, each of one video, whose arrays were written anew.
    pub words: u64,
    /// Their steps.
    pub steps: u64,
    /// Words that have these rollups already.
    pub unchanged: u64,
    /// Bytes of the rollups of all words that were looked at, before and after.
    pub bytes: [u64; 2],
    /// What could not be read, and stays as it is.
    pub quarantined: Vec<Quarantined>,
    /// Wall time.
    pub seconds: f64,
}

pub(super) fn rollup(
    path: &Path,
    options: &IngestOptions,
    observer: &dyn Observer,
) -> Result<RollupReport, IngestError> {
    let start = Instant::now();
    Store::open(path)?.as_single_writer(options.single_writer).restore_index()?;
    let (videos, tokens) = (Names::new(&options.videos)?, Names::new(&options.tokens)?);
    let read = || -> Result<Vec<VideoIndex>, IngestError> {
        let (mut index, _) = Store::open(path)?.of_one_state(Snapshot::read_index)?;
        index.retain(|video| videos.contains(&video.record.video_id));
        Ok(index)
    };
    let bytes = |index: &[VideoIndex]| {
        let words = index.par_iter().flat_map_iter(|video| &video.record.arrays);
        words.filter(|(token, _)| tokens.contains(token)).map(|(_, arrays)| arrays.rollups).sum()
    };
    let index = read()?;
    let (mut report, mut to_write) = (RollupReport::default(), Damage::default());
    for video in &index {
        for rows in video.series() {
            let Some(first) = rows.first().filter(|first| tokens.contains(&first.token)) else { continue };
            let stored =
                video.record.recipe.get(&first.token).map_or(options.rollups, |Recipe { rollups, .. }| *rollups);
            if stored.kinds(first.shape, first.dtype).eq(options.rollups.kinds(first.shape, first.dtype)) {
                report.unchanged += 1;
            } else {
                to_write.roll_up(&video.record.video_id, &first.token, options.rollups);
                report.words += 1;
                report.steps += rows.len() as u64;
            }
        }
    }
    if report.words + report.unchanged == 0 {
        let all = Store::open(path)?.of_one_state(Snapshot::read_index)?.0;
        let words = all.iter().flat_map(|video| &video.rows).map(|row| row.token.clone());
        return Err(IngestError::NothingSelected {
            videos: listed(all.iter().map(|video| video.record.video_id.clone()).collect()),
            words: listed(words.collect()),
        });
    }
    report.bytes[0] = bytes(&index);
    drop(index);
    if !to_write.is_empty() {
        let own = IngestOptions { videos: Vec::new(), tokens: Vec::new(), ..options.clone() };
        report.quarantined = local::mend(&[] as &[&Path], path, &to_write, &own, observer)?.quarantined;
    }
    report.bytes[1] = bytes(&read()?);
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}
