//! The command line: one file per subcommand, each only arguments, progress and exit code around a library call.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong usage, 3 success but for files that were left out (quarantined, or
//! damaged), 130 interrupted.

mod compact;
mod completions;
mod estimate;
mod export;
mod gc;
mod info;
mod ingest;
mod interrupt;
mod man;
mod progress;
mod prompt;
mod query;
mod render;
mod repair;
mod report;
mod rollup;
mod shared;
mod spelling;
mod table;
mod units;
mod verify;
mod view;

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use self::spelling::Typed;
use crate::dump::is_dump;
use crate::error::{Error, ErrorKind, LayerError};
use crate::output::{visible, visible_lines};
use crate::store::{Store, StoreError};

const AFTER_HELP: &str = "\
Examples:
  attnkit estimate --model wan2.1-1.3b --tokens 5         how large a dump will be
  attnkit info outputs/my_batch                           what is in a dump
  attnkit ingest outputs/my_batch --store maps.store      convert it, or what is new in it
  attnkit verify maps.store --against outputs/my_batch    compare every value
  attnkit info maps.store                                 what is in the store

The store is plain Zarr v3 and Parquet:
  duckdb -c \"SELECT token, avg(entropy) FROM 'maps.store/index/heads/*.parquet' GROUP BY token\"";

/// Cross-attention maps of video diffusion transformers: from dumps to a columnar store.
#[derive(Debug, Parser)]
#[command(name = "attnkit", version, after_help = AFTER_HELP, max_term_width = 110, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Heading of the options of every subcommand.
const COMMON: &str = "Common options";

/// Options of every subcommand.
#[derive(Debug, Args)]
struct Global {
    /// Threads to work with [default: one per core]
    #[arg(
        long, global = true, help_heading = COMMON, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    threads: Option<u16>,
    /// Say nothing but errors
    #[arg(short, long, global = true, help_heading = COMMON)]
    quiet: bool,
    /// Say more (which videos are committed, which words written anew)
    #[arg(short, long, global = true, help_heading = COMMON, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert dumps into a store, or add to it what is new
    Ingest(Box<ingest::IngestArgs>),
    /// Ask a store: rows, averages, evolution, maps, comparisons, SQL
    Query(Box<query::QueryArgs>),
    /// Draw what is in a store: maps, maps over their video, films, sheets, heads, curves
    Render(Box<render::RenderArgs>),
    /// Write a page on what is in a store
    Report(report::ReportArgs),
    /// Look at maps in the terminal
    View(Box<view::ViewArgs>),
    /// Describe a store or a dump
    Info(info::InfoArgs),
    /// Say how large a dump and its store will be, before there is one
    Estimate(estimate::EstimateArgs),
    /// Prompt templates, weights and tokens
    Prompt(prompt::PromptArgs),
    /// Check every byte of a store, and every value against the dump
    Verify(verify::VerifyArgs),
    /// Write anew what of a store is damaged
    Repair(repair::RepairArgs),
    /// Write a store back as a dump
    Export(export::ExportArgs),
    /// Remove from a store what no commit names
    Gc(gc::GcArgs),
    /// Add rollups to a store, or take them away
    Rollup(rollup::RollupArgs),
    /// Pack the tables of many videos into a few files
    Compact(compact::CompactArgs),
    /// Print a script for completion in a shell
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    Man(man::ManArgs),
}

/// A failure with what to try next.
struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    fn with_hint(error: impl std::fmt::Display, hint: impl Into<String>) -> Self {
        Self { message: error.to_string(), hint: Some(hint.into()), code: 1 }
    }

    /// Of an error; what to try is of this store, if it is known.
    fn of(error: impl Into<Error>, store: Option<&Path>) -> Self {
        let error = error.into();
        let code = match error.kind() {
            ErrorKind::Cancelled => interrupt::EXIT_CODE,
            ErrorKind::Question | ErrorKind::Argument => 2,
            _ => 1,
        };
        let hint = match error.downcast_ref() {
            Some(StoreError::NotAStore { path, .. }) if is_dump(path) => Some(format!(
                "it is a dump: `attnkit ingest {} --store maps.store` makes a store of it, to be asked and checked",
                path.display()
            )),
            _ => error.remedy().map(|remedy| remedy.spelled(&Typed { store: store.map(Path::to_owned) })),
        };
        Self { message: error.to_string(), hint, code }
    }

    /// Prints it, and gives its exit code.
    fn say(self) -> ExitCode {
        // Lines that are set in belong to the message: a prompt, and where it is wrong.
        let lines: Vec<_> = self.message.split("\n  ").map(visible).collect();
        print_to_stderr(&format!("error: {}", lines.join("\n  ")));
        if let Some(hint) = self.hint {
            say(&format!("hint: {hint}"));
        }
        ExitCode::from(self.code)
    }

    fn usage(message: impl std::fmt::Display, hint: impl Into<String>) -> Self {
        Self { code: 2, ..Self::with_hint(message, hint) }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(error, None)
    }
}

