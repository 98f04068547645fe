//! `attnkit rollup`.

use std::process::ExitCode;

use clap::Args;

use super::progress::Bar;
use super::shared::{SingleWriterArg, StoreArg};
use super::spelling::Typed;
use super::{Failure, Global, interrupt, print, say, show, units};
use crate::ingest::{self, IngestOptions, PartOf};
use crate::store::Rollups;

/// Add rollups to a store, or take them away.
///
/// Rollups are the means over blocks, heads and both, by which means are answered without decoding maps. They are
/// computed from the store's own values: no dump is needed. Each word's arrays are written anew, and each video is
/// committed as by an ingest. The former arrays stay until `attnkit gc` removes them: until then, the store takes up to
/// twice its size.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit rollup maps.store --rollups all && attnkit gc maps.store
  attnkit rollup maps.store --rollups none --videos 'prompt_00*' --tokens flower")]
pub(super) struct RollupArgs {
    #[command(flatten)]
    at: StoreArg,
    /// Which rollups the words have afterwards; `auto`: those that take at most 4 % of the maps, and no others
    #[arg(long, value_enum, hide_possible_values = true, value_name = "all|auto|none")]
    rollups: Rollups,
    /// Only videos whose id matches; may be given several times
    #[arg(long, value_name = "GLOB")]
    videos: Vec<String>,
    /// Only words that match; may be given several times
    #[arg(long, value_name = "GLOB")]
    tokens: Vec<String>,
    #[command(flatten)]
    writer: SingleWriterArg,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RollupArgs, global: &Global) -> Result<ExitCode, Failure> {
    interrupt::listen();
    let options = IngestOptions {
        rollups: args.rollups,
        videos: args.videos.clone(),
        tokens: args.tokens.clone(),
        single_writer: args.writer.single_writer,
        threads: global.threads.map_or(0, usize::from),
        ..IngestOptions::default()
    };
    let bar = Bar::of_steps("rollup", global.quiet);
    let mut report = ingest::rollup(&args.at.store, &options, &PartOf(&bar))?;
    bar.finish();
    let typed = Typed { store: Some(args.at.store.clone()) };
    report.quarantined.iter_mut().for_each(|file| file.spell(&typed));
    let code = if report.quarantined.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) };
    if args.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
        return Ok(code);
    }
    for file in &report.quarantined {
        say(&format!("left as it is: {}: {}", file.path.display(), file.error));
    }
    if !global.quiet {
        show(&format!(
            "{} of {} written anew, {} had these rollups already; rollups take {} now, and took {}; {:.1} s\n",
            units::count(report.words, "word"),
            units::count(report.steps, "step"),
            report.unchanged,
            units::bytes(report.bytes[1]),
            units::bytes(report.bytes[0]),
            report.seconds,
        ))?;
    }
    Ok(code)
}
