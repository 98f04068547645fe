//! The table of modules in docs/architecture.md is true: a module knows those that it says, all of them and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Names = BTreeSet<String>;

#[test]
fn modules_know_those_that_the_table_names_and_no_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (words, documented) = documented(&fs::read_to_string(root.join("docs/architecture.md")).unwrap());
    let imported = imported(&root.join("src"));
    for word in &words {
        let beyond: Vec<_> = imported[word].iter().filter(|name| !words.contains(*name)).collect();
        let expected: Vec<&str> = if word == "values" { vec!["kernel"] } else { Vec::new() };
        assert_eq!(beyond, expected, "{word} is a word: it knows words alone");
    }
    let modules: Names = imported.keys().filter(|name| !words.contains(*name)).cloned().collect();
    assert_eq!(modules, documented.keys().cloned().collect(), "modules of src, and rows of the table");
    for (module, known) in documented {
        let found: Names = imported[&module].difference(&words).cloned().collect();
        let expected = if module == "cli" { found.clone() } else { known };
        assert_eq!(found, expected, "what {module} imports, and what its row says");
    }
    for (module, known) in imported {
        assert!(!known.contains("cli"), "{module} knows the command line");
    }
}

/// What the library says can be shown by any face: options and commands are values in it (`remedy`).
#[test]
fn no_message_of_the_library_is_a_command_line() {
    let mut said = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path, text| {
        if path.components().any(|part| part.as_os_str() == "cli") {
            return;
        }
        let is_option = |words: &str| words.split("--").skip(1).any(|word| word.starts_with(char::is_alphabetic));
        let is_command = |words: &str| words.contains("`attnkit ") || words.contains("attnkit query");
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let found = lines.filter(|line| is_option(line) || is_command(line));
        said.extend(found.map(|words| format!("{}: {words}", path.display())));
    });
    assert!(said.is_empty(), "{said:#?}");
}

/// Visits every file of code below a directory: its path, and what stands before its tests. A trial is a test.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    if path.ends_with("trial.rs") {
        return;
    }
    if path.is_dir() {
        return fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), visit));
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    visit(path, text.split("\nmod tests {").next().unwrap());
}

/// The words of the first row, and what each further module is said to know.
fn documented(page: &str) -> (Names, BTreeMap<String, Names>) {
    let rows: Vec<[Names; 2]> = page
        .lines()
        .skip_while(|line| !line.starts_with("| module |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            [quoted(cells[1]), quoted(&without_brackets(cells[3]))]
        })
        .filter(|[names, _]| !names.contains("python"))
        .collect();
    let words = rows[0][0].clone();
    let of_modules = rows.into_iter().skip(1).map(|[names, known]| (names.into_iter().next().unwrap(), known));
    (words, of_modules.collect())
}

fn quoted(text: &str) -> Names {
    text.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('/').to_owned()).collect()
}

fn without_brackets(text: &str) -> String {
    text.split('(').map(|piece| piece.rsplit(')').next().unwrap()).collect()
}

/// The modules of a crate, and which others each names, outside of its tests.
fn imported(src: &Path) -> BTreeMap<String, Names> {
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !["lib", "main"].contains(&&*module) {
            let mut known = Names::new();
            look(&path, &mut known);
            known.remove(&module);
            modules.insert(module, known);
        }
    }
    modules
}

fn look(path: &Path, known: &mut Names) {
    walk(path, &mut |path, text| {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for behind in line.split("crate::").skip(1) {
                assert!(!behind.starts_with('{'), "{}: one line for each module, please", path.display());
                known.insert(behind.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    });
}
