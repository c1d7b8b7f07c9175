//! The program itself, run to its end: `check`, `explain`, `test` and the rest of the command line.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with nothing of the caller's environment that could change its answers.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `tollgate ARGS` in a directory.
pub(crate) fn tollgate(directory: &Path, args: &[&str]) -> Ran {
    Ran::of(command().args(args).current_dir(directory).output().unwrap())
}

/// Runs `tollgate ARGS` with this text on its standard input.
pub(crate) fn fed(args: &[&str], input: &str) -> Ran {
    let mut child = command().args(args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Everything it said, on either stream.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks the exit code, with everything said when it is another.
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}", self.said());
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.said()))
    }
}
