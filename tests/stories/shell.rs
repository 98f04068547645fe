//! What makes attnkit at home in a shell: completions and manual pages.

use std::fs;

use crate::support::{Place, list};

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.run(["completions", shell]).succeeded().out;
        for word in ["ingest", "evolution", "single-writer"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    place.run(["completions", "tcsh"]).ended(2).says("bash");
}

#[test]
fn every_command_gets_a_manual_page() {
    let place = Place::new();
    let told = place.run(["man", "share/man1"]).succeeded();
    let pages = list(&place.path("share/man1"));
    assert_eq!(told.out, format!("{} manual pages in share/man1\n", pages.len()));
    for page in ["attnkit.1", "attnkit-ingest.1", "attnkit-query.1", "attnkit-query-average.1"] {
        assert!(pages.iter().any(|path| path.ends_with(page)), "{page} is not among {pages:?}");
    }
    let page = fs::read_to_string(place.path("share/man1/attnkit-ingest.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("\\-\\-store") && page.contains("Examples"), "{page}");

    fs::write(place.path("file"), "").unwrap();
    place.run(["man", "file"]).ended(1).says("name a directory");
}
