//! Requests byte by byte, each with the answer it must get and what the upstream must have seen of it.
//!
//! ```text
//! == name of the case
//! GET / HTTP/1.1\r\n
//! Host: a.test\r\n
//! \r\n
//! -> 400; nothing
//! ```
//! The lines between name and answer are joined without line ends: those of the request are written out. `\r \n \t \xHH
//! \\ \{` stand for bytes, `{ab*3}` for `ababab`; repetitions nest. The client sends it all at once and does not end.
//!
//! The answer: the statuses in order (1xx do not count), `400/close` where the connection may also end without one, `close`
//! where it must end without another. It also ends behind an answer of the gateway's own. Then what the upstream saw:
//! `nothing`, the number of whole requests, `broken` for a request that began and never ended (it may also have seen nothing
//! of it), `1 broken` for both. Then, perhaps, `by gateway`: the framing guard has nothing against it, another part refuses.
//!
//! The upstream takes any path of any host, answers `/status/N` with N and everything else with 200.

/// One answer on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// The status, or the end of the connection without one.
    StatusOrClose(u16),
    Close,
}

/// What the upstream must have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// So many requests, from head to the last byte of the body.
    pub(crate) whole: usize,
    /// And perhaps the beginning of one more.
    pub(crate) broken: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The file and the name in it.
    pub(crate) name: String,
    pub(crate) request: Vec<u8>,
    pub(crate) expect: Vec<Answer>,
    pub(crate) seen: Seen,
    /// The framing guard lets all of it pass.
    pub(crate) by_gateway: bool,
}

const FILES: [(&str, &str); 11] = [
    ("valid", include_str!("corpus/valid.txt")),
    ("request-line", include_str!("corpus/request-line.txt")),
    ("target", include_str!("corpus/target.txt")),
    ("host", include_str!("corpus/host.txt")),
    ("fields", include_str!("corpus/fields.txt")),
    ("length", include_str!("corpus/length.txt")),
    ("transfer-encoding", include_str!("corpus/transfer-encoding.txt")),
    ("chunks", include_str!("corpus/chunks.txt")),
    ("connection", include_str!("corpus/connection.txt")),
    ("limits", include_str!("corpus/limits.txt")),
    ("pipelining", include_str!("corpus/pipelining.txt")),
];

/// All of them, in the order of the files.
pub(crate) fn cases() -> Vec<Case> {
    FILES.iter().flat_map(|(file, text)| read(file, text)).collect()
}

fn read(file: &str, text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            assert!(open.is_none(), "{file}: {name}: the case before has no answer");
            open = Some((format!("{file}: {name}"), String::new()));
        } else if let Some(answer) = line.strip_prefix("-> ") {
            let (name, request) = open.take().unwrap_or_else(|| panic!("{file}: answer without a case: {answer}"));
            cases.push(case(name, &request, answer));
        } else if let Some((_, request)) = &mut open {
            request.push_str(line);
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{file}: {line}");
        }
    }
    assert!(open.is_none(), "{file}: the last case has no answer");
    cases
}

fn case(name: String, request: &str, answer: &str) -> Case {
    let mut parts = answer.split("; ");
    let expect = parts.next().unwrap_or_default().split(' ').map(|text| self::answer(&name, text)).collect();
    let seen = match parts.next().unwrap_or_default() {
        "nothing" => Seen { whole: 0, broken: false },
        "broken" => Seen { whole: 0, broken: true },
        text => {
            let whole = text.strip_suffix(" broken").unwrap_or(text);
            Seen { whole: number(&name, whole), broken: whole != text }
        }
    };
    let by_gateway = match parts.next() {
        None => false,
        Some("by gateway") => true,
        Some(other) => panic!("{name}: {other}"),
    };
    let mut rest = request.as_bytes();
    let request = bytes(&name, &mut rest, false);
    assert!(rest.is_empty(), "{name}: a repetition is not closed");
    Case { name, request, expect, seen, by_gateway }
}

fn answer(name: &str, text: &str) -> Answer {
    match text.strip_suffix("/close") {
        Some(status) => Answer::StatusOrClose(number(name, status)),
        None if text == "close" => Answer::Close,
        None => Answer::Status(number(name, text)),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number"))
}

/// The bytes that a text stands for, up to the end of the repetition it lies in, if `inside` one.
fn bytes(name: &str, text: &mut &[u8], inside: bool) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        *text = rest;
        match byte {
            b'\\' => out.push(escaped(name, text)),
            b'{' => out.extend(repeated(name, text)),
            b'*' if inside && times(text).is_some() => return out,
            _ => out.push(byte),
        }
    }
    out
}

fn escaped(name: &str, text: &mut &[u8]) -> u8 {
    let (byte, rest) = match **text {
        [b'r', ref rest @ ..] => (b'\r', rest),
        [b'n', ref rest @ ..] => (b'\n', rest),
        [b't', ref rest @ ..] => (b'\t', rest),
        [byte @ (b'\\' | b'{'), ref rest @ ..] => (byte, rest),
        [b'x', a, b, ref rest @ ..] => {
            let digits = [a, b];
            let digits = std::str::from_utf8(&digits).unwrap_or_default();
            (u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{name}: \\x{digits}")), rest)
        }
        _ => panic!("{name}: unknown escape"),
    };
    *text = rest;
    byte
}

fn repeated(name: &str, text: &mut &[u8]) -> Vec<u8> {
    let once = bytes(name, text, true);
    let (times, rest) = times(text).unwrap_or_else(|| panic!("{name}: a repetition is not closed"));
    *text = rest;
    once.repeat(times)
}

/// `N}` and what follows it.
fn times(text: &[u8]) -> Option<(usize, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at_checked(end)?;
    let times = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((times, rest.strip_prefix(b"}")?))
}
