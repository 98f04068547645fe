//! `attnkit compact`.

use std::process::ExitCode;

use clap::Args;

use super::progress::Bar;
use super::shared::{SingleWriterArg, StoreArg};
use super::{Failure, Global, say_left_out, show, units};
use crate::store::Store;

/// Below this, all is packed before a progress bar would be read.
const WORTH_A_BAR: u64 = 64 << 20;

/// Pack the tables of many videos into a few files, which are listed and filtered faster.
#[derive(Debug, Args)]
#[command(
    long_about = "Pack the tables of many videos into a few files, which are listed and filtered faster.\n\n\
        What the store says stays the same, for attnkit and for every other reader: each row is there once, also while \
        it runs. Writers may go on meanwhile. An ingest does it by itself at its end if 256 videos or more are not \
        packed.",
    after_help = "\
Examples:
  attnkit compact maps.store"
)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    at: StoreArg,
    #[command(flatten)]
    writer: SingleWriterArg,
}

pub(super) fn run(args: &CompactArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.at.store)?.as_single_writer(args.writer.single_writer);
    let bar = Bar::of_bytes("compact", global.quiet).from(WORTH_A_BAR);
    let done = store.compact(&bar)?;
    bar.finish();
    if !global.quiet {
        if done.videos == 0 {
            show("nothing to pack\n")?;
        } else {
            show(&format!(
                "packed {} into {}: the tables are {} now ({}), and were {} ({})\n",
                units::count(done.videos, "video"),
                units::count(done.packs, "pack"),
                units::count(done.files[1], "file"),
                units::bytes(done.bytes[1]),
                units::count(done.files[0], "file"),
                units::bytes(done.bytes[0]),
            ))?;
        }
    }
    Ok(say_left_out(&store))
}
