//! Where access lines go: a standard stream or a file that can be opened again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) enum Sink {
    Stdout,
    Stderr,
    File {
        path: PathBuf,
        file: File,
    },
    /// Whatever a test looks at.
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    /// `stdout`, `stderr`, `off` (`None`) or a file.
    pub(super) fn open(name: &str) -> io::Result<Option<Sink>> {
        Ok(Some(match name {
            "off" => return Ok(None),
            "stdout" => Sink::Stdout,
            "stderr" => Sink::Stderr,
            path => {
                let path = PathBuf::from(path);
                Sink::File { file: append_to(&path)?, path }
            }
        }))
    }

    /// Opens the file under its name of now; keeps the one it has when that fails.
    pub(super) fn reopen(&mut self) {
        if let Sink::File { path, file } = self {
            match append_to(path) {
                Ok(opened) => *file = opened,
                Err(error) => tracing::error!(path = %path.display(), %error, "the access log cannot be reopened"),
            }
        }
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout => io::stdout().lock().write_all(lines),
            Sink::Stderr => io::stderr().lock().write_all(lines),
            Sink::File { file, .. } => file.write_all(lines),
            #[cfg(test)]
            Sink::Test(writer) => writer.write_all(lines),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
