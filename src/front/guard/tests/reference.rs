//! A parser that is slow, wants everything at once and says as plainly as it can what is legal; and requests to try it on.

use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything belongs to whole requests.
    Clean,
    Refused,
    /// The last request is not whole, or it cannot be told.
    Open,
}

#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub ends: Vec<usize>,
    pub end: End,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        match request(&bytes[at..]) {
            _ if at == bytes.len() => return Parsed { ends, end: End::Clean },
            Ok(len) => {
                at += len;
                ends.push(at);
            }
            Err(end) => return Parsed { ends, end },
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn lines(text: &[u8]) -> Vec<String> {
    let text: String = text.iter().copied().map(char::from).collect();
    text.split("\r\n").map(str::to_owned).collect()
}

fn want(holds: bool) -> Result<(), End> {
    if holds { Ok(()) } else { Err(End::Refused) }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

fn request(bytes: &[u8]) -> Result<usize, End> {
    let lead = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let text = &bytes[lead..];
    let head = find(text, b"\r\n\r\n").ok_or(End::Open)?;
    let lines = lines(&text[..head]);
    want(lines.iter().all(|line| !line.contains(|c: char| c.is_ascii_control() && c != '\t')))?;

    let parts: Vec<_> = lines[0].split(' ').collect();
    want(parts.len() == 3)?;
    let (method, target, version) = (parts[0], parts[1], parts[2]);
    want(is_token(method) && method.len() <= 32 && method != "CONNECT")?;
    want(version == "HTTP/1.1" || version == "HTTP/1.0")?;
    let authority = target_authority(method, target)?;

    let mut fields = Vec::new();
    for line in &lines[1..] {
        let (name, value) = line.split_once(':').ok_or(End::Refused)?;
        want(is_token(name))?;
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    want(!fields.iter().any(|(name, _)| name == "content_length" || name == "transfer_encoding"))?;
    let all =
        |name: &str| fields.iter().filter(|field| field.0 == name).map(|field| field.1.clone()).collect::<Vec<_>>();

    let hosts = all("host");
    want(hosts.len() == 1)?;
    let host = host_and_port(&hosts[0]).ok_or(End::Refused)?;
    if let Some((authority, default)) = authority {
        want(authority.0 == host.0 && authority.1.unwrap_or(default) == host.1.unwrap_or(default))?;
    }
    let options: Vec<_> = all("connection")
        .iter()
        .flat_map(|value| {
            value.split(',').map(|option| option.trim_matches([' ', '\t']).to_ascii_lowercase()).collect::<Vec<_>>()
        })
        .filter(|option| !option.is_empty())
        .collect();
    want(options.len() <= 9 && options.iter().all(|option| is_token(option)))?;
    let protected =
        ["host", "content-length", "transfer-encoding", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    want(!options.iter().any(|option| protected.contains(&option.as_str())))?;
    let expect = all("expect");
    want(expect.len() <= 1 && expect.iter().all(|value| value.eq_ignore_ascii_case("100-continue")))?;

    let lengths = all("content-length");
    let codings = all("transfer-encoding");
    want(lengths.len() + codings.len() <= 1)?;
    let upgrade = all("upgrade");
    want(version == "HTTP/1.1" || (codings.is_empty() && upgrade.is_empty()))?;
    let mut length = 0;
    if let Some(text) = lengths.first() {
        want(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()))?;
        length = text.parse::<i64>().map_err(|_| End::Refused)? as usize;
    }
    want(codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked")))?;
    if upgrade.iter().any(|value| value.eq_ignore_ascii_case("websocket")) {
        want(options.contains(&"upgrade".to_owned()) && length == 0 && codings.is_empty())?;
    }
    let body = lead + head + 4;
    if codings.is_empty() {
        if bytes.len() - body < length { Err(End::Open) } else { Ok(body + length) }
    } else {
        Ok(body + chunks(&bytes[body..])?)
    }
}

type Authority = (String, Option<u32>);

fn target_authority(method: &str, target: &str) -> Result<Option<(Authority, u32)>, End> {
    if target == "*" {
        return want(method == "OPTIONS").map(|()| None);
    }
    let lower = target.to_ascii_lowercase();
    let (authority, path, default) = if target.starts_with('/') {
        (None, target, 0)
    } else {
        let (scheme, default) = [("http://", 80), ("https://", 443)]
            .into_iter()
            .find(|(scheme, _)| lower.starts_with(scheme))
            .ok_or(End::Refused)?;
        let rest = &target[scheme.len()..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        (Some(host_and_port(&rest[..end]).ok_or(End::Refused)?), &rest[end..], default)
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%[]|^".contains(c);
    want(path.chars().all(legal) && query.chars().all(|c| legal(c) || "?`{}\\".contains(c)))?;
    for code in path.split('%').skip(1).chain(query.split('%').skip(1)) {
        want(code.len() >= 2 && code.chars().take(2).all(|c| c.is_ascii_hexdigit()))?;
    }
    Ok(authority.map(|authority| (authority, default)))
}

fn host_and_port(text: &str) -> Option<Authority> {
    let (host, port) = match text.rfind(']') {
        Some(end) => {
            text[..end].strip_prefix('[')?.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..=end], text[end + 1..].to_owned())
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let host = &text[..end];
            let labels: Vec<_> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let fits = |label: &&str| !label.is_empty() && label.len() < 64 && label.chars().all(legal);
            if !labels.iter().all(fits) {
                return None;
            }
            (host, text[end..].to_owned())
        }
    };
    if port.is_empty() {
        return Some((host.to_ascii_lowercase(), None));
    }
    let digits = port.strip_prefix(':')?;
    if digits.len() > 5 || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let port = digits.parse().ok().filter(|port| (1..=65535).contains(port))?;
    Some((host.to_ascii_lowercase(), Some(port)))
}

/// With every quoted string empty.
fn without_quoted(line: &str) -> Result<String, End> {
    let (mut out, mut chars, mut quoted) = (String::new(), line.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push('"');
            }
            '\\' if quoted => drop(chars.next()),
            _ if !quoted => out.push(c),
            _ => {}
        }
    }
    want(!quoted).map(|()| out)
}

fn chunks(bytes: &[u8]) -> Result<usize, End> {
    let mut at = 0;
    loop {
        let end = find(&bytes[at..], b"\r\n").ok_or(End::Open)?;
        let line: String = bytes[at..at + end].iter().copied().map(char::from).collect();
        want(!line.contains(|c: char| c.is_ascii_control() && c != '\t'))?;
        let line = without_quoted(&line)?;
        let (digits, extensions) = line.split_once(';').map_or((line.as_str(), None), |(a, b)| (a, Some(b)));
        want(digits.len() <= 16 && digits.chars().all(|c| c.is_ascii_hexdigit()))?;
        let size = i64::from_str_radix(digits, 16).map_err(|_| End::Refused)? as usize;
        for extension in extensions.into_iter().flat_map(|text| text.split(';')) {
            let (name, value) = extension.split_once('=').unwrap_or((extension, "x"));
            want(is_token(name) && (is_token(value) || value == "\"\""))?;
        }
        at += end + 2;
        if size == 0 {
            break;
        }
        let left = &bytes[at..];
        if left.len() < size.saturating_add(2) {
            return Err(End::Open);
        }
        want(&left[size..size + 2] == b"\r\n")?;
        at += size + 2;
    }
    loop {
        let end = find(&bytes[at..], b"\r\n").ok_or(End::Open)?;
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(at);
        }
        let line: String = line.iter().copied().map(char::from).collect();
        let (name, value) = line.split_once(':').ok_or(End::Refused)?;
        let framing =
            ["host", "content-length", "content_length", "transfer-encoding", "transfer_encoding", "connection"];
        want(is_token(name) && !framing.contains(&name.to_ascii_lowercase().as_str()))?;
        want(!value.contains(|c: char| c.is_ascii_control() && c != '\t'))?;
    }
}

/// One to three requests, mostly legal, with bytes put in, taken out or changed.
pub(super) fn requests() -> impl Strategy<Value = Vec<u8>> {
    let bytes: Vec<u8> = b"\r\n\t \0\x0b\x7f\xff:;,=0159afAF*?/#%@[]\"\\_-xX".to_vec();
    let change = (any::<prop::sample::Index>(), 0..4u8, select(bytes));
    let changes = prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(change, 1..3)];
    (prop::collection::vec(one_request(), 1..4), changes).prop_map(|(requests, changes)| {
        let mut bytes: Vec<u8> = requests.concat().into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at + 1),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                bytes.push(byte);
            }
        }
        bytes
    })
}

