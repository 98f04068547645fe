//! What is in one word's directory: which files are steps, and why the others are not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::foreign::is_foreign;
use super::word::{TrackedWord, recognise};
use super::{
    DumpError, FileFormat, FileSignature, Problem, Series, StepFile, StepFiles, StepMetadata, read_step_metadata,
};
use crate::shape::AxisNumbers;

pub(super) const TOKEN_PREFIX: &str = "token_";
pub(super) const METADATA_SUFFIX: &str = "_metadata.json";

/// Blocks and heads beyond this are no model's.
const MOST_NUMBERS: usize = 4096;
/// How many of a word's metadata files are tried, should the first be damaged.
const METADATA_TRIED: usize = 3;

/// A word's directory, with what is odd in it.
#[derive(Default)]
pub(super) struct Listing {
    pub problems: Vec<DumpError>,
    pub warnings: Vec<DumpError>,
}

impl Listing {
    /// Lists the step files in a word's directory. The second value is the metadata that told which word it is.
    pub fn word(&mut self, dir: &Path) -> Option<(Series, Option<StepMetadata>)> {
        let name = dir.file_name()?.to_string_lossy().into_owned();
        let entries = match fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => {
                self.problems.push(Problem::from(error).at(dir));
                return None;
            }
        };
        let mut found = Found::default();
        for entry in entries.into_iter().filter(|entry| !is_foreign(&entry.file_name())) {
            self.sort_in(&entry.path(), &mut found);
        }
        let (steps, split) = self.steps(&mut found);
        found.aggregates.sort();
        let metadata = steps
            .iter()
            .filter_map(|step| step.parts.first())
            .take(METADATA_TRIED)
            .find_map(|part| read_step_metadata(&part.metadata).ok())
            .map(|read| read.0);
        let TrackedWord { word: token, weight } = recognise(name.strip_prefix(TOKEN_PREFIX)?, metadata.as_ref());
        let series = Series { token, weight, dir: dir.to_owned(), steps, split, aggregates: found.aggregates };
        Some((series, metadata))
    }

    /// Tells what one entry of the directory is.
    fn sort_in(&mut self, path: &Path, found: &mut Found) {
        let not_a_step = |reason: String| Problem::NotAStep { found: reason }.at(path);
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else {
            return self.problems.push(not_a_step("its name is not UTF-8".into()));
        };
        let stem = file.strip_suffix(METADATA_SUFFIX);
        let tensor = tensor_name(file);
        if file.starts_with("aggregate") && path.is_file() {
            // Means over all steps, with their metadata: derived from the steps.
            if stem.is_none() {
                found.aggregates.push(path.to_owned());
            }
            return;
        }
        let is_like_a_step = is_like_a_step(file) || has_tensor_extension(file);
        let problem = match fs::metadata(path) {
            Ok(kind) if kind.is_file() => None,
            // A named pipe would never end.
            Ok(kind) if kind.is_dir() => Some(not_a_step("not a regular file, but a directory".into())),
            Ok(_) => Some(not_a_step("not a regular file".into())),
            Err(error) => Some(Problem::of_entry(path, error).at(path)),
        };
        match (problem, stem, tensor) {
            (None, Some(stem), _) => drop(found.metadata.insert(stem.to_owned(), path.to_owned())),
            // If there is a tensor beside it, that one is named.
            (Some(problem), Some(stem), _) => found.unreadable.push((stem.to_owned(), problem)),
            (None, None, Some((stem, format))) => match StepName::parse(stem) {
                Ok(name) => {
                    let candidate = TensorFile { path: path.to_owned(), format, stem: stem.to_owned() };
                    found.tensors.entry(name).or_default().push(candidate);
                }
                Err(reason) => {
                    found.unusable.insert(stem.to_owned());
                    self.problems.push(not_a_step(reason));
                }
            },
            (Some(problem), None, Some((stem, _))) => {
                found.unusable.insert(stem.to_owned());
                self.problems.push(problem);
            }
            (problem, None, None) if is_like_a_step => {
                let not_named = || not_a_step("its name does not end in one of these".into());
                self.problems.push(problem.unwrap_or_else(not_named));
            }
            (Some(problem), None, None) => match step_files_below(path, &mut HashSet::new()) {
                0 => self.warnings.push(problem),
                count => self.problems.push(Problem::Astray { count }.at(path)),
            },
            (None, None, None) => self.warnings.push(not_a_step("it is left aside".into())),
        }
    }

    /// The steps, ascending, and the numbers of their blocks and heads if they are split.
    fn steps(&mut self, found: &mut Found) -> (Vec<StepFiles>, AxisNumbers) {
        let used: HashSet<&String> = found.tensors.values().flatten().map(|tensor| &tensor.stem).collect();
        for (stem, path) in &found.metadata {
            if used.contains(stem) || found.unusable.contains(stem) {
                continue;
            }
            match StepName::parse(stem) {
                Ok(_) => self.problems.push(Problem::NoTensor { expected: stem.clone() }.at(path)),
                Err(found) if is_like_a_step(stem) => self.problems.push(Problem::NotAStep { found }.at(path)),
                Err(found) => self.warnings.push(Problem::NotAStep { found }.at(path)),
            }
        }
        for (stem, problem) in std::mem::take(&mut found.unreadable) {
            if !used.contains(&stem) {
                self.problems.push(problem);
            }
        }
        let mut steps: BTreeMap<i32, Vec<StepFile>> = BTreeMap::new();
        for (name, files) in &found.tensors {
            let rank = |tensor: &&TensorFile| {
                let is_padded = tensor.stem == name.padded();
                (!found.metadata.contains_key(&tensor.stem), !is_padded, tensor.format, tensor.path.clone())
            };
            let Some(chosen) = files.iter().min_by_key(rank) else { continue };
            for other in files.iter().filter(|other| other.path != chosen.path) {
                if other.stem == chosen.stem {
                    let remark = format!("`{}` of the same step is taken", file_name(&chosen.path));
                    self.warnings.push(Problem::Remark(remark).at(&other.path));
                } else {
                    let what = format!("step {name}");
                    self.problems.push(Problem::Duplicate { what, first: chosen.path.clone() }.at(&other.path));
                }
            }
            let Some(metadata) = found.metadata.get(&chosen.stem) else {
                let expected = format!("{}{METADATA_SUFFIX}", chosen.stem);
                self.problems.push(Problem::NoMetadata { expected }.at(&chosen.path));
                continue;
            };
            match FileSignature::of(&chosen.path).and_then(|tensor| Ok((tensor, FileSignature::of(metadata)?))) {
                Err(error) => self.problems.push(Problem::from(error).at(&chosen.path)),
                Ok((tensor, described)) => steps.entry(name.step).or_default().push(StepFile {
                    path: chosen.path.clone(),
                    format: chosen.format,
                    block: name.block,
                    head: name.head,
                    metadata: metadata.clone(),
                    tensor,
                    described,
                }),
            }
        }
        let steps: Vec<StepFiles> =
            steps.into_iter().map(|(step, parts)| StepFiles { step, parts: self.whole_or_parts(parts) }).collect();
        let split = AxisNumbers {
            blocks: numbers_of_most(&steps, |part| part.block),
            heads: numbers_of_most(&steps, |part| part.head),
        };
        (steps, split)
    }

    /// If a step is there both whole and in parts, the whole counts.
    fn whole_or_parts(&mut self, mut parts: Vec<StepFile>) -> Vec<StepFile> {
        let Some(whole) = parts.iter().position(|part| !part.is_part()) else { return parts };
        let whole = parts.swap_remove(whole);
        for part in parts {
            let remark = format!("`{}` of the same step is whole, and is taken", file_name(&whole.path));
            self.warnings.push(Problem::Remark(remark).at(&part.path));
        }
        vec![whole]
    }
}

