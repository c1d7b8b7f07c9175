//! Who gives out tokens: what they must say, and the keys they are verified with.

use std::sync::{Arc, OnceLock};

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::jwks::Remote;
use super::keys::Keys;
use super::ring::KeyRing;
use crate::config;
use crate::fetch::Trust;
use crate::problem::{Path, Problem};

const SECRET_MIN: usize = 32;
/// Longest `leeway`, in seconds. Revocations outlast what they revoke by as much.
pub(super) const LEEWAY_MAX: u64 = 300;

/// Who gives out tokens.
#[derive(Debug)]
pub struct Issuer {
    pub(super) name: Arc<str>,
    pub(super) iss: String,
    audience: Vec<String>,
    algorithms: Option<Vec<Algorithm>>,
    pub(super) token_type: Option<String>,
    pub(super) leeway: u64,
    pub(super) token_max: usize,
    source: Source,
    /// What tells whether a remembered verdict was given under the same words.
    pub(super) words: u64,
    ring: OnceLock<Arc<KeyRing>>,
}

#[derive(Debug)]
enum Source {
    Fixed(Keys),
    Remote(Remote, Trust),
}

impl Issuer {
    pub fn compile(name: &str, words: &config::Issuer, at: &Path, problems: &mut Vec<Problem>) -> Option<Issuer> {
        let config::Issuer {
            issuer,
            audience,
            jwks,
            discovery,
            keys,
            secret,
            algorithms,
            token_type,
            leeway,
            token_max,
            refresh,
            cooldown,
            ca,
        } = words;
        let mut warnings = Vec::new();
        let mut error = |at: Path, message: String, help: &str| problems.push(Problem::error(at, message).help(help));
        let there = [jwks.is_some(), discovery.is_some(), keys.is_some(), secret.is_some()];
        if there.into_iter().filter(|there| *there).count() != 1 {
            let help = "write exactly one of `jwks`, `discovery`, `keys`, `secret`";
            error(at.clone(), "it is not said where its keys are".to_owned(), help);
            return None;
        }
        let Some(iss) = issuer.clone().or_else(|| discovery.clone()) else {
            error(at.clone(), "`issuer` is missing".to_owned(), "write what its tokens have as `iss`");
            return None;
        };
        for (word, url) in [("jwks", jwks), ("discovery", discovery)] {
            let Some(url) = url.as_ref().filter(|url| !url.contains("${")) else { continue };
            let parsed = url.parse::<http::Uri>();
            let is_url = |uri: &http::Uri| {
                let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
                matches!(uri.scheme_str(), Some("http" | "https")) && plain
            };
            if let Ok(uri) = &parsed
                && uri.scheme_str() == Some("http")
                && !is_private(uri.host().unwrap_or_default())
            {
                let problem = Problem::warning(at.at(word), "whoever is on the way can send keys of their own");
                warnings.push(problem.help("write `https://`"));
            }
            if !parsed.is_ok_and(|uri| is_url(&uri)) {
                error(at.at(word), format!("`{url}` is not a URL"), "write `https://accounts.example.com/..`");
            }
        }
        for (word, span) in [("refresh", refresh), ("cooldown", cooldown)] {
            if span.0.is_zero() {
                error(at.at(word), "no time at all".to_owned(), "write at least 1s");
            }
        }
        for (word, span, most) in [("cooldown", cooldown, 60), ("leeway", leeway, LEEWAY_MAX)] {
            if span.0.as_secs() > most {
                error(at.at(word), format!("{span} is too long"), &format!("write {most}s at most"));
            }
        }
        if refresh.0 < cooldown.0 {
            error(
                at.at("refresh"),
                format!("{refresh} is less than the cooldown of {cooldown}"),
                "raise one, or lower the other",
            );
        }
        if token_max.0 == 0 || token_max.0 > 64 << 10 {
            error(at.at("token_max"), format!("{token_max} is no length for a token"), "write 64B to 64KiB");
        }
        let wanted: Vec<Algorithm> = algorithms.iter().map(|one| algorithm(*one)).collect();
        let is_hmac = |one: &Algorithm| matches!(one, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        for (index, one) in wanted.iter().enumerate().filter(|(_, one)| is_hmac(one) != secret.is_some()) {
            let help = match secret.is_some() {
                true => "a shared secret is for HS256, HS384, HS512",
                false => "HS256 and its like are for a shared `secret`: a public key is none",
            };
            error(at.at("algorithms").at(index), format!("{one:?} does not fit the keys"), help);
        }
        problems.append(&mut warnings);
        let trust = match ca {
            Some(pem) => trust(pem, &at.at("ca"), problems),
            None => Trust::default(),
        };
        if audience.is_empty() {
            let problem = Problem::warning(at.clone(), format!("tokens of issuer `{name}` for anybody are taken"));
            problems.push(problem.help("write `audience`: who gets one for another service could use it here"));
        }
        let source = match (keys, secret) {
            (Some(text), _) => Source::Fixed(fixed(text, &at.at("keys"), problems)),
            (None, Some(secret)) => Source::Fixed(shared(secret, &wanted, &at.at("secret"), problems)),
            (None, None) => {
                let remote = Remote {
                    issuer: name.to_owned(),
                    url: jwks.clone().or_else(|| discovery.clone()).unwrap_or_default(),
                    discovery: discovery.is_some(),
                    refresh: refresh.0,
                    cooldown: cooldown.0,
                    ca: ca.clone(),
                };
                Source::Remote(remote, trust)
            }
        };
        let algorithms = Some(wanted).filter(|wanted| !wanted.is_empty());
        let words = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((
            &iss,
            &audience.0,
            format!("{algorithms:?}"),
            token_type,
            leeway.0,
        ));
        Some(Issuer {
            name: name.into(),
            iss,
            audience: audience.0.clone(),
            algorithms,
            token_type: token_type.clone(),
            leeway: leeway.0.as_secs(),
            token_max: usize::try_from(token_max.0).unwrap_or(usize::MAX),
            source,
            words,
            ring: OnceLock::new(),
        })
    }

    /// The claim `iss` of its tokens.
    pub fn iss(&self) -> &str {
        &self.iss
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The keys as they change: those of the issuer of the same name before, or new ones.
    pub fn ring(&self) -> &Arc<KeyRing> {
        self.ring.get_or_init(|| {
            Arc::new(match &self.source {
                Source::Fixed(keys) => KeyRing::fixed(keys.clone()),
                Source::Remote(remote, trust) => KeyRing::remote(remote.clone(), trust.clone()),
            })
        })
    }

    /// Takes over the keys of the issuer before, if they come from the same place.
    pub fn inherit(&self, previous: &Issuer) {
        if let (Source::Remote(one, _), Source::Remote(other, _)) = (&self.source, &previous.source)
            && one.is_place_of(other)
        {
            previous.ring().keep_pace(one);
            let _ = self.ring.set(previous.ring().clone());
        }
    }

    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.as_ref().is_none_or(|all| all.contains(&algorithm))
    }

    /// Whether a token with this `aud` is for us (RFC 7519 4.1.3).
    pub(super) fn is_for_us(&self, aud: Option<&Value>) -> bool {
        let ours = |one: &Value| one.as_str().is_some_and(|one| self.audience.iter().any(|known| known == one));
        self.audience.is_empty()
            || match aud {
                Some(Value::Array(all)) => all.iter().any(ours),
                Some(one) => ours(one),
                None => false,
            }
    }
}

/// Hosts on the way to which nobody else is: loopback, and names of private networks.
fn is_private(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost"
        || [".localhost", ".internal", ".local"].iter().any(|suffix| bare.ends_with(suffix))
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| match address {
            std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
            std::net::IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
        })
        || !bare.contains('.')
}

