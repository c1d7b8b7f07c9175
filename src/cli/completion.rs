//! `tollgate completion SHELL`: a script that makes the shell complete commands and flags.

use super::{Exit, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell to complete in, such as `bash`: `source <(tollgate completion bash)`.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, line: &mut clap::Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, line, "tollgate", &mut script);
    print(&String::from_utf8_lossy(&script))
}
