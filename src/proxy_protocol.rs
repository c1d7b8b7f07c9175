//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): who connected to the proxy before us, and what
//! we tell the servers behind us. Bytes in, bytes out: whose word is believed is decided elsewhere.
//!
//! A header is read to its exact end, so that what follows (TLS or HTTP) is left in the socket. Version 2 is taken whole
//! with its TLVs, which are skipped.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1, its CRLF included.
const V1_MAX: usize = 107;
/// Longest address block of version 2 with its TLVs. The standard allows 64 KiB; nobody sends a hundredth of it.
const V2_MAX: usize = 4 << 10;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

/// What a header says, and how many bytes it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub length: usize,
    /// The client's address; `None` when the proxy speaks for itself (`LOCAL`, `UNKNOWN`) or about no internet address.
    pub source: Option<SocketAddr>,
}

/// How far some bytes are a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// At least so many bytes more belong to it.
    Needs(usize),
    Whole(Header),
    Broken(&'static str),
}

/// Reads the header at the front of `bytes`.
pub fn read(bytes: &[u8]) -> Read {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes.get(..common) == SIGNATURE.get(..common) && !bytes.is_empty() {
        return read_v2(bytes);
    }
    read_v1(bytes)
}

fn read_v1(bytes: &[u8]) -> Read {
    const PREFIX: &[u8] = b"PROXY ";
    let common = bytes.len().min(PREFIX.len());
    if bytes.get(..common) != PREFIX.get(..common) {
        return Read::Broken("no PROXY header");
    }
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match bytes.len() {
            // `PROXY UNKNOWN` and a line end; then the line end alone.
            0..15 => Read::Needs(15 - bytes.len()),
            15..V1_MAX => Read::Needs(1),
            _ => Read::Broken("the line is too long"),
        };
    };
    match (bytes.get(end), bytes.get(end + 1)) {
        _ if end + 2 > V1_MAX => return Read::Broken("the line is too long"),
        (Some(b'\r'), None) => return Read::Needs(1),
        (Some(b'\r'), Some(b'\n')) => {}
        _ => return Read::Broken("the line does not end with CRLF"),
    }
    let Some(line) = bytes.get(PREFIX.len()..end).and_then(|line| std::str::from_utf8(line).ok()) else {
        return Read::Broken("the line is no text");
    };
    let length = end + 2;
    let mut words = line.split(' ');
    let source = match words.next() {
        // What follows says nothing.
        Some("UNKNOWN") => return Read::Whole(Header { length, source: None }),
        Some("TCP4") => pair::<Ipv4Addr>(&mut words),
        Some("TCP6") => pair::<Ipv6Addr>(&mut words),
        _ => return Read::Broken("the family is not TCP4, TCP6 or UNKNOWN"),
    };
    match (source, words.next()) {
        (Some(source), None) => Read::Whole(Header { length, source: Some(source) }),
        _ => Read::Broken("the addresses are malformed"),
    }
}

/// Source and destination of version 1; the source is what is asked for.
fn pair<'w, A: std::str::FromStr + Into<std::net::IpAddr>>(
    words: &mut impl Iterator<Item = &'w str>,
) -> Option<SocketAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let port = port(words.next()?)?;
    self::port(words.next()?)?;
    Some(SocketAddr::new(source.into(), port))
}

fn port(word: &str) -> Option<u16> {
    let digits = (1..=5).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    let plain = word == "0" || !word.starts_with('0');
    (digits && plain).then(|| word.parse().ok())?
}

fn read_v2(bytes: &[u8]) -> Read {
    let Some(&[command, family, high, low]) = bytes.get(SIGNATURE.len()..).and_then(|rest| rest.first_chunk::<4>())
    else {
        return Read::Needs(16 - bytes.len());
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX {
        return Read::Broken("the header is too long");
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Read::Broken("neither version 2 nor LOCAL or PROXY"),
    };
    let length = 16 + length;
    let Some(block) = bytes.get(16..length) else { return Read::Needs(length - bytes.len()) };
    if local {
        return Read::Whole(Header { length, source: None });
    }
    let source = match family {
        0x11 => block.first_chunk::<12>().map(|&[a, b, c, d, _, _, _, _, high, low, _, _]| {
            SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))
        }),
        0x21 => block.first_chunk::<36>().and_then(|block| {
            let source: [u8; 16] = *block.first_chunk()?;
            let port: [u8; 2] = block.get(32..34)?.try_into().ok()?;
            Some(SocketAddr::from((source, u16::from_be_bytes(port))))
        }),
        // UNSPEC and sockets of the proxy's own machine: no internet address.
        0x00 | 0x31 | 0x32 => return Read::Whole(Header { length, source: None }),
        _ => return Read::Broken("the family is not TCP over IPv4 or IPv6"),
    };
    match source {
        Some(source) => Read::Whole(Header { length, source: Some(source) }),
        None => Read::Broken("the address block is too short"),
    }
}

