//! Stories of what users gain, in one binary: each would link all that attnkit is made of, which takes longer than most
//! of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
#[cfg(unix)] // signals and mounts
mod crash;
#[cfg(unix)] // named pipes and symbolic links
mod damage;
mod estimate;
mod examples;
mod fuzz;
mod ingest;
mod jobs;
mod names;
mod prompt;
mod query;
mod shell;
mod support;
mod verify;
mod watch;
