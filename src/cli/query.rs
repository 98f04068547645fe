//! `attnkit query`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::progress::Bar;
use super::spelling::{Typed, typed};
use super::{Failure, Global, check_outside, print, say, say_left_out, show, units};
use crate::kernel::{FramePlacement, Reducer};
use crate::metrics::Metric;
use crate::output::{self, Format, TableStyle};
use crate::progress::Silent;
use crate::query::{
    self, Across, Align, Answer, Arrange, Average, By, Compare, Dimension, Evolution, Explain, Filter, Form, List,
    QueryError, Reduction, SpatialMap, Sql, TableName,
};
use crate::store::Store;

/// Rows shown on a terminal unless `--limit` says otherwise.
const ROWS_ON_TERMINAL: usize = 40;
/// Below this, answers come before a progress bar would be read.
const WORTH_A_BAR: u64 = 500_000_000;

/// Ask a store: rows, averages, evolution over steps, maps, comparisons, SQL.
#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "QUESTION",
    subcommand_help_heading = "Questions",
    after_help = "\
Examples (more: attnkit query average --help, and the other questions):
  attnkit query evolution maps.store --token flower --sparkline
  attnkit query average maps.store --over block,head,step -o words.npy
  attnkit query average maps.store --where \"token = 'flower' AND top5 > 0.3\"
  attnkit query map maps.store --video v1 --token flower --step 9 -o map.npy
  attnkit query compare maps.store --across prompt --token flower --where \"seed = 11\" --matrix
  attnkit query list maps.store --table heads --sort top5:desc --limit 10
  attnkit query sql maps.store \"SELECT token, avg(gini) FROM heads GROUP BY token\"

--where takes a SQL condition over the columns of both tables; what they are:
  attnkit query list maps.store --columns help"
)]
pub(super) struct QueryArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    List(ListArgs),
    Average(AverageArgs),
    Evolution(EvolutionArgs),
    Map(MapArgs),
    Compare(CompareArgs),
    Sql(SqlArgs),
}

/// Which maps.
#[derive(Debug, Args)]
struct SelectArgs {
    /// The store
    #[arg(value_hint = ValueHint::DirPath, value_parser = super::path())]
    store: PathBuf,
    /// SQL condition over the columns of both tables, such as "token = 'flower' AND step < 10 AND entropy < 6"
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    condition: Option<String>,
    /// Only this video
    #[arg(long, value_name = "ID")]
    video: Option<String>,
    /// Only this word
    #[arg(long, value_name = "WORD")]
    token: Option<String>,
}

/// How maps become one.
#[derive(Debug, Args)]
struct ReduceArgs {
    /// Leave out NaN and infinite values [default: they propagate]
    #[arg(long)]
    skipna: bool,
    /// Compute means from the full arrays, even where a stored rollup has them
    #[arg(long)]
    no_rollups: bool,
}

const OUTPUT: &str = "Output";

/// Where the answer goes, and how.
#[derive(Debug, Args)]
struct OutputArgs {
    /// Write to this file
    #[arg(
        short, long, value_name = "FILE", help_heading = OUTPUT, value_hint = ValueHint::FilePath,
        value_parser = super::path()
    )]
    output: Option<PathBuf>,
    /// table, csv, json, jsonl, parquet, arrow, npy, zarr or png [default: by the file's extension; a table on a
    /// terminal, csv in a pipe]
    #[arg(long, value_name = "FORMAT", help_heading = OUTPUT, hide_possible_values = true)]
    format: Option<Format>,
    /// Sort by a column; may be given several times
    #[arg(long, value_name = "COLUMN[:desc]", help_heading = OUTPUT, value_parser = parse_sort)]
    sort: Vec<(String, bool)>,
    /// Keep these columns, in this order (of `list`: columns of either table; `help` lists them)
    #[arg(long, value_name = "COLUMN,…", help_heading = OUTPUT, value_delimiter = ',', value_parser = parse_column)]
    columns: Option<Vec<String>>,
    /// Keep the first rows
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    limit: Option<usize>,
    /// Say what would be read and done, and do nothing
    #[arg(long, help_heading = OUTPUT)]
    explain: bool,
}

