//! `attnkit render`: what is drawn, how it looks, and where it goes.

mod film;
mod kinds;
pub(super) mod look;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueHint};

use self::kinds::{
    CompareArgs, EvolutionArgs, FramesArgs, HeadsArgs, HeatmapArgs, MatrixArgs, OverlayArgs, SheetArgs, WeightsArgs,
};
use self::look::LookArgs;
use super::progress::Bar;
use super::query::select::{OneArgs, ReduceArgs, SelectArgs};
use super::query::target::check_directory;
use super::spelling::Typed;
use super::{Failure, Global, check_outside, interrupt, say, say_left_out, show};
use crate::draw::{DrawError, Drawing, Drawn};
use crate::output;
use crate::query::Filter;
use crate::render::{Figure, PictureError};
use crate::store::Store;

/// Heading of what a drawing is of.
const OUTPUT: &str = "Output";
/// Below this, drawings come before a progress bar would be read.
pub(super) const WORTH_A_BAR: u64 = 500_000_000;

/// Draw what is in a store: maps, maps over their video, films, contact sheets, heads, curves, comparisons.
#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "KIND",
    subcommand_help_heading = "Kinds of drawings",
    after_help = "\
Examples (more: attnkit render heatmap --help, and the other kinds):
  attnkit render heatmap maps.store --video v1 --token flower -o flower.png
  attnkit render overlay maps.store --video v1 --token flower --frames-dir frames/v1 -o over.png
  attnkit render film maps.store --video v1 --video-file v1.mp4 -o flower.mp4
  attnkit render sheet maps.store --video v1 --rows token --cols step -o sheet.svg
  attnkit render heads maps.store --token flower --value entropy_norm -o heads.png
  attnkit render evolution maps.store --value gini -o gini.svg
  attnkit render matrix maps.store --across prompt --token flower -o prompts.png

The file's extension says how it is written: png, svg or webp; films as gif, png (animated), webp, mp4 or webm, or
into a directory, picture by picture. `attnkit view` shows a drawing in the terminal instead."
)]
pub(super) struct RenderArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Heatmap(HeatmapArgs),
    Overlay(OverlayArgs),
    Film(film::FilmArgs),
    Sheet(SheetArgs),
    Heads(HeadsArgs),
    Evolution(EvolutionArgs),
    Frames(FramesArgs),
    Weights(WeightsArgs),
    Matrix(MatrixArgs),
    Compare(CompareArgs),
}

/// What all kinds take.
#[derive(Debug, Args)]
pub(super) struct DrawArgs {
    #[command(flatten)]
    pub select: SelectArgs,
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    pub reduce: ReduceArgs,
    #[command(flatten)]
    pub look: LookArgs,
    /// Write to this file (png, svg, webp), or into this directory
    #[arg(
        short, long, value_name = "FILE|DIR", help_heading = OUTPUT, value_hint = ValueHint::FilePath,
        value_parser = super::path()
    )]
    pub output: Option<PathBuf>,
    /// Say what would be read and done, and do nothing
    #[arg(long, help_heading = OUTPUT)]
    pub explain: bool,
}

impl DrawArgs {
    pub fn filter(&self) -> Filter {
        self.one.of(self.select.filter())
    }
}

/// A drawing as it was typed.
pub(super) trait Draws {
    /// What all kinds take.
    fn common(&self) -> &DrawArgs;

    /// Refuses what cannot be drawn, before anything is read.
    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// What is meant.
    fn drawing(&self) -> Drawing;
}

pub(super) fn run(args: &RenderArgs, global: &Global) -> Result<ExitCode, Failure> {
    let drawn: &dyn Draws = match &args.kind {
        Kind::Film(args) => return film::run(args, global),
        Kind::Heatmap(args) => args,
        Kind::Overlay(args) => args,
        Kind::Sheet(args) => args,
        Kind::Heads(args) => args,
        Kind::Evolution(args) => args,
        Kind::Frames(args) => args,
        Kind::Weights(args) => args,
        Kind::Matrix(args) => args,
        Kind::Compare(args) => args,
    };
    let common = drawn.common();
    let store = Store::open(&common.select.store)?;
    let done = draw(drawn, &store, global);
    let code = say_left_out(&store);
    done.map(|()| code)
}

fn draw(drawn: &dyn Draws, store: &Store, global: &Global) -> Result<(), Failure> {
    let (common, drawing) = (drawn.common(), drawn.drawing());
    if common.explain {
        return show(&drawing.question().explain(store)?.to_string());
    }
    drawn.check()?;
    let (path, format) = target(common, drawing.name())?;
    let look = common.look.look();
    interrupt::listen();
    let bar = Bar::of_bytes("render", global.quiet).from(WORTH_A_BAR);
    let Drawn { figure, notes, .. } = drawing.draw(store, &look, &bar)?;
    bar.finish();
    say_notes(&notes, global);
    output::write_whole(&path, &format.encode(&figure)?)?;
    if !global.quiet {
        say(&format!("{}", path.display()));
    }
    Ok(())
}

pub(super) fn say_notes(notes: &[crate::remedy::Note], global: &Global) {
    if !global.quiet {
        for note in notes {
            say(&format!("note: {}", note.spelled(&Typed { store: None })));
        }
    }
}

/// How a drawing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Svg,
    Webp,
}

impl Format {
    fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "png" => Some(Self::Png),
            "svg" => Some(Self::Svg),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }

    fn encode(self, figure: &Figure) -> Result<Vec<u8>, DrawError> {
        let encode = || -> Result<Vec<u8>, PictureError> {
            match self {
                Self::Png => figure.to_picture()?.to_png(),
                Self::Webp => figure.to_picture()?.to_webp(),
                Self::Svg => Ok(figure.to_svg()?.into_bytes()),
            }
        };
        Ok(encode()?)
    }
}

/// Where a drawing goes.
fn target(common: &DrawArgs, name: &str) -> Result<(PathBuf, Format), Failure> {
    let Some(output) = &common.output else {
        return Err(Failure::usage(
            "no file to draw into is named",
            format!("add -o {name}.png (or .svg, .webp), or show it here with `attnkit view`"),
        ));
    };
    check_outside(output, &common.select.store)?;
    if output.is_dir() {
        return Ok((output.join(format!("{name}.png")), Format::Png));
    }
    let format = Format::of_path(output).ok_or_else(|| {
        Failure::usage(
            format!("{}: the extension names no format for drawings", output.display()),
            "name a .png, .svg or .webp file, or a directory that is there",
        )
    })?;
    check_directory(output)?;
    Ok((output.clone(), format))
}
