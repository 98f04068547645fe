//! `attnkit estimate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::progress::Bar;
use super::{Failure, Global, print, show, table, units};
use crate::contents::Contents;
use crate::dtype::SourceDtype;
use crate::estimate::{Compression, Estimate, Generation, Model, Setting, measure};
use crate::grid::Grid;
use crate::progress::Silent;
use crate::store::{Codec, Rollups};

/// Say how large a dump and its store will be, before there is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit estimate --blocks 30 --heads 12 --grid 15x30x53 --steps 50 --tokens 5 --videos 100
  attnkit estimate --model wan2.1-14b --size 480x832 --frames 81 --tokens 3 --videos 20
  attnkit estimate --from outputs/my_batch
  attnkit estimate --model wan2.1-1.3b --json | jq '.settings[] | [.shape, .dump_bytes]'

What is dumped follows from a model and the size of its videos (--model), from numbers (--blocks, --heads, --grid),
or from a dump that is there (--from), whose compression is then measured on a few of its steps. Sizes are for each
of the generator's settings store_per_block and store_per_head.")]
pub(super) struct EstimateArgs {
    /// A dump that is there: its shapes, steps, words and videos
    #[arg(
        long, value_name = "DUMP", value_hint = ValueHint::DirPath, value_parser = super::path(),
        conflicts_with_all = ["model", "blocks", "heads", "grid", "steps", "tokens", "videos"]
    )]
    from: Option<PathBuf>,
    /// A model: wan2.1-1.3b (30 blocks x 12 heads), wan2.1-14b (40 x 40) or wan2.2-5b (30 x 24)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["blocks", "heads", "grid"])]
    model: Option<Model>,
    /// Height and width of the videos of --model, in pixels
    #[arg(long, value_name = "HxW", requires = "model", value_parser = size, default_value = "480x832")]
    size: (usize, usize),
    /// Frames of the videos of --model
    #[arg(
        long, value_name = "N", requires = "model", default_value_t = 81,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20)
    )]
    frames: u32,
    /// Transformer blocks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    blocks: Option<u16>,
    /// Attention heads of a block
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    heads: Option<u16>,
    /// Latent grid of a map
    #[arg(long, value_name = "FxHxW")]
    grid: Option<Grid>,
    /// Stored denoising steps of a video
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Tracked words of a video
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Videos
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    videos: u32,
    /// Element type of the dump [default: float16; with --from, the dump's]
    #[arg(long, value_name = "float16|bfloat16|float32")]
    dtype: Option<SourceDtype>,
    /// Bytes of step files that an ingest takes in a second, such as 500MB [default: as measured for each codec on two
    /// cores]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    throughput: Option<f64>,
    /// Which means over blocks, heads and both the store keeps beside the maps
    #[arg(long, value_enum, default_value = "auto")]
    rollups: Rollups,
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

/// Pixels beyond this are no video's.
const MOST: usize = 1 << 20;

/// Reads `480x832`.
fn size(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('x').and_then(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)));
    let fits = |&(height, width): &(usize, usize)| height.max(width) <= MOST;
    numbers.filter(fits).ok_or_else(|| format!("`{text}` is not HEIGHTxWIDTH, such as 480x832"))
}

/// Reads `500MB`, `1.5GB`, `2e8`.
fn bytes(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches("/s").trim_end_matches('B');
    let (number, unit) = match number.chars().last() {
        Some('k' | 'K') => (&number[..number.len() - 1], 1e3),
        Some('M') => (&number[..number.len() - 1], 1e6),
        Some('G') => (&number[..number.len() - 1], 1e9),
        _ => (number, 1.0),
    };
    let parsed = number.trim().parse::<f64>().ok().map(|number| number * unit);
    // `500` is meant otherwise.
    let is_sensible = |bytes: &f64| (1e5..1e15).contains(bytes);
    parsed
        .filter(is_sensible)
        .ok_or_else(|| format!("`{text}` is not a number of bytes a second, such as 500MB or 1.5GB"))
}

