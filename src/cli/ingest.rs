//! `attnkit ingest`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

use super::progress::Bar;
use super::shared::SingleWriterArg;
use super::spelling::Typed;
use super::{Failure, Global, check_outside, interrupt, show, units};
use crate::dtype::Dtype;
use crate::dump::{Batch, is_dump};
use crate::grid::Grid;
use crate::ingest::{
    self, DryRun, DumpContents, Event, IngestError, IngestOptions, Observer, OnError, PromptMatches, Report,
    WatchOptions, read_settings,
};
use crate::output::write_whole;
use crate::progress::{Amount, Progress};
use crate::remedy::with_remedy;
use crate::store::{ChosenCodec, Rollups, StoreError};

/// Warnings printed one by one.
const WARNINGS_SHOWN: u64 = 20;

const AFTER_HELP: &str = "\
Examples:
  attnkit ingest outputs/my_batch --store maps.store
  attnkit ingest outputs/*/attention_maps --store all.store --tokens 'flower' --tokens 'tree*'
  attnkit ingest outputs/my_batch --store maps.store --dry-run
  attnkit ingest outputs/my_batch --store maps.store --prompts templates.txt
  attnkit ingest outputs/my_batch --store maps.store --watch --until-idle 10m
  attnkit ingest outputs/my_batch --store small.store --average heads --every 5

Run it again at any time: only what is new or changed is done. It may be killed at any instant.
A watch commits each step as soon as its metadata is there and its files are the same at two looks. It reads
--prompts once, and what the generator leaves beside the maps whenever that changes. What a commit
replaces stays five minutes, for whoever has opened it; `attnkit gc` removes what is left of it after the watch.

Codecs; all but `lossy` lose nothing. On synthetic float16 maps [30, 12, 23850, 1], 2 cores, MB/s of raw values
(`make bench` repeats it):
                           ingest    read   size of maps
  fast       blosc lz4        709    3960   60 %
  balanced   blosc zstd 1     549    1820   56 %
  small      blosc zstd 9     205    1800   55 %
  none       none             660    9590   100 %
`lossy:bits=N` rounds each value to N bits behind its leading one: by 2^-(N+1) of it at most. Averaged maps of full
precision shrink most. How far the values of each step are from what they were is in the columns max_error and
mean_error of `attnkit query list`. Statistics and means are those of the rounded values.
Rollups are what means are read from. `auto` keeps those that cost next to nothing (of 30 x 12 maps the mean over all
of them, 0.5 %), `all` adds the means over blocks and over heads, 14 to 24 %: they barely compress. `attnkit rollup`
adds them later, or takes them away, without the dump.

Exit code: 0 all ingested (or a watch that was ended by Ctrl-C), 3 some files were left out (each is named), 1 failure,
2 wrong usage, 130 interrupted.";

/// Convert dumps into a store, or add to it what is new.
///
/// DUMP is a directory with attention maps in it or below it: `attention_maps`, a batch directory, a parent of
/// many batches, one video's or one word's directory. Step files may be .npy, .npy.gz, .pt, .pt.gz or .npz. The dump is
/// never modified.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct IngestArgs {
    /// Directories to search for attention maps
    #[arg(required = true, value_name = "DUMP", value_hint = ValueHint::DirPath, value_parser = super::path())]
    dumps: Vec<PathBuf>,
    /// Directory of the store; created if it is not there
    #[arg(long, value_name = "STORE", value_hint = ValueHint::DirPath, value_parser = super::path())]
    store: PathBuf,
    /// How arrays are compressed
    #[arg(long, value_name = "CODEC", default_value = "balanced", value_parser = CodecParser)]
    codec: ChosenCodec,
    /// Which means (over blocks, heads and both) are stored beside the maps
    #[arg(long, value_enum, default_value = "auto")]
    rollups: Rollups,
    /// Only videos whose id matches; may be given several times
    #[arg(long, value_name = "GLOB")]
    videos: Vec<String>,
    /// Only words that match; may be given several times
    #[arg(long, value_name = "GLOB")]
    tokens: Vec<String>,
    /// Only steps whose number is a multiple of N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: Option<u32>,
    /// Average-pool height and width of the grid by K (lossy)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    downsample: Option<u16>,
    /// Element type in the store; float16 from wider types is lossy
    #[arg(long, value_enum)]
    dtype: Option<DtypeArg>,
    /// Which element of a batch axis (axis 1 of five) to keep, or `mean`
    #[arg(long, value_name = "INDEX|mean")]
    batch: Option<Batch>,
    /// Name of the array to read of .npz files that hold several [default: `attention`, or the only one that can be a
    /// step]
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
    /// Average over these axes (lossy)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "blocks,heads")]
    average: Vec<AxisArg>,
    /// Grid of the maps; counts more than what metadata tells
    #[arg(long, value_name = "FxHxW")]
    grid: Option<Grid>,
    /// Read `attention_analysis_settings` from a generator's YAML and apply them; flags given here count more
    #[arg(long, value_name = "FILE.yaml", value_hint = ValueHint::FilePath, value_parser = super::path())]
    settings: Option<PathBuf>,
    /// The prompts that the videos were generated from: templates, one a line, or a JSON of variations; fills
    /// `template`, `variation` and `weight` [default: what the generator left beside the maps]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = super::path())]
    prompts: Option<PathBuf>,
    /// Check the dump's `token_ids` against this tokenizer
    #[arg(long, value_name = "tokenizer.json", value_hint = ValueHint::FilePath, value_parser = super::path())]
    tokenizer: Option<PathBuf>,
    /// Put NAME/ before every video id, to keep batches with equal ids apart
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
    /// Replace what is in the store from another directory or with other settings
    #[arg(long)]
    replace: bool,
    /// Leave the tables of each video in files of their own, however many these are
    #[arg(long)]
    no_pack: bool,
    #[command(flatten)]
    writer: SingleWriterArg,
    /// What to do with a file that cannot be used
    #[arg(long, value_enum, default_value = "quarantine")]
    on_error: OnError,
    /// Refuse step files that hold more than this once decompressed
    #[arg(long, value_name = "BYTES", default_value_t = IngestOptions::default().max_step_bytes)]
    max_step_bytes: u64,
    /// Follow a dump that is still being written: ingest each step once it is complete, until --until-idle or Ctrl-C
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    /// End a watch when nothing has changed for this long, such as 90s, 10m or 1h
    #[arg(long, value_name = "TIME", requires = "watch", value_parser = humantime::parse_duration)]
    until_idle: Option<Duration>,
    /// Time between two looks of a watch
    #[arg(
        long, value_name = "TIME", requires = "watch", default_value = "2s",
        value_parser = humantime::parse_duration
    )]
    poll: Duration,
    /// Say what would be done and how large it would be; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write a report as JSON: ingested, skipped, quarantined, warnings, `bytes_in`, `bytes_out`, seconds
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath, value_parser = super::path())]
    report: Option<PathBuf>,
}

/// Reads `--codec`, and tells what can be given there.
#[derive(Debug, Clone, Copy)]
struct CodecParser;

impl TypedValueParser for CodecParser {
    type Value = ChosenCodec;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<ChosenCodec, clap::Error> {
        StringValueParser::new().try_map(|name| name.parse()).parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = [
            ("fast", "Blosc with lz4: the fastest to read and write"),
            ("balanced", "Blosc with zstd, level 1: nearly the smallest, and fast"),
            ("small", "Blosc with zstd, level 9: the smallest, slow to write"),
            ("none", "No compression"),
            ("lossy:bits=N", "Values rounded to N bits of the fraction (float16 has 10, float32 23); balanced"),
        ];
        Some(Box::new(values.into_iter().map(|(name, help)| PossibleValue::new(name).help(help))))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DtypeArg {
    Keep,
    Float16,
    Float32,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum AxisArg {
    Blocks,
    Heads,
}

impl IngestArgs {
    fn options(&self, global: &Global) -> Result<(IngestOptions, Vec<String>), Failure> {
        let mut options = IngestOptions {
            codec: self.codec.codec,
            bits: self.codec.bits,
            rollups: self.rollups,
            videos: self.videos.clone(),
            tokens: self.tokens.clone(),
            batch: self.batch,
            array: self.array.clone(),
            grid: self.grid,
            prefix: self.prefix.clone(),
            replace: self.replace,
            single_writer: self.writer.single_writer,
            pack: !self.no_pack,
            prompts: self.prompts.clone(),
            tokenizer: self.tokenizer.clone(),
            threads: global.threads.map_or(0, usize::from),
            on_error: self.on_error,
            max_step_bytes: self.max_step_bytes,
            ..IngestOptions::default()
        };
        let mut remarks = Vec::new();
        if let Some(path) = &self.settings {
            let settings = read_settings(path)?;
            settings.apply(&mut options);
            remarks.extend(settings.remarks.iter().map(|remark| format!("{}: {remark}", path.display())));
        }
        options.every = self.every.unwrap_or(options.every);
        options.downsample = self.downsample.map_or(options.downsample, usize::from);
        options.dtype = match self.dtype {
            None => options.dtype,
            Some(DtypeArg::Keep) => None,
            Some(DtypeArg::Float16) => Some(Dtype::Float16),
            Some(DtypeArg::Float32) => Some(Dtype::Float32),
        };
        options.average_blocks |= self.average.contains(&AxisArg::Blocks);
        options.average_heads |= self.average.contains(&AxisArg::Heads);
        Ok((options, remarks))
    }
}

pub(super) fn run(args: &IngestArgs, global: &Global) -> Result<ExitCode, Failure> {
    let (options, remarks) = args.options(global)?;
    let typed = Typed { store: Some(args.store.clone()) };
    let progress = Follower::new(args, global);
    for remark in remarks {
        progress.bar.note(&format!("warning: {remark}"));
    }
    if let Some(lossy) = lossy_settings(&options) {
        progress.bar.note(&format!("lossy settings: {lossy}"));
    }
    if let Some(path) = &args.report {
        check_outside(path, &args.store)?;
        check_no_step(path)?;
        // Noticed now rather than after hours of work.
        write_whole(path, b"{}\n").map_err(|error| Failure::usage(error, "name a file that can be written"))?;
    }
    if args.dry_run {
        let outcome = ingest::dry_run(&args.dumps, &args.store, &options, &progress);
        progress.bar.finish();
        let mut outcome = outcome.map_err(|error| explain(error, args))?;
        outcome.quarantined.iter_mut().for_each(|left| left.spell(&typed));
        outcome.warnings.iter_mut().for_each(|warning| warning.spell(&typed));
        show(&describe_dry_run(&outcome))?;
        return write_report(args, &outcome).map(|()| exit_code(outcome.quarantined.is_empty()));
    }
    interrupt::listen();
    let report = if args.watch {
        let watch = WatchOptions { poll: args.poll, until_idle: args.until_idle };
        ingest::watch(&args.dumps, &args.store, &options, watch, &progress)
    } else {
        ingest::run(&args.dumps, &args.store, &options, &progress)
    };
    progress.bar.finish();
    let mut report = report.map_err(|error| explain(error, args))?;
    report.quarantined.iter_mut().for_each(|left| left.spell(&typed));
    report.warnings.iter_mut().for_each(|warning| warning.spell(&typed));
    if !global.quiet {
        show(&describe(&report, args))?;
    }
    write_report(args, &report)?;
    Ok(exit_code(report.quarantined.is_empty()))
}

/// Refuses to write a report over a file of a dump.
fn check_no_step(report: &Path) -> Result<(), Failure> {
    let name = report.file_name().unwrap_or_default().to_string_lossy();
    let is_of_dump = name == "summary.json" || name.starts_with("step_");
    if is_of_dump && report.exists() {
        let found = format!("{}: is a file of a dump, which is not modified", report.display());
        return Err(Failure::usage(found, "name a file elsewhere"));
    }
    Ok(())
}

/// The settings that lose something, in words.
fn lossy_settings(options: &IngestOptions) -> Option<String> {
    let settings = [
        options.average_blocks.then(|| "averaged over blocks".to_owned()),
        options.average_heads.then(|| "averaged over heads".to_owned()),
        (options.downsample > 1).then(|| format!("pooled {0} x {0}", options.downsample)),
        options.bits.map(|bits| format!("rounded to {bits} bits")),
        options.dtype.and_then(|dtype| match dtype {
            Dtype::Float16 => Some("float16, where types are wider".to_owned()),
            Dtype::Float32 => Some("float32, where types are float64".to_owned()),
            Dtype::Float64 => None,
        }),
        (options.every > 1).then(|| format!("steps by {}", options.every)),
    ];
    let settings: Vec<String> = settings.into_iter().flatten().collect();
    (!settings.is_empty()).then(|| settings.join(", "))
}

fn exit_code(clean: bool) -> ExitCode {
    if clean { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

fn write_report(args: &IngestArgs, report: &impl serde::Serialize) -> Result<(), Failure> {
    let Some(path) = &args.report else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    write_whole(path, text.as_bytes()).map_err(|error| Failure::with_hint(error, "the ingest itself is done"))
}

/// A failure, with what the arguments tell of what to try.
fn explain(error: IngestError, args: &IngestArgs) -> Failure {
    let store = args.store.display();
    let hint: String = match &error {
        IngestError::Prompts(_) => "docs/prompts.md describes what --prompts reads".into(),
        IngestError::Dump(_) if args.dumps.iter().any(|dump| !dump.exists()) => {
            "give the directory that holds the attention maps, or a parent of it".into()
        }
        IngestError::Dump(_) if args.on_error == OnError::Fail => {
            "without `--on-error fail`, such files are left out and named".into()
        }
        IngestError::Dump(_) => "give directories with attention maps in them or below them".into(),
        IngestError::Store(StoreError::NotAStore { path, .. }) if is_dump(path) => {
            "it is a dump: give it before --store, and after --store a directory that does not exist yet".into()
        }
        IngestError::Store(StoreError::NotAStore { .. }) => "name a directory that does not exist yet".into(),
        IngestError::Store(_) => {
            format!("`attnkit verify {store}` checks what is there; committed videos are never modified")
        }
        _ => String::new(),
    };
    let is_of_prompts = matches!(error, IngestError::Prompts(_));
    let mut failure = Failure::of(error, Some(&args.store));
    if is_of_prompts {
        failure.code = 2;
    }
    failure.hint = failure.hint.or((!hint.is_empty()).then_some(hint));
    failure
}

fn describe(report: &Report, args: &IngestArgs) -> String {
    let steps = |n: u64| units::count(n, "step");
    let mut lines = vec![format!(
        "{} ingested, {} already there, {} left out",
        steps(report.ingested),
        report.skipped,
        units::count(report.quarantined.len() as u64, "file")
    )];
    lines.extend(report.contents.filter(|contents| contents.videos > 0).map(describe_contents));
    lines.extend(report.prompts.map(describe_prompts));
    if report.ingested > 0 {
        lines.push(format!(
            "{} in, {} out{}, {:.1} s, {}",
            units::bytes(report.bytes_in),
            units::bytes(report.bytes_out),
            // Where steps were written again, the two do not compare.
            if report.skipped == 0 && !args.watch {
                format!(" of arrays ({})", units::percent(report.bytes_out, report.bytes_in))
            } else {
                String::new()
            },
            report.seconds,
            units::rate(report.bytes_in, report.seconds),
        ));
    }
    if let Some(packed) = report.packed.filter(|packed| packed.videos > 0) {
        let files = units::count(packed.files[1], "file");
        lines.push(format!("tables of {} packed: {files} now", units::count(packed.videos, "video")));
    }
    if !report.warnings.is_empty() {
        let listed = match &args.report {
            Some(path) => format!("{} lists them", path.display()),
            None => "--report FILE.json lists them".into(),
        };
        lines.push(format!("{} ({listed})", units::count(report.warnings.len() as u64, "warning")));
    }
    if !report.quarantined.is_empty() {
        lines.push("what was left out is named above; mend it and run the same command again".into());
    }
    if let Some(weighted) = report.contents.map(|contents| contents.weighted).filter(|&weighted| weighted > 0) {
        lines.push(format!(
            "weights of words ({}) are what was asked for; a generator may have put them one piece too late: \
             docs/capture.md, Weights",
            units::count(weighted, "video")
        ));
    }
    lines.push(format!("store: {}", args.store.display()));
    lines.join("\n") + "\n"
}

fn describe_contents(contents: DumpContents) -> String {
    let DumpContents { videos, words, prompts, seeds, without_seed, weighted: _ } = contents;
    let counts = [(videos, "video"), (words, "word"), (prompts, "prompt"), (seeds, "seed")];
    let counts: Vec<String> = counts.into_iter().map(|(count, what)| units::count(count, what)).collect();
    let unknown = if without_seed > 0 {
        format!(" ({} without a known one)", units::count(without_seed, "video"))
    } else {
        String::new()
    };
    format!("{}{unknown}", counts.join(", "))
}

fn describe_prompts(prompts: PromptMatches) -> String {
    let of = prompts.matched + prompts.unmatched;
    format!("prompts known of {} of {}", prompts.matched, units::count(of, "video"))
}

fn describe_dry_run(outcome: &DryRun) -> String {
    let mut lines = vec![
        format!(
            "would ingest {} of {}; {} already there, {} left out",
            units::count(outcome.ingest, "step"),
            units::count(outcome.videos, "video"),
            outcome.skip,
            units::count(outcome.quarantined.len() as u64, "file"),
        ),
        format!(
            "{} to read, {} uncompressed, about {} in {} in the store (estimated from a few steps)",
            units::bytes(outcome.bytes_in),
            units::bytes(outcome.bytes_raw),
            units::bytes(outcome.bytes_out_estimate),
            units::count(outcome.files_out, "file"),
        ),
    ];
    if outcome.ingest == 0 && outcome.videos > 0 {
        lines.push(format!("of {}, only the tables would be written again", units::count(outcome.videos, "video")));
    }
    lines.extend(outcome.prompts.map(describe_prompts));
    lines.extend(
        outcome.quarantined.iter().map(|left| format!("would leave out {}: {}", left.path.display(), left.error)),
    );
    lines.extend(
        outcome.warnings.iter().map(|warning| format!("warning: {}: {}", warning.path.display(), warning.message)),
    );
    lines.push("nothing was written".into());
    lines.join("\n") + "\n"
}

/// Shows an ingest's events.
struct Follower {
    bar: Bar,
    warnings: AtomicU64,
}

impl Follower {
    fn new(args: &IngestArgs, global: &Global) -> Self {
        let bar =
            if args.watch { Bar::of_waiting("watch", global.quiet) } else { Bar::of_bytes("ingest", global.quiet) };
        Self { bar, warnings: AtomicU64::new(0) }
    }
}

impl Progress for Follower {
    fn reached(&self, amount: Amount) {
        self.bar.reached(amount);
    }

    fn is_cancelled(&self) -> bool {
        self.bar.is_cancelled()
    }
}

impl Observer for Follower {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Watched { steps, waiting, idle } => self.bar.say(&format!(
                "{} ingested, {waiting} not complete, nothing new for {} s",
                units::count(steps, "step"),
                idle.as_secs()
            )),
            Event::Committed { video_id } => tracing::debug!("committed {video_id}"),
            // Errors are said even if quiet.
            Event::Quarantined(left) => {
                let error = with_remedy(&left.error, left.remedy.as_ref(), &Typed { store: None });
                self.bar.note_always(&format!("left out: {}: {error}", left.path.display()));
            }
            Event::Warning(warning) => match self.warnings.fetch_add(1, Ordering::Relaxed) {
                WARNINGS_SHOWN => self.bar.note("more warnings: --report FILE.json lists them all"),
                n if n < WARNINGS_SHOWN => {
                    let message = with_remedy(&warning.message, warning.remedy.as_ref(), &Typed { store: None });
                    self.bar.note(&format!("warning: {}: {message}", warning.path.display()));
                }
                _ => {}
            },
            Event::Found { .. } | Event::Steps { .. } => {}
        }
    }
}
