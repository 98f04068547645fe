//! `attnkit prompt`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use serde::Serialize;

use super::{Failure, Global, print, say, show, table, units, write_out};
use crate::bounded;
use crate::prompt::{
    Expanded, FILE_BYTES, Item, MAX_DEPTH, Template, Templates, TemplatesError, Tokenizer, Variation, WordTokens,
    parse_weighted,
};

const GRAMMAR: &str = "[a|b] are alternatives, (word:2.5) is a word and its weight; docs/prompts.md has the grammar";
/// Warnings shown of one template.
const WARNINGS: usize = 10;
/// Variations shown in a table without `--limit`.
const ROWS: u64 = 100;

/// Prompt templates, weights and tokens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit prompt expand \"a beautiful [(flower:2.5) near a tree|(tree:3) next to a flower]\"
  attnkit prompt parse \"a (flower:2.5) near a tree\"
  attnkit prompt tokens --tokenizer umt5-xxl/tokenizer.json \"a (beautiful:1.5) flower\"

[a|b] are alternatives, nested up to 3 deep; (word:2.5) is a tracked word and its weight.
The grammar is in docs/prompts.md.")]
pub(super) struct PromptArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    Expand(ExpandArgs),
    Parse(ParseArgs),
    Tokens(TokensArgs),
}

/// All variations of a template, or of a file of templates: prompts, weights, choices.
///
/// Variations are the product of all choices in order of appearance, the leftmost slowest: the order in which
/// generators number them, so that the first one is that of `prompt_000`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit prompt expand \"a [x|y] [1|2]\"
  attnkit prompt expand templates.txt --format csv > prompts.csv
  attnkit prompt expand templates.txt --format json | jq -r '.[].prompt'

JSON: an array of objects with prompt_id, template, variation, prompt, weighted_prompt,
tokens: [{word, weight}], choices: [{bracket, option, text, weight}].")]
struct ExpandArgs {
    /// A template, or a file of templates, one a line; - reads standard input
    #[arg(value_name = "TEMPLATE|FILE")]
    template: String,
    /// Only the first N variations [default: all; in a table 100]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    common: TemplateArgs,
}

/// The parts of a prompt or template: text, words with their weights, choices.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit prompt parse \"a (flower:2.5) near a tree\"
  attnkit prompt parse \"a [big [red|blue]|small] (car)\" --format json")]
struct ParseArgs {
    /// The prompt or template
    #[arg(value_name = "PROMPT")]
    prompt: String,
    #[command(flatten)]
    common: TemplateArgs,
}

/// How a tokenizer cuts a prompt, and where its words sit.
///
/// Weight syntax is stripped first and spaces are collapsed, as generators do. Positions count from 0 and include
/// special tokens: they are the rows of the text axis of the model's cross-attention.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit prompt tokens --tokenizer tokenizer.json \"a (beautiful:1.5) flower\"
  attnkit prompt tokens --tokenizer tokenizer.json \"a beautiful flower\" --word flower --format json

