//! What a client takes (RFC 9110 12.5), and lists of media types and statuses that authors write.

use http::{HeaderMap, HeaderName, StatusCode};

use super::Reading;
use crate::problem::Path;

/// The weight of a name in a field such as `Accept-Encoding`, in thousandths; `None` if it is not named there.
pub(super) fn weight(headers: &HeaderMap, field: &HeaderName, name: &str) -> Option<u16> {
    let texts = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).find_map(|part| {
        let mut words = part.split(';').map(str::trim);
        if !words.next()?.eq_ignore_ascii_case(name) {
            return None;
        }
        let quality = words.find_map(|word| word.strip_prefix("q=").or_else(|| word.strip_prefix("Q=")));
        let quality = quality.map_or(1.0, |text| text.trim().parse::<f32>().unwrap_or(0.0));
        Some((quality.clamp(0.0, 1.0) * 1000.0) as u16)
    })
}

/// Whether a client would rather have a page than data. One that takes anything gets data.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let of = |name| weight(headers, &http::header::ACCEPT, name).unwrap_or(0);
    let html = of("text/html").max(of("application/xhtml+xml"));
    html > 0 && html >= of("application/json").max(of("application/problem+json"))
}

/// Media types, of which `text/*` is all of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaTypes(Box<[Box<str>]>);

impl MediaTypes {
    pub(super) fn compile(texts: &[String], at: &Path, reading: &mut Reading<'_>) -> MediaTypes {
        for (index, text) in texts.iter().enumerate() {
            let is_type = text.split_once('/').is_some_and(|(kind, rest)| {
                let token = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
                token(kind) && token(rest) && !rest.contains('/')
            });
            if !is_type && !text.contains("${") {
                let help = "write `text/html`, or `text/*` for all of a kind";
                reading.error(&at.at(index), format!("`{text}` is not a media type"), help);
            }
        }
        MediaTypes(texts.iter().map(|text| text.to_ascii_lowercase().into()).collect())
    }

    pub(super) fn of(texts: &[&str]) -> MediaTypes {
        MediaTypes(texts.iter().map(|text| (*text).into()).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the type of an answer is among them. One that says nothing is not.
    pub(super) fn has(&self, headers: &HeaderMap) -> bool {
        let Some(text) = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let media = text.split(';').next().unwrap_or_default().trim();
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some("*/") => true,
            Some(kind) => media.get(..kind.len()).is_some_and(|front| front.eq_ignore_ascii_case(kind)),
            None => known.eq_ignore_ascii_case(media),
        })
    }
}

/// Statuses: `404`, `5xx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statuses(Box<[(u16, u16)]>);

impl Statuses {
    pub(super) fn compile(texts: &[String], at: &Path, reading: &mut Reading<'_>) -> Statuses {
        let mut ranges = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
            let range = match class {
                Some(class @ 2..=5) => Some((class * 100, class * 100 + 99)),
                Some(_) => None,
                None => text.parse::<u16>().ok().filter(|one| (200..=599).contains(one)).map(|one| (one, one)),
            };
            match range {
                Some(range) => ranges.push(range),
                None => reading.error(&at.at(index), format!("`{text}` is not a status"), "write `404` or `5xx`"),
            }
        }
        Statuses(ranges.into())
    }

    pub(super) fn has(&self, status: StatusCode) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn weights_are_read() {
        let all = headers(ACCEPT_ENCODING, "gzip;q=0.5, BR ; q=1.0, zstd;q=0, x;q=nonsense, y;level=1");
        for (name, expect) in
            [("gzip", Some(500)), ("br", Some(1000)), ("zstd", Some(0)), ("x", Some(0)), ("y", Some(1000)), ("*", None)]
        {
            assert_eq!(weight(&all, &ACCEPT_ENCODING, name), expect, "{name}");
        }
    }

    #[test]
    fn browsers_want_pages() {
        for (accept, expect) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0", false),
        ] {
            assert_eq!(prefers_html(&headers(ACCEPT, accept)), expect, "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn types_and_statuses_are_lists() {
        let types = MediaTypes::of(&["text/*", "application/json"]);
        for (text, expect) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/plain", true),
            ("application/JSON", true),
            ("application/json5", false),
            ("textual/x", false),
            ("", false),
        ] {
            assert_eq!(types.has(&headers(CONTENT_TYPE, text)), expect, "{text}");
        }
        let mut problems = Vec::new();
        let mut reading = Reading { captures: &|_| crate::policy::Presence::Never, problems: &mut problems };
        let texts: Vec<String> = ["404", "5xx", "1xx", "six", "600"].map(str::to_owned).to_vec();
        let statuses = Statuses::compile(&texts, &Path::default(), &mut reading);
        assert_eq!(problems.len(), 3);
        let has = |status: u16| statuses.has(StatusCode::from_u16(status).unwrap());
        assert!(has(404) && has(500) && has(599) && !has(403) && !has(200));
    }
}
