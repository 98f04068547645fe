//! What is fuzzed: one function for each kind of input that may be from somebody else. `tests/fuzz.rs` of attnkit runs the same functions on what
//! was kept.

#[path = "targets.rs"]
mod targets;

pub use targets::*;
