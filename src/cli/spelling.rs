//! Advice as the command line has it: options with two hyphens, commands in backticks.

use std::path::{Path, PathBuf};

use crate::draw::{Backdrop, Comparison, ContactSheet, Drawing, HeadValue, Heatmap, Profile};
use crate::kernel::FramePlacement;
use crate::query::{Across, Align, Filter};
use crate::remedy::{CommandName, OptionName, Remedy, Spelling, Try, Value};
use crate::report::Made;

/// Spells options and commands as they are typed.
pub(super) struct Typed {
    /// The store at hand, if it is known.
    pub store: Option<PathBuf>,
}

/// Advice where no store is known by name.
pub(super) fn typed(remedy: &Remedy) -> String {
    remedy.spelled(&Typed { store: None })
}

impl Spelling for Typed {
    fn spell(&self, one: &Try) -> String {
        match one {
            Try::Option { name: OptionName::Output, .. } => "-o FILE".into(),
            Try::Option { name, value } => {
                let option = format!("--{}", name.name().replace('_', "-"));
                match value {
                    Value::Any => format!("{option} {}", placeholder(*name)),
                    Value::Is(value) if value.contains(' ') => format!("{option} \"{value}\""),
                    Value::Is(value) => format!("{option} {value}"),
                    Value::Off => option.replacen("--", "--no-", 1),
                    _ => option,
                }
            }
            Try::Command { name, path } => {
                let path = path.as_ref().or(self.store.as_ref()).map(|path| path.display().to_string());
                command(*name, path.as_deref())
            }
        }
    }
}

/// What stands for a value that the reader knows, as in the help.
const fn placeholder(name: OptionName) -> &'static str {
    match name {
        OptionName::Grid => "FxHxW",
        OptionName::Size => "HxW",
        _ => name.placeholder(),
    }
}

fn command(name: CommandName, path: Option<&str>) -> String {
    let of = |command: &str| match path {
        Some(path) => format!("`attnkit {command} {path}`"),
        None => format!("`attnkit {command}`"),
    };
    let store = path.unwrap_or("STORE");
    match name {
        CommandName::Average => "`attnkit query average`".into(),
        CommandName::Columns => format!("attnkit query list {store} --columns help"),
        CommandName::Compact => format!("`attnkit compact {store}`"),
        CommandName::Expand => "`attnkit prompt expand --format json`".into(),
        CommandName::Export => format!("`attnkit export {store} --out DUMP`"),
        CommandName::Gc => format!("`attnkit gc {store}`"),
        CommandName::Ingest => "`attnkit ingest`".into(),
        CommandName::Query => "`attnkit query`".into(),
        CommandName::Repair => format!("`attnkit repair {store} --from DUMP`"),
        CommandName::Sql => "`attnkit query sql`".into(),
        CommandName::Verify => format!("`attnkit verify {store}`"),
        CommandName::Info => of("info"),
    }
}

/// What made a figure of a report, as it is typed.
pub(super) fn made(store: &Path, made: Made<'_>) -> String {
    let mut words = vec!["attnkit".to_owned()];
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| quoted(word)));
    let store = store.display().to_string();
    match made {
        Made::Sql(statement) => add(&["query", "sql", &store, statement]),
        Made::Film(film) => {
            add(&["render", "film", &store]);
            filtered(&film.filter, &mut add);
            over(film.backdrop.as_ref(), film.placement, &mut add);
            add(&["-o", "film.webp"]);
        }
        Made::Drawing(drawing) => {
            add(&["render", drawing.name(), &store]);
            match drawing {
                Drawing::Heatmap(Heatmap { filter, .. })
                | Drawing::Sheet(ContactSheet { filter, .. })
                | Drawing::Frames(Profile { filter, .. })
                | Drawing::Compare(Comparison { filter, .. }) => filtered(filter, &mut add),
                Drawing::Overlay(overlay) => {
                    filtered(&overlay.filter, &mut add);
                    over(Some(&overlay.backdrop), overlay.placement, &mut add);
                }
                Drawing::Heads(heads) => {
                    filtered(&heads.filter, &mut add);
                    if let HeadValue::Statistic(column) = &heads.value {
                        add(&["--value", column]);
                    }
                }
                Drawing::Evolution(series) => {
                    filtered(&series.filter, &mut add);
                    add(&["--value", &series.value]);
                }
                Drawing::Weights(weights) => {
                    filtered(&weights.filter, &mut add);
                    add(&["--metric", &weights.metric.to_string()]);
                }
                Drawing::Matrix(matrix) => {
                    filtered(&matrix.filter, &mut add);
                    let across = if matrix.across == Across::Token { "token" } else { matrix.across.name() };
                    add(&["--across", across, "--metric", &matrix.metric.to_string(), "--align"]);
                    let align = [(Align::Step, "step"), (Align::Timestep, "timestep"), (Align::Last, "last")];
                    add(&[align.into_iter().find(|(own, _)| *own == matrix.align).map_or("mean", |(_, name)| name)]);
                }
            }
            add(&["-o", &format!("{}.png", drawing.name())]);
        }
    }
    words.join(" ")
}

fn filtered(filter: &Filter, add: &mut impl FnMut(&[&str])) {
    let named = [("--video", &filter.video), ("--token", &filter.token), ("--where", &filter.condition)];
    for (option, value) in named.into_iter().filter_map(|(option, value)| Some((option, value.as_ref()?))) {
        add(&[option, value]);
    }
    let numbers = [("--step", filter.step), ("--block", filter.block), ("--head", filter.head)];
    for (option, value) in numbers.into_iter().filter_map(|(option, value)| Some((option, value?))) {
        add(&[option, &value.to_string()]);
    }
}

fn over(backdrop: Option<&Backdrop>, placement: FramePlacement, add: &mut impl FnMut(&[&str])) {
    match backdrop {
        Some(Backdrop::Directory(dir)) => add(&["--frames-dir", &dir.display().to_string()]),
        Some(Backdrop::Video(file)) => add(&["--video-file", &file.display().to_string()]),
        None => {}
    }
    if placement == FramePlacement::Even {
        add(&["--time", "even"]);
    }
}

/// A word as shells read it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@%+,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_commands_are_as_they_are_typed() {
        let cases = [
            (OptionName::Replace.on(), "--replace"),
            (OptionName::SingleWriter.on(), "--single-writer"),
            (OptionName::Rollups.off(), "--no-rollups"),
            (OptionName::Grid.any(), "--grid FxHxW"),
            (OptionName::Align.is("last"), "--align last"),
            (OptionName::Where.is("step < 3"), "--where \"step < 3\""),
            (OptionName::Output.any(), "-o FILE"),
            (CommandName::Gc.here(), "`attnkit gc a.store`"),
            (CommandName::Info.at("dump"), "`attnkit info dump`"),
            (CommandName::Verify.at("b.store"), "`attnkit verify b.store`"),
        ];
        for (one, expected) in cases {
            assert_eq!(Typed { store: Some("a.store".into()) }.spell(&one), expected);
        }
        assert_eq!(typed(&Remedy::of("{}", [CommandName::Gc.here()])), "`attnkit gc STORE`");
    }
}
