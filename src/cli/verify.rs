//! `attnkit verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::progress::Progress;
use super::{Failure, Global, print, units};
use crate::store::Store;
use crate::verify::{self, VerifyOptions};

/// Check every byte of a store, and every value against the dump.
///
/// Reads every chunk with its checksum, checks tables and documents against theirs, recomputes all statistics and
/// rollups from the values. Exit code 1 if anything is not as it was written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit verify maps.store
  attnkit verify maps.store --against outputs/my_batch    before the dump is deleted")]
pub(super) struct VerifyArgs {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    store: PathBuf,
    /// Compare every value with this dump, bit for bit; may be given several times
    #[arg(long, value_name = "DUMP", value_hint = ValueHint::DirPath)]
    against: Vec<PathBuf>,
    /// The prefix the dump was ingested with
    #[arg(long, value_name = "NAME", requires = "against")]
    prefix: Option<String>,
    /// The result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.store)?;
    let progress = Progress::of_steps("verify", global.quiet);
    let options = VerifyOptions { against: args.against.clone(), prefix: args.prefix.clone() };
    let report = verify::run(&store, &options, &|done, all| {
        progress.set_total(all);
        progress.set_position(done, || units::count(done, "step"));
    })?;
    progress.finish();
    let code = if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
        return Ok(code);
    }
    for fault in &report.faults {
        let video = fault.video_id.as_ref().map(|video| format!("video {video}, "));
        let token = fault.token.as_ref().map(|token| format!("word {token}, "));
        let step = fault.step.map(|step| format!("step {step}, "));
        let place: String = [video, token, step].into_iter().flatten().collect();
        print(&format!("damaged: {place}{}: {}\n", fault.path, fault.error))?;
    }
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
            lines.push(format!(
                "{} compared with the dump, {} not in it",
                units::count(report.compared, "step"),
                report.not_in_dump
            ));
        }
        if !report.faults.is_empty() {
            lines.push(
                "if the dump is still there, `attnkit ingest` into a new store restores the damaged videos".into(),
            );
        }
        print(&(lines.join("\n") + "\n"))?;
    }
    Ok(code)
}
