//! The path as it is matched: normalised once, and what goes upstream is what was matched.
//!
//! RFC 3986 6.2.2: hex digits upper case, unreserved characters decoded, dot segments resolved; and `//` reads as `/`.
//! What two readers could understand differently is refused, not repaired: bytes that a target may not hold, broken
//! percent-codes, `%00`, a climb above the root, `..;x` (servers with path parameters read it as `..`).

use std::borrow::Cow;

/// A path fit for matching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// Begins with `/`, or is `*`.
    pub path: Cow<'a, str>,
    /// It holds `%2F` or `%5C`, which only a route with `encoded_slash = "keep"` takes.
    pub encoded_slash: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with `/`")]
    NotRooted,
    #[error("the path holds a character that must be percent-encoded")]
    Character,
    #[error("the path holds a broken percent-code")]
    PercentCode,
    #[error("the path holds %00")]
    Nul,
    #[error("the path climbs above the root")]
    AboveRoot,
    #[error("the path holds a dot segment with a parameter")]
    DotParameter,
    #[error("the path holds %2F or %5C beside a dot segment")]
    EncodedDots,
    #[error("the path holds %2F or %5C")]
    EncodedSlash,
    #[error("the query holds a character that must be percent-encoded")]
    Query,
}

/// Normalises the path of a request target. Borrows when it is normal already. `*` is for OPTIONS only: the caller knows.
pub fn normalise(raw: &str) -> Result<Normalised<'_>, PathError> {
    if raw == "*" {
        return Ok(Normalised { path: Cow::Borrowed(raw), encoded_slash: false });
    }
    if !raw.starts_with('/') {
        return Err(PathError::NotRooted);
    }
    let mut previous = 0u8;
    let mut normal = true;
    for byte in raw.bytes() {
        match byte {
            b'%' => normal = false,
            b'.' | b'/' if previous == b'/' => normal = false,
            _ if is_path_byte(byte) => {}
            _ => return Err(PathError::Character),
        }
        previous = byte;
    }
    if normal {
        return Ok(Normalised { path: Cow::Borrowed(raw), encoded_slash: false });
    }
    let decoded = decode_unreserved(raw)?;
    let path = resolve(&decoded)?;
    let encoded_slash = has_encoded_slash(&path);
    let path = if path == raw { Cow::Borrowed(raw) } else { Cow::Owned(path) };
    Ok(Normalised { path, encoded_slash })
}

/// Refuses queries with bytes that no target may hold, or broken percent-codes.
pub fn check_query(query: &str) -> Result<(), PathError> {
    if !query.bytes().all(is_query_byte) {
        return Err(PathError::Query);
    }
    let whole = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if query.split('%').skip(1).all(whole) { Ok(()) } else { Err(PathError::PercentCode) }
}

/// What a path may hold, `?`, and what browsers send as it is.
fn is_query_byte(byte: u8) -> bool {
    is_path_byte(byte) || b"?%`{}\\".contains(&byte)
}

/// Whether a normalised path holds `%2F` or `%5C`.
pub fn has_encoded_slash(path: &str) -> bool {
    let bytes = path.as_bytes();
    memchr::memchr_iter(b'%', bytes).any(|at| matches!(bytes.get(at + 1..at + 3), Some(b"2F" | b"5C")))
}

