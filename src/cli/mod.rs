//! The command line: one file per subcommand, exit codes that mean something.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod ask;
mod backend;
mod certs;
mod check;
mod completion;
mod controller;
mod demo;
mod dev;
mod diff;
mod example;
mod explain;
mod fleet;
mod gateway_process;
mod hash_password;
mod history;
mod load;
mod nats_config;
mod nats_server;
mod push;
mod regions;
mod register;
mod routes;
mod run;
mod schema;
mod status;
mod system;
mod tail;
mod test;
mod version;

/// How a command ended. Scripts rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// A configuration is invalid.
    Invalid = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// It could not start or run.
    Failed = 3,
    /// `[[test]]` cases failed.
    TestsFailed = 4,
    /// The bus refused, or somebody else was faster.
    Refused = 5,
    /// Not every gateway that was waited for runs it.
    NotConverged = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For a person.
    #[default]
    Human,
    /// For a program.
    Json,
}

/// A programmable edge gateway: TLS, routes that change while traffic flows, one binary.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 configuration invalid, 2 usage, 3 could not start or run, 4 tests failed, \
    5 refused or overtaken by somebody else, 6 not converged in time."
)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Run(run::Args),
    /// Run the gateway with a local certificate, in front of a small built-in server.
    Dev(dev::Args),
    /// Run the minimal backend service: accounts, records, files.
    Backend(backend::Args),
    /// Run the controller: control plane and dashboard of a fleet.
    Controller(controller::Args),
    /// Find every mistake in configuration files, without touching anything else.
    #[command(short_flag = 't')]
    Check(check::Args),
    /// Say which route a request takes, and why every other one lost.
    Explain(explain::Args),
    /// Run the `[[test]]` cases written beside the routes.
    Test(test::Args),
    /// Compare documents: files and revisions.
    Diff(diff::Args),
    /// Put a document in force on the whole fleet.
    Push(push::Args),
    /// Fetch a document from the bus.
    Pull(history::PullArgs),
    /// List what was in force, newest first.
    Log(history::LogArgs),
    /// Put an earlier revision in force again.
    Rollback(history::RollbackArgs),
    /// Say what every gateway of the fleet runs now.
    Status(status::Args),
    /// Show live requests of the fleet.
    Tail(tail::Args),
    /// Register an endpoint of a service, for as long as something listens there.
    Register(register::Args),
    /// Print a nats-server configuration for the fleet, with least privileges by role.
    NatsConfig(nats_config::Args),
    /// List the routes in the order they are tried in.
    Routes(routes::Args),
    /// List the certificates of the gateway that runs, or say how to trust the local CA.
    Certs(certs::Args),
    /// Print what a document holds in the place of a password or an API key.
    HashPassword(hash_password::Args),
    /// Print the JSON Schema of a file, or the reference page.
    Schema(schema::Args),
    /// Print the version.
    Version(version::Args),
    /// Print a completion script for a shell.
    Completion(completion::Args),
}

/// Runs the command that the arguments (the program's name first) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Before anything may build a TLS configuration; a second call in one process (tests) changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Line::try_parse_from(arguments) {
        Ok(line) => line.command.run().into(),
        Err(error) => {
            // Help and version are no mistakes; clap prints them to standard output.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
        }
    }
}

impl Command {
    fn run(self) -> Exit {
        match self {
            Command::Run(args) => run::run(&args),
            Command::Dev(args) => dev::run(&args),
            Command::Backend(args) => backend::run(&args),
            Command::Controller(args) => controller::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Test(args) => test::run(&args),
            Command::Diff(args) => diff::run(&args),
            Command::Push(args) => push::run(&args),
            Command::Pull(args) => history::pull(&args),
            Command::Log(args) => history::log(&args),
            Command::Rollback(args) => history::rollback(&args),
            Command::Status(args) => status::run(&args),
            Command::Tail(args) => tail::run(&args),
            Command::Register(args) => register::run(&args),
            Command::NatsConfig(args) => nats_config::run(&args),
            Command::Routes(args) => routes::run(&args),
            Command::Certs(args) => certs::run(&args),
            Command::HashPassword(args) => hash_password::run(&args),
            Command::Schema(args) => schema::run(&args),
            Command::Version(args) => version::run(&args),
            Command::Completion(args) => completion::run(&args, &mut Line::command()),
        }
    }
}

/// Prints to standard output. A reader that closed its end early (`| head`) is no failure.
fn print(text: &str) -> Exit {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> ExitCode {
        main(std::iter::once("tollgate").chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn mistakes_of_usage_exit_2_and_help_exits_0() {
        for arguments in [&[][..], &["nonsense"], &["version", "--nonsense"], &["completion", "cobol"]] {
            assert_eq!(run(arguments), Exit::Usage.into(), "{arguments:?}");
        }
        for arguments in [&["--help"][..], &["--version"], &["help", "version"]] {
            assert_eq!(run(arguments), Exit::Ok.into(), "{arguments:?}");
        }
    }
}
