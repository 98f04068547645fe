//! Finding the step files of a dump below any directory: flat, nested or sweep layout, one batch or many.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::foreign::is_foreign;
use super::listing::{Listing, TOKEN_PREFIX, is_number, is_step_file};
use super::word::{as_component, composed};
use super::{Dump, DumpError, Problem, Series, StepMetadata, Video, read_summary};
use crate::progress::{Progress, Silent};

/// Directories nested deeper than this below the given one are not searched.
const MAX_DEPTH: usize = 16;

impl Dump {
    /// Finds all videos below the directories given: each may be an `attention_maps` directory, a batch directory, a
    /// parent of many batches, one video's directory or one word's. Symbolic links are followed, each directory once,
    /// and what they lead to is named as the link is. What systems leave in directories (`__MACOSX`, `.nfs…`) is no
    /// part of a dump.
    ///
    /// Videos of one id below different `attention_maps` directories get ids that start with the batch's name
    /// (`batch/prompt_000_vid001`).
    ///
    /// # Errors
    /// If a given directory cannot be read. What is wrong below it is listed in [`Dump::problems`].
    pub fn find(paths: &[impl AsRef<Path>]) -> Result<Self, DumpError> {
        Self::find_unless_cancelled(paths, &Silent)
    }

    /// As [`find`](Self::find), for as long as whoever follows the work lets it.
    ///
    /// # Errors
    /// The same, and [`Problem::Cancelled`].
    pub fn find_unless_cancelled(paths: &[impl AsRef<Path>], progress: &dyn Progress) -> Result<Self, DumpError> {
        let mut walk = Walk::new(progress);
        for path in paths {
            let path = path.as_ref();
            let failed = |error| Problem::from(error).at(path);
            let (dir, resolved) = (named(path).map_err(failed)?, fs::canonicalize(path).map_err(failed)?);
            fs::read_dir(&dir).map_err(failed)?;
            // A link of another name may lead to a word's directory, too.
            match [&dir, &resolved].into_iter().find(|dir| is_word_dir(dir)) {
                Some(word) => walk.word(word),
                None => walk.directory(&dir, 0),
            }
        }
        walk.follow_links();
        let found: Vec<VideoDir> = walk.videos.into_values().collect();
        let list = |video: VideoDir| (!progress.is_cancelled()).then(|| video.list());
        let listed: Option<Vec<(Video, Listing)>> = found.into_par_iter().map(list).collect();
        let Some(listed) = listed.filter(|_| !progress.is_cancelled()) else {
            let path = paths.first().map_or(Path::new(""), AsRef::as_ref);
            return Err(Problem::Cancelled.at(path));
        };
        let mut dump = Self { problems: walk.problems, warnings: walk.warnings, ..Self::default() };
        for (video, listing) in listed {
            dump.videos.push(video);
            dump.problems.extend(listing.problems);
            dump.warnings.extend(listing.warnings);
        }
        dump.name_batches();
        dump.unify_spellings(HashMap::new());
        Ok(dump)
    }

    /// Whether there are words, but nothing in them is understood: no file of them is a step's.
    #[must_use]
    pub fn is_not_understood(&self) -> bool {
        let is_odd = |error: &DumpError| matches!(error.problem, Problem::NotAStep { .. } | Problem::Astray { .. });
        // A summary and nothing else is a video without words.
        let has_odd = |video: &Video| self.problems.iter().any(|error| error.path.starts_with(&video.dir));
        let is_odd_video = |video: &Video| {
            let is_empty = video.series.iter().all(|series| series.steps.is_empty());
            is_empty && (video.summary.is_none() || has_odd(video))
        };
        self.videos.iter().all(is_odd_video) && !self.problems.is_empty() && self.problems.iter().all(is_odd)
    }