/// Rows of the tables: steps (one row each), or heads (one row for each map).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query list maps.store --where \"step = 0\" --columns video_id,prompt,seed
  attnkit query list maps.store --table heads --where \"top5 > 0.5\" --limit 10
  attnkit query list maps.store --columns help        what columns there are")]
struct ListArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The table
    #[arg(long, value_enum, default_value = "steps")]
    table: TableArg,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TableArg {
    Steps,
    Heads,
}

/// Maps reduced to one for each combination of what is not averaged over.
///
/// Columns: the keys (of `video_id`, `token`, `token_index`, `step`, `block`, `head`), `n` (maps that went in),
/// `frames`, `height`, `width`, `shape`, and the statistics of the result. Parquet and Arrow have the map itself in
/// `values`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query average maps.store                        a map per step
  attnkit query average maps.store --over block,head,step -o words.zarr
                                                          per video and word
  attnkit query average maps.store --over video,block,head --token flower
                                                          over seeds and prompts
  attnkit query average maps.store --over block --with max -o heads.npy
                                                          per step and head")]
struct AverageArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// What to reduce over: any of block, head, step, video, token (and the pieces of words), `token_index` (these
    /// alone)
    ///
    /// none: nothing, a row for each map
    #[arg(long, value_name = "DIMENSION,…", default_value = "block,head", value_parser = parse_over)]
    over: Over,
    /// What becomes of the values at a position
    #[arg(long, value_enum, value_name = "REDUCER", default_value = "mean")]
    with: ReducerArg,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReducerArg {
    Mean,
    Max,
    Min,
    Median,
    /// Of the population: divided by n
    Std,
    Sum,
}

/// A word's attention through the denoising steps: statistics of each step's mean map, and its change.
///
/// Change against the step before (…_previous) and against the last one (…_last): cosine similarity, Jensen-Shannon
/// divergence in nats, shift of the centroid in grid cells.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query evolution maps.store --token flower --sparkline
  attnkit query evolution maps.store --token flower --by head -o heads.parquet
  attnkit query evolution maps.store --where \"block = 12\" --format csv")]
struct EvolutionArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// A series for each block or head instead of the mean over all
    #[arg(long, value_enum)]
    by: Option<ByArg>,
    /// One row for each series, with trends as small bars
    #[arg(long)]
    sparkline: bool,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ByArg {
    Block,
    Head,
}

/// One spatial map, [frames, height, width]: of one step of one word in one video.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query map maps.store --video v1 --token flower --step 9 -o map.npy
  attnkit query map maps.store --video v1 --token flower --step 9 -o map.png
  attnkit query map maps.store --video v1 --token flower --step 9 \\
      --block 12 --head 3 --size 480x848 --frames 57 -o overlay.npy
                                      in the pixels and frames of the video")]
struct MapArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The denoising step
    #[arg(long, value_name = "N")]
    step: Option<i64>,
    /// One block [default: the mean over all]
    #[arg(long, value_name = "N")]
    block: Option<i64>,
    /// One head [default: the mean over all]
    #[arg(long, value_name = "N")]
    head: Option<i64>,
    /// Resample to this height and width, pixels
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Resample to this number of frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: Option<u32>,
    /// Where latent frames lie among these
    #[arg(long, value_enum, default_value_t = PlacementArg::Causal, requires = "frames")]
    placement: PlacementArg,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlacementArg {
    /// As a causal VAE decodes them: the first is frame 0, each further one as many frames as the next
    Causal,
    /// All of one length, interpolated
    Even,
}

