//! Compression of answers: which, with what, and what their heads say then.

use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Reading;
use super::headers::HeaderSink;
use super::negotiation::{MediaTypes, weight};
use crate::config::{self, Coding};
use crate::problem::Path;

/// What is worth it where the author says nothing.
const TYPES: [&str; 12] = [
    "text/*",
    "application/json",
    "application/problem+json",
    "application/ld+json",
    "application/manifest+json",
    "application/javascript",
    "application/xml",
    "application/rss+xml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
    "font/otf",
];
/// Answers compressed at once, over all routes: each holds a window of up to 1 MiB. Beyond, answers are sent as they are.
const AT_ONCE_MAX: usize = 1024;
const EVENT_STREAM: &str = "text/event-stream";
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const WINDOW_LOG: u32 = 18;
const ZSTD_LEVEL: i32 = 3;
/// Digests of the content as it was sent (RFC 1864, RFC 9530 2).
const DIGESTS: [HeaderName; 2] = [HeaderName::from_static("content-md5"), HeaderName::from_static("content-digest")];

static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
static TOO_MANY: AtomicU64 = AtomicU64::new(0);

/// `compression`, compiled.
#[derive(Clone, Debug)]
pub struct Compression {
    algorithms: Box<[Coding]>,
    types: MediaTypes,
    /// Streams hold an encoder for as long as they last: only where the author names them.
    streams: bool,
    min: u64,
    with_credentials: bool,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// It is not one that is compressed.
    Never,
    /// It would be for others, which caches must know.
    NotForThis,
    With(Coding),
}

impl Compression {
    pub fn compile(words: &config::Compression, at: &Path, reading: &mut Reading<'_>) -> Compression {
        let config::Compression { algorithms, types, min, with_credentials } = words;
        let streams = types.iter().any(|text| text.eq_ignore_ascii_case(EVENT_STREAM));
        let types = MediaTypes::compile(&types.0, &at.at("types"), reading);
        Compression {
            streams,
            algorithms: algorithms.0.clone().into(),
            types: if types.is_empty() { MediaTypes::of(&TYPES) } else { types },
            min: min.0,
            with_credentials: *with_credentials,
        }
    }

    /// What the head of an answer says if it is compressed, and what does it: none for an answer that is only a head.
    pub fn begin(
        &self,
        request: &HeaderMap,
        status: StatusCode,
        answer: &HeaderMap,
        head_only: bool,
    ) -> (Option<Encoder>, HeadChanges) {
        match self.judge(request, status, answer) {
            Judged::Never => (None, HeadChanges { vary: false, coding: None, etag: None }),
            Judged::NotForThis => (None, HeadChanges { vary: true, coding: None, etag: None }),
            Judged::With(coding) => {
                let encoder = if head_only { None } else { Encoder::new(coding) };
                if encoder.is_none() && !head_only {
                    return (None, HeadChanges { vary: true, coding: None, etag: None });
                }
                let etag = answer.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/"));
                let weak = etag.and_then(|etag| HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()).ok());
                (encoder, HeadChanges { vary: true, coding: Some(coding), etag: weak })
            }
        }
    }

    fn judge(&self, request: &HeaderMap, status: StatusCode, answer: &HeaderMap) -> Judged {
        let says = |name: &HeaderName, word: &str| {
            let texts = answer.get_all(name).iter().filter_map(|value| value.to_str().ok());
            texts.flat_map(|text| text.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
        };
        let length = answer.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let whole = !matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
            && !status.is_informational();
        if self.algorithms.is_empty()
            || !whole
            || answer.contains_key(CONTENT_ENCODING)
            || answer.contains_key(CONTENT_RANGE)
            || says_type(answer, EVENT_STREAM) && !self.streams
            || says_type(answer, "application/grpc")
            || length.is_some_and(|length| length < self.min.max(1))
            || says(&CACHE_CONTROL, "no-transform")
            || !self.types.has(answer)
        {
            return Judged::Never;
        }
        if !self.with_credentials && (request.contains_key(AUTHORIZATION) || request.contains_key(COOKIE)) {
            return Judged::NotForThis;
        }
        let any = weight(request, &ACCEPT_ENCODING, "*").unwrap_or(0);
        let of = |coding: Coding| weight(request, &ACCEPT_ENCODING, name(coding)).unwrap_or(any);
        // The first of those with the greatest weight.
        let best = self.algorithms.iter().rev().max_by_key(|coding| of(**coding)).filter(|coding| of(**coding) > 0);
        best.map_or(Judged::NotForThis, |coding| Judged::With(*coding))
    }
}

