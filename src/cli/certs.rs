//! `tollgate certs`: what the gateway that runs shows as its own, until when, and what is wrong with it.

use http::Method;

use super::ask::ask;
use super::load::{Files, failed};
use super::{Exit, Format, print};
use crate::tls::Shown;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    files: Files,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say how to trust the local CA.
    Trust(#[command(flatten)] Files),
}

#[derive(serde::Deserialize)]
struct Page {
    certificates: Vec<Shown>,
}

pub(super) fn run(args: &Args) -> Exit {
    let files = match &args.command {
        Some(Command::Trust(files)) if files.config.is_some() => files,
        _ => &args.files,
    };
    let settings = match files.settings() {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    if args.command.is_some() {
        let Some(dir) = settings.state.dir else {
            return failed("without state.dir the local CA is made anew at every start: there is nothing to trust");
        };
        return print(&trust(&dir.join("local-ca.pem").display().to_string()));
    }
    let Some(admin) = settings.admin else { return failed("the settings have no [admin]: nobody can be asked") };
    let page = match ask(&admin, Method::GET, "/certs", None) {
        Ok(page) => page,
        Err(reason) => return failed(&reason),
    };
    match serde_json::from_slice::<Page>(&page) {
        Ok(page) => print(&match args.format {
            Format::Human => human(&page.certificates),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(&page.certificates).unwrap_or_default()),
        }),
        Err(error) => failed(&format!("{}: not a list of certificates: {error}", admin.address)),
    }
}

/// A block for each: what matters first.
fn human(all: &[Shown]) -> String {
    let mut out = String::new();
    for Shown {
        name,
        source,
        names,
        issuer,
        not_after,
        not_after_unix: _,
        next_order,
        next_order_unix: _,
        last_error,
    } in all
    {
        out.push_str(&format!("{name}  {source}\n"));
        let mut line = |what: &str, text: &str| out.push_str(&format!("  {what:8} {text}\n"));
        line("names", &if names.is_empty() { "as asked for".to_owned() } else { names.join(", ") });
        line("issuer", issuer.as_deref().unwrap_or("none yet"));
        line("expires", not_after.as_deref().unwrap_or("-"));
        if let Some(next) = next_order {
            line("next", next);
        }
        if let Some(error) = last_error {
            line("error", error);
        }
    }
    out
}

fn trust(path: &str) -> String {
    format!(
        "The local CA is {path}\n\
         Debian, Ubuntu   cp {path} /usr/local/share/ca-certificates/tollgate.crt && update-ca-certificates\n\
         Fedora           trust anchor {path}\n\
         macOS            security add-trusted-cert -d -k /Library/Keychains/System.keychain {path}\n\
         Chromium         certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n tollgate -i {path}\n\
         Firefox          Settings, Certificates, Authorities, Import\n\
         curl             curl --cacert {path} https://localhost/\n\
         Whoever has the key beside it can speak for any name to those who trust it.\n"
    )
}
