//! Finding the step files of a dump below any directory: flat, nested or sweep layout, one batch or many.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::read::signature;
use super::{Dump, DumpError, FileFormat, Problem, Series, Split, StepFile, StepFiles, Video, read_summary};

/// Directories nested deeper than this below the given one are not searched.
const MAX_DEPTH: usize = 16;
const TOKEN_PREFIX: &str = "token_";
const METADATA_SUFFIX: &str = "_metadata.json";

impl Dump {
    /// Finds all videos below the directories given: each may be an `attention_maps` directory, a batch directory, a
    /// parent of many batches, one video's directory or one word's. Symbolic links are followed, each directory once.
    ///
    /// Videos of one id below different `attention_maps` directories get ids that start with the batch's name (`batch/prompt_000_vid001`).
    ///
    /// # Errors
    /// If a given directory cannot be read. What is wrong below it is listed in [`Dump::problems`].
    pub fn find(paths: &[impl AsRef<Path>]) -> Result<Self, DumpError> {
        let mut walk = Walk::default();
        for path in paths {
            let path = path.as_ref();
            let canonical = fs::canonicalize(path).map_err(|error| Problem::from(error).at(path))?;
            fs::read_dir(&canonical).map_err(|error| Problem::from(error).at(path))?;
            match canonical.file_name().and_then(|name| name.to_str()) {
                Some(name) if name.starts_with(TOKEN_PREFIX) => walk.word(&canonical),
                _ => walk.directory(&canonical, 0),
            }
        }
        let found: Vec<VideoDir> = walk.videos.into_values().collect();
        let listed: Vec<Listing> = found.into_par_iter().map(VideoDir::list).collect();
        let mut dump = Self { problems: walk.problems, ..Self::default() };
        for listing in listed {
            dump.videos.extend(listing.video);
            dump.problems.extend(listing.problems);
            dump.warnings.extend(listing.warnings);
        }
        dump.name_batches();
        Ok(dump)
    }

    /// Bytes of all step files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.videos.iter().map(Video::bytes).sum()
    }

    /// Tells videos of one id in different batches apart, and leaves aside those in one.
    fn name_batches(&mut self) {
        let mut roots_of: HashMap<&str, BTreeSet<&PathBuf>> = HashMap::new();
        for video in &self.videos {
            roots_of.entry(&video.name).or_default().insert(&video.root);
        }
        // A batch is named as a whole or not at all.
        let named: HashSet<PathBuf> =
            roots_of.into_values().filter(|roots| roots.len() > 1).flatten().cloned().collect();
        let common = common_ancestor(self.videos.iter().map(|video| &video.root));
        let mut seen: HashMap<String, PathBuf> = HashMap::new();
        let mut kept = Vec::with_capacity(self.videos.len());
        for mut video in std::mem::take(&mut self.videos) {
            if named.contains(&video.root) {
                video.batch = Some(batch_name(&video.root, &common));
            }
            match seen.get(&video.id()) {
                Some(first) => {
                    let problem = Problem::Duplicate { what: format!("video {}", video.id()), first: first.clone() };
                    self.problems.push(problem.at(&video.dir));
                }
                None => {
                    seen.insert(video.id(), video.dir.clone());
                    kept.push(video);
                }
            }
        }
        self.videos = kept;
    }
}

fn common_ancestor<'a>(mut paths: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let mut common = paths.next().cloned().unwrap_or_default();
    for path in paths {
        while !path.starts_with(&common) && common.pop() {}
    }
    common
}

