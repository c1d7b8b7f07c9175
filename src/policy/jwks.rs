//! Where an issuer publishes its keys, and asking for them.

use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use http_body_util::Full;
use hyper::body::Bytes;

use crate::fetch::{Answer, Failure, Trust, fetch};

/// A fetch is given this long.
const FETCH_WITHIN: Duration = Duration::from_secs(10);

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) issuer: String,
    pub(super) url: String,
    /// The URL is that of an OpenID provider.
    pub(super) discovery: bool,
    pub(super) refresh: Duration,
    pub(super) cooldown: Duration,
    /// PEM of the only CAs trusted.
    pub(super) ca: Option<String>,
}

impl Remote {
    /// Whether the keys are the same ones, fetched more or less often.
    pub(super) fn is_place_of(&self, other: &Remote) -> bool {
        (&self.url, self.discovery, &self.ca) == (&other.url, other.discovery, &other.ca)
    }

    /// The JWKS, and for how long its server believes in it.
    pub(super) async fn fetch(&self, trust: &Trust) -> Result<(String, Option<Duration>), Failure> {
        let work = async {
            let url = match self.discovery {
                true => self.discover(trust).await?,
                false => self.url.clone(),
            };
            let answer = get(&url, trust).await?;
            let text = String::from_utf8(answer.body.to_vec())?;
            Ok::<_, Failure>((text, max_age(&answer)))
        };
        tokio::time::timeout(FETCH_WITHIN, work).await.map_err(|_| "it took too long")?
    }

    /// OpenID Connect Discovery 1.0, section 4: the document must be that of its issuer.
    async fn discover(&self, trust: &Trust) -> Result<String, Failure> {
        let base = self.url.trim_end_matches('/');
        let answer = get(&format!("{base}/.well-known/openid-configuration"), trust).await?;
        let document: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
        if text("issuer").map(|issuer| issuer.trim_end_matches('/')) != Some(base) {
            return Err("the provider's document names another issuer".into());
        }
        let url = text("jwks_uri").ok_or("the provider's document has no jwks_uri")?;
        if base.starts_with("https://") && !url.starts_with("https://") {
            return Err("the provider's keys are not behind https, it itself is".into());
        }
        Ok(url.to_owned())
    }
}

async fn get(url: &str, trust: &Trust) -> Result<Answer, Failure> {
    let request = http::Request::get(url)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, "tollgate")
        .body(Full::<Bytes>::default())?;
    let answer = fetch(request, trust).await?;
    if answer.status != http::StatusCode::OK {
        return Err(format!("{} answered {}", bare(url), answer.status).into());
    }
    Ok(answer)
}

/// A URL without what may be a secret in it.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// `max-age` of `Cache-Control` (RFC 9111 5.2.2.1).
fn max_age(answer: &Answer) -> Option<Duration> {
    let all = answer.headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let seconds = all.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}
