//! What planning notices of a video, for the report.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::report::Remark;
use crate::dump::DumpError;
use crate::remedy::Note;

/// What planning noticed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Findings {
    pub problems: Vec<DumpError>,
    pub remarks: Vec<Remark>,
    /// Steps that need no work, or cannot be worked on, and their bytes: for progress.
    pub skipped: u64,
    pub done: (u64, u64),
    /// Whether the prompt was found, where there are prompts to look in.
    pub prompt_found: Option<bool>,
}

impl Findings {
    /// Notes remarks on a file, each text once in a directory: what is odd about one step is so about all of them.
    pub fn remark_once(&mut self, path: &Path, remarks: impl IntoIterator<Item: Into<Note>>) {
        for note in remarks.into_iter().map(Into::into) {
            let known = |remark: &Remark| remark.path.parent() == path.parent() && remark.message == note.text;
            if !self.remarks.iter().any(known) {
                self.remarks.push(Remark::new(path, note));
            }
        }
    }
}
