//! `attnkit man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueHint};

use super::{Cli, Failure, Global, show, units};

/// Write manual pages: one for attnkit, and one for each of its commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit man ~/.local/share/man/man1
  man attnkit-query-average")]
pub(super) struct ManArgs {
    /// Directory to write them into; it is made if it is not there
    #[arg(value_hint = ValueHint::DirPath, value_parser = super::path())]
    dir: PathBuf,
}

pub(super) fn run(args: &ManArgs, global: &Global) -> Result<ExitCode, Failure> {
    let failed = |error| {
        Failure::with_hint(
            format!("{}: manual pages cannot be written there: {error}", args.dir.display()),
            "name a directory of your own, such as ~/.local/share/man/man1",
        )
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    if !global.quiet {
        let pages = std::fs::read_dir(&args.dir).map_err(failed)?.flatten();
        let ours = pages.filter(|page| page.file_name().to_string_lossy().starts_with("attnkit"));
        show(&format!("{} in {}\n", units::count(ours.count() as u64, "manual page"), args.dir.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
