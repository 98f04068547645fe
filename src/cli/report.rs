//! `attnkit report`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::progress::Bar;
use super::query::select::SelectArgs;
use super::query::target::check_directory;
use super::{Failure, Global, check_outside, interrupt, say, say_left_out, spelling, units};
use crate::output;
use crate::report::Report;
use crate::store::Store;

/// A page on what is in a store: one HTML file that needs nothing beside it.
///
/// What is there, each word through the denoising steps and the frames, mean maps (over the video's frames, where they
/// are found), heads, prompts and seeds compared, weights; under each figure, the command that made it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit report maps.store -o report.html
  attnkit report maps.store --where \"token IN ('flower', 'tree')\" --frames-dir frames -o trees.html

Frames are looked for beside the maps: frames/VIDEO/*.png, VIDEO.mp4 or videos/VIDEO.mp4 next to attention_maps/.")]
pub(super) struct ReportArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The file to write
    #[arg(
        short, long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = super::path(),
        default_value = "report.html"
    )]
    output: PathBuf,
    /// A directory that has for each video a directory of frames, or the video, of its name
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = super::path())]
    frames_dir: Option<PathBuf>,
    /// What stands above [default: the store's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
}

pub(super) fn run(args: &ReportArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.select.store)?;
    check_outside(&args.output, &args.select.store)?;
    check_directory(&args.output)?;
    let report = Report {
        filter: args.select.filter(),
        frames: args.frames_dir.clone(),
        title: args.title.clone(),
        spelled: &|made| spelling::made(&args.select.store, made),
    };
    interrupt::listen();
    let bar = Bar::of_tasks("report", global.quiet);
    let written = report.draw(&store, &bar)?;
    bar.finish();
    let mut page = Vec::new();
    written.write(&mut page)?;
    output::write_whole(&args.output, &page)?;
    if !global.quiet {
        say(&format!("{}: {}", args.output.display(), units::bytes(page.len() as u64)));
    }
    let code = say_left_out(&store);
    if written.undrawn == 0 {
        return Ok(code);
    }
    say(&format!("{} could not be drawn: the page says why", units::count(written.undrawn as u64, "figure")));
    Ok(ExitCode::from(3))
}