/// Groups of maps compared pair by pair: rows of (a, b, step, metric, value, n).
///
/// The maps of each side are averaged, step by step, over all its videos: what else the sides differ in is said. n
/// counts the maps of both sides. Across weights, every weight is compared with the one nearest to 1 (or --against),
/// and slope and trend tell how the metric responds to the weight.
#[derive(Debug, Args)]
#[command(after_help = "\
Metrics (names with @ take a parameter):
  cosine pearson spearman    similarity of the values, or of their ranks
  js kl                      divergence of the maps as distributions, nats
  iou@0.8                    overlap of the positions above each map's 0.8-quantile
  topk@0.1                   overlap of the highest 10 % of positions
  emd centroid               distance that mass has moved, and between centroids, grid cells
  ssim                       structural similarity of the frames
  l2                         Euclidean distance of the raw maps
  mass_ratio                 sum of a over sum of b

Examples:
  attnkit query compare maps.store --across prompt --token flower --where \"seed = 11\"
  attnkit query compare maps.store --across token --video v1 --matrix
  attnkit query compare maps.store --across weight --token flower --align mean \\
      --where \"prompt = 'a flower near a tree'\"
  attnkit query compare maps.store --across head --align last --against 3 \\
      --token flower --video v1 --metric iou@0.9,emd
  attnkit query compare maps.store --across seed --where \"prompt_id = 'prompt_000'\" \\
      --token flower --maps differences.npy")]
struct CompareArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// What distinguishes the two sides
    #[arg(long, value_enum)]
    across: AcrossArg,
    /// Which steps are compared
    #[arg(long, value_enum, default_value = "step")]
    align: AlignArg,
    /// What is measured
    #[arg(
        long,
        value_name = "METRIC,…",
        value_delimiter = ',',
        default_value = "cosine,js,iou@0.8,centroid,mass_ratio",
        value_parser = parse_metric
    )]
    metric: Vec<Metric>,
    /// For each metric a square table, of means over the steps
    #[arg(long, conflicts_with = "against")]
    matrix: bool,
    /// Compare all with this one
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true)]
    against: Option<String>,
    /// Also write the difference maps a - b, in a format with maps
    #[arg(
        long, value_name = "FILE", help_heading = OUTPUT, value_hint = ValueHint::FilePath,
        value_parser = super::path()
    )]
    maps: Option<PathBuf>,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AcrossArg {
    Prompt,
    Video,
    Seed,
    Token,
    Weight,
    Step,
    Block,
    Head,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AlignArg {
    /// Those of the same number
    Step,
    /// Those nearest in the scheduler's timestep
    Timestep,
    /// The last of each side
    Last,
    /// None: the means over all steps
    Mean,
}

/// SQL over the tables `steps` and `heads` (dialect of Polars), read-only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit query sql maps.store \\
    \"SELECT block, avg(gini) AS gini FROM heads GROUP BY block ORDER BY gini\"
  attnkit query sql maps.store -o seeds.csv \\
    \"SELECT seed, avg(top5) FROM heads JOIN steps USING (video_id, token, step)
     GROUP BY seed\"")]
struct SqlArgs {
    /// The store
    #[arg(value_hint = ValueHint::DirPath, value_parser = super::path())]
    store: PathBuf,
    /// SELECT …
    #[arg(value_name = "SQL", allow_hyphen_values = true)]
    statement: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &QueryArgs, global: &Global) -> Result<ExitCode, Failure> {
    let path = match &args.question {
        Question::List(args) if args.output.columns.as_ref().is_some_and(|columns| columns == &["help"]) => {
            Target::of(&args.output, &args.select.store)?.write(query::columns()?, global)?;
            return Ok(ExitCode::SUCCESS);
        }
        Question::List(args) => &args.select.store,
        Question::Average(args) => &args.select.store,
        Question::Evolution(args) => &args.select.store,
        Question::Map(args) => &args.select.store,
        Question::Compare(args) => &args.select.store,
        Question::Sql(args) => &args.store,
    };
    let store = Store::open(path)?;
    let answered = match &args.question {
        Question::List(args) => list(args, &store, global),
        Question::Average(args) => average(args, &store, global),
        Question::Evolution(args) => evolution(args, &store, global),
        Question::Map(args) => map(args, &store, global),
        Question::Compare(args) => compare(args, &store, global),
        Question::Sql(args) => sql(args, &store, global),
    };
    // Of what is left out may be what was asked for.
    let code = say_left_out(&store);
    answered.map(|()| code)
}

