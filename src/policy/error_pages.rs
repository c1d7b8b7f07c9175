//! What stands in the place of an error: by status, as a page or as data.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::negotiation::{Statuses, prefers_html};
use super::{Escape, Reading};
use crate::config;
use crate::facts::{ErrorField, Fact, Facts, Template};
use crate::problem::Path;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The page of the gateway itself. It loads nothing and runs nothing.
static PLAIN: LazyLock<Template> = LazyLock::new(|| {
    Template::page(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
     <title>{error.status}</title><body style=\"font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;\
     padding:0 1rem\"><h1>{error.status}</h1><p>{error.title}</p><p><small>{error.code} · {request.id}</small></p>\n",
    )
});

/// Pages in their order.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages(Box<[ErrorPage]>);

#[derive(Clone, Debug)]
struct ErrorPage {
    status: Statuses,
    html: Option<Template>,
    json: Option<Template>,
    upstream: bool,
}

/// What went wrong, for those who read it.
#[derive(Clone, Copy, Debug)]
pub struct Wrong<'a> {
    pub status: StatusCode,
    /// Stable name; of an upstream's answer its status.
    pub code: &'a str,
    pub title: &'a str,
}

/// What is known of the request and of what went wrong with it.
struct WithError<'a> {
    facts: &'a dyn Facts,
    wrong: Wrong<'a>,
}

impl Facts for WithError<'_> {
    fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
        match fact {
            Fact::Error(ErrorField::Status) => Some(Cow::Owned(self.wrong.status.as_u16().to_string())),
            Fact::Error(ErrorField::Code) => Some(Cow::Borrowed(self.wrong.code)),
            Fact::Error(ErrorField::Title) => Some(Cow::Borrowed(self.wrong.title)),
            other => self.facts.fact(other),
        }
    }
}

impl ErrorPages {
    pub fn compile(words: &[config::ErrorPage], at: &Path, reading: &mut Reading<'_>) -> ErrorPages {
        let mut pages = Vec::with_capacity(words.len());
        for (index, words) in words.iter().enumerate() {
            let at = at.at(index);
            let config::ErrorPage { status, html, json, upstream } = words;
            if html.is_none() && json.is_none() {
                reading.error(&at, "there is no page", "write `html`, `json` or both");
            }
            let (html, json) = (html.as_deref().map(Template::page), json.as_deref().map(Template::page));
            let status = Statuses::compile(&status.0, &at.at("status"), reading);
            pages.push(ErrorPage { status, html, json, upstream: *upstream });
        }
        ErrorPages(pages.into())
    }

    /// The page for an error of the gateway's own. `None`: problem details.
    pub fn own(&self, wrong: Wrong<'_>, request: &HeaderMap, facts: &dyn Facts) -> Option<(HeaderValue, Bytes)> {
        let page = self.0.iter().find(|page| page.status.has(wrong.status));
        let facts = WithError { facts, wrong };
        if prefers_html(request) {
            let template = page.and_then(|page| page.html.as_ref()).unwrap_or(&PLAIN);
            return Some((HTML, Escape::Markup.fill_known(template, &facts).into()));
        }
        let template = page?.json.as_ref()?;
        Some((JSON, Escape::Json.fill_known(template, &facts).into()))
    }

    /// What stands in the place of an upstream's answer. `None`: the answer itself.
    pub fn instead(&self, wrong: Wrong<'_>, request: &HeaderMap, facts: &dyn Facts) -> Option<(HeaderValue, Bytes)> {
        let page = self.0.iter().find(|page| page.upstream && page.status.has(wrong.status))?;
        let facts = WithError { facts, wrong };
        let (kind, template, escape) = match (prefers_html(request), &page.html, &page.json) {
            (true, Some(html), _) | (false, Some(html), None) => (HTML, html, Escape::Markup),
            (_, _, Some(json)) => (JSON, json, Escape::Json),
            (true, None, None) | (false, None, None) => return None,
        };
        Some((kind, escape.fill_known(template, &facts).into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn replaces(&self) -> bool {
        self.0.iter().any(|page| page.upstream)
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;
    use crate::policy::{Presence, Unfilled};

    struct Nothing;
    impl Facts for Nothing {
        fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
            matches!(fact, Fact::QueryParameter(_)).then_some(Cow::Borrowed("<script>\"x\""))
        }
    }

    fn wrong(status: u16) -> Wrong<'static> {
        Wrong { status: StatusCode::from_u16(status).unwrap(), code: "no_route", title: "Nothing is served here." }
    }

    fn pages(text: &str) -> ErrorPages {
        #[derive(serde::Deserialize)]
        struct Words {
            pages: Vec<config::ErrorPage>,
        }
        let words: Words = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let mut reading = Reading { captures: &|_| Presence::Never, problems: &mut problems };
        let pages = ErrorPages::compile(&words.pages, &Path::default(), &mut reading);
        assert_eq!(problems, []);
        pages
    }

    fn text(page: Option<(HeaderValue, Bytes)>) -> Option<String> {
        page.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn the_first_page_of_the_status_is_taken() {
        let pages = pages(
            r#"pages = [
                { status = "404", html = "<p>{error.code} {query.q}" },
                { status = ["4xx", "5xx"], html = "<p>other {error.status}", json = '{"e": "{query.q}"}', upstream = true },
            ]"#,
        );
        let browser = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
        let other = HeaderMap::new();
        assert_eq!(
            text(pages.own(wrong(404), &browser, &Nothing)).as_deref(),
            Some("<p>no_route &lt;script&gt;&quot;x&quot;")
        );
        assert_eq!(text(pages.own(wrong(404), &other, &Nothing)), None, "problem details");
        let data = text(pages.own(wrong(503), &other, &Nothing)).unwrap();
        let read: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(read["e"], "<script>\"x\"");
        assert_eq!(text(pages.instead(wrong(404), &browser, &Nothing)).as_deref(), Some("<p>other 404"));
        assert_eq!(text(pages.instead(wrong(200), &browser, &Nothing)), None);
        assert!(pages.replaces());
    }

    #[test]
    fn browsers_get_a_page_where_nobody_wrote_one() {
        let browser = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
        let page = text(ErrorPages::default().own(wrong(404), &browser, &Nothing)).unwrap();
        assert!(page.contains("<h1>404</h1>") && page.contains("no_route"), "{page}");
        assert_eq!(Escape::Markup.fill(&PLAIN, &Nothing), Err(Unfilled::Missing), "it is a template that reads");
    }
}
