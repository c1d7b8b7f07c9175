//! Field lines, and the names that decide about framing.

use super::Refusal;
use super::chars::{is_field_value, is_token, is_token_byte, trim};

/// A field line cut in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// A token.
    pub name: &'a [u8],
    /// Without space around it, without control characters.
    pub value: &'a [u8],
    /// Where in the line the value starts.
    pub value_at: usize,
}

pub(super) fn split(line: &[u8]) -> Result<Field<'_>, Refusal> {
    let end = line.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end).unwrap_or((line, b""));
    match (name, rest) {
        ([], [b' ' | b'\t', ..]) => Err(Refusal::bad("folded line or space before a field name")),
        ([], _) => Err(Refusal::bad("empty or invalid field name")),
        (_, [b':', value @ ..]) if is_field_value(value) => {
            let spaces = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let value = trim(value);
            Ok(Field { name, value, value_at: end + 1 + spaces })
        }
        (_, [b':', ..]) => Err(Refusal::bad("control character in a field value")),
        (_, [b' ' | b'\t', ..]) => Err(Refusal::bad("space before the colon of a field")),
        (_, []) => Err(Refusal::bad("field without a colon")),
        _ => Err(Refusal::bad("invalid character in a field name")),
    }
}

/// The fields the guard reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    /// `Content_Length`, `Transfer_Encoding`: the same name to whoever maps fields to variables as CGI does.
    Disguised,
    Other,
}

impl Name {
    pub(super) fn of(name: &[u8]) -> Name {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => Name::Host,
            6 if name.eq_ignore_ascii_case(b"expect") => Name::Expect,
            7 if name.eq_ignore_ascii_case(b"upgrade") => Name::Upgrade,
            10 if name.eq_ignore_ascii_case(b"connection") => Name::Connection,
            14 => Name::framing(name, b"content-length", Name::ContentLength),
            17 => Name::framing(name, b"transfer-encoding", Name::TransferEncoding),
            _ => Name::Other,
        }
    }

    fn framing(name: &[u8], meant: &[u8], is: Name) -> Name {
        if name.eq_ignore_ascii_case(meant) {
            is
        } else if name
            .iter()
            .zip(meant)
            .all(|(&byte, &of)| byte.eq_ignore_ascii_case(&of) || (byte == b'_' && of == b'-'))
        {
            Name::Disguised
        } else {
            Name::Other
        }
    }
}

/// Fields a client may not have removed on the way: with them it could change framing, routing, or what a trusted peer
/// says about the client's address.
const PROTECTED: [&[u8]; 6] =
    [b"host", b"content-length", b"transfer-encoding", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"];

/// What `Connection` fields say, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    /// `upgrade` is among the options.
    pub upgrade: bool,
    options: u8,
}

impl Connection {
    /// Pingora answers 400 to ten options, before any hook is called.
    const MOST_OPTIONS: u8 = 9;

    pub(super) fn read(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|&byte| byte == b',').map(trim).filter(|option| !option.is_empty()) {
            self.options += 1;
            if self.options > Connection::MOST_OPTIONS {
                return Err(Refusal::bad("too many options in Connection"));
            }
            if !is_token(option) {
                return Err(Refusal::bad("malformed option in Connection"));
            }
            if PROTECTED.iter().any(|name| option.eq_ignore_ascii_case(name)) {
                return Err(Refusal::bad("Connection names a protected field"));
            }
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(line: &str) -> &'static str {
        split(line.as_bytes()).expect_err(line).cause
    }

    #[test]
    fn cuts_names_from_values() {
        for (line, name, value) in [
            ("Host:a", "Host", "a"),
            ("x-A:  a b\t ", "x-A", "a b"),
            ("x:", "x", ""),
            ("x: é", "x", "é"),
            ("x: a:b", "x", "a:b"),
        ] {
            let field = split(line.as_bytes()).expect(line);
            assert_eq!((field.name, field.value), (name.as_bytes(), value.as_bytes()), "{line}");
            assert_eq!(&line.as_bytes()[field.value_at..][..value.len()], value.as_bytes(), "{line}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_field() {
        assert_eq!(cause(" x: a"), "folded line or space before a field name");
        assert_eq!(cause("\tx: a"), "folded line or space before a field name");
        assert_eq!(cause(": a"), "empty or invalid field name");
        assert_eq!(cause("x : a"), "space before the colon of a field");
        assert_eq!(cause("x"), "field without a colon");
        assert_eq!(cause("x(: a"), "invalid character in a field name");
        assert_eq!(cause("é: a"), "empty or invalid field name");
        assert_eq!(cause("x: \0"), "control character in a field value");
        assert_eq!(cause("x: \x0bchunked"), "control character in a field value");
        assert_eq!(cause("x: \x7f"), "control character in a field value");
    }

    #[test]
    fn sees_through_underscores() {
        assert_eq!(Name::of(b"CONTENT-length"), Name::ContentLength);
        assert_eq!(Name::of(b"Content_Length"), Name::Disguised);
        assert_eq!(Name::of(b"transfer_encoding"), Name::Disguised);
        assert_eq!(Name::of(b"Transfer-Encoding"), Name::TransferEncoding);
        assert_eq!(Name::of(b"contentxlength"), Name::Other);
    }

    #[test]
    fn reads_connection_options() {
        let mut connection = Connection::default();
        connection.read(b" , x-a,close,").unwrap();
        assert!(!connection.upgrade);
        connection.read(b"keep-alive, UPGRADE").unwrap();
        assert!(connection.upgrade);
        for bad in
            ["Host", "x, hOST", "content-length", "Transfer-Encoding", "X-Forwarded-For", "\"x\"", "a b", ":path"]
        {
            assert!(Connection::default().read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_connection_options_over_all_fields() {
        let mut connection = Connection::default();
        connection.read(b"a,b,c,d,e").unwrap();
        connection.read(b"f,g,h,i").unwrap();
        assert!(connection.read(b"j").is_err());
    }
}
