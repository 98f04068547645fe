//! What to try next, as values: advice in which options and commands are no text, so that the command line, Python and
//! whoever else shows it each spells them its own way.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Advice: words, and in them what can be set or run.
///
/// Shown as it is, it names options as the fields of this library.
///
/// ```
/// use attnkit::remedy::{OptionName, Remedy, Try};
///
/// let remedy = Remedy::of("keep both with {}, or replace it with {}", [
///     OptionName::Prefix.any(),
///     OptionName::Replace.on(),
/// ]);
/// assert_eq!(remedy.to_string(), "keep both with `prefix`, or replace it with `replace`");
/// assert!(remedy.tries().any(|one| matches!(one, Try::Option { name: OptionName::Replace, .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Remedy {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum Part {
    Words(String),
    Try(Try),
}

/// Something that can be tried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Try {
    /// Setting an option: of the same call, if the words say nothing else.
    Option {
        /// Which.
        name: OptionName,
        /// To what.
        value: Value,
    },
    /// Running something else.
    Command {
        /// What.
        name: CommandName,
        /// On which store, dump or file; `None`: the one at hand.
        path: Option<PathBuf>,
    },
}

/// What an option is set to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Value {
    /// What the reader knows.
    Any,
    /// Nothing is said of it.
    Unsaid,
    /// This.
    Is(String),
    /// A switch, switched on.
    On,
    /// A switch, switched off.
    Off,
}

/// Names that are the same for every face, but for how they are written.
macro_rules! names {
    ($(#[$doc:meta])* $type:ident: $($(#[$of:meta])* $variant:ident = $name:literal,)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[$of])* #[serde(rename = $name)] $variant,)+
        }

        impl $type {
            /// With `_` between its words.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

names! {
    /// An option of a call of this library, by what it is for.
    OptionName:
    /// How steps of different videos are paired.
    Align = "align",
    /// What is compared.
    Across = "across",
    /// Which array of an npz archive is read.
    Array = "array",
    /// Which element of a batch axis is kept.
    Batch = "batch",
    /// Which columns are shown.
    Columns = "columns",
    /// Frames of a whole video.
    Frames = "frames",
    /// Grid of the maps.
    Grid = "grid",
    /// How many rows are shown.
    Limit = "limit",
    /// The most that a step file may hold.
    MaxStepBytes = "max_step_bytes",
    /// What is done with files that cannot be used.
    OnError = "on_error",
    /// The file that is written.
    Output = "output",
    /// What is put before ids of videos.
    Prefix = "prefix",
    /// The file of prompts.
    Prompts = "prompts",
    /// Whether what is there may be replaced.
    Replace = "replace",
    /// Whether rollups are used.
    Rollups = "rollups",
    /// The promise that nobody else writes.
    SingleWriter = "single_writer",
    /// Height and width of a whole video.
    Size = "size",
    /// One step.
    Step = "step",
    /// Which table is listed.
    Table = "table",
    /// Which frames of a video those of a map stand for.
    Time = "time",
    /// One word.
    Token = "token",
    /// One video.
    Video = "video",
    /// A condition.
    Where = "where",
}

names! {
    /// What else can be run.
    CommandName:
    /// Averages of maps.
    Average = "average",
    /// The columns of the tables.
    Columns = "columns",
    /// Packing the tables of a store.
    Compact = "compact",
    /// Prompts of a batch, written as they are read.
    Expand = "expand",
    /// A dump made of a store.
    Export = "export",
    /// Removing what no commit names.
    Gc = "gc",
    /// What is in a store or a dump.
    Info = "info",
    /// Making a store, or adding to it.
    Ingest = "ingest",
    /// Any question.
    Query = "query",
    /// Mending a store.
    Repair = "repair",
    /// A statement in SQL.
    Sql = "sql",
    /// Checking a store.
    Verify = "verify",
}

impl OptionName {
    /// What stands for its value where the reader knows it. (Of grids and sizes, each face has its own.)
    #[must_use]
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Batch => "INDEX",
            Self::Prompts | Self::Output => "FILE",
            Self::Token => "WORD",
            Self::Video => "ID",
            Self::Step | Self::Frames | Self::Limit => "N",
            Self::MaxStepBytes => "BYTES",
            Self::Where => "SQL",
            _ => "NAME",
        }
    }

    /// Set to what the reader knows.
    #[must_use]
    pub const fn any(self) -> Try {
        Try::Option { name: self, value: Value::Any }
    }

    /// Set, to whatever.
    #[must_use]
    pub const fn unsaid(self) -> Try {
        Try::Option { name: self, value: Value::Unsaid }
    }

    /// Switched on.
    #[must_use]
    pub const fn on(self) -> Try {
        Try::Option { name: self, value: Value::On }
    }

    /// Switched off.
    #[must_use]
    pub const fn off(self) -> Try {
        Try::Option { name: self, value: Value::Off }
    }

    /// Set to this.
    #[must_use]
    pub fn is(self, value: impl Into<String>) -> Try {
        Try::Option { name: self, value: Value::Is(value.into()) }
    }
}

impl CommandName {
    /// Of the store or dump at hand.
    #[must_use]
    pub const fn here(self) -> Try {
        Try::Command { name: self, path: None }
    }

    /// Of a store, a dump or a file.
    #[must_use]
    pub fn at(self, path: impl AsRef<Path>) -> Try {
        Try::Command { name: self, path: Some(path.as_ref().to_owned()) }
    }
}

/// How a face writes what can be tried.
pub trait Spelling: Sync {
    /// What can be tried, as a user of this face would type it.
    fn spell(&self, one: &Try) -> String;
}

impl Remedy {
    /// Words with a `{}` for each thing to try.
    #[must_use]
    pub fn of(words: &str, tries: impl IntoIterator<Item = Try>) -> Self {
        let mut tries = tries.into_iter();
        let mut parts = Vec::new();
        for (index, words) in words.split("{}").enumerate() {
            if index > 0 {
                parts.extend(tries.next().map(Part::Try));
            }
            parts.extend((!words.is_empty()).then_some(Part::Words(words.into())));
        }
        Self { parts }
    }

    /// What can be tried, in the order of the words.
    pub fn tries(&self) -> impl Iterator<Item = &Try> {
        self.parts.iter().filter_map(|part| match part {
            Part::Try(one) => Some(one),
            Part::Words(_) => None,
        })
    }

    /// As a face writes it.
    #[must_use]
    pub fn spelled(&self, by: &dyn Spelling) -> String {
        let part = |part: &Part| match part {
            Part::Words(words) => words.clone(),
            Part::Try(one) => by.spell(one),
        };
        self.parts.iter().map(part).collect()
    }
}

impl From<&str> for Remedy {
    fn from(words: &str) -> Self {
        Self::from(words.to_owned())
    }
}

impl From<String> for Remedy {
    fn from(words: String) -> Self {
        Self { parts: vec![Part::Words(words)] }
    }
}

/// Something that is said, and what could be done about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// What is said.
    pub text: String,
    /// What could be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

impl Note {
    /// With something to do about it.
    #[must_use]
    pub fn new(text: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self { text: text.into(), remedy: Some(remedy.into()) }
    }

    /// In one line, as a face writes it.
    #[must_use]
    pub fn spelled(&self, by: &dyn Spelling) -> String {
        with_remedy(&self.text, self.remedy.as_ref(), by)
    }
}

impl<T: Into<String>> From<T> for Note {
    fn from(text: T) -> Self {
        Self { text: text.into(), remedy: None }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelled(&Plain))
    }
}