    /// Bytes of all step files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.videos.iter().map(Video::bytes).sum()
    }

    /// Gives words that are spelled with the same characters one spelling: that in `known` (by the composed form), else
    /// the first. The others are named among the warnings.
    pub(crate) fn unify_spellings(&mut self, mut known: HashMap<String, String>) {
        for series in
            self.videos.iter_mut().flat_map(|video| &mut video.series).filter(|series| !series.token.is_ascii())
        {
            let first = known.entry(composed(&series.token)).or_insert_with(|| series.token.clone());
            if *first != series.token {
                let form = |text: &str| if text == composed(text) { "composed" } else { "decomposed" };
                let remark = format!(
                    "the word `{first}` is spelled with {} characters here, and with {} ones where it was first met; \
                     it is one word, in the first spelling",
                    form(&series.token),
                    form(first)
                );
                self.warnings.push(Problem::Remark(remark).at(&series.dir));
                series.token.clone_from(first);
            }
        }
    }

    /// Tells videos of one id in different batches apart, and leaves aside those in one.
    fn name_batches(&mut self) {
        let mut roots_of: HashMap<&str, BTreeSet<&PathBuf>> = HashMap::new();
        for video in self.videos.iter().filter(|video| !video.is_named_by_export) {
            roots_of.entry(&video.name).or_default().insert(&video.root);
        }
        // A batch is named as a whole or not at all.
        let named: HashSet<PathBuf> =
            roots_of.into_values().filter(|roots| roots.len() > 1).flatten().cloned().collect();
        let common = common_ancestor(self.videos.iter().map(|video| &video.root));
        let mut seen: HashMap<String, PathBuf> = HashMap::new();
        let mut kept = Vec::with_capacity(self.videos.len());
        for mut video in std::mem::take(&mut self.videos) {
            if named.contains(&video.root) && !video.is_named_by_export {
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

/// Whether a directory is like a dump: a word's directory is in it, or a few levels below.
pub(crate) fn is_dump(dir: &Path) -> bool {
    /// Directories that are looked into.
    const MOST_LOOKED_INTO: usize = 200;
    let mut level = VecDeque::from([dir.to_owned()]);
    for _ in 0..MOST_LOOKED_INTO {
        let Some(dir) = level.pop_front() else { return false };
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if is_word_dir(&entry.path()) {
                return true;
            }
            if !is_foreign(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                level.push_back(entry.path());
            }
        }
    }
    false
}

/// A path as it is named by whoever gave it: what is before the name is resolved, so that one place has one path.
pub(crate) fn named(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        _ => fs::canonicalize(path),
    }
}

/// Whether a directory is one word's, by its name; not if there is nothing in it but other directories.
fn is_word_dir(dir: &Path) -> bool {
    let is_named = dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TOKEN_PREFIX.as_bytes()));
    let holds_directories_only = || {
        let mut entries =
            fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| !is_foreign(&entry.file_name()));
        let mut kinds = entries.by_ref().map(|entry| entry.path().is_dir());
        kinds.next() == Some(true) && kinds.all(|is_dir| is_dir)
    };
    is_named && !holds_directories_only()
}

/// The search for video directories.
struct Walk<'a> {
    progress: &'a dyn Progress,
    videos: BTreeMap<PathBuf, VideoDir>,
    /// The directories that were looked at, links resolved, each with the path that led to it.
    visited: HashMap<PathBuf, PathBuf>,
    /// Links to directories: followed when all that is no link is known, so that what is there under its own name keeps
    /// it.
    links: VecDeque<(PathBuf, usize)>,
    problems: Vec<DumpError>,
    warnings: Vec<DumpError>,
}