pub(super) fn run(args: &EstimateArgs, global: &Global) -> Result<ExitCode, Failure> {
    let (generation, what) = generation(args)?;
    let bar = Bar::of_tasks("compress a sample", global.quiet);
    let measured = args.from.as_deref().map(|dump| measure(dump, &bar)).transpose()?.flatten();
    bar.finish();
    let is_measured = measured.is_some();
    let mut compression = measured.unwrap_or_else(|| Compression::MEASURED.to_vec());
    if let Some(throughput) = args.throughput {
        for of_codec in &mut compression {
            of_codec.throughput = throughput;
        }
    }
    let estimate = generation.estimate(&compression, args.rollups);
    if args.json {
        print(&(serde_json::to_string_pretty(&estimate)? + "\n"))?;
    } else {
        show(&describe(&estimate, &what, is_measured, args))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is estimated, and how it is told.
fn generation(args: &EstimateArgs) -> Result<(Generation, String), Failure> {
    if let Some(dump) = &args.from {
        let contents = Contents::of_dump(dump, &Silent)
            .map_err(|error| Failure::with_hint(error, "give the directory that holds the attention maps"))?;
        let mut generation = Generation::of_dump(&contents);
        if generation.words.is_empty() {
            return Err(Failure::with_hint(
                format!("{}: no attention maps found whose shape can be told", dump.display()),
                format!("`attnkit info {}` shows what is recognised there", dump.display()),
            ));
        }
        if let Some(dtype) = args.dtype {
            generation = generation.with_dtype(dtype);
        }
        let words: u64 = generation.words.iter().map(|words| words.count).sum();
        let what = format!(
            "{}: {} of {}",
            dump.display(),
            units::count(words, "word"),
            units::count(generation.videos, "video")
        );
        return Ok((generation, what));
    }
    let (blocks, heads, grid) = match args.model {
        Some(model) => {
            let (height, width) = args.size;
            let grid = model.grid(args.frames as usize, height, width).ok_or_else(|| {
                Failure::usage(
                    format!("videos of {} frames of {height} x {width} are too small for {model}", args.frames),
                    "WAN 2.1 takes 81 frames of 480x832, for one",
                )
            })?;
            let (blocks, heads) = model.blocks_and_heads();
            (blocks, heads, grid)
        }
        None => {
            let (Some(blocks), Some(heads), Some(grid)) = (args.blocks, args.heads, args.grid) else {
                let expected = "expected --model NAME, --from DUMP, or --blocks, --heads and --grid";
                return Err(Failure::usage(expected, "`attnkit estimate --help` has examples"));
            };
            (blocks.into(), heads.into(), grid)
        }
    };
    let dtype = args.dtype.unwrap_or(SourceDtype::Float16);
    let too_large = || {
        let found = "that is more values in a step than an array can have, or more than an exabyte in all";
        Failure::usage(found, "see to the numbers")
    };
    let generation = Generation::of_sizes((blocks, heads, grid), dtype, args.steps, args.tokens, args.videos)
        .ok_or_else(too_large)?;
    let what = format!(
        "{}{blocks} blocks x {heads} heads, grid {grid} = {}, {dtype}; {}, {} and {} each",
        args.model.map(|model| format!("{model}: ")).unwrap_or_default(),
        units::count(grid.spatial() as u64, "position"),
        units::count(args.videos.into(), "video"),
        units::count(args.tokens.into(), "word"),
        units::count(args.steps.into(), "step"),
    );
    Ok((generation, what))
}

fn describe(estimate: &Estimate, what: &str, is_measured: bool, args: &EstimateArgs) -> String {
    const DUMP: [&str; 8] =
        ["store_per_block", "store_per_head", "shape of a step", "a step", "a word", "a video", "dump", "smaller by"];
    let switches = |setting: &Setting| [setting.store_per_block, setting.store_per_head].map(|kept| kept.to_string());
    let dump = estimate.settings.iter().map(|setting| {
        let sizes = [setting.step_bytes, setting.word_bytes, setting.video_bytes, setting.dump_bytes].map(units::bytes);
        let shape = format!("{:?}", setting.shape);
        let smaller = format!("{:.0}x", setting.times_smaller);
        [&switches(setting)[..], &[shape], &sizes, &[smaller]].concat()
    });
    let codecs: Vec<&str> = estimate.compression.iter().map(|of_codec| of_codec.codec.name()).collect();
    let header: Vec<&str> = ["store_per_block", "store_per_head"]
        .into_iter()
        .chain(codecs.iter().copied())
        .chain(["files", "dump files", "ingest, balanced"])
        .collect();
    let store = estimate.settings.iter().map(|setting| {
        let sizes = setting.stores.iter().map(|store| units::bytes(store.store_bytes)).collect::<Vec<_>>();
        let balanced = setting.stores.iter().find(|store| store.codec == Codec::default());
        let time = time(balanced.map_or(0.0, |store| store.ingest_seconds));
        let files = [setting.store_files, setting.dump_files].map(|files| files.to_string());
        [&switches(setting)[..], &sizes, &files, &[time]].concat()
    });
    let rollups = match args.rollups {
        Rollups::Auto => "with the rollups that cost little",
        Rollups::All => "with all rollups",
        Rollups::None => "without rollups",
    };
    let source = if is_measured {
        "measured on a few steps of this dump"
    } else {
        "measured on synthetic float16 maps [30, 12, 23850, 1] with the digits of bfloat16"
    };
    let of_all = |of: fn(&Compression) -> f64| {
        estimate.compression.iter().map(|one| format!("{:.0}", of(one) * 100.0)).collect::<Vec<_>>().join(" / ")
    };
    let throughputs = estimate.compression.iter().map(|one| rate(one.throughput)).collect::<Vec<_>>().join(" / ");
    format!(
        "{what}\n\ndump: step arrays, and all files\n{}\nstore: by codec, {rollups} and tables\n{}\n\
         assumed, for {}: maps shrink to {} %, averaged ones to {} %, rollups to {} % ({source});\n\
         tables take {} a map; an ingest takes {throughputs}{}\n\
         and 0.3 ms a step and 15 ms a video beside that\n",
        table::draw(&DUMP, dump),
        table::draw(&header, store),
        codecs.join(" / "),
        of_all(|one| one.maps),
        of_all(|one| one.averaged),
        of_all(|one| one.rollups),
        units::bytes(crate::estimate::TABLES_PER_MAP),
        if args.throughput.is_some() { "" } else { " (measured on two cores; --throughput takes yours)" },
    )
}

/// Whole seconds, minutes or hours.
fn time(seconds: f64) -> String {
    match seconds {
        ..1.0 => "< 1 s".into(),
        1.0..90.0 => format!("{seconds:.0} s"),
        90.0..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn rate(throughput: f64) -> String {
    format!("{:.0} MB/s", throughput / 1e6)
}