fn list(args: &ListArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(&args.output, &args.select.store)?;
    target.of_rows()?;
    let list = List {
        table: match args.table {
            TableArg::Steps => TableName::Steps,
            TableArg::Heads => TableName::Heads,
        },
        filter: args.select.filter()?,
        columns: args.output.columns.clone(),
        arrange: args.output.arrange(),
    };
    if args.output.explain {
        return show(&list.explain(store)?);
    }
    target.write(list.run(store)?, global)
}

fn average(args: &AverageArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(&args.output, &args.select.store)?;
    let reducer = match args.with {
        ReducerArg::Mean => Reducer::Mean,
        ReducerArg::Max => Reducer::Max,
        ReducerArg::Min => Reducer::Min,
        ReducerArg::Median => Reducer::Median,
        ReducerArg::Std => Reducer::Std,
        ReducerArg::Sum => Reducer::Sum,
    };
    let average = Average {
        filter: args.select.filter()?,
        over: args.over.0.clone(),
        reduction: Reduction { reducer, ..args.reduce.reduction() },
        values: target.format.has_values(),
    };
    if args.output.explain {
        return target.explain(&average.explain(store)?);
    }
    let bar = bar(global);
    let answer = average.run(store, &bar)?;
    bar.finish();
    target.write(args.output.arranged(answer)?, global)
}

fn evolution(args: &EvolutionArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(&args.output, &args.select.store)?;
    target.of_rows()?;
    let by = args.by.map(|by| match by {
        ByArg::Block => By::Block,
        ByArg::Head => By::Head,
    });
    let evolution = Evolution { filter: args.select.filter()?, by, reduction: args.reduce.reduction() };
    if args.output.explain {
        return target.explain(&evolution.explain(store)?);
    }
    let bar = bar(global);
    let mut answer = evolution.run(store, &bar)?;
    bar.finish();
    if args.sparkline {
        answer = output::trends(&answer)?;
    }
    target.write(args.output.arranged(answer)?, global)
}

fn map(args: &MapArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(&args.output, &args.select.store)?;
    let mut filter = args.select.filter()?;
    for (column, value) in [("step", args.step), ("block", args.block), ("head", args.head)] {
        if let Some(value) = value {
            filter = filter.and_int(column, value);
        }
    }
    let frames = args.frames.map(|frames| frames as usize);
    let placement = match args.placement {
        PlacementArg::Causal => FramePlacement::Causal,
        PlacementArg::Even => FramePlacement::Even,
    };
    let map = SpatialMap { filter, reduction: args.reduce.reduction(), size: args.size, frames, placement };
    if args.output.explain {
        return target.explain(&map.explain(store)?);
    }
    let bar = bar(global);
    let answer = map.run(store, &bar)?;
    bar.finish();
    target.write(args.output.arranged(answer)?, global)
}