/// What changes in the head of an answer.
#[derive(Debug)]
pub struct HeadChanges {
    vary: bool,
    coding: Option<Coding>,
    /// The validator of what is the same but for its coding (RFC 9110 8.8.1).
    etag: Option<HeaderValue>,
}

impl HeadChanges {
    pub fn apply(self, sink: &mut dyn HeaderSink) {
        if self.vary {
            sink.add(&VARY, HeaderValue::from_static("accept-encoding"));
        }
        let Some(coding) = self.coding else { return };
        sink.set(&CONTENT_ENCODING, HeaderValue::from_static(name(coding)));
        for name in [CONTENT_LENGTH, ACCEPT_RANGES].iter().chain(&DIGESTS) {
            sink.remove(name);
        }
        if let Some(etag) = self.etag {
            sink.set(&ETAG, etag);
        }
    }
}

fn says_type(answer: &HeaderMap, kind: &str) -> bool {
    let text = answer.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    text.get(..kind.len()).is_some_and(|front| front.eq_ignore_ascii_case(kind.as_bytes()))
}

/// Answers that are compressed now, and how many were not because there were too many.
pub fn compressing() -> (usize, u64) {
    (AT_ONCE.load(Ordering::Relaxed), TOO_MANY.load(Ordering::Relaxed))
}

const fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => "zstd",
        Coding::Br => "br",
        Coding::Gzip => "gzip",
    }
}

/// Compresses one body, piece by piece: each piece can be read when it arrives.
pub struct Encoder {
    kind: Kind,
    _place: Place,
}

enum Kind {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    /// `None`: too much is compressed already.
    fn new(coding: Coding) -> Option<Encoder> {
        let place = Place::take()?;
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Coding::Br => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, WINDOW_LOG);
                Kind::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut writer = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok()?;
                writer.window_log(WINDOW_LOG).ok()?;
                Kind::Zstd(writer)
            }
        };
        Some(Encoder { kind, _place: place })
    }

    pub fn piece(&mut self, bytes: &[u8]) -> std::io::Result<Bytes> {
        fn through(writer: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
            writer.write_all(bytes)?;
            writer.flush()
        }
        let out = match &mut self.kind {
            Kind::Gzip(writer) => through(writer, bytes).map(|()| std::mem::take(writer.get_mut())),
            Kind::Brotli(writer) => through(&mut **writer, bytes).map(|()| std::mem::take(writer.get_mut())),
            Kind::Zstd(writer) => through(writer, bytes).map(|()| std::mem::take(writer.get_mut())),
        };
        out.map(Bytes::from)
    }

    /// What is left, and the end.
    pub fn finish(self, bytes: &[u8]) -> std::io::Result<Bytes> {
        let out = match self.kind {
            Kind::Gzip(mut writer) => writer.write_all(bytes).and_then(|()| writer.finish()),
            Kind::Brotli(mut writer) => writer.write_all(bytes).map(|()| writer.into_inner()),
            Kind::Zstd(mut writer) => writer.write_all(bytes).and_then(|()| writer.finish()),
        };
        out.map(Bytes::from)
    }
}

