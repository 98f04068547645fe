//! `attnkit info`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::spelling::Typed;
use super::{Failure, print, show, table, units};
use crate::contents::{Contents, Kind, SeriesContents, VideoContents};
use crate::dump::DumpError;
use crate::output::visible;
use crate::progress::Silent;
use crate::store::{Store, StoreError};
use clap::{Args, ValueHint};

/// Videos shown without `--all`.
const SHOWN: usize = 20;

/// Describe a store or a dump: videos, prompts, words, steps, shapes, bytes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit info maps.store
  attnkit info outputs/my_batch              a dump, without ingesting it
  attnkit info maps.store --json | jq '.videos[].prompt'")]
pub(super) struct InfoArgs {
    /// A store, or a directory with attention maps in it or below it
    #[arg(value_hint = ValueHint::DirPath, value_parser = super::path())]
    path: PathBuf,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
    /// Show all videos, not only the first 20
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &InfoArgs) -> Result<ExitCode, Failure> {
    let mut contents = match Store::open(&args.path) {
        Ok(store) => Contents::of_store(&store, &Silent)?,
        Err(StoreError::NotAStore { .. }) => Contents::of_dump(&args.path, &Silent).map_err(|error: DumpError| {
            Failure::with_hint(error, "give a store, or the directory that holds the attention maps")
        })?,
        Err(error) => return Err(error.into()),
    };
    let typed = Typed { store: Some(args.path.clone()) };
    contents.problems.iter_mut().for_each(|problem| problem.spell(&typed));
    let code = match contents.kind {
        Kind::Store if !contents.problems.is_empty() => ExitCode::from(3),
        _ => ExitCode::SUCCESS,
    };
    if args.json {
        print(&(serde_json::to_string_pretty(&contents)? + "\n"))?;
        return Ok(code);
    }
    if contents.kind == Kind::Dump && contents.videos.is_empty() {
        return Err(Failure::with_hint(
            format!("{}: neither a store nor a dump", args.path.display()),
            "a dump has directories such as prompt_000_vid001/token_flower/ with step_000.npy in them",
        ));
    }
    show(&describe(&contents, args.all))?;
    Ok(code)
}

fn describe(contents: &Contents, all: bool) -> String {
    let bytes = contents.bytes;
    let series = || contents.videos.iter().flat_map(|video| &video.tokens);
    let prompts: std::collections::BTreeSet<_> =
        contents.videos.iter().filter_map(|video| video.prompt.as_ref()).collect();
    let mut lines = vec![format!(
        "{} {}{}",
        match contents.kind {
            Kind::Store => "store",
            Kind::Dump => "dump",
        },
        contents.path.display(),
        contents.store_version.map(|version| format!(" (format version {version})")).unwrap_or_default(),
    )];
    let mut words: BTreeMap<&str, u64> = BTreeMap::new();
    for series in series() {
        *words.entry(&series.token).or_default() += 1;
    }
    lines.push(format!(
        "{}, {}, {}, {}",
        units::count(contents.videos.len() as u64, "video"),
        units::count(prompts.len() as u64, "prompt"),
        units::count(words.len() as u64, "word"),
        units::count(contents.steps, "step")
    ));
    let mut by_videos: Vec<_> = words.into_iter().collect();
    by_videos.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let words: Vec<String> = by_videos.iter().take(12).map(|(word, n)| format!("{word} ({n})")).collect();
    let more = if by_videos.len() > 12 { format!(", and {} more", by_videos.len() - 12) } else { String::new() };
    lines.push(format!("words (videos): {}{more}", words.join(", ")));
    let mut shapes: BTreeMap<String, u64> = BTreeMap::new();
    for series in series() {
        *shapes.entry(shape_of(series)).or_default() += series.steps.len() as u64;
    }
    lines.extend(shapes.iter().map(|(shape, steps)| format!("step arrays: {shape}, {}", units::count(*steps, "step"))));
    lines.push(match contents.kind {
        Kind::Store => format!(
            "bytes: {} raw, {} stored ({}), {} rollups, {} tables{}",
            units::bytes(bytes.raw),
            units::bytes(bytes.stored),
            units::percent(bytes.stored, bytes.raw),
            units::bytes(bytes.rollups),
            units::bytes(bytes.index),
            if bytes.unreferenced > 0 {
                format!(", {} that `attnkit gc` would remove", units::bytes(bytes.unreferenced))
            } else {
                String::new()
            },
        ),
        Kind::Dump => format!("bytes: {} raw, {} in files", units::bytes(bytes.raw), units::bytes(bytes.stored)),
    });
    let shown = if all { contents.videos.len() } else { SHOWN.min(contents.videos.len()) };
    lines.push(String::new());
    lines.push(videos_table(contents, shown));
    if shown < contents.videos.len() {
        lines.push(format!(
            "and {} more (--all shows them)",
            units::count((contents.videos.len() - shown) as u64, "video")
        ));
    }
    let aggregates: usize = series().map(|series| series.aggregates).sum();
    if aggregates > 0 {
        lines.push(format!(
            "{} left aside: means over all steps, derived from them",
            units::count(aggregates as u64, "aggregate file")
        ));
    }
    let unfinished = contents.videos.iter().filter(|video| may_be_unfinished(contents.kind, video)).count();
    if unfinished > 0 {
        lines.push(format!(
            "{} without summary.json: generation may not have finished",
            units::count(unfinished as u64, "video")
        ));
    }
    lines.extend(contents.problems.iter().map(|problem| match contents.kind {
        Kind::Store => visible(&format!("left out: {}", problem.error)).into_owned(),
        Kind::Dump => visible(&format!("cannot be used: {}: {}", problem.path.display(), problem.error)).into_owned(),
    }));
    lines.join("\n") + "\n"
}

