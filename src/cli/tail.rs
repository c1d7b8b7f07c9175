//! `tollgate tail`: live requests of the fleet, one line each.

use futures_util::StreamExt as _;

use super::fleet::{Reach, asking, told};
use super::{Exit, Format, print};
use crate::fleet::{Wish, ask};
use crate::scalar::Span;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only this gateway.
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Only this host.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only paths that begin so.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only this client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Only this status, such as `404`, or class, such as `5xx`.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<(u16, u16)>,
    /// Only requests that took so long or longer.
    #[arg(long, value_name = "TIME")]
    slower: Option<Span>,
    /// End after so many lines.
    #[arg(short = 'n', long, value_name = "LINES")]
    number: Option<u64>,
    /// `human`, or `json`: lines as in the access log, `node` before the rest.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

fn status(text: &str) -> Result<(u16, u16), String> {
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
    match (class, text.parse::<u16>()) {
        (Some(class @ 1..=5), _) => Ok((class * 100, class * 100 + 99)),
        (None, Ok(status @ 0..=999)) => Ok((status, status)),
        _ => Err("write a status such as `404` or a class such as `5xx`".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let Args { route, node, host, path, client, status, slower, number, format, reach } = args;
    let wish = Wish {
        id: format!("{:032x}", fastrand::u128(..)),
        route: route.clone(),
        node: node.clone(),
        host: host.clone(),
        path: path.clone(),
        client: client.clone(),
        status: *status,
        slower_ms: slower.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)),
    };
    asking(async {
        let reached = reach.reach().await?;
        let mut lines = ask(&reached.bus, &reached.fleet, wish).await.map_err(|error| told(&error.into()))?;
        let mut left = number.unwrap_or(u64::MAX);
        while left > 0 {
            let line = tokio::select! {
                line = lines.next() => line,
                // Ctrl-C is how a tail ends.
                _ = tokio::signal::ctrl_c() => break,
            };
            let Some(line) = line else { break };
            let text = String::from_utf8_lossy(&line.payload);
            let text = match format {
                Format::Json => format!("{text}\n"),
                Format::Human => human(&text),
            };
            if print(&text) != Exit::Ok {
                break;
            }
            left -= 1;
        }
        Ok(Exit::Ok)
    })
}

/// What one looks for first. What a client wrote cannot steer the terminal: the log has it escaped, and it stays so.
fn human(line: &str) -> String {
    let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let text = |key: &str| match parsed.get(key) {
        Some(serde_json::Value::String(text)) => text.escape_debug().to_string(),
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    };
    let code =
        parsed.get("code").and_then(serde_json::Value::as_str).map(|code| format!(" {code}")).unwrap_or_default();
    format!(
        "{} {:<12} {:<6} {}{} {} {:>8}ms {} {}{code}\n",
        text("time"),
        text("node"),
        text("method"),
        text("host"),
        text("path"),
        text("status"),
        text("total_ms"),
        text("route"),
        text("client")
    )
}