impl LayerError for serde_json::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::File
    }
}

impl LayerError for rayon::ThreadPoolBuildError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::File
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return help_or_usage(&error),
    };
    start_log(cli.global.verbose);
    let outcome = start_threads(&cli.global).and_then(|()| match cli.command {
        Command::Ingest(args) => ingest::run(&args, &cli.global),
        Command::Query(args) => query::run(&args, &cli.global),
        Command::Render(args) => render::run(&args, &cli.global),
        Command::Report(args) => report::run(&args, &cli.global),
        Command::View(args) => view::run(&args, &cli.global),
        Command::Info(args) => info::run(&args),
        Command::Estimate(args) => estimate::run(&args, &cli.global),
        Command::Prompt(args) => prompt::run(&args, &cli.global),
        Command::Verify(args) => verify::run(&args, &cli.global),
        Command::Repair(args) => repair::run(&args, &cli.global),
        Command::Export(args) => export::run(&args, &cli.global),
        Command::Gc(args) => gc::run(&args, &cli.global),
        Command::Rollup(args) => rollup::run(&args, &cli.global),
        Command::Compact(args) => compact::run(&args, &cli.global),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args, &cli.global),
    });
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.say(),
    }
}

/// A path; `~/` at its start is the home directory, which shells do not see behind an `=` or in quotes.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(below), Some(home)) => home.join(below),
        _ => path,
    })
}

/// Refuses to write into a store.
fn check_outside(output: &Path, store: &Path) -> Result<(), Failure> {
    let absolute = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    let Ok(store) = store.canonicalize() else { return Ok(()) };
    let known = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    if known.is_some_and(|known| known.starts_with(&store)) {
        let found =
            format!("{}: is in the store {}, which nothing else is written into", output.display(), store.display());
        return Err(Failure::usage(found, "name a file elsewhere"));
    }
    Ok(())
}

/// What clap has to say: help and versions on standard output, which may be full, and what is wrong with the arguments.
fn help_or_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match printed {
        _ if error.use_stderr() => ExitCode::from(2),
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Failure::from(error).say(),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a line to standard error, if it can be printed at all; whatever a name in it holds, it stays one line.
fn say(line: &str) {
    print_to_stderr(&visible(line));
}

fn print_to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says what of a store is left out because it is damaged, and gives the exit code that says so.
fn say_left_out(store: &Store) -> ExitCode {
    let left_out = store.left_out();
    for (_, error) in &left_out {
        say(&format!("left out: {error}"));
    }
    if left_out.is_empty() {
        return ExitCode::SUCCESS;
    }
    say("hint: `attnkit verify` says all that is damaged, and `attnkit repair STORE --from DUMP` mends it");
    ExitCode::from(3)
}

/// Prints text for people to standard output.
fn show(text: &str) -> Result<(), Failure> {
    print(&visible_lines(text))
}

/// Prints to standard output; a reader that went away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    write_out(|to| to.write_all(text.as_bytes()))
}

/// Writes to standard output as it goes; a reader that went away is no failure.
fn write_out(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Failure> {
    let mut to = BufWriter::new(std::io::stdout().lock());
    match write(&mut to).and_then(|()| to.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn start_threads(global: &Global) -> Result<(), Failure> {
    let threads = global.threads.map_or(0, usize::from);
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let format = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    format.with_target(false).without_time().with_ansi(std::io::stderr().is_terminal()).init();
}