/// The numbers of the parts that at least half of the split steps have, or of all if there are no such; `None` if none
/// is split on that axis.
fn numbers_of_most(steps: &[StepFiles], number: fn(&StepFile) -> Option<usize>) -> Option<Arc<[i32]>> {
    let mut split_steps = 0;
    let mut votes: BTreeMap<i32, usize> = BTreeMap::new();
    for step in steps {
        let own: BTreeSet<i32> =
            step.parts.iter().filter_map(number).filter_map(|own| i32::try_from(own).ok()).collect();
        split_steps += usize::from(!own.is_empty());
        for number in own {
            *votes.entry(number).or_default() += 1;
        }
    }
    let of_most: Arc<[i32]> =
        votes.iter().filter(|(_, votes)| *votes * 2 >= split_steps).map(|(number, _)| *number).collect();
    let all = || votes.keys().copied().collect();
    (split_steps > 0).then(|| if of_most.is_empty() { all() } else { of_most })
}

/// The files of a word's directory by what they are.
#[derive(Default)]
struct Found {
    tensors: BTreeMap<StepName, Vec<TensorFile>>,
    /// By stem.
    metadata: BTreeMap<String, PathBuf>,
    aggregates: Vec<PathBuf>,
    /// Metadata that is no file, by stem.
    unreadable: Vec<(String, DumpError)>,
    /// Stems of tensor files that cannot be used: what is beside them is not named again.
    unusable: HashSet<String>,
}

