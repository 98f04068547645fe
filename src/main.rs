//! The `attnkit` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    attnkit::cli::main()
}
