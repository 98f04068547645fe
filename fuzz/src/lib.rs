//! What is fuzzed: one function for each kind of input that may be from somebody else. `tests/stories/fuzz.rs` of
//! attnkit runs the same functions on what was kept.

#[path = "targets.rs"]
mod targets;

pub use targets::*;

/// Lets a panic that attnkit catches go by: the fuzzer would end the process with each. One that nobody catches still
/// does.
pub fn let_panics_be_caught() {
    drop(std::panic::take_hook());
}