/// What is wrong and what to try, in one line, as a face writes it.
#[must_use]
pub fn with_remedy(text: &str, remedy: Option<&Remedy>, by: &dyn Spelling) -> String {
    match remedy {
        Some(remedy) => format!("{text}; {}", remedy.spelled(by)),
        None => text.to_owned(),
    }
}

/// As the fields and functions of this library.
struct Plain;

impl Spelling for Plain {
    fn spell(&self, one: &Try) -> String {
        match one {
            Try::Option { name, value: Value::Is(value) } => format!("`{}` {value}", name.name()),
            Try::Option { name, .. } => format!("`{}`", name.name()),
            Try::Command { name, path: None } => format!("`{}`", name.name()),
            Try::Command { name, path: Some(path) } => format!("`{}` of {}", name.name(), path.display()),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelled(&Plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_tries_take_turns_and_come_back_from_json() {
        let remedies = [
            Remedy::of("{} or {}", [OptionName::Replace.on(), OptionName::Align.is("last")]),
            Remedy::of("run {}", [CommandName::Verify.at("a.store")]),
            Remedy::of("{} and", [OptionName::Rollups.off()]),
            Remedy::from("wait"),
        ];
        let shown = remedies.each_ref().map(Remedy::to_string);
        assert_eq!(shown, ["`replace` or `align` last", "run `verify` of a.store", "`rollups` and", "wait"]);
        assert_eq!(remedies.each_ref().map(|remedy| remedy.tries().count()), [2, 1, 1, 0]);
        for remedy in remedies {
            let json = serde_json::to_string(&remedy).unwrap();
            assert_eq!(serde_json::from_str::<Remedy>(&json).unwrap(), remedy, "{json}");
        }
    }
}
