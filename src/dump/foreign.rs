//! What is in directories and is never a part of a dump.

/// What systems and tools leave in any directory: never a part of a dump, like whatever begins with a dot.
const FOREIGN: [&str; 16] = [
    "__MACOSX",
    "__pycache__",
    "@eaDir",
    "@Recycle",
    "@sharebin",
    "@tmp",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "Icon\r",
];

/// Whether a name is that of something no generator writes.
pub(super) fn is_foreign(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || FOREIGN.iter().any(|foreign| name.eq_ignore_ascii_case(foreign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_leave_is_told_from_files_of_a_dump() {
        let foreign = |name: &str| is_foreign(name.as_ref());
        assert!(
            [".DS_Store", "._step_000.npy", ".nfs0001", "__MACOSX", "@eaDir", "Thumbs.db"]
                .iter()
                .all(|name| foreign(name))
        );
        assert!(!["step_000.npy", "_step", "notes.txt", "token_@eaDir"].iter().any(|name| foreign(name)));
    }
}