/// RFC 3986 pchar and `/`, and those four beside them that browsers send as they are.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/[]|^".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn decode_unreserved(raw: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    let mut parts = raw.split('%');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (code, rest) = part.split_at_checked(2).ok_or(PathError::PercentCode)?;
        if !code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PathError::PercentCode);
        }
        let byte = u8::from_str_radix(code, 16).map_err(|_| PathError::PercentCode)?;
        match byte {
            0 => return Err(PathError::Nul),
            byte if is_unreserved(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.extend(code.chars().map(|c| c.to_ascii_uppercase()));
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

/// A segment, cut where `%2F` and `%5C` stand.
fn encoded_pieces(segment: &str) -> impl Iterator<Item = &str> {
    segment.split("%2F").flat_map(|piece| piece.split("%5C"))
}

fn is_dots(piece: &str) -> bool {
    matches!(piece, "." | "..") || piece.starts_with(".;") || piece.starts_with("..;")
}

/// Merges slashes first, then resolves dot segments: `/a//../b` is `/b`, as with nginx.
fn resolve(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut open_end = true;
    for segment in path.split('/').skip(1) {
        open_end = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').ok_or(PathError::AboveRoot)?),
            _ if segment.starts_with(".;") || segment.starts_with("..;") => return Err(PathError::DotParameter),
            // Whoever decodes the slash sees a climb that was not resolved here.
            _ if encoded_pieces(segment).skip(1).count() > 0 && encoded_pieces(segment).any(is_dots) => {
                return Err(PathError::EncodedDots);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if open_end {
        out.push('/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_encoded_slash_hides_no_dots() {
        for raw in ["/a/..%2Fadmin", "/a/..%5cadmin", "/a/b%2f..%2f..%2fadmin", "/a/b%2F%2e", "/a/x%2F..;a"] {
            check(raw, Err(PathError::EncodedDots));
        }
        check("/a/b%2Fc", Ok("/a/b%2Fc"));
        check("/a/b%2F..c", Ok("/a/b%2F..c"));
    }

    #[test]
    fn a_query_is_judged_as_the_guard_judges_it() {
        for query in ["", "a=%20", "a=b?c/d", "x=[1]&y=a|b", "{}"] {
            assert_eq!(check_query(query), Ok(()), "{query}");
        }
        for query in ["%", "a=%2", "a=%zz"] {
            assert_eq!(check_query(query), Err(PathError::PercentCode), "{query}");
        }
        for query in ["a\"b", "a<b", "a#b", "a b"] {
            assert_eq!(check_query(query), Err(PathError::Query), "{query}");
        }
    }

    fn check(raw: &str, expect: Result<&str, PathError>) {
        let got = normalise(raw);
        assert_eq!(got.as_ref().map(|n| n.path.as_ref()).map_err(|e| *e), expect, "{raw}");
    }

    #[test]
    fn normal_paths_are_borrowed() {
        for raw in ["/", "/a", "/a/", "/a/b.c/..d/.e", "/~u/a:b@c;v=1,2", "*", "/%2F", "/a%20b"] {
            let got = normalise(raw).expect(raw);
            assert!(matches!(got.path, Cow::Borrowed(path) if path == raw), "{raw}");
        }
    }

    #[test]
    fn normalises_what_is_equivalent() {
        check("//a///b", Ok("/a/b"));
        check("/a/./b/../c", Ok("/a/c"));
        check("/a/..", Ok("/"));
        check("/a/b/.", Ok("/a/b/"));
        check("/a//../b", Ok("/b"));
        check("/%7Euser/%61", Ok("/~user/a"));
        check("/a%2e%2e/%2e%2E/b", Ok("/b"));
        check("/a%c3%a9", Ok("/a%C3%A9"));
        check("/a%2fb", Ok("/a%2Fb"));
        check("/%2525", Ok("/%2525"));
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        check("a", Err(PathError::NotRooted));
        check("", Err(PathError::NotRooted));
        check("/..", Err(PathError::AboveRoot));
        check("/a/../../b", Err(PathError::AboveRoot));
        check("/%2e%2e/", Err(PathError::AboveRoot));
        check("/a%0", Err(PathError::PercentCode));
        check("/a%zz", Err(PathError::PercentCode));
        check("/a%+1", Err(PathError::PercentCode));
        check("/a%00b", Err(PathError::Nul));
        check("/a/..;x/b", Err(PathError::DotParameter));
        check("/a/%2e;x", Err(PathError::DotParameter));
        for raw in ["/a b", "/a\\b", "/a\tb", "/é", "/a#b", "/a?b", "/<", "/\"", "/{a}", "/a\u{7f}"] {
            check(raw, Err(PathError::Character));
        }
    }

    #[test]
    fn says_where_a_slash_is_encoded() {
        for (raw, expect) in [("/a%2fb", true), ("/a%5Cb", true), ("/a%252Fb", false), ("/a/b", false)] {
            assert_eq!(normalise(raw).map(|n| n.encoded_slash), Ok(expect), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn normal_stays_normal(raw in "(/([a-c.;%]|%2[eEfF]|%6[1-9]|%[cC]3){0,4}){1,5}") {
            if let Ok(once) = normalise(&raw) {
                let twice = normalise(&once.path).expect("normal");
                prop_assert_eq!(&twice.path, &once.path);
                prop_assert!(once.path.starts_with('/'));
                prop_assert!(!once.path.contains("//"));
                prop_assert!(once.path.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
