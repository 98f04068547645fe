//! `attnkit export`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::progress::Bar;
use super::shared::{ConditionArg, StoreArg};
use super::{Failure, Global, interrupt, say, say_left_out, show, units};
use crate::export::{self, ExportOptions, Format, Layout};
use crate::store::Store;

/// Write a store back as a dump: step files, metadata and summaries in `OUT/attention_maps`.
///
/// Arrays that were ingested without loss come back bit for bit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit export maps.store --out restored
  attnkit export maps.store --out restored --layout nested --format npy.gz
  attnkit export maps.store --out flowers --where \"token = 'flower' AND step < 10\"")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    at: StoreArg,
    /// A new or empty directory
    #[arg(long, value_hint = ValueHint::DirPath, value_parser = super::path())]
    out: PathBuf,
    /// Directories as `prompt_000_vid001` (flat) or `prompt_000/vid001` (nested)
    #[arg(long, value_enum, default_value = "flat")]
    layout: Layout,
    #[command(flatten)]
    condition: ConditionArg,
    /// Format of the step files
    #[arg(long, value_enum, default_value = "npy")]
    format: Format,
}

pub(super) fn run(args: &ExportArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.at.store)?;
    interrupt::listen();
    let progress = Bar::of_steps("export", global.quiet);
    let filter = args.condition.filter()?;
    let options = ExportOptions { layout: args.layout, format: args.format, filter };
    let report = export::run(&store, &args.out, &options, &progress)?;
    progress.finish();
    if !global.quiet {
        if report.resumed > 0 {
            say(&format!(
                "an export was interrupted here: {} of it were there already",
                units::count(report.resumed, "step")
            ));
        }
        show(&format!(
            "{}, {}, {} written to {}\n",
            units::count(report.videos, "video"),
            units::count(report.steps, "step"),
            units::bytes(report.bytes),
            args.out.join("attention_maps").display()
        ))?;
    }
    Ok(say_left_out(&store))
}