/// The part of a root's path that tells it from the others, without `attention_maps`.
fn batch_name(root: &Path, common: &Path) -> String {
    let named = if root.ends_with("attention_maps") { root.parent().unwrap_or(root) } else { root };
    let relative = named.strip_prefix(common).unwrap_or(named);
    let relative =
        if relative.as_os_str().is_empty() { Path::new(root.file_name().unwrap_or_default()) } else { relative };
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Whether a name from metadata is the one a directory was named after: generators replace `:`, `/` and `\` by `_`.
#[must_use]
pub fn same_name(from_metadata: &str, from_directory: &str) -> bool {
    let replaced = |name: &str| name.replace([':', '/', '\\'], "_");
    replaced(from_metadata) == replaced(from_directory)
}

/// The search for video directories.
#[derive(Default)]
struct Walk {
    videos: BTreeMap<PathBuf, VideoDir>,
    visited: HashSet<PathBuf>,
    problems: Vec<DumpError>,
}

impl Walk {
    /// Looks at one directory: is it a video's, or is there one below?
    fn directory(&mut self, dir: &Path, depth: usize) {
        if depth > MAX_DEPTH || !self.visited.insert(dir.to_owned()) {
            return;
        }
        let entries = match fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => return self.problems.push(Problem::from(error).at(dir)),
        };
        let mut video = VideoDir { dir: dir.to_owned(), words: BTreeSet::new(), summary: None };
        let mut below = BTreeSet::new();
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            // Follows links; what dangles or loops is not there.
            let Ok(kind) = fs::metadata(&path) else { continue };
            if kind.is_dir() {
                if name.as_encoded_bytes().starts_with(TOKEN_PREFIX.as_bytes()) {
                    video.words.insert(path);
                } else if !name.as_encoded_bytes().starts_with(b".") {
                    below.extend(fs::canonicalize(&path));
                }
            } else if kind.is_file() && name == "summary.json" {
                video.summary = Some(path);
            }
        }
        // A summary alone is a video of which no word was found, if it reads like one.
        let is_summary = |path: &PathBuf| {
            read_summary(path)
                .is_ok_and(|summary| summary.contains_key("target_tokens") || summary.contains_key("stored_steps"))
        };
        if !video.words.is_empty() || video.summary.as_ref().is_some_and(is_summary) {
            let known = self
                .videos
                .entry(dir.to_owned())
                .or_insert_with(|| VideoDir { words: BTreeSet::new(), ..video.clone() });
            known.words.extend(video.words);
        }
        for path in below {
            self.directory(&path, depth + 1);
        }
    }

    /// Takes one word's directory alone.
    fn word(&mut self, dir: &Path) {
        let parent = dir.parent().unwrap_or(dir).to_owned();
        let summary = Some(parent.join("summary.json")).filter(|path| path.is_file());
        let video = VideoDir { dir: parent.clone(), words: BTreeSet::new(), summary };
        self.videos.entry(parent).or_insert(video).words.insert(dir.to_owned());
    }
}

/// A video's directory, not yet listed.
#[derive(Clone)]
struct VideoDir {
    dir: PathBuf,
    words: BTreeSet<PathBuf>,
    summary: Option<PathBuf>,
}

#[derive(Default)]
struct Listing {
    video: Option<Video>,
    problems: Vec<DumpError>,
    warnings: Vec<DumpError>,
}

impl VideoDir {
    fn list(self) -> Listing {
        let mut listing = Listing::default();
        let mut series: Vec<Series> = Vec::new();
        for dir in &self.words {
            let Some(word) = list_word(dir, &mut listing) else { continue };
            if let Some(first) = series.iter().find(|other| other.token == word.token) {
                let problem = Problem::Duplicate { what: format!("word `{}`", word.token), first: first.dir.clone() };
                listing.problems.push(problem.at(dir));
            } else {
                series.push(word);
            }
        }
        let name =
            |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let own = name(Some(&self.dir));
        let parent = name(self.dir.parent());
        let nested = prompt_id(&parent).is_some_and(|prompt| prompt == parent);
        let root = self.dir.ancestors().nth(if nested { 2 } else { 1 }).unwrap_or(&self.dir).to_owned();
        let number = own.strip_prefix("vid").map(|rest| rest.trim_start_matches('_')).filter(|rest| is_number(rest));
        let id = match number {
            Some(number) if nested => format!("{parent}_vid{number}"),
            _ => own.clone(),
        };
        let prompt_id = nested.then_some(parent).or_else(|| prompt_id(&own));
        listing.video =
            Some(Video { name: id, batch: None, prompt_id, root, summary: self.summary, series, dir: self.dir });
        listing
    }
}

/// The prompt's id in a video's name: `prompt_000` of `prompt_000_vid001`, and of `p000_b001_s000` in a sweep.
pub(crate) fn prompt_id(name: &str) -> Option<String> {
    let mut parts = name.split('_');
    let number = |part: Option<&str>, letter: char| {
        part?.strip_prefix(letter).filter(|digits| is_number(digits)).map(str::to_owned)
    };
    let number = match parts.next()? {
        "prompt" => parts.next().filter(|digits| is_number(digits)).map(str::to_owned),
        first => {
            let rest = (number(parts.next(), 'b'), number(parts.next(), 's'), parts.next());
            number(Some(first), 'p').filter(|_| matches!(rest, (Some(_), Some(_), None)))
        }
    }?;
    Some(format!("prompt_{number}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lists the step files in a word's directory.
fn list_word(dir: &Path, listing: &mut Listing) -> Option<Series> {
    let name = dir.file_name()?.to_string_lossy().into_owned();
    let (token, weight) = word_and_weight(name.strip_prefix(TOKEN_PREFIX)?);
    let entries = match fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => {
            listing.problems.push(Problem::from(error).at(dir));
            return None;
        }
    };
    let mut tensors: BTreeMap<StepName, BTreeMap<(FileFormat, PathBuf), String>> = BTreeMap::new();
    let mut metadata: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut aggregates = Vec::new();
    for entry in entries {
        let path = entry.path();
        let Some(file) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if let Some(stem) = file.strip_suffix(METADATA_SUFFIX) {
            // A named pipe would never end.
            if path.is_file() {
                metadata.insert(stem.to_owned(), path);
            }
        } else if file.starts_with("aggregate") {
            aggregates.push(path);
        } else if let Some((stem, format)) = tensor_name(&file)
            && let Some(name) = StepName::parse(stem)
        {
            tensors.entry(name).or_default().insert((format, path), stem.to_owned());
        }
    }
    let mut steps: BTreeMap<i32, Vec<StepFile>> = BTreeMap::new();
    let used: HashSet<&String> = tensors.values().flat_map(BTreeMap::values).collect();
    for (stem, path) in &metadata {
        if StepName::parse(stem).is_some() && !used.contains(stem) {
            listing.problems.push(Problem::NoTensor { expected: stem.clone() }.at(path));
        }
    }
    for (name, files) in &tensors {
        // The preferred format is first.
        let Some(((format, path), stem)) = files.first_key_value() else { continue };
        let Some(metadata) = metadata.get(stem) else {
            listing.problems.push(Problem::NoMetadata { expected: format!("{stem}{METADATA_SUFFIX}") }.at(path));
            continue;
        };
        match signature(path, metadata) {
            Err(error) => listing.problems.push(Problem::from(error).at(path)),
            Ok(_) if !path.is_file() => {
                listing.problems.push(Problem::Remark("not a regular file; expected a step file".into()).at(path));
            }
            Ok((bytes, modified)) => steps.entry(name.step).or_default().push(StepFile {
                path: path.clone(),
                format: *format,
                block: name.block,
                head: name.head,
                metadata: metadata.clone(),
                bytes,
                modified,
            }),
        }
    }
    let highest = |index: fn(&StepName) -> Option<usize>| tensors.keys().filter_map(index).max().map(|index| index + 1);
    let split = Split { blocks: highest(|name| name.block), heads: highest(|name| name.head) };
    let steps =
        steps.into_iter().map(|(step, parts)| StepFiles { step, parts: whole_or_parts(parts, listing) }).collect();
    aggregates.sort();
    Some(Series { token, weight, dir: dir.to_owned(), steps, split, aggregates })
}

/// If a step is there both whole and in parts, the whole counts.
fn whole_or_parts(parts: Vec<StepFile>, listing: &mut Listing) -> Vec<StepFile> {
    let Some(whole) = parts.iter().find(|part| part.block.is_none() && part.head.is_none()) else { return parts };
    if parts.len() > 1 {
        let remark = format!("the step is there whole and in {} parts; the whole counts", parts.len() - 1);
        listing.warnings.push(Problem::Remark(remark).at(&whole.path));
    }
    vec![whole.clone()]
}

/// `flower:2.5` is word `flower`, weight 2.5.
fn word_and_weight(name: &str) -> (String, Option<f64>) {
    match name.rsplit_once(':') {
        Some((word, weight)) => match weight.parse::<f64>() {
            Ok(weight) if weight.is_finite() && weight >= 0.0 && !word.is_empty() => (word.to_owned(), Some(weight)),
            _ => (name.to_owned(), None),
        },
        None => (name.to_owned(), None),
    }
}

fn tensor_name(file: &str) -> Option<(&str, FileFormat)> {
    FileFormat::ALL.into_iter().find_map(|format| Some((file.strip_suffix(format.extension())?, format)))
}

/// What the stem of a step file says: `step_003_block_07_head_11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct StepName {
    step: i32,
    block: Option<usize>,
    head: Option<usize>,
}

impl StepName {
    fn parse(stem: &str) -> Option<Self> {
        /// Blocks and heads beyond this are no model's.
        const MOST: usize = 4096;
        let rest = stem.strip_prefix("step_")?;
        let (rest, head) = split_index(rest, "_head_");
        let (rest, block) = split_index(rest, "_block_");
        let step = Some(rest).filter(|digits| is_number(digits))?.parse().ok()?;
        (block.is_none_or(|index| index < MOST) && head.is_none_or(|index| index < MOST)).then_some(Self {
            step,
            block,
            head,
        })
    }
}

fn split_index<'a>(stem: &'a str, separator: &str) -> (&'a str, Option<usize>) {
    match stem.rsplit_once(separator) {
        Some((rest, index)) if is_number(index) => index.parse().map_or((stem, None), |index| (rest, Some(index))),
        _ => (stem, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_are_read() {
        let name = |stem| StepName::parse(stem).map(|name| (name.step, name.block, name.head));
        assert_eq!(name("step_000"), Some((0, None, None)));
        assert_eq!(name("step_1000"), Some((1000, None, None)));
        assert_eq!(name("step_003_block_07"), Some((3, Some(7), None)));
        assert_eq!(name("step_003_head_03"), Some((3, None, Some(3))));
        assert_eq!(name("step_003_block_07_head_11"), Some((3, Some(7), Some(11))));
        for stem in ["step_", "step_-1", "step_99999999999", "step_1_block_99999", "step_1_block_", "aggregate"] {
            assert_eq!(name(stem), None, "{stem}");
        }
    }

    #[test]
    fn words_lose_their_weight_syntax() {
        assert_eq!(word_and_weight("flower:2.5"), ("flower".into(), Some(2.5)));
        assert_eq!(word_and_weight("two people"), ("two people".into(), None));
        assert_eq!(word_and_weight("a:b"), ("a:b".into(), None));
        assert_eq!(word_and_weight("x:nan"), ("x:nan".into(), None));
    }

    #[test]
    fn prompt_ids_are_told_from_names() {
        let id = |name| prompt_id(name).unwrap_or_default();
        assert_eq!((id("prompt_000_vid001"), id("prompt_000")), ("prompt_000".into(), "prompt_000".into()));
        assert_eq!(id("p007_b001_s000"), "prompt_007");
        assert_eq!((id("prompt_x"), id("p007"), id("p007_b001_s000_x")), Default::default());
    }
}