fn one_request() -> impl Strategy<Value = String> {
    let method = select(vec!["GET", "POST", "OPTIONS", "CONNECT", "x", ""]);
    let target = select(vec![
        "/",
        "/a?b",
        "/%41/..",
        "*",
        "http://a.test/",
        "HTTP://A.test:80",
        "https://a.test?x",
        "http://b.test/",
        "a.test:80",
        "/a|b?{c}",
        "/%4",
        "http://u@a.test/",
        "/#",
    ]);
    let version = select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1"]);
    let field = select(vec![
        "Accept: */*",
        "X-A:",
        "x-b: \t1 ",
        "Connection: close, x",
        "Connection: upgrade",
        "Connection: host",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "Host: b.test",
        "Content-Length: 0",
        "content_length: 1",
        " fold",
        "X : 1",
        "X",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Trailer: x",
    ]);
    let host = select(vec!["a.test", "a.test", "a.test", "a.test:80", "A.TEST", "[::1]", "a b", "a.test:0", ""]);
    let body = select(vec![
        ("", ""),
        ("", ""),
        ("Content-Length: 3\r\n", "abc"),
        ("Content-Length: 3\r\n", "ab"),
        ("Content-Length: 3,3\r\n", "abc"),
        ("Transfer-Encoding: Chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nX: 1\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "A;x=y;z=\"w\"\r\n0123456789\r\n00\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3 \r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 3\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", ""),
    ]);
    let lead = select(vec!["", "", "", "\r\n", "\r\n\r\n", "\n", " "]);
    let usual = (Just("GET"), Just("/"), Just("HTTP/1.1"), Just(""), Just("a.test"), Just(Vec::new()), body.clone());
    let odd = (method, target, version, lead, host, prop::collection::vec(field, 0..3), body);
    prop_oneof![usual, odd].prop_map(|(method, target, version, lead, host, fields, (framing, body))| {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("{lead}{method} {target} {version}\r\nHost: {host}\r\n{fields}{framing}\r\n{body}")
    })
}
