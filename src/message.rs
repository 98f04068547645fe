//! Values on their way to another process: what they are, a version, a hash, and the value.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Cause, ErrorKind, LayerError};

/// The version of all that is sent.
const VERSION: u32 = 1;

/// Why bytes are not what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// They are something else.
    #[error("these bytes are {found}; expected {expected}")]
    Other {
        /// What they are.
        found: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// They are of another version of attnkit.
    #[error("{what} of version {found}; this attnkit reads version {expected}: all processes must run the same one")]
    Version {
        /// What they are.
        what: &'static str,
        /// Their version.
        found: u32,
        /// The version that is known.
        expected: u32,
    },
    /// They are not as they were written.
    #[error("{what} is damaged: {found}")]
    Damaged {
        /// What they are.
        what: &'static str,
        /// What is wrong: in words, or what a library says.
        #[source]
        found: Cause,
    },
    /// It cannot be written as bytes.
    #[error("{what} cannot be sent: {found}")]
    Unsendable {
        /// What it is.
        what: &'static str,
        /// What is wrong with it: in words, or what a library says.
        #[source]
        found: Cause,
    },
}

impl LayerError for MessageError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Argument
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Job,
    Done,
    Task,
    Partial,
    Answer,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Job, Self::Done, Self::Task, Self::Partial, Self::Answer];

    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Job => b"attn.job",
            Self::Done => b"attn.did",
            Self::Task => b"attn.tsk",
            Self::Partial => b"attn.prt",
            Self::Answer => b"attn.ans",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Job => "a job of an ingest",
            Self::Done => "what a job of an ingest leaves",
            Self::Task => "a task of a question",
            Self::Partial => "what a task of a question leaves",
            Self::Answer => "an answer",
        }
    }

    pub fn damaged(self, found: impl Into<Cause>) -> MessageError {
        MessageError::Damaged { what: self.name(), found: found.into() }
    }

    pub fn unsendable(self, found: impl Into<Cause>) -> MessageError {
        MessageError::Unsendable { what: self.name(), found: found.into() }
    }

    /// Eight bytes that say what it is, the version, a hash of all behind it, the length of the JSON, the JSON, and
    /// what is no JSON.
    pub fn to_bytes(self, value: &impl Serialize, tail: &[u8]) -> Result<Vec<u8>, MessageError> {
        let json = serde_json::to_vec(value).map_err(|error| self.unsendable(error))?;
        let head = [self.magic().as_slice(), &VERSION.to_le_bytes(), &[0; size_of::<u128>()]].concat();
        let mut bytes = Vec::with_capacity(head.len() + size_of::<u64>() + json.len() + tail.len());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(tail);
        let hash = xxh3_128(&bytes[head.len()..]).to_le_bytes();
        bytes[head.len() - hash.len()..head.len()].copy_from_slice(&hash);
        Ok(bytes)
    }

    /// The value, and what is no JSON.
    pub fn of_bytes<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<(T, &[u8]), MessageError> {
        let other = |found| MessageError::Other { found, expected: self.name() };
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| other("too few"))?;
        match Self::ALL.into_iter().find(|kind| kind.magic() == magic) {
            Some(found) if found == self => {}
            Some(found) => return Err(other(found.name())),
            None => return Err(other("something else")),
        }
        let cut_off = || self.damaged("it is cut off");
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(MessageError::Version { what: self.name(), found, expected: VERSION });
        }
        let (hash, rest) = rest.split_first_chunk::<16>().ok_or_else(cut_off)?;
        if xxh3_128(rest) != u128::from_le_bytes(*hash) {
            return Err(self.damaged("it has not the hash that it says"));
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(cut_off)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (json, tail) = rest.split_at_checked(length).ok_or_else(cut_off)?;
        Ok((serde_json::from_slice(json).map_err(|error| self.damaged(error))?, tail))
    }
}
