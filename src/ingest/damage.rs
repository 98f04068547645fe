//! What of a store is damaged and is written anew, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The damaged videos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Damage(BTreeMap<String, VideoDamage>);

/// What of a video is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VideoDamage {
    /// Its rows: nothing is known of it.
    Rows,
    /// These words.
    Words(BTreeMap<String, WordDamage>),
}

/// What of a word is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WordDamage {
    /// The steps whose values are.
    pub steps: BTreeSet<i32>,
}

impl Damage {
    /// Notes that the rows of a video are damaged.
    pub fn add_rows(&mut self, video_id: &str) {
        self.0.insert(video_id.to_owned(), VideoDamage::Rows);
    }

    /// Notes that something of a word is damaged: the values of some steps, or what is derived from values.
    pub fn add_word(&mut self, video_id: &str, token: &str, steps: impl IntoIterator<Item = i32>) {
        let video = self.0.entry(video_id.to_owned()).or_insert_with(|| VideoDamage::Words(BTreeMap::new()));
        if let VideoDamage::Words(words) = video {
            words.entry(token.to_owned()).or_default().steps.extend(steps);
        }
    }

    /// What of a video is damaged.
    pub fn of(&self, video_id: &str) -> Option<&VideoDamage> {
        self.0.get(video_id)
    }

    /// The damaged videos.
    pub fn videos(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl VideoDamage {
    /// What of a word is damaged, if its rows are known.
    pub fn of(&self, token: &str) -> Option<&WordDamage> {
        match self {
            Self::Rows => None,
            Self::Words(words) => words.get(token),
        }
    }
}
