//! `tollgate explain`: which route a request takes, and why every other one lost. Asks local files, or with `--live` the
//! gateway itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::ask::ask;
use super::load::{Files, Loaded, failed};
use super::{Exit, Format, print};
use crate::config::References;
use crate::facts::ClientCertificate;
use crate::routes::{Explanation, HeaderChanges, Outcome, Question, Why};
use crate::tls;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Method, such as `GET`.
    method: String,
    /// URL, such as `https://example.com/api/x?y=1`.
    url: String,
    /// Request header, `name: value`; may be there several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Client address. Default `127.0.0.1`.
    #[arg(long, value_name = "IP")]
    from: Option<String>,
    /// Name of the listener. Default: the first that is public.
    #[arg(long, value_name = "NAME")]
    listen: Option<String>,
    /// Certificate that the client shows, in PEM.
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// Claims of whoever is proven to ask, as JSON: `{"sub":"u1"}`.
    #[arg(long, value_name = "JSON", value_parser = claims)]
    claims: Option<Claims>,
    /// Ask the gateway that runs with these settings (`admin.address`), not the files.
    #[arg(long, conflicts_with = "routes")]
    live: bool,
    #[command(flatten)]
    files: Files,
    /// `human` or `json`.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

type Claims = serde_json::Map<String, serde_json::Value>;

fn claims(text: &str) -> Result<Claims, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn run(args: &Args) -> Exit {
    // What a running gateway says comes as it is: its references are not known here.
    let asked = if args.live { ask_live(args).map(|answer| (answer, References::symbolic())) } else { ask_files(args) };
    match asked {
        Ok((explanation, references)) => {
            let text = match args.format {
                Format::Human => human(&explanation),
                Format::Json => format!("{}\n", serde_json::to_string_pretty(&explanation).unwrap_or_default()),
            };
            print(&references.conceal(&text))
        }
        Err(exit) => exit,
    }
}

fn ask_files(args: &Args) -> Result<(Explanation, References), Exit> {
    let question = Question {
        request: format!("{} {}", args.method, args.url),
        headers: args.headers.clone(),
        from: args.from.clone(),
        listen: args.listen.clone(),
        client_certificate: certificate(args)?,
        claims: args.claims.clone(),
    };
    let Loaded { table, references, .. } = args.files.load()?;
    let answer = table.answer(&question).map_err(|error| {
        eprintln!("tollgate: {error}");
        Exit::Usage
    })?;
    Ok((answer, references))
}

fn ask_live(args: &Args) -> Result<Explanation, Exit> {
    let admin = args.files.settings()?.admin;
    let admin = admin.ok_or_else(|| failed("the settings have no [admin]: nobody can be asked"))?;
    let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &args.headers {
        headers.entry(name).or_default().push(value);
    }
    let asked = serde_json::json!({
        "method": args.method, "url": args.url, "headers": headers, "from": args.from, "listen": args.listen,
        "client_certificate": certificate(args)?, "claims": args.claims,
    });
    let answer = ask(&admin, Method::POST, "/explain", Some(asked.to_string())).map_err(|reason| failed(&reason))?;
    serde_json::from_slice(&answer).map_err(|error| failed(&format!("{}: not an explanation: {error}", admin.address)))
}

fn certificate(args: &Args) -> Result<Option<ClientCertificate>, Exit> {
    let Some(path) = &args.client_certificate else { return Ok(None) };
    let mistaken = |reason: String| {
        eprintln!("tollgate: {}: {reason}", path.display());
        Exit::Usage
    };
    let pem = std::fs::read(path).map_err(|error| mistaken(error.to_string()))?;
    let leaf = CertificateDer::from_pem_slice(&pem).map_err(|_| mistaken("no certificate in PEM".to_owned()))?;
    tls::read_client(&leaf).map(Some).map_err(mistaken)
}

