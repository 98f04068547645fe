//! What of a store is damaged and is written anew, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::store::Rollups;

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
    /// The rollups that it gets instead of those it has.
    pub rollups: Option<Rollups>,
}

impl Damage {
    /// Notes that the rows of a video are damaged.
    pub fn add_rows(&mut self, video_id: &str) {
        self.0.insert(video_id.to_owned(), VideoDamage::Rows);
    }

    /// Notes that something of a word is damaged: the values of some steps, or what is derived from values.
    pub fn add_word(&mut self, video_id: &str, token: &str, steps: impl IntoIterator<Item = i32>) {
        if let Some(word) = self.word(video_id, token) {
            word.steps.extend(steps);
        }
    }

    /// Notes that a word is to have other rollups: all that is derived from its values is written anew.
    pub fn roll_up(&mut self, video_id: &str, token: &str, rollups: Rollups) {
        if let Some(word) = self.word(video_id, token) {
            word.rollups = Some(rollups);
        }
    }

    /// A word of a video whose rows are known.
    fn word(&mut self, video_id: &str, token: &str) -> Option<&mut WordDamage> {
        match self.0.entry(video_id.to_owned()).or_insert_with(|| VideoDamage::Words(BTreeMap::new())) {
            VideoDamage::Rows => None,
            VideoDamage::Words(words) => Some(words.entry(token.to_owned()).or_default()),
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
