//! Advice as the command line has it: options with two hyphens, commands in backticks.

use std::path::PathBuf;

use crate::remedy::{CommandName, OptionName, Remedy, Spelling, Try, Value};

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
