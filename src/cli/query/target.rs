//! Where an answer goes, and how.

// What stands above these structs would be taken for the description of the questions that they are options of.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::OUTPUT;
use crate::cli::spelling::{Typed, typed};
use crate::cli::{Failure, Global, check_outside, print, say, show, units};
use crate::output::{self, Format, TableStyle};
use crate::query::{Answer, Arrange, Explanation, Sort};

/// Rows shown on a terminal unless `--limit` says otherwise.
const ROWS_ON_TERMINAL: usize = 40;

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Write to this file
    #[arg(
        short, long, value_name = "FILE", help_heading = OUTPUT, value_hint = ValueHint::FilePath,
        value_parser = crate::cli::path()
    )]
    pub output: Option<PathBuf>,
    /// table, csv, json, jsonl, parquet, arrow, npy, zarr or png [default: by the file's extension; a table on a
    /// terminal, csv in a pipe]
    #[arg(long, value_name = "FORMAT", help_heading = OUTPUT, hide_possible_values = true)]
    format: Option<Format>,
    /// Sort by a column; may be given several times
    #[arg(long, value_name = "COLUMN[:desc]", help_heading = OUTPUT)]
    sort: Vec<Sort>,
    /// Keep these columns, in this order (of `list`: columns of either table; `help` lists them)
    #[arg(long, value_name = "COLUMN,…", help_heading = OUTPUT, value_delimiter = ',', value_parser = parse_column)]
    pub columns: Option<Vec<String>>,
    /// Keep the first rows
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    limit: Option<usize>,
    /// Say what would be read and done, and do nothing
    #[arg(long, help_heading = OUTPUT)]
    pub explain: bool,
}

impl OutputArgs {
    pub fn arrange(&self) -> Arrange {
        Arrange { sort: self.sort.clone(), limit: self.limit, columns: self.columns.clone() }
    }
}

/// Where an answer goes.
pub(super) struct Target {
    path: Option<PathBuf>,
    pub format: Format,
    style: TableStyle,
}

impl Target {
    pub fn of(args: &OutputArgs, store: &Path) -> Result<Self, Failure> {
        if let Some(output) = &args.output {
            check_outside(output, store)?;
        }
        let terminal = std::io::stdout().is_terminal() && args.output.is_none();
        let format = match (args.format, &args.output) {
            (Some(format), _) => format,
            (None, Some(path)) => Format::of_path(path).ok_or_else(|| {
                Failure::usage(
                    format!("{}: the extension names no format", path.display()),
                    "add --format csv, or another of table, json, jsonl, parquet, arrow, npy, zarr, png",
                )
            })?,
            (None, None) if terminal => Format::Table,
            (None, None) => Format::Csv,
        };
        if args.output.is_none() && !format.is_text() {
            return Err(Failure::usage(
                format!("{} is not printed", format.name()),
                format!("name a file: -o answer.{}", format.name()),
            ));
        }
        if let Some(output) = &args.output {
            check_directory(output)?;
        }
        let width = if terminal { units::terminal_width() } else { None };
        let rows = if terminal && args.limit.is_none() { ROWS_ON_TERMINAL } else { usize::MAX };
        Ok(Self { path: args.output.clone(), format, style: TableStyle { width, rows, advice: Some(typed) } })
    }

    /// A file for maps that come beside an answer.
    pub fn of_maps(path: &Path, store: &Path) -> Result<Self, Failure> {
        let format = Format::of_path(path).filter(|format| format.has_values()).ok_or_else(|| {
            Failure::usage(
                format!("{}: not a file for maps", path.display()),
                "name a .npy, .zarr, .parquet or .arrow file",
            )
        })?;
        check_outside(path, store)?;
        check_directory(path)?;
        let style = TableStyle { width: None, rows: usize::MAX, advice: Some(typed) };
        Ok(Self { path: Some(path.to_owned()), format, style })
    }

    /// Refuses formats that are for maps, before anything is read.
    pub fn of_rows(&self) -> Result<(), Failure> {
        if matches!(self.format, Format::Npy | Format::Zarr | Format::Png) {
            let found = format!("{} holds maps, and this answer is a table", self.format.name());
            return Err(Failure::usage(found, "write it as csv, json, jsonl, parquet or arrow"));
        }
        Ok(())
    }

    pub fn write(&self, answer: Answer, global: &Global) -> Result<(), Failure> {
        if !global.quiet {
            answer.notes.iter().for_each(|note| say(&format!("note: {}", note.spelled(&Typed { store: None }))));
        }
        let Some(path) = &self.path else {
            let text = output::to_text(&answer, self.format, self.style)?;
            return print(&String::from_utf8_lossy(&text));
        };
        let beside = output::write_file(&answer, self.format, path)?;
        if !global.quiet {
            let names: Vec<String> =
                std::iter::once(path).chain(&beside).map(|path| path.display().to_string()).collect();
            say(&format!("{}: {}", names.join(", "), units::count(answer.table.height() as u64, "row")));
        }
        Ok(())
    }

    pub fn explain(&self, explain: &Explanation) -> Result<(), Failure> {
        if matches!(self.format, Format::Json | Format::Jsonl) {
            return print(&(serde_json::to_string_pretty(explain)? + "\n"));
        }
        show(&explain.to_string())
    }
}

/// Refuses a file in a directory that is not there, before anything is read.
pub(in crate::cli) fn check_directory(file: &Path) -> Result<(), Failure> {
    let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) else { return Ok(()) };
    let found = match dir.metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "not a directory".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "no such directory".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::usage(format!("{}: {found}", dir.display()), "make it, or name another file"))
}

fn parse_column(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() { Err("a name of a column is missing".to_owned()) } else { Ok(name.to_owned()) }
}