/// Whether nothing says that a video was generated to its end: no summary, and in a store not its last step either.
fn may_be_unfinished(kind: Kind, video: &VideoContents) -> bool {
    let is_at_end = |series: &SeriesContents| match (series.total_steps, series.steps.last()) {
        (Some(total), Some(last)) => last + 1 == total,
        _ => false,
    };
    let has_end = kind == Kind::Store && !video.tokens.is_empty() && video.tokens.iter().all(is_at_end);
    !video.has_summary && !has_end
}

fn shape_of(series: &SeriesContents) -> String {
    let shape = series
        .shape
        .map_or("unreadable".to_owned(), |[b, h, s, t]| format!("[block {b}, head {h}, spatial {s}, token {t}]"));
    let grid = series.grid.map_or(", grid unknown".to_owned(), |grid| format!(", grid {grid}"));
    let lossy = series.lossy.as_object().filter(|lossy| !lossy.is_empty()).map(|lossy| {
        format!(", lossy: {}", lossy.iter().map(|(what, how)| format!("{what} {how}")).collect::<Vec<_>>().join(", "))
    });
    let numbers = if series.numbers.count() > 0 { format!(", of {}", series.numbers) } else { String::new() };
    format!("{} {shape}{numbers}{grid}{}", series.dtype.as_deref().unwrap_or("unknown"), lossy.unwrap_or_default())
}

fn videos_table(contents: &Contents, shown: usize) -> String {
    let rows = contents.videos.iter().take(shown).map(|video| {
        let words: Vec<String> = video
            .tokens
            .iter()
            .map(|series| series.weight.map_or(series.token.clone(), |weight| format!("{}:{weight}", series.token)))
            .collect();
        let mut steps: Vec<String> = video.tokens.iter().map(|series| steps_of(&series.steps)).collect();
        steps.dedup();
        [
            video.video_id.clone(),
            video.seed.map_or("-".into(), |seed| seed.to_string()),
            words.join(", "),
            steps.join("; "),
            video.prompt.clone().unwrap_or_else(|| "-".into()),
        ]
    });
    table::draw(&["video", "seed", "words", "steps", "prompt"], rows).trim_end().to_owned()
}

/// `0-9`, `0-45 by 5`, `0, 4, 9`, or `0-9 (8 steps)`.
fn steps_of(steps: &[i32]) -> String {
    let ([first, ..], [.., last]) = (steps, steps) else { return "none".into() };
    let gaps: Vec<i32> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    match gaps[..] {
        [] => first.to_string(),
        [gap, ..] if gaps.len() > 1 && gaps.iter().all(|&other| other == gap) => match gap {
            1 => format!("{first}-{last}"),
            _ => format!("{first}-{last} by {gap}"),
        },
        _ if steps.len() <= 6 => steps.iter().map(i32::to_string).collect::<Vec<_>>().join(", "),
        _ => format!("{first}-{last} ({} steps)", steps.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_shortly() {
        assert_eq!(steps_of(&[]), "none");
        assert_eq!(steps_of(&[3]), "3");
        assert_eq!(steps_of(&[0, 1, 2, 3]), "0-3");
        assert_eq!(steps_of(&[0, 5, 10]), "0-10 by 5");
        assert_eq!(steps_of(&[0, 4, 9]), "0, 4, 9");
        assert_eq!(steps_of(&[0, 1, 2, 3, 4, 5, 7]), "0-7 (7 steps)");
    }
}