impl<'a> Walk<'a> {
    fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            videos: BTreeMap::new(),
            visited: HashMap::new(),
            links: VecDeque::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Looks at one directory: is it a video's, or is there one below?
    fn directory(&mut self, dir: &Path, depth: usize) {
        if self.progress.is_cancelled() {
            return;
        }
        let resolved = match fs::canonicalize(dir) {
            Ok(resolved) => resolved,
            Err(error) => return self.problems.push(Problem::from(error).at(dir)),
        };
        if let Some(known) = self.visited.get(&resolved) {
            let has_videos =
                || self.videos.range(known.clone()..).next().is_some_and(|(video, _)| video.starts_with(known));
            // A link up to where it is comes to nothing new.
            if known != dir && !dir.starts_with(known) && has_videos() {
                let remark = format!("is the same directory as {}, and is read under that name", known.display());
                self.warnings.push(Problem::Remark(remark).at(dir));
            }
            return;
        }
        self.visited.insert(resolved, dir.to_owned());
        if depth > MAX_DEPTH {
            let remark = format!(
                "is {depth} directories below the one that was given, and is not searched; name a directory that is at \
                 most {MAX_DEPTH} above it"
            );
            return self.problems.push(Problem::Remark(remark).at(dir));
        }
        let entries = match fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => return self.problems.push(Problem::from(error).at(dir)),
        };
        let mut video = VideoDir { dir: dir.to_owned(), words: BTreeSet::new(), summary: None };
        let mut below = BTreeSet::new();
        let mut astray = BTreeSet::new();
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            if is_foreign(&name) {
                continue;
            }
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let is_word = is_word_dir(&path);
            let kind = match fs::metadata(&path) {
                Ok(kind) => kind,
                Err(error) => {
                    self.lost(&path, is_word, is_link, error);
                    continue;
                }
            };
            if name == "summary.json" {
                if kind.is_file() {
                    video.summary = Some(path);
                } else {
                    self.warnings.push(Problem::Remark("is not a regular file, and is not read".into()).at(path));
                }
            } else if kind.is_dir() {
                if is_word {
                    video.words.insert(path);
                } else if is_link {
                    self.links.push_back((path, depth + 1));
                } else {
                    below.insert(path);
                }
            } else if kind.is_file() && is_step_file(&name) {
                astray.insert(path);
            }
        }
        if let Some(first) = astray.first() {
            let problem = Problem::Astray { count: astray.len() };
            self.problems.push(problem.at(if astray.len() == 1 { first } else { dir }));
        }
        // A summary alone is a video of which no word was found, if it reads like one.
        let is_summary = |path: &PathBuf| {
            read_summary(path)
                .is_ok_and(|(summary, _)| summary.contains_key("target_tokens") || summary.contains_key("stored_steps"))
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

    /// Looks at what links lead to and has not been looked at.
    fn follow_links(&mut self) {
        // A link to a link is another name for it.
        let leads_to_a_link =
            |path: &Path| fs::read_link(path).is_ok_and(|target| path.with_file_name(target).is_symlink());
        self.links.make_contiguous().sort_by_cached_key(|(path, _)| (leads_to_a_link(path), path.clone()));
        while let Some((path, depth)) = self.links.pop_front() {
            self.directory(&path, depth);
        }
    }

    /// Notes an entry that leads nowhere.
    fn lost(&mut self, path: &Path, is_word: bool, is_link: bool, error: io::Error) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        let problem = Problem::of_entry(path, error);
        // What was removed while this looks is no news.
        match (is_word || prompt_id(&name).is_some(), is_link || !is_gone) {
            (_, false) => {}
            (true, true) => self.problems.push(problem.at(path)),
            (false, true) => self.warnings.push(problem.at(path)),
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

impl VideoDir {
    fn list(self) -> (Video, Listing) {
        let mut listing = Listing::default();
        let mut series: Vec<Series> = Vec::new();
        let mut exported_id = None;
        for dir in std::iter::once(&self.dir).chain(&self.words) {
            let name = dir.file_name().unwrap_or_default();
            if name.to_str().is_none() {
                let remark = format!("its name is not UTF-8; it is taken as `{}`", name.to_string_lossy());
                listing.warnings.push(Problem::Remark(remark).at(dir));
            }
        }
        for dir in &self.words {
            let Some((word, metadata)) = listing.word(dir) else { continue };
            let is_same = |other: &&Series| composed(&other.token) == composed(&word.token);
            if let Some(first) = series.iter().find(is_same) {
                let otherwise = if first.token == word.token { "" } else { ", composed of other characters," };
                let what = format!("word `{}`{otherwise}", word.token);
                let problem = Problem::Duplicate { what, first: first.dir.clone() };
                listing.problems.push(problem.at(dir));
                continue;
            }
            exported_id = exported_id.or_else(|| self.exported_id(metadata?));
            series.push(word);
        }
        let name =
            |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let own = name(Some(&self.dir));
        let parent = name(self.dir.parent());
        // A directory above counts only where the video's own name does not say which prompt it is of.
        let own_prompt = prompt_id(&own);
        let nested = prompt_id(&parent).is_some_and(|prompt| prompt == parent)
            && own_prompt.as_ref().is_none_or(|prompt| *prompt == parent);
        let root = self.dir.ancestors().nth(if nested { 2 } else { 1 }).unwrap_or(&self.dir).to_owned();
        let number = own.strip_prefix("vid").map(|rest| rest.trim_start_matches('_')).filter(|rest| is_number(rest));
        let id = match number {
            Some(number) if nested => format!("{parent}_vid{number}"),
            _ => own.clone(),
        };
        let prompt_id = own_prompt.or(nested.then_some(parent));
        let video = Video {
            is_named_by_export: exported_id.is_some(),
            name: exported_id.unwrap_or(id),
            batch: None,
            prompt_id,
            root,
            summary: self.summary,
            series,
            dir: self.dir,
        };
        (video, listing)
    }

    /// The id that the video had in the store it was exported from, if this is the directory that it was exported to.
    fn exported_id(&self, metadata: StepMetadata) -> Option<String> {
        let id = metadata.exported.video_id?;
        let parts: PathBuf = id.split('/').map(as_component).collect();
        // Nested, `prompt_000_vid001` is `prompt_000/vid001`.
        let nested = parts
            .file_name()
            .and_then(|last| last.to_str()?.split_once("_vid"))
            .map(|(prompt, number)| parts.with_file_name(prompt).join(format!("vid{number}")));
        let last = parts.file_name().unwrap_or_default().to_string_lossy();
        let as_word = parts.with_file_name(format!("_{last}"));
        let is_here =
            [Some(parts.clone()), nested, Some(as_word)].into_iter().flatten().any(|dir| self.dir.ends_with(dir));
        is_here.then_some(id)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_ids_are_told_from_names() {
        let id = |name| prompt_id(name).unwrap_or_default();
        assert_eq!((id("prompt_000_vid001"), id("prompt_000")), ("prompt_000".into(), "prompt_000".into()));
        assert_eq!(id("p007_b001_s000"), "prompt_007");
        assert_eq!((id("prompt_x"), id("p007"), id("p007_b001_s000_x")), Default::default());
    }
}