fn compare(args: &CompareArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(&args.output, &args.select.store)?;
    target.of_rows()?;
    let maps = args.maps.as_deref().map(maps_target).transpose()?;
    if let Some(maps) = &args.maps {
        check_outside(maps, &args.select.store)?;
    }
    let beside = args.maps.as_ref().map(|maps| maps.with_extension("json"));
    if beside.is_some() && beside == args.output.output {
        return Err(Failure::usage(
            "the rows beside the maps would have the name of the answer",
            "name them differently",
        ));
    }
    let compare = Compare {
        filter: args.select.filter()?,
        across: match args.across {
            AcrossArg::Prompt => Across::Prompt,
            AcrossArg::Video => Across::Video,
            AcrossArg::Seed => Across::Seed,
            AcrossArg::Token => Across::Token,
            AcrossArg::Weight => Across::Weight,
            AcrossArg::Step => Across::Step,
            AcrossArg::Block => Across::Block,
            AcrossArg::Head => Across::Head,
        },
        align: match args.align {
            AlignArg::Step => Align::Step,
            AlignArg::Timestep => Align::Timestep,
            AlignArg::Last => Align::Last,
            AlignArg::Mean => Align::Mean,
        },
        metrics: args.metric.clone(),
        reduction: args.reduce.reduction(),
        against: args.against.clone(),
    };
    let form = if args.matrix { Form::Matrix } else { Form::Pairs };
    if args.output.explain {
        return target.explain(&compare.explain(store, form)?);
    }
    let bar = bar(global);
    let answer = compare.run(store, form, &bar)?;
    bar.finish();
    target.write(args.output.arranged(answer)?, global)?;
    if let Some(target) = maps {
        let differences = compare.run(store, Form::Maps, &Silent)?;
        target.write(Answer { notes: Vec::new(), ..differences }, global)?;
    }
    Ok(())
}

fn sql(args: &SqlArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let target = Target::of(&args.output, &args.store)?;
    target.of_rows()?;
    let sql = Sql { statement: args.statement.clone() };
    if args.output.explain {
        return show(&sql.explain(store)?);
    }
    target.write(args.output.arranged(sql.run(store)?)?, global)
}

impl SelectArgs {
    fn filter(&self) -> Result<Filter, QueryError> {
        filter(self.condition.as_deref(), self.video.as_deref(), self.token.as_deref())
    }
}

/// The filter of a condition and what it is narrowed to.
fn filter(condition: Option<&str>, video: Option<&str>, token: Option<&str>) -> Result<Filter, QueryError> {
    let mut filter = condition.map_or_else(|| Ok(Filter::all()), Filter::parse)?;
    for (column, value) in [("video_id", video), ("token", token)] {
        if let Some(value) = value {
            filter = filter.and_text(column, value);
        }
    }
    Ok(filter)
}

impl ReduceArgs {
    const fn reduction(&self) -> Reduction {
        Reduction { reducer: Reducer::Mean, skipna: self.skipna, rollups: !self.no_rollups }
    }
}

impl OutputArgs {
    fn arrange(&self) -> Arrange {
        Arrange { sort: self.sort.clone(), limit: self.limit }
    }

    /// An answer's rows and columns as asked for.
    fn arranged(&self, answer: Answer) -> Result<Answer, QueryError> {
        let answer = answer.arrange(&self.arrange())?;
        match &self.columns {
            Some(columns) => answer.select(columns),
            None => Ok(answer),
        }
    }
}

/// Where an answer goes.
struct Target {
    path: Option<PathBuf>,
    format: Format,
    style: TableStyle,
}

