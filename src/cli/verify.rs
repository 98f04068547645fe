//! `attnkit verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::progress::Bar;
use super::shared::{ConditionArg, StoreArg};
use super::{Failure, Global, print, show, units};
use crate::store::{Fault, Store};
use crate::verify::{self, VerifyOptions, VerifyReport};

/// Files of the dump that are named one by one.
const LACKING_SHOWN: usize = 20;

/// Check every byte of a store, and every value against the dump.
///
/// Reads every chunk with its checksum, checks tables and documents against theirs, recomputes all statistics and
/// rollups from the values. Exit code: 0 all is as it was written, 1 something is not (each is named), 3 all is, but
/// the store lacks files of the dump.
///
/// With --against, names the files of the dump that the store lacks: look at that before you delete it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit verify maps.store
  attnkit verify maps.store --against outputs/my_batch    before the dump is deleted
  attnkit verify maps.store --where \"video_id = 'prompt_000_vid001' AND step < 10\"")]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    at: StoreArg,
    /// Compare every value with this dump, bit for bit; may be given several times
    #[arg(long, value_name = "DUMP", value_hint = ValueHint::DirPath, value_parser = super::path())]
    against: Vec<PathBuf>,
    /// The prefix the dump was ingested with
    #[arg(long, value_name = "NAME", requires = "against")]
    prefix: Option<String>,
    #[command(flatten)]
    condition: ConditionArg,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.at.store)?;
    let progress = Bar::of_steps("verify", global.quiet);
    let filter = args.condition.filter()?;
    let options = VerifyOptions { against: args.against.clone(), prefix: args.prefix.clone(), filter, videos: None };
    let report = verify::run(&store, &options, &progress)?;
    progress.finish();
    let report = report.with_something_compared(&options)?;
    let code = match (report.faults.is_empty(), report.lacking.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(3),
        (true, true) => ExitCode::SUCCESS,
    };
    if args.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
        return Ok(code);
    }
    for fault in &report.faults {
        let what = match fault {
            _ if fault.in_dump => "differs",
            _ if fault.is_unfinished() => "not finished",
            _ => "damaged",
        };
        show(&format!("{what}: {}\n", describe(fault)))?;
    }
    show(&describe_lacking(&report))?;
    if !global.quiet || !report.faults.is_empty() {
        let mut lines = vec![format!(
            "{}, {}: {} decoded in {:.1} s ({}), {}",
            units::count(report.videos, "video"),
            units::count(report.steps, "step"),
            units::bytes(report.bytes),
            report.seconds,
            units::rate(report.bytes, report.seconds),
            if report.faults.is_empty() {
                "no fault".to_owned()
            } else {
                units::count(report.faults.len() as u64, "fault")
            },
        )];
        if !args.against.is_empty() {
            let lossy = format!(", after the same lossy settings for {}", units::count(report.lossy, "word"));
            lines.push(format!(
                "{} compared with the dump{}; {} of the store not in the dump; {} of the dump not in the store",
                units::count(report.compared, "step"),
                if report.lossy > 0 { lossy } else { String::new() },
                report.not_in_dump,
                report.not_in_store
            ));
        }
        if report.faults.iter().any(|fault| !fault.in_dump && !fault.is_unfinished()) {
            let store = args.at.store.display();
            lines.push(format!("the store is damaged: `attnkit repair {store} --from DUMP` mends it from the dump"));
        }
        if report.faults.iter().any(|fault| fault.in_dump) {
            lines.push(
                "the dump is not as it was ingested: files changed there are taken over by `attnkit ingest`, \
                damaged ones are not"
                    .into(),
            );
        }
        show(&(lines.join("\n") + "\n"))?;
    }
    Ok(code)
}

/// Where a fault is, and what it is.
pub(super) fn describe(fault: &Fault) -> String {
    let video = fault.video_id.as_ref().map(|video| format!("video {video}, "));
    let token = fault.token.as_ref().map(|token| format!("word {token}, "));
    let step = fault.step.map(|step| format!("step {step}, "));
    let place: String = [video, token, step].into_iter().flatten().collect();
    format!("{place}{}: {}", fault.path, fault.error)
}

/// The files of the dump that the store lacks, or the first of them.
fn describe_lacking(report: &VerifyReport) -> String {
    let shown = report.lacking.iter().take(LACKING_SHOWN);
    let mut lines: Vec<String> =
        shown.map(|lacking| format!("not in the store: {}: {}", lacking.path, lacking.reason)).collect();
    if let Some(more @ 1..) = report.lacking.len().checked_sub(LACKING_SHOWN) {
        lines.push(format!("not in the store: {more} more files of the dump (--json lists them all)"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
