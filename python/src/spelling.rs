//! Advice as Python has it: options as arguments, commands as methods or, where Python has none, as in a shell.

use attnkit::remedy::{CommandName, OptionName, Remedy, Spelling, Try, Value};

/// Spells options as arguments.
pub struct Arguments;

/// Advice, with arguments in it.
pub fn in_python(remedy: &Remedy) -> String {
    remedy.spelled(&Arguments)
}

impl Spelling for Arguments {
    fn spell(&self, one: &Try) -> String {
        match one {
            Try::Option { name, value } => {
                let argument = name.name();
                match value {
                    Value::Any => format!("{argument}={}", placeholder(*name)),
                    Value::Is(value) if value.contains(' ') => format!("{argument}=\"{value}\""),
                    Value::Is(value) => format!("{argument}={value}"),
                    Value::On => format!("{argument}=True"),
                    Value::Off => format!("{argument}=False"),
                    _ => argument.to_owned(),
                }
            }
            Try::Command { name, path } => {
                let path = path.as_ref().map(|path| path.display().to_string());
                command(*name, path.as_deref())
            }
            other => Remedy::of("{}", [other.clone()]).to_string(),
        }
    }
}

/// What stands for a value that the reader knows.
const fn placeholder(name: OptionName) -> &'static str {
    match name {
        OptionName::Grid => "(frames, height, width)",
        OptionName::Size => "(height, width)",
        _ => name.placeholder(),
    }
}

fn command(name: CommandName, path: Option<&str>) -> String {
    let store = path.unwrap_or("STORE");
    match name {
        CommandName::Average => "Store.average".into(),
        CommandName::Columns => "store.columns()".into(),
        CommandName::Compact => "Store.compact()".into(),
        CommandName::Expand => "`attnkit prompt expand --format json`".into(),
        CommandName::Export => "Store.export".into(),
        CommandName::Gc => "Store.gc()".into(),
        CommandName::Ingest => "attnkit.ingest".into(),
        CommandName::Query => "attnkit.Store".into(),
        CommandName::Repair => format!("`attnkit repair {store} --from DUMP`"),
        CommandName::Sql => "Store.sql".into(),
        CommandName::Verify => "Store.verify()".into(),
        CommandName::Info => format!("`attnkit info {store}`"),
        _ => name.name().to_owned(),
    }
}
