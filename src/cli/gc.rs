//! `attnkit gc`.

use std::process::ExitCode;

use clap::Args;

use super::progress::Bar;
use super::shared::{SingleWriterArg, StoreArg};
use super::{Failure, Global, say_left_out, show, units};
use crate::store::Store;

/// Below this, all is removed before a progress bar would be read.
const WORTH_A_BAR: u64 = 1 << 30;

/// Remove from a store what no commit names: old versions of changed videos, and what an interrupted ingest left.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit gc maps.store --dry-run
  attnkit gc maps.store")]
pub(super) struct GcArgs {
    #[command(flatten)]
    at: StoreArg,
    #[command(flatten)]
    writer: SingleWriterArg,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &GcArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.at.store)?.as_single_writer(args.writer.single_writer);
    let bar = Bar::of_bytes("gc", global.quiet).from(WORTH_A_BAR);
    let garbage = if args.dry_run { store.garbage()? } else { store.gc(&bar)? };
    bar.finish();
    let verb = if args.dry_run { "would remove" } else { "removed" };
    if !global.quiet {
        for item in &garbage {
            show(&format!("{verb} {} ({})\n", item.path.display(), units::bytes(item.bytes)))?;
        }
        let bytes = garbage.iter().map(|item| item.bytes).sum();
        if garbage.is_empty() {
            show("nothing to remove\n")?;
        } else {
            let places = units::count(garbage.len() as u64, "place");
            show(&format!("{verb} {} in {places}\n", units::bytes(bytes)))?;
        }
    }
    Ok(say_left_out(&store))
}
