//! `attnkit repair`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::progress::Bar;
use super::shared::{SingleWriterArg, StoreArg};
use super::spelling::Typed;
use super::verify::describe;
use super::{Failure, Global, interrupt, print, show, units};
use crate::repair::{self, RepairOptions};

/// Mend a damaged store: write anew what `attnkit verify` finds damaged, and nothing else.
///
/// Documents, statistics, rollups and coordinates are computed from the store's own values. Damaged values, and videos
/// whose rows are damaged, are read from the dump; files that are not what was ingested any more mend nothing. A video
/// whose rows are damaged is ingested as the store's other videos were.
///
/// Exit code: 0 all is sound, 1 something still is not (each is named).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit repair maps.store --from outputs/my_batch
  attnkit repair maps.store                           what its own values tell, where the dump is gone
  attnkit gc maps.store                               afterwards: remove what was damaged")]
pub(super) struct RepairArgs {
    #[command(flatten)]
    at: StoreArg,
    /// Read damaged values from this dump; may be given several times
    #[arg(long, value_name = "DUMP", value_hint = ValueHint::DirPath, value_parser = super::path())]
    from: Vec<PathBuf>,
    /// The prefix the dump was ingested with
    #[arg(long, value_name = "NAME", requires = "from")]
    prefix: Option<String>,
    /// The file of prompts the dump was ingested with
    #[arg(long, value_name = "FILE", requires = "from", value_hint = ValueHint::FilePath, value_parser = super::path())]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    writer: SingleWriterArg,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RepairArgs, global: &Global) -> Result<ExitCode, Failure> {
    interrupt::listen();
    let progress = Bar::of_steps("repair", global.quiet);
    let options = RepairOptions {
        dumps: args.from.clone(),
        prefix: args.prefix.clone(),
        prompts: args.prompts.clone(),
        single_writer: args.writer.single_writer,
        threads: global.threads.map_or(0, usize::from),
    };
    let mut report = repair::run(&args.at.store, &options, &progress)?;
    progress.finish();
    let typed = Typed { store: Some(args.at.store.clone()) };
    report.quarantined.iter_mut().for_each(|file| file.spell(&typed));
    let code = if report.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
        return Ok(code);
    }
    let mut lines: Vec<String> = report
        .found
        .iter()
        .filter(|fault| !report.left.contains(fault))
        .map(|fault| format!("mended: {}", describe(fault)))
        .collect();
    if global.quiet {
        lines.clear();
    }
    lines.extend(report.quarantined.iter().map(|file| format!("not used: {}: {}", file.path.display(), file.error)));
    lines.extend(report.left.iter().map(|fault| format!("still damaged: {}", describe(fault))));
    if !global.quiet {
        lines.push(match report.found.len() as u64 {
            0 => "nothing is damaged".to_owned(),
            found => format!(
                "{} found, {} left; {} read from the dump, in {:.1} s",
                units::count(found, "fault"),
                report.left.len(),
                units::count(report.steps_read, "step"),
                report.seconds
            ),
        });
    }
    if !report.left.is_empty() && args.from.is_empty() {
        lines.push("damaged values are read from the dump: name it with --from".to_owned());
    }
    show(&lines.into_iter().map(|line| line + "\n").collect::<String>())?;
    Ok(code)
}