tokenizer.json is a file of the model's tokenizer (for WAN google/umt5-xxl). In Python,
  AutoTokenizer.from_pretrained(\"google/umt5-xxl\").save_pretrained(\"DIR\")
writes one.")]
struct TokensArgs {
    /// The prompt; its words in parentheses are looked for
    #[arg(value_name = "PROMPT")]
    prompt: String,
    /// The tokenizer
    #[arg(long, value_name = "tokenizer.json", value_hint = ValueHint::FilePath, value_parser = super::path())]
    tokenizer: PathBuf,
    /// Look for this word, too; may be given several times
    #[arg(long = "word", value_name = "WORD")]
    words: Vec<String>,
    /// How to print it [default: table on a terminal, else csv: the pieces]
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
}

/// Options of what takes templates.
#[derive(Debug, Args)]
struct TemplateArgs {
    /// How to print it [default: table on a terminal, else csv]
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// How deep brackets may be nested; generators take 3
    #[arg(long, value_name = "N", default_value_t = MAX_DEPTH)]
    max_depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum FormatArg {
    Table,
    Json,
    Csv,
}

impl FormatArg {
    fn or_default(format: Option<Self>) -> Self {
        format.unwrap_or(if std::io::stdout().is_terminal() { Self::Table } else { Self::Csv })
    }
}

pub(super) fn run(args: &PromptArgs, global: &Global) -> Result<ExitCode, Failure> {
    match &args.question {
        Question::Expand(args) => expand(args, global),
        Question::Parse(args) => parse(args, global),
        Question::Tokens(args) => tokens(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Columns of a variation.
const COLUMNS: [&str; 7] = ["prompt_id", "template", "variation", "prompt", "weighted_prompt", "tokens", "choices"];
/// Those of the table for people.
const SHOWN: [usize; 5] = [0, 3, 4, 5, 6];

fn cells(expanded: Expanded<'_>) -> [String; 7] {
    let Variation { variation, prompt, weighted_prompt, tokens, choices } = expanded.variation;
    let tokens: Vec<String> = tokens.iter().map(|token| format!("{}:{}", token.word, token.weight)).collect();
    let choice = |weight: f64| if weight == 1.0 { String::new() } else { format!(":{weight}") };
    let choices: Vec<String> =
        choices.iter().map(|made| format!("{}={}{}", made.bracket, made.text, choice(made.weight))).collect();
    let (tokens, choices) = (tokens.join("; "), choices.join("; "));
    let (prompt_id, template) = (expanded.prompt_id, expanded.template.to_owned());
    [prompt_id, template, variation.to_string(), prompt, weighted_prompt, tokens, choices]
}

fn expand(args: &ExpandArgs, global: &Global) -> Result<(), Failure> {
    let templates = read_templates(&args.template, args.common.max_depth, global)?;
    let format = FormatArg::or_default(args.common.format);
    let total = templates.count();
    let limit = args.limit.unwrap_or(if format == FormatArg::Table { ROWS } else { u64::MAX });
    let variations = templates.variations().zip(0..limit).map(|(variation, _)| variation);
    match format {
        FormatArg::Csv => write_out(|to| table::write_csv(to, &COLUMNS, variations.map(cells))),
        FormatArg::Json => write_out(|to| write_json_array(to, variations)),
        FormatArg::Table => {
            let shown = |cells: [String; 7]| SHOWN.map(|column| cells[column].clone());
            let header = SHOWN.map(|column| COLUMNS[column]);
            let mut lines = vec![table::draw(&header, variations.map(|variation| shown(cells(variation))))];
            if limit < total {
                let all = if total == u64::MAX {
                    "10^19 variations and more".into()
                } else {
                    units::count(total, "variation")
                };
                lines.push(format!("… {all} in all (--limit shows more or fewer, --format csv or json has all)\n"));
            }
            show(&lines.concat())
        }
    }
}

/// The templates of a file or of standard input, or the one that the argument is. Says where they are odd.
fn read_templates(argument: &str, max_depth: usize, global: &Global) -> Result<Templates, Failure> {
    let path = Path::new(argument);
    let templates = if argument == "-" {
        let text = bounded::as_text(bounded::read_from(std::io::stdin(), FILE_BYTES)?)?;
        Templates::of_lines("standard input", &text, max_depth)
    } else if path.is_file() {
        Templates::read(path, max_depth)
    } else if is_like_a_path(argument) {
        let found =
            if path.is_dir() { "is a directory; expected a file of templates" } else { "there is no such file" };
        return Err(Failure::usage(format!("{argument}: {found}"), "name a file, or quote a template"));
    } else {
        Templates::parse([argument], max_depth)
    };
    let templates = templates.map_err(|error| match error {
        TemplatesError::Io { .. } => Failure::with_hint(error, "templates are text in UTF-8, one a line"),
        TemplatesError::Empty { .. } => Failure::usage(error, "write one a line"),
        _ => Failure::usage(error, GRAMMAR),
    })?;
    if !global.quiet {
        templates.warnings(WARNINGS).for_each(|warning| say(&format!("warning: {warning}")));
    }
    Ok(templates)
}

/// Whether an argument names a file or directory rather than being a template.
fn is_like_a_path(argument: &str) -> bool {
    let path = Path::new(argument);
    let has_ending = path.extension().is_some_and(|ending| ending == "txt" || ending == "json");
    path.is_dir()
        || (!argument.contains(char::is_whitespace)
            && (has_ending || (argument.contains('/') && !argument.contains(['[', '(']))))
}

/// Says where a template is odd, as far as that can be read.
fn warn(text: &str, template: &Template, global: &Global) {
    if !global.quiet {
        let warnings = template.warnings().iter().take(WARNINGS);
        warnings.for_each(|warning| say(&format!("warning: {}", warning.of(text))));
    }
}

/// A part of a template as a row; parts of parts follow it, one deeper.
#[derive(Serialize)]
struct Segment {
    depth: usize,
    kind: &'static str,
    text: String,
    weight: f64,
}

fn segments(items: &[Item], depth: usize, rows: &mut Vec<Segment>) {
    for item in items {
        let (kind, weight) = match item {
            Item::Text { .. } => ("text", None),
            Item::Word(word) => ("word", word.weight),
            Item::Choice(_) => ("choice", None),
        };
        // A word is told without its parentheses, unless there are choices in it.
        let text = match item {
            Item::Word(word) => word.items.iter().map(ToString::to_string).collect(),
            other => other.to_string(),
        };
        rows.push(Segment { depth, kind, text, weight: weight.unwrap_or(1.0) });
        match item {
            Item::Text { .. } => {}
            Item::Word(word) if matches!(word.items[..], [Item::Text { .. }]) => {}
            Item::Word(word) => segments(&word.items, depth + 1, rows),
            Item::Choice(choice) => {
                for option in &choice.options {
                    let text = option.items.iter().map(ToString::to_string).collect();
                    rows.push(Segment { depth: depth + 1, kind: "option", text, weight: option.weight.unwrap_or(1.0) });
                    if !matches!(option.items[..], [] | [Item::Text { .. }]) {
                        segments(&option.items, depth + 2, rows);
                    }
                }
            }
        }
    }
}

/// A prompt or template, taken apart.
#[derive(Serialize)]
struct Parsed {
    template: String,
    variations: u64,
    segments: Vec<Segment>,
    items: Vec<Item>,
}

fn parse(args: &ParseArgs, global: &Global) -> Result<(), Failure> {
    const COLUMNS: [&str; 4] = ["depth", "kind", "text", "weight"];
    let template =
        Template::parse_nested(&args.prompt, args.common.max_depth).map_err(|error| Failure::usage(error, GRAMMAR))?;
    warn(&args.prompt, &template, global);
    let mut rows = Vec::new();
    segments(template.items(), 0, &mut rows);
    let cells =
        |row: &Segment, text: String| [row.depth.to_string(), row.kind.to_owned(), text, row.weight.to_string()];
    match FormatArg::or_default(args.common.format) {
        FormatArg::Csv => {
            write_out(|to| table::write_csv(to, &COLUMNS, rows.iter().map(|row| cells(row, row.text.clone()))))
        }
        FormatArg::Json => {
            let items = template.items().to_vec();
            let parsed = Parsed { template: template.to_string(), variations: template.count(), segments: rows, items };
            print(&(serde_json::to_string_pretty(&parsed)? + "\n"))
        }
        FormatArg::Table => {
            // Spaces at the ends of a text are a part of it.
            let quoted = |row: &Segment| format!("{}`{}`", "  ".repeat(row.depth), row.text);
            let mut lines =
                vec![table::draw(&COLUMNS[1..], rows.iter().map(|row| cells(row, quoted(row)).into_iter().skip(1)))];
            if let Some(only) = template.variation(0).filter(|_| template.count() == 1) {
                lines.push(format!("prompt: {}\n", only.prompt));
            } else {
                let all = units::count(template.count(), "variation");
                lines.push(format!("{all}: `attnkit prompt expand` lists them\n"));
            }
            show(&lines.concat())
        }
    }
}

fn tokens(args: &TokensArgs) -> Result<(), Failure> {
    const PIECES: [&str; 5] = ["position", "id", "piece", "text", "word"];
    const WORDS_NOTE: &str = "\
ids: of the word alone; in context: of its first place; stored: the positions whose attention generators store, which \
are
the first with the ids of the word alone
";
    const WORDS: [&str; 6] = ["word", "weight", "ids", "positions", "in context", "stored"];
    let prompt = parse_weighted(&args.prompt).map_err(|error| Failure::usage(error, GRAMMAR))?;
    let tokenizer = Tokenizer::open(&args.tokenizer).map_err(|error| {
        Failure::usage(
            error,
            "name the tokenizer.json of the model's tokenizer; `attnkit prompt tokens --help` says how to get it",
        )
    })?;
    let tokenized = tokenizer.tokenize(&prompt, &args.words)?;
    let words_at = |position: usize| -> Vec<&str> {
        let is_there = |word: &&WordTokens| word.occurrences.iter().any(|place| place.positions.contains(&position));
        tokenized.words.iter().filter(is_there).map(|word| word.word.as_str()).collect()
    };
    let pieces = tokenized.pieces.iter().map(|piece| {
        let words = words_at(piece.position).join("; ");
        [piece.position.to_string(), piece.id.to_string(), piece.piece.clone(), piece.text.clone(), words]
    });
    match FormatArg::or_default(args.format) {
        FormatArg::Csv => write_out(|to| table::write_csv(to, &PIECES, pieces)),
        FormatArg::Json => print(&(serde_json::to_string_pretty(&tokenized)? + "\n")),
        FormatArg::Table => {
            let mut lines = vec![table::draw(&PIECES, pieces)];
            let missing = |word: &WordTokens| if word.occurrences.is_empty() { "not in the prompt" } else { "none" };
            let words = tokenized.words.iter().map(|word| {
                let of =
                    |positions: &[usize]| if positions.is_empty() { missing(word).into() } else { list(positions) };
                let places: Vec<String> = word.occurrences.iter().map(|place| list(&place.positions)).collect();
                let all = if places.is_empty() { of(&[]) } else { places.join(" and ") };
                let ids = word.occurrences.first().map_or_else(|| "-".into(), |place| list(&place.ids));
                [word.word.clone(), word.weight.to_string(), list(&word.ids), all, ids, of(&word.positions)]
            });
            if !tokenized.words.is_empty() {
                lines.push(format!("\n{}", table::draw(&WORDS, words)));
                lines.push(WORDS_NOTE.to_owned());
            }
            show(&lines.concat())
        }
    }
}

/// `[1, 2]`
fn list<T: std::fmt::Debug>(numbers: &[T]) -> String {
    format!("{numbers:?}")
}

/// An object a line, between brackets.
fn write_json_array(mut to: impl Write, objects: impl Iterator<Item = impl Serialize>) -> std::io::Result<()> {
    let mut before = "[\n";
    for object in objects {
        to.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut to, &object)?;
        before = ",\n";
    }
    to.write_all(if before == "[\n" { b"[]\n" } else { b"\n]\n" })
}
