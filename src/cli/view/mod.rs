//! `attnkit view`: drawings in the terminal.

#[cfg(unix)]
mod asking;
mod cells;
mod environment;
mod sixel;
mod terminal;

use std::process::ExitCode;

use clap::Args;

use self::terminal::{Graphics, Terminal};
use super::query::select::{OneArgs, ReduceArgs, SelectArgs};
use super::render::{WORTH_A_BAR, look::LookArgs, say_notes};
use super::{Failure, Global, print, say_left_out};
use crate::cli::progress::Bar;
use crate::draw::{Axis, ContactSheet, Content, DrawError, Drawn, HeadMatrix, HeadValue, Heatmap, Look};
use crate::query::Across;
use crate::render::Style;
use crate::store::Store;

/// Look at maps in the terminal: half blocks in 24-bit colour, sixel or kitty graphics, whichever it can.
///
/// The frames of the maps that are selected; with --rows and --cols a contact sheet, with --heads the matrix of blocks
/// and heads. Nothing is written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit view maps.store --video v1 --token flower
  attnkit view maps.store --video v1 --token flower --step 9 --frame 7
  attnkit view maps.store --video v1 --rows token --cols step
  attnkit view maps.store --token flower --heads top5")]
pub(super) struct ViewArgs {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    one: OneArgs,
    /// The latent frames to show [default: all; eight of many]
    #[arg(long = "frame", value_name = "N,…", value_delimiter = ',')]
    frames: Vec<usize>,
    /// A contact sheet: what the rows are
    #[arg(long, value_name = "DIMENSION")]
    rows: Option<Axis>,
    /// A contact sheet: what the columns are
    #[arg(long, visible_alias = "columns", value_name = "DIMENSION")]
    cols: Option<Axis>,
    /// The matrix of blocks and heads: a statistic, or map
    #[arg(long, value_name = "STATISTIC|map", conflicts_with_all = ["rows", "cols"])]
    heads: Option<String>,
    #[command(flatten)]
    reduce: ReduceArgs,
    #[command(flatten)]
    look: LookArgs,
    /// How to show it: blocks, sixel or kitty [default: what the terminal can]
    #[arg(long, value_name = "GRAPHICS")]
    graphics: Option<Graphics>,
}

pub(super) fn run(args: &ViewArgs, global: &Global) -> Result<ExitCode, Failure> {
    let store = Store::open(&args.select.store)?;
    let shown = show(args, &store, global);
    let code = say_left_out(&store);
    shown.map(|()| code)
}

fn show(args: &ViewArgs, store: &Store, global: &Global) -> Result<(), Failure> {
    let terminal = Terminal::detect();
    let terminal = Terminal { graphics: args.graphics.unwrap_or(terminal.graphics), ..terminal };
    let look = args.look.look();
    let bar = Bar::of_bytes("view", global.quiet).from(WORTH_A_BAR);
    let Drawn { mut figure, content, notes } = args.draw(store, &look, &bar)?;
    bar.finish();
    say_notes(&notes, global);
    let mut lines = Vec::new();
    match &content {
        // Text of half blocks could not be read: it is written, and only what is colour is blocks.
        Content::Sheet(sheet) if terminal.graphics == Graphics::HalfBlocks => {
            cells::sheet(sheet, &terminal, &mut lines)?;
        }
        Content::Matrix(matrix) if terminal.graphics == Graphics::HalfBlocks => {
            cells::matrix(matrix, &terminal, &mut lines)?;
        }
        _ => {
            let (width, height) = terminal.room();
            let ratio = (width as f64 / figure.width).min(height as f64 / figure.height);
            figure.style = Style { dpi: 96.0 * ratio, ..figure.style };
            terminal.draw(&figure.to_picture().map_err(DrawError::from)?, &mut lines)?;
        }
    }
    print(&String::from_utf8_lossy(&lines))
}

impl ViewArgs {
    fn draw(&self, store: &Store, look: &Look, bar: &Bar) -> Result<Drawn, DrawError> {
        let filter = self.one.of(self.select.filter());
        let reduction = self.reduce.reduction();
        let frame = self.frames.first().copied();
        if let Some(value) = &self.heads {
            let value = if value == "map" { HeadValue::Map } else { HeadValue::Statistic(value.clone()) };
            return HeadMatrix { filter, reduction, value, frame }.draw(store, look, bar);
        }
        if self.rows.is_none() && self.cols.is_none() {
            let heatmap = Heatmap { filter, reduction, frames: self.frames.clone(), ..Heatmap::default() };
            return heatmap.draw(store, look, bar);
        }
        let other = |axis: Option<Axis>| match axis {
            Some(Axis::By(Across::Token)) => Axis::By(Across::Step),
            _ => Axis::By(Across::Token),
        };
        let rows = self.rows.unwrap_or_else(|| other(self.cols));
        let columns = self.cols.unwrap_or_else(|| other(self.rows));
        ContactSheet { filter, reduction, rows, columns, frame }.draw(store, look, bar)
    }
}
