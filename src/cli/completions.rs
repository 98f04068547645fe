//! `attnkit completions`.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, print};

/// Print a script that lets a shell complete attnkit's commands, options and paths.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  attnkit completions bash > ~/.local/share/bash-completion/completions/attnkit
  attnkit completions zsh > ~/.zfunc/_attnkit           with `fpath+=~/.zfunc` in ~/.zshrc, before compinit
  attnkit completions fish > ~/.config/fish/completions/attnkit.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "attnkit", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
