//! `tollgate hash-password`: what a document holds in the place of a password or an API key.

use std::io::{IsTerminal as _, Read as _, Stdin};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::load::failed;
use super::{Exit, print};
use crate::policy::users;

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Make a new API key, and print it with its SHA-256; with a key on standard input, the SHA-256 of that one.
    #[arg(long)]
    api_key: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    let given = match input(args.api_key) {
        Ok(given) => given,
        Err(reason) => return failed(&reason),
    };
    if args.api_key {
        let key = match given {
            Some(key) => key,
            None => {
                let mut bytes = Zeroizing::new([0; KEY_BYTES]);
                if aws_lc_rs::rand::fill(&mut *bytes).is_err() {
                    return failed("no random bytes");
                }
                let key = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes));
                if print(&format!("key     {}\n", *key)) != Exit::Ok {
                    return Exit::Failed;
                }
                key
            }
        };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        return print(&format!("sha256  {hex}\n"));
    }
    match given.map(|password| users::hash(&password)) {
        Some(Ok(hash)) => print(&format!("{hash}\n")),
        Some(Err(reason)) => failed(&reason),
        None => {
            eprintln!("tollgate: no password on standard input");
            Exit::Usage
        }
    }
}

/// One line of standard input. `None`: there is none.
fn input(optional: bool) -> Result<Option<Zeroizing<String>>, String> {
    let mut text = Zeroizing::new(String::new());
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        if optional {
            return Ok(None);
        }
        eprint!("password: ");
        let hidden = Hidden::begin(&stdin);
        let read = stdin.read_line(&mut text);
        drop(hidden);
        eprintln!();
        read.map_err(|error| error.to_string())?;
    } else {
        stdin.lock().take(64 << 10).read_to_string(&mut text).map_err(|error| error.to_string())?;
    }
    let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    Ok(Some(line).filter(|line| !line.is_empty()))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<'t> {
    terminal: &'t Stdin,
    before: Termios,
}

impl<'t> Hidden<'t> {
    /// `None`: what is typed can be read.
    fn begin(terminal: &'t Stdin) -> Option<Hidden<'t>> {
        let before = tcgetattr(terminal).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent).ok()?;
        Some(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