impl Target {
    fn of(args: &OutputArgs, store: &Path) -> Result<Self, Failure> {
        if let Some(output) = &args.output {
            check_outside(output, store)?;
        }
        let terminal = std::io::stdout().is_terminal() && args.output.is_none();
        let format = match (args.format, &args.output) {
            (Some(format), _) => format,
            (None, Some(path)) => Format::of_path(path).ok_or_else(|| {
                Failure::usage(
                    format!("{}: the extension names no format", path.display()),
                    "add --format csv, or another of table, json, jsonl, parquet, arrow, npy, zarr, png",
                )
            })?,
            (None, None) if terminal => Format::Table,
            (None, None) => Format::Csv,
        };
        if args.output.is_none() && !format.is_text() {
            return Err(Failure::usage(
                format!("{} is not printed", format.name()),
                format!("name a file: -o answer.{}", format.name()),
            ));
        }
        let dir = args.output.as_deref().and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
        if let Some(dir) = dir {
            let found = match dir.metadata() {
                Ok(found) if found.is_dir() => None,
                Ok(_) => Some("not a directory".to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("no such directory".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(found) = found {
                return Err(Failure::usage(format!("{}: {found}", dir.display()), "make it, or name another file"));
            }
        }
        let width = if terminal { units::terminal_width() } else { None };
        let rows = if terminal && args.limit.is_none() { ROWS_ON_TERMINAL } else { usize::MAX };
        Ok(Self { path: args.output.clone(), format, style: TableStyle { width, rows, advice: Some(typed) } })
    }

    /// Refuses formats that are for maps, before anything is read.
    fn of_rows(&self) -> Result<(), Failure> {
        if matches!(self.format, Format::Npy | Format::Zarr | Format::Png) {
            let found = format!("{} holds maps, and this answer is a table", self.format.name());
            return Err(Failure::usage(found, "write it as csv, json, jsonl, parquet or arrow"));
        }
        Ok(())
    }

    fn write(&self, answer: Answer, global: &Global) -> Result<(), Failure> {
        if !global.quiet {
            answer.notes.iter().for_each(|note| say(&format!("note: {}", note.spelled(&Typed { store: None }))));
        }
        let Some(path) = &self.path else {
            let text = output::to_text(&answer, self.format, self.style)?;
            return print(&String::from_utf8_lossy(&text));
        };
        let beside = output::write_file(&answer, self.format, path)?;
        if !global.quiet {
            let names: Vec<String> =
                std::iter::once(path).chain(&beside).map(|path| path.display().to_string()).collect();
            say(&format!("{}: {}", names.join(", "), units::count(answer.table.height() as u64, "row")));
        }
        Ok(())
    }

    fn explain(&self, explain: &Explain) -> Result<(), Failure> {
        if matches!(self.format, Format::Json | Format::Jsonl) {
            return print(&(serde_json::to_string_pretty(explain)? + "\n"));
        }
        show(&explain.to_string())
    }
}

/// The file for maps that come beside an answer.
fn maps_target(path: &Path) -> Result<Target, Failure> {
    let format = Format::of_path(path).filter(|format| format.has_values()).ok_or_else(|| {
        Failure::usage(
            format!("{}: not a file for maps", path.display()),
            "name a .npy, .zarr, .parquet or .arrow file",
        )
    })?;
    Ok(Target {
        path: Some(path.to_owned()),
        format,
        style: TableStyle { width: None, rows: usize::MAX, advice: Some(typed) },
    })
}

/// A progress bar that appears when there is much to read.
fn bar(global: &Global) -> Bar {
    Bar::of_bytes("query", global.quiet).from(WORTH_A_BAR)
}

/// What is reduced over: may be nothing.
#[derive(Debug, Clone)]
struct Over(Vec<Dimension>);

fn parse_over(text: &str) -> Result<Over, String> {
    match text.trim() {
        "" | "none" => Ok(Over(Vec::new())),
        some => some.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Over),
    }
}

fn parse_column(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() { Err("a name of a column is missing".to_owned()) } else { Ok(name.to_owned()) }
}

fn parse_metric(text: &str) -> Result<Metric, String> {
    text.trim().parse()
}

fn parse_sort(text: &str) -> Result<(String, bool), String> {
    match text.rsplit_once(':').map(|(column, order)| (column.trim(), order.trim())) {
        None => Ok((text.trim().to_owned(), false)),
        Some((column, "desc")) => Ok((column.to_owned(), true)),
        Some((column, "asc")) => Ok((column.to_owned(), false)),
        Some((_, other)) => Err(format!("`{other}` is neither asc nor desc")),
    }
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let size = |text: &str| text.parse().ok().filter(|&size: &usize| size > 0 && size <= 1 << 15);
    text.split_once('x')
        .and_then(|(height, width)| Some((size(height)?, size(width)?)))
        .ok_or_else(|| format!("`{text}` is not HEIGHTxWIDTH, such as 480x848"))
}
