//! Where steps of one word, parts of one step, and steps of the store contradict each other: are they of one run, and
//! of one array?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::dump::{DumpError, Problem, StepFile, StepFiles, StepMetadata, read_step_metadata};
use crate::store::StepRow;

/// Different values that are named.
const NAMED: usize = 3;

/// What has most votes; of several with as many, what was voted for last, and then what ranks highest.
pub(super) fn most_voted<T: Eq + Hash>(
    votes: impl IntoIterator<Item = (T, SystemTime)>,
    rank: impl Fn(&T) -> String,
) -> Option<T> {
    let mut counts: HashMap<T, (usize, SystemTime)> = HashMap::new();
    for (of, time) in votes {
        let count = counts.entry(of).or_insert((0, UNIX_EPOCH));
        *count = (count.0 + 1, count.1.max(time));
    }
    counts.into_iter().max_by_key(|(of, count)| (*count, rank(of))).map(|(of, _)| of)
}

/// In what a step of the store is of another run than one of the dump.
pub(super) fn other_run(row: &StepRow, metadata: &StepMetadata) -> Option<String> {
    fn differ<T: PartialEq + ToString>(key: &str, stored: Option<&T>, found: Option<&T>) -> Option<String> {
        let (stored, found) = stored.zip(found).filter(|(stored, found)| stored != found)?;
        Some(format!("{key} {}, now {}", stored.to_string(), found.to_string()))
    }
    differ("seed", row.seed.as_ref(), metadata.seed.as_ref())
        .or_else(|| differ("prompt", row.prompt.as_ref(), metadata.prompt.as_ref()))
        .or_else(|| differ("cfg_scale", row.cfg_scale.as_ref(), metadata.cfg_scale.as_ref()))
        .or_else(|| differ("total_steps", row.total_steps.as_ref(), metadata.total_steps.as_ref()))
}

/// In what steps differ that have one value of it if they are of one run.
pub(super) fn differences_of_runs(steps: &[&StepMetadata]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |key: &str, of: fn(&StepMetadata) -> Option<String>| {
        let values: BTreeSet<String> = steps.iter().filter_map(|metadata| of(metadata)).collect();
        if values.len() > 1 {
            let named: Vec<&str> = values.iter().take(NAMED).map(String::as_str).collect();
            let more = if values.len() > NAMED { ", …" } else { "" };
            differences
                .push(format!("its steps differ in {key} ({}{more}): two runs in one directory?", named.join(", ")));
        }
    };
    compare("seed", |metadata| metadata.seed.map(|seed| seed.to_string()));
    compare("prompt", |metadata| metadata.prompt.clone());
    compare("cfg_scale", |metadata| metadata.cfg_scale.map(|scale| scale.to_string()));
    compare("total_steps", |metadata| metadata.total_steps.map(|steps| steps.to_string()));
    differences
}

/// What the metadata of further parts of a split step says otherwise than that of the first, which counts.
///
/// # Errors
/// If they number the blocks or heads of their arrays otherwise.
pub(super) fn disagreements_of_parts(files: &StepFiles, metadata: &StepMetadata) -> Result<Vec<DumpError>, DumpError> {
    let [first, others @ ..] = &files.parts[..] else { return Ok(Vec::new()) };
    let mut remarks = Vec::new();
    let mut by_key: BTreeMap<String, (&StepFile, usize)> = BTreeMap::new();
    for part in others {
        let other = match read_step_metadata(&part.metadata) {
            Ok((other, _)) => other,
            Err(DumpError { path, problem }) => {
                remarks.push(Problem::Remark(format!("{problem}; that of the first part counts")).at(path));
                continue;
            }
        };
        let axes = [
            ("block_idx", "block", part.block, &other.block_idx, &metadata.block_idx),
            ("head_idx", "head", part.head, &other.head_idx, &metadata.head_idx),
        ];
        for (key, axis, of_file, found, expected) in axes {
            if of_file.is_none() && found != expected {
                let (found, expected) = (found.clone(), expected.clone());
                return Err(Problem::SplitNumbers { key, axis, found, expected }.at(&part.metadata));
            }
        }
        for key in metadata.contradictions(&other) {
            by_key.entry(key).or_insert((part, 0)).1 += 1;
        }
    }
    remarks.extend(by_key.into_iter().map(|(key, (part, count))| {
        let name = part.metadata.file_name().unwrap_or_default().to_string_lossy();
        let remark =
            format!("its {key} is not that of {count} other parts of the step, such as {name}; this one counts");
        Problem::Remark(remark).at(&first.metadata)
    }));
    Ok(remarks)
}