/// The header for a connection of `source` to `destination`; without a pair, of our own (checks).
pub fn write(version: Version, pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // Addresses of one header are of one family.
    let pair = pair.map(|(source, destination)| match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => (source, destination),
        _ => (mapped(source), mapped(destination)),
    });
    match version {
        Version::V1 => match pair {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((source, destination)) => {
                let family = if source.is_ipv4() { 4 } else { 6 };
                let (from, to) = (source.ip(), destination.ip());
                format!("PROXY TCP{family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
            }
        },
        Version::V2 => {
            let mut out = SIGNATURE.to_vec();
            match pair {
                None => out.extend([0x20, 0x00, 0, 0]),
                Some((source, destination)) => {
                    out.extend(if source.is_ipv4() { [0x21, 0x11, 0, 12] } else { [0x21, 0x21, 0, 36] });
                    for address in [source, destination] {
                        match address.ip() {
                            std::net::IpAddr::V4(v4) => out.extend(v4.octets()),
                            std::net::IpAddr::V6(v6) => out.extend(v6.octets()),
                        }
                    }
                    out.extend(source.port().to_be_bytes());
                    out.extend(destination.port().to_be_bytes());
                }
            }
            out
        }
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    }
}

/// What must hold of any bytes: a header is found the same way however its bytes come, and never beyond them.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let mut end = 0;
    let verdict = loop {
        match read(bytes.get(..end).unwrap_or_default()) {
            Read::Needs(more) if end + more <= bytes.len() => {
                assert!(more > 0);
                end += more;
            }
            verdict => break verdict,
        }
    };
    if let Read::Whole(header) = verdict {
        assert_eq!(header.length, end, "nothing behind the header is asked for");
        assert_eq!(read(bytes), verdict);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("a length").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    fn says(bytes: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().expect("an address"));
        let expect = Read::Whole(Header { length: bytes.len(), source });
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(read(bytes), expect, "{text}");
        assert_eq!(read(&[bytes, b"GET / HTTP/1.1"].concat()), expect, "{text}");
        for end in 0..bytes.len() {
            assert!(matches!(read(&bytes[..end]), Read::Needs(_)), "{text} cut at {end}");
        }
        fuzz(bytes);
    }

    fn is_broken(bytes: &[u8]) {
        assert!(matches!(read(bytes), Read::Broken(_)), "{:?} of {}", read(bytes), String::from_utf8_lossy(bytes));
        fuzz(bytes);
    }

    #[test]
    fn reads_what_the_standard_shows() {
        says(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Some("192.0.2.1:56324"));
        says(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some("[2001:db8::1]:1"));
        says(b"PROXY UNKNOWN\r\n", None);
        let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(longest.len(), V1_MAX);
        says(longest.as_bytes(), None);
        says(&v2(0x20, 0, &[]), None);
        says(&v2(0x21, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187]), Some("192.0.2.1:80"));
        let tlvs = [&[192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187][..], &[4, 0, 3, 1, 2, 3, 0xEE, 0, 1, 9]].concat();
        says(&v2(0x21, 0x11, &tlvs), Some("192.0.2.1:80"));
        says(&v2(0x21, 0x31, &[0; 216]), None);
        says(&v2(0x21, 0x00, &[1, 2, 3]), None);
    }

    #[test]
    fn refuses_what_is_no_header() {
        for broken in [
            "GET / HTTP/1.1\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
        ] {
            is_broken(broken.as_bytes());
        }
        is_broken(format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX)).as_bytes());
        is_broken("PROXY ".repeat(30).as_bytes());
        is_broken(&v2(0x11, 0x11, &[0; 12]));
        is_broken(&v2(0x22, 0x11, &[0; 12]));
        is_broken(&v2(0x21, 0x11, &[0; 11]));
        is_broken(&v2(0x21, 0x21, &[0; 35]));
        is_broken(&v2(0x21, 0x12, &[0; 12]));
        is_broken(&v2(0x21, 0x11, &[0; V2_MAX + 1]));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(source: (std::net::IpAddr, u16), to: (std::net::IpAddr, u16)) {
            let (source, to) = (SocketAddr::from(source), SocketAddr::from(to));
            for version in [Version::V1, Version::V2] {
                let bytes = write(version, Some((source, to)));
                let Read::Whole(header) = read(&bytes) else { panic!("{:?}", read(&bytes)) };
                prop_assert_eq!(header.length, bytes.len());
                let read = header.source.expect("an address");
                prop_assert_eq!((read.ip().to_canonical(), read.port()), (source.ip().to_canonical(), source.port()));
                let own = write(version, None);
                prop_assert_eq!(super::read(&own), Read::Whole(Header { length: own.len(), source: None }));
            }
        }

        #[test]
        fn any_bytes_are_judged_alike_in_any_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
            fuzz(&[&SIGNATURE[..], &bytes].concat());
            fuzz(&[b"PROXY ", &bytes[..]].concat());
        }
    }
}