struct TensorFile {
    path: PathBuf,
    format: FileFormat,
    stem: String,
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The step that the stem of a file is of.
pub(crate) fn step_of(stem: &str) -> Option<i32> {
    StepName::parse(stem).ok().map(|name| name.step)
}

/// Stem and format of a tensor file.
pub(super) fn tensor_name(file: &str) -> Option<(&str, FileFormat)> {
    FileFormat::ALL.into_iter().find_map(|format| Some((file.strip_suffix(format.extension())?, format)))
}

/// Whether a name is that of a step's tensor file. Archives that were unpacked on another system leave names with
/// directories in them.
pub(super) fn is_step_file(name: &OsStr) -> bool {
    let file = name.to_str().and_then(|name| name.rsplit('\\').next());
    file.and_then(tensor_name).is_some_and(|(stem, _)| StepName::parse(stem).is_ok())
}

/// How many files of steps are below a directory.
fn step_files_below(dir: &Path, visited: &mut HashSet<PathBuf>) -> usize {
    if !fs::canonicalize(dir).is_ok_and(|dir| visited.insert(dir)) {
        return 0;
    }
    let mut count = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| !is_foreign(&entry.file_name())) {
        let path = entry.path();
        if path.is_dir() {
            count += step_files_below(&path, visited);
        } else {
            count += usize::from(is_step_file(&entry.file_name()));
        }
    }
    count
}

/// Whether a name begins as those of step files do, in any spelling.
fn is_like_a_step(name: &str) -> bool {
    name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("step"))
}

/// Whether a name ends as files of arrays do, in any spelling.
fn has_tensor_extension(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    let name = lower.strip_suffix(".gz").unwrap_or(&lower);
    [".npy", ".npz", ".pt", ".pth", ".bin", ".safetensors"].iter().any(|extension| name.ends_with(extension))
}

/// What the stem of a step file says: `step_003_block_07_head_11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StepName {
    step: i32,
    block: Option<usize>,
    head: Option<usize>,
}

impl StepName {
    /// Reads a stem; the error says why it is no step's.
    pub fn parse(stem: &str) -> Result<Self, String> {
        let rest = stem.strip_prefix("step_").ok_or("its name does not begin with `step_`")?;
        let (rest, head) = split_index(rest, "_head_");
        let (digits, block) = split_index(rest, "_block_");
        if !is_number(digits) {
            let number: Option<f64> = digits.parse().ok();
            return Err(match number {
                Some(number) if number < 0.0 => format!("its step is {digits}; steps are numbered from 0"),
                Some(_) => format!("its step is {digits}, which is no whole number"),
                None => format!("`{digits}` is no number of a step"),
            });
        }
        let step = digits.parse().map_err(|_| format!("its step {digits} is beyond {}", i32::MAX))?;
        match block.into_iter().chain(head).find(|&number| number >= MOST_NUMBERS) {
            Some(number) => Err(format!("its block or head {number} is no model's (of {MOST_NUMBERS} at most)")),
            None => Ok(Self { step, block, head }),
        }
    }

    /// The stem that generators write: with three digits at least.
    fn padded(self) -> String {
        let index =
            |axis: &str, index: Option<usize>| index.map_or(String::new(), |index| format!("_{axis}_{index:02}"));
        format!("step_{:03}{}{}", self.step, index("block", self.block), index("head", self.head))
    }
}

impl std::fmt::Display for StepName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.step)?;
        self.block.map_or(Ok(()), |block| write!(f, ", block {block}"))?;
        self.head.map_or(Ok(()), |head| write!(f, ", head {head}"))
    }
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn split_index<'a>(stem: &'a str, separator: &str) -> (&'a str, Option<usize>) {
    match stem.rsplit_once(separator) {
        Some((rest, index)) if is_number(index) => {
            (rest, Some(index.parse().unwrap_or(usize::MAX))) // more digits than a number has
        }
        _ => (stem, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_are_read() {
        let name = |stem| StepName::parse(stem).map(|name| (name.step, name.block, name.head)).ok();
        assert_eq!(name("step_000"), Some((0, None, None)));
        assert_eq!(name("step_1000"), Some((1000, None, None)));
        assert_eq!(name("step_2147483647"), Some((i32::MAX, None, None)));
        assert_eq!(name("step_003_block_07"), Some((3, Some(7), None)));
        assert_eq!(name("step_003_head_03"), Some((3, None, Some(3))));
        assert_eq!(name("step_003_block_07_head_11"), Some((3, Some(7), Some(11))));
        for stem in ["step_003", "step_1000_block_07", "step_003_block_07_head_11"] {
            assert_eq!(StepName::parse(stem).unwrap().padded(), stem);
        }
    }

    #[test]
    fn names_that_are_no_steps_say_why() {
        let reason = |stem| StepName::parse(stem).unwrap_err();
        assert!(reason("step_-1").contains("numbered from 0"));
        assert!(reason("step_999.5").contains("no whole number"));
        assert!(reason("step_2147483648").contains("beyond 2147483647"));
        assert!(reason("step_7_final").contains("`7_final`"));
        assert!(reason("step-008").contains("begin with `step_`"));
        assert!(reason("step_1_block_99999").contains("no model's"));
        assert!(reason("step_1_block_99999999999999999999999").contains("no model's"));
        assert!(reason("step_").contains("no number") && reason("step_1_block_").contains("no number"));
    }

    #[test]
    fn extensions_of_tensors_are_told_in_any_spelling() {
        assert!(has_tensor_extension("x.NPY") && has_tensor_extension("x.Pt.gz") && !has_tensor_extension("x.txt"));
    }
}