/// One of those that are compressed at once.
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let taken = AT_ONCE.fetch_add(1, Ordering::Relaxed);
        let place = Place;
        if taken >= AT_ONCE_MAX {
            TOO_MANY.fetch_add(1, Ordering::Relaxed);
        }
        (taken < AT_ONCE_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        AT_ONCE.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::Presence;

    fn compression(text: &str) -> Compression {
        let words: config::Compression = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
        let compression = Compression::compile(&words, &Path::default(), &mut reading);
        assert_eq!(problems, []);
        compression
    }

    fn map(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn decides_by_what_is_asked_and_what_is_answered() {
        let text = (CONTENT_TYPE, "text/html");
        let all = (ACCEPT_ENCODING, "gzip, br, zstd");
        let says = |words: &str, request: &[(HeaderName, &str)], status: u16, answer: &[(HeaderName, &str)]| {
            compression(words).judge(&map(request), StatusCode::from_u16(status).unwrap(), &map(answer))
        };
        for (request, status, answer, expect) in [
            (vec![all.clone()], 200, vec![text.clone()], Judged::With(Coding::Zstd)),
            (vec![(ACCEPT_ENCODING, "gzip;q=0.9, br;q=1")], 200, vec![text.clone()], Judged::With(Coding::Br)),
            (vec![(ACCEPT_ENCODING, "*")], 200, vec![text.clone()], Judged::With(Coding::Zstd)),
            (vec![(ACCEPT_ENCODING, "*, zstd;q=0")], 200, vec![text.clone()], Judged::With(Coding::Br)),
            (vec![(ACCEPT_ENCODING, "deflate")], 200, vec![text.clone()], Judged::NotForThis),
            (vec![], 200, vec![text.clone()], Judged::NotForThis),
            (vec![all.clone(), (COOKIE, "a=1")], 200, vec![text.clone()], Judged::NotForThis),
            (vec![all.clone(), (AUTHORIZATION, "x")], 200, vec![text.clone()], Judged::NotForThis),
            (vec![all.clone()], 404, vec![text.clone()], Judged::With(Coding::Zstd)),
            (vec![all.clone()], 206, vec![text.clone()], Judged::Never),
            (vec![all.clone()], 304, vec![text.clone()], Judged::Never),
            (vec![all.clone()], 200, vec![(CONTENT_TYPE, "image/png")], Judged::Never),
            (vec![all.clone()], 200, vec![], Judged::Never),
            (vec![all.clone()], 200, vec![(CONTENT_TYPE, "text/event-stream")], Judged::Never),
            (vec![all.clone()], 200, vec![text.clone(), (CONTENT_ENCODING, "gzip")], Judged::Never),
            (vec![all.clone()], 200, vec![text.clone(), (CONTENT_LENGTH, "1023")], Judged::Never),
            (vec![all.clone()], 200, vec![text.clone(), (CONTENT_LENGTH, "1024")], Judged::With(Coding::Zstd)),
            (vec![all.clone()], 200, vec![text.clone(), (CACHE_CONTROL, "public, no-transform")], Judged::Never),
        ] {
            assert_eq!(says("", &request, status, &answer), expect, "{request:?} {status} {answer:?}");
        }
        assert_eq!(
            says("algorithms = []", std::slice::from_ref(&all), 200, std::slice::from_ref(&text)),
            Judged::Never
        );
        for (words, kind, expect) in [
            ("types = 'text/event-stream'", "text/event-stream", Judged::With(Coding::Zstd)),
            ("types = '*/*'", "application/grpc+proto", Judged::Never),
            ("types = '*/*'", "image/png", Judged::With(Coding::Zstd)),
        ] {
            assert_eq!(says(words, std::slice::from_ref(&all), 200, &[(CONTENT_TYPE, kind)]), expect, "{words} {kind}");
        }
        let cookie = [all, (COOKIE, "a=1")];
        assert_eq!(says("with_credentials = true", &cookie, 200, &[text]), Judged::With(Coding::Zstd));
    }

    #[test]
    fn heads_say_what_was_done() {
        let mut answer = map(&[
            (CONTENT_TYPE, "text/html"),
            (CONTENT_LENGTH, "5000"),
            (ETAG, "\"a\""),
            (ACCEPT_RANGES, "bytes"),
            (DIGESTS[0].clone(), "x"),
        ]);
        let (encoder, changes) =
            compression("").begin(&map(&[(ACCEPT_ENCODING, "gzip")]), StatusCode::OK, &answer.clone(), false);
        assert!(encoder.is_some());
        changes.apply(&mut answer);
        let expect = map(&[
            (CONTENT_TYPE, "text/html"),
            (ETAG, "W/\"a\""),
            (CONTENT_ENCODING, "gzip"),
            (VARY, "accept-encoding"),
        ]);
        assert_eq!(answer, expect);
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
        };
        out
    }

    proptest! {
        #[test]
        fn what_was_sent_is_what_is_read(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..8)) {
            for coding in [Coding::Gzip, Coding::Br, Coding::Zstd] {
                let mut encoder = Encoder::new(coding).unwrap();
                let mut sent = Vec::new();
                for piece in &pieces {
                    let bytes = encoder.piece(piece).unwrap();
                    // Somebody may wait for it.
                    prop_assert!(piece.is_empty() || !bytes.is_empty());
                    sent.extend(bytes);
                }
                sent.extend(encoder.finish(b"end").unwrap());
                prop_assert_eq!(decoded(coding, &sent), [pieces.concat(), b"end".to_vec()].concat());
            }
        }
    }
}