fn human(explanation: &Explanation) -> String {
    let Explanation { revision, request, outcome, why, others } = explanation;
    let mut lines = Vec::new();
    if let Some(asked) = request {
        let query = asked.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        lines.push(format!("{} {}://{}{}{query}", asked.method, asked.scheme, asked.host, asked.path));
        lines.push(format!("  from {} on listener {}, revision {revision}", asked.client, asked.listen));
    }
    lines.extend(outcome_lines(outcome));
    lines.extend(why.iter().flat_map(why_lines));
    if !others.is_empty() {
        lines.push("other routes".to_owned());
        let width = others.iter().map(|other| other.route.chars().count()).max().unwrap_or(0);
        lines.extend(
            others.iter().map(|other| format!("  {:width$}  {:13}  {}", other.route, other.lost_by, other.text)),
        );
    }
    lines.join("\n") + "\n"
}

fn outcome_lines(outcome: &Outcome) -> Vec<String> {
    let Outcome { route, upstreams, mirror, path, host, status, code, cause, allow, location } = outcome;
    let mut lines = vec![format!("route {}", route.as_deref().unwrap_or("none"))];
    let mut add = |what: &str, text: Option<String>| lines.extend(text.map(|text| format!("  {what:9} {text}")));
    for share in upstreams {
        add("upstream", Some(format!("{} ({}%)", share.upstream, share.percent)));
    }
    add("mirror", mirror.as_ref().map(|share| format!("{} ({}%)", share.upstream, share.percent)));
    add("host", host.clone());
    add("path", path.clone());
    add("status", status.map(|status| status.to_string()));
    add("code", code.as_ref().map(ToString::to_string));
    add("because", cause.clone());
    add("allow", allow.clone());
    add("location", location.clone());
    lines
}

fn why_lines(why: &Why) -> Vec<String> {
    let Why { host, path, fit, captures, request_headers, response_headers, policies } = why;
    let mut lines = vec![format!("matched by host {host}, path {path}, {fit}")];
    lines.extend(captures.iter().map(|(name, value)| format!("  {{path.{name}}} = {value}")));
    lines.extend(policies.iter().map(|policy| format!("  {policy}")));
    for (what, HeaderChanges { written, removed }) in [("request", request_headers), ("response", response_headers)] {
        for (does, names) in [("writes", written), ("removes", removed)] {
            if !names.is_empty() {
                lines.push(format!("  {does} {what} headers {}", names.join(", ")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(more: &[&str]) -> Args {
        Line::try_parse_from(["explain", "GET", "http://h/api/x"].iter().chain(more)).expect("arguments").args
    }

    fn explained(more: &[&str]) -> Result<String, Exit> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("routes.toml");
        let text = "format = 1\n[upstream.one]\naddress = '127.0.0.1:1'\n\
            [[route]]\nname = 'api'\nmatch = { path = '/api/*', header = { x-a = '1' } }\nupstream = 'one'\n\
            rewrite.strip_prefix = '/api'\nrequest_headers.set.x-b = '${NOT_SET_ANYWHERE}'\n\
            [[route]]\nname = 'rest'\nrespond = {}\n";
        std::fs::write(&file, text).expect("written");
        let args = Args { files: Files { config: None, routes: Some(file) }, ..args(more) };
        ask_files(&args).map(|(explanation, _)| human(&explanation))
    }

    #[test]
    fn says_where_a_request_goes_and_why_others_lost() {
        let text = explained(&["-H", "x-a: 1"]).expect("an explanation");
        for part in [
            "route api\n  upstream  one (100%)\n  host      h\n  path      /x\n",
            "matched by host any host, path /api/*, header (1 exact)\n  {path.*} = x\n  writes request headers x-b\n",
            "other routes\n  rest  less_specific  `/*` (no conditions) comes after route `api`\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        let text = explained(&[]).expect("an explanation");
        assert!(text.contains("route rest\n  status    200\n") && text.contains("api  header"), "{text}");
    }

    #[test]
    fn a_question_that_makes_no_sense_is_a_mistake_of_usage() {
        assert_eq!(explained(&["--listen", "nowhere"]), Err(Exit::Usage));
        assert_eq!(explained(&["--from", "here"]), Err(Exit::Usage));
        assert!(Line::try_parse_from(["explain", "GET", "http://h/", "-H", "no colon"]).is_err());
        assert!(Line::try_parse_from(["explain", "GET", "http://h/", "--live", "--routes", "x"]).is_err());
    }
}