fn algorithm(word: config::Algorithm) -> Algorithm {
    use config::Algorithm as Word;
    match word {
        Word::RS256 => Algorithm::RS256,
        Word::RS384 => Algorithm::RS384,
        Word::RS512 => Algorithm::RS512,
        Word::PS256 => Algorithm::PS256,
        Word::PS384 => Algorithm::PS384,
        Word::PS512 => Algorithm::PS512,
        Word::ES256 => Algorithm::ES256,
        Word::ES384 => Algorithm::ES384,
        Word::EdDSA => Algorithm::EdDSA,
        Word::HS256 => Algorithm::HS256,
        Word::HS384 => Algorithm::HS384,
        Word::HS512 => Algorithm::HS512,
    }
}

/// Keys that stand in the document. Under `check` a reference stays symbolic and is taken to be right.
fn fixed(text: &str, at: &Path, problems: &mut Vec<Problem>) -> Keys {
    if text.contains("${") {
        return Keys::default();
    }
    Keys::read(text).unwrap_or_else(|reason| {
        let help = "a JWKS (`{\"keys\": [..]}`) or public keys in PEM, usually by `${file:..}`";
        problems.push(Problem::error(at.clone(), format!("no keys: {reason}")).help(help));
        Keys::default()
    })
}

fn shared(secret: &crate::scalar::Secret, wanted: &[Algorithm], at: &Path, problems: &mut Vec<Problem>) -> Keys {
    let text = secret.expose();
    if text.len() < SECRET_MIN && !text.contains("${") {
        let message = format!("a secret of {} bytes can be guessed", text.len());
        problems.push(Problem::error(at.clone(), message).help(format!("{SECRET_MIN} bytes at least (RFC 7518 3.2)")));
    }
    let algorithms = if wanted.is_empty() { vec![Algorithm::HS256] } else { wanted.to_vec() };
    Keys::secret(text.as_bytes(), algorithms)
}

fn trust(pem: &str, at: &Path, problems: &mut Vec<Problem>) -> Trust {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    if pem.contains("${") {
        return Trust::default();
    }
    let mut roots = rustls::RootCertStore::empty();
    let all: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    if let Ok(all) = all {
        roots.add_parsable_certificates(all);
    }
    if roots.is_empty() {
        problems
            .push(Problem::error(at.clone(), "no certificate in PEM").help("usually `${file:/run/secrets/ca.pem}`"));
    }
    Trust::only(roots)
}
