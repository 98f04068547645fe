//! What every storage must do: run on each of them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::{EntryKind, Local, Lock, Memory, Storage};
use crate::store::StoreError;

/// Every storage there is, with what keeps its files.
pub fn storages() -> Vec<(Arc<dyn Storage>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    vec![(Arc::new(Local::new(dir.path().join("store"))), Some(dir)), (Arc::new(Memory::new()), None)]
}

fn on_each(test: impl Fn(&dyn Storage)) {
    for (storage, _dir) in storages() {
        test(&*storage);
    }
}

fn names(storage: &dyn Storage, directory: &str) -> Vec<String> {
    let mut names: Vec<String> = storage.list(directory).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn what_is_put_is_read_and_listed() {
    on_each(|storage| {
        storage.put("a/b/one", b"first").unwrap();
        storage.put("a/b/one", b"another").unwrap();
        storage.write("a/two", b"").unwrap();
        assert_eq!(storage.get("a/b/one").unwrap(), "another");
        assert_eq!(storage.get("a/two").unwrap(), "");
        assert_eq!(names(storage, ""), ["a"]);
        assert_eq!(names(storage, "a"), ["b", "two"]);
        assert_eq!(names(storage, "a/b"), ["one"]);
        let entry = storage.entry("a/b/one").unwrap().unwrap();
        assert_eq!((entry.name.as_str(), entry.kind, entry.bytes), ("one", EntryKind::File, 7));
        assert_eq!(storage.list("a/b").unwrap(), [entry]);
        assert_eq!(storage.entry("a/b").unwrap().unwrap().kind, EntryKind::Directory);
        assert_eq!(storage.bytes_below("a").unwrap(), 7);
        assert_eq!(storage.bytes_below("none").unwrap(), 0);
    });
}

#[test]
fn what_is_not_there_is_said_so() {
    on_each(|storage| {
        storage.put("a/b", b"").unwrap();
        for key in ["none", "a/none", "none/b"] {
            assert!(storage.get(key).unwrap_err().is_not_found(), "{key}");
            assert_eq!(storage.entry(key).unwrap(), None);
            assert!(storage.delete(key).unwrap_err().is_not_found(), "{key}");
            assert!(storage.list(key).unwrap_err().is_not_found(), "{key}");
            storage.link(key, "a/c").unwrap_err();
            assert!(storage.get(key).unwrap_err().to_string().contains(key));
        }
        assert!(storage.get("a").unwrap_err().to_string().contains("a directory"));
        assert_eq!(names(storage, "a"), ["b"]);
    });
}

#[test]
fn ranges_are_those_of_the_file_and_of_no_more() {
    on_each(|storage| {
        storage.put("file", b"0123456789").unwrap();
        let contents = storage.open("file").unwrap();
        assert_eq!(contents.len(), 10);
        assert_eq!(contents.read(2, 3).unwrap(), "234");
        assert_eq!(contents.read(10, 0).unwrap(), "");
        for (start, bytes) in [(8, 3), (11, 0), (u64::MAX, 2), (2, u64::MAX), (0, 1 << 60)] {
            contents.read(start, bytes).unwrap_err();
        }
    });
}

#[test]
fn a_file_is_written_piece_by_piece() {
    on_each(|storage| {
        let mut file = storage.create("a/file").unwrap();
        file.write_all(b"one ").unwrap();
        file.write_all(b"two").unwrap();
        file.finish().unwrap();
        assert_eq!(storage.get("a/file").unwrap(), "one two");
    });
}

#[test]
fn a_file_that_is_open_stays_as_it_was() {
    on_each(|storage| {
        storage.put("file", b"old").unwrap();
        let contents = storage.open("file").unwrap();
        storage.put("file", b"newer").unwrap();
        assert_eq!(contents.read(0, 3).unwrap(), "old");
        let before = storage.entry("file").unwrap().unwrap();
        storage.delete("file").unwrap();
        storage.put("file", b"again, and longer").unwrap();
        assert_ne!(storage.entry("file").unwrap().unwrap(), before);
    });
}

#[test]
fn shared_contents_stay_when_either_key_is_written_anew() {
    on_each(|storage| {
        storage.put("a/one", b"kept").unwrap();
        storage.link("a/one", "b/two").unwrap();
        storage.link("a/one", "b/two").unwrap_err();
        storage.write("a/one", b"another").unwrap();
        assert_eq!(storage.get("b/two").unwrap(), "kept");
        storage.delete("a").unwrap();
        assert_eq!(storage.get("b/two").unwrap(), "kept");
    });
}

#[test]
fn a_directory_is_made_once_and_removed_whole() {
    on_each(|storage| {
        assert!(storage.make_directory("a/b").unwrap());
        assert!(!storage.make_directory("a/b").unwrap());
        assert!(!storage.make_directory("a").unwrap());
        assert_eq!(names(storage, "a"), ["b"]);
        storage.put("a/b/c/file", b"1").unwrap();
        storage.put("ab", b"2").unwrap();
        storage.delete("a").unwrap();
        assert_eq!(names(storage, ""), ["ab"]);
        assert!(storage.make_directory("a/b").unwrap());
    });
}

#[test]
fn of_many_that_make_a_directory_one_is_told_so() {
    for (storage, _dir) in storages() {
        let made = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| made.fetch_add(usize::from(storage.make_directory("a/b").unwrap()), Ordering::Relaxed));
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}

/// Files of one commit, as whoever publishes tells them, if it may come.
fn files_if(comes: bool, files: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    comes.then(|| files.iter().map(|&(from, to)| (from.to_owned(), to.to_owned())).collect())
}

#[test]
fn files_are_published_if_nothing_has_changed() {
    on_each(|storage| {
        storage.write("a/.one", b"1").unwrap();
        storage.write("a/.two", b"2").unwrap();
        let files = [("a/.one", "a/one"), ("a/.two", "a/two")];
        assert!(!storage.publish(1, &mut |_| Ok(None)).unwrap()[0]);
        let mut failed = |_| Err(StoreError::Busy { path: "said".into() });
        assert!(storage.publish(1, &mut failed).unwrap_err().to_string().contains("said"));
        assert_eq!(names(storage, "a"), [".one", ".two"]);
        let mut if_unchanged = |_| Ok(files_if(storage.entry("a/one")?.is_none(), &files));
        assert_eq!(storage.publish(1, &mut if_unchanged).unwrap(), [true]);
        assert_eq!(names(storage, "a"), ["one", "two"]);
        assert_eq!(storage.get("a/two").unwrap(), "2");
        storage.write("a/.one", b"3").unwrap();
        assert_eq!(storage.publish(1, &mut if_unchanged).unwrap(), [false]);
        assert_eq!(storage.get("a/one").unwrap(), "1");
    });
}

#[test]
fn of_several_commits_those_come_that_may() {
    on_each(|storage| {
        for staged in ["a/.1", "b/.1", "a/.2", "b/.2", "b/.3"] {
            storage.write(staged, staged.as_bytes()).unwrap();
        }
        let commits: [&[(&str, &str)]; 3] =
            [&[("a/.1", "a/1"), ("b/.1", "b/1")], &[("a/.2", "a/2"), ("b/.2", "b/2")], &[("b/.3", "b/3")]];
        assert_eq!(
            storage.publish(3, &mut |number| Ok(files_if(number != 1, commits[number]))).unwrap(),
            [true, false, true]
        );
        assert_eq!(
            (names(storage, "a"), names(storage, "b")),
            (vec![".2".into(), "1".into()], vec![".2".into(), "1".into(), "3".into()])
        );
        assert_eq!(storage.publish(0, &mut |_| Ok(None)).unwrap(), [false; 0]);
        storage.flush().unwrap();
    });
}

#[test]
fn directories_change_places_whole_and_if_they_may() {
    on_each(|storage| {
        for (key, contents) in [("index/a/1", "old"), ("index/2", "old"), (".new/a/1", "new"), (".newer/1", "newer")] {
            storage.write(key, contents.as_bytes()).unwrap();
        }
        let before = storage.entry("index").unwrap();
        assert!(!storage.exchange(".new", "index", &mut || Ok(false)).unwrap());
        let mut failed = || Err(StoreError::Busy { path: "said".into() });
        assert!(storage.exchange(".new", "index", &mut failed).unwrap_err().to_string().contains("said"));
        assert_eq!(
            (storage.get("index/a/1").unwrap(), storage.entry("index").unwrap()),
            ("old".into(), before.clone())
        );
        let mut link = || storage.link("index/2", ".new/2").map(|()| true);
        assert!(storage.exchange(".new", "index", &mut link).unwrap());
        assert_ne!(storage.entry("index").unwrap(), before);
        assert_eq!(
            (names(storage, "index"), names(storage, ".newer")),
            (vec!["2".into(), "a".into()], vec!["1".into()])
        );
        assert_eq!((storage.get("index/a/1").unwrap(), storage.get(".new/a/1").unwrap()), ("new".into(), "old".into()));
        storage.delete(".new").unwrap();
        assert_eq!((storage.get("index/2").unwrap(), storage.get(".newer/1").unwrap()), ("old".into(), "newer".into()));
    });
}

#[test]
fn of_many_that_publish_on_the_same_base_one_does() {
    for (storage, _dir) in storages() {
        storage.put("number", b"0").unwrap();
        let published = AtomicUsize::new(0);
        thread::scope(|scope| {
            for writer in 0..8 {
                let (storage, published) = (&storage, &published);
                scope.spawn(move || {
                    let staged = format!(".{writer}");
                    storage.write(&staged, b"1").unwrap();
                    let files = [(&*staged, "number")];
                    let mut if_unchanged = |_| Ok(files_if(storage.get("number")? == "0", &files));
                    let is_first = storage.publish(1, &mut if_unchanged).unwrap()[0];
                    published.fetch_add(usize::from(is_first), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(published.into_inner(), 1);
    }
}

#[test]
fn one_after_the_other_makes_an_index_beside_writers() {
    on_each(|storage| {
        storage.make_directory("a").unwrap();
        let _writer = storage.lock(Lock::Writer).unwrap();
        let first = storage.lock(Lock::Index).unwrap();
        let has_left = AtomicBool::new(false);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let _second = storage.lock(Lock::Index).unwrap();
                has_left.load(Ordering::SeqCst)
            });
            thread::sleep(std::time::Duration::from_millis(20));
            has_left.store(true, Ordering::SeqCst);
            drop(first);
            assert!(second.join().unwrap());
        });
    });
}

#[test]
fn whoever_must_be_alone_is_told_of_writers() {
    on_each(|storage| {
        storage.make_directory("a").unwrap();
        let writers = [storage.lock(Lock::Writer).unwrap(), storage.lock(Lock::Writer).unwrap()];
        assert!(matches!(storage.lock(Lock::Alone), Err(StoreError::Busy { .. })));
        drop(writers);
        let alone = storage.lock(Lock::Alone).unwrap();
        assert!(matches!(storage.lock(Lock::Alone), Err(StoreError::Busy { .. })));
        thread::scope(|scope| {
            let writer = scope.spawn(|| storage.lock(Lock::Writer).map(drop));
            drop(alone);
            writer.join().unwrap().unwrap();
        });
    });
}
