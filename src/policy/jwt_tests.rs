//! Tokens that are good, and every way not to be.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::config;
use crate::problem::Path;

const SECRET: &str = "a secret of thirty-two bytes, yes";
const NOW: u64 = 1_800_000_000;

fn issuer(more: &str) -> Arc<Issuer> {
    let text = format!("issuer = \"https://a.test\"\naudience = [\"api\", \"web\"]\nsecret = \"{SECRET}\"\n{more}");
    let words: config::Issuer = toml::from_str(&text).unwrap();
    let mut problems = Vec::new();
    let issuer = Issuer::compile("accounts", &words, &Path::default(), &mut problems);
    assert_eq!(problems, []);
    Arc::new(issuer.unwrap())
}

fn claims() -> Value {
    json!({ "iss": "https://a.test", "aud": "api", "sub": "u1", "exp": NOW + 60 })
}

fn signed(header: &Header, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// Header and payload as they are, signed all the same.
fn raw(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

async fn fault(token: &str, issuer: &Arc<Issuer>) -> Option<TokenFault> {
    verify(token, std::slice::from_ref(issuer), &Remembered::default(), &Revocations::default(), false, NOW).await.err()
}

#[tokio::test]
async fn a_good_token_says_who_it_is() {
    let (issuer, remembered) = (issuer(""), Remembered::default());
    let token = signed(&Header::default(), &claims());
    for _ in 0..2 {
        let subject = verify(&token, std::slice::from_ref(&issuer), &remembered, &Revocations::default(), false, NOW)
            .await
            .unwrap();
        assert_eq!((&*subject.name, &*subject.source, subject.expires), ("u1", "accounts", Some(NOW + 90)));
    }
    assert_eq!(remembered.0.len(), 1);
    // What is remembered ends with the token, whatever was remembered.
    let late =
        verify(&token, std::slice::from_ref(&issuer), &remembered, &Revocations::default(), false, NOW + 91).await;
    assert_eq!(late.unwrap_err(), TokenFault::Expired(31));
}

#[tokio::test]
async fn claims_must_be_there_and_fit() {
    let issuer = issuer("");
    for (change, expect) in [
        (json!({ "aud": "other" }), TokenFault::Audience),
        (json!({ "aud": ["other", 3] }), TokenFault::Audience),
        (json!({ "aud": null }), TokenFault::Audience),
        (json!({ "iss": "https://b.test" }), TokenFault::Issuer("https://b.test".to_owned())),
        (json!({ "iss": 1 }), TokenFault::Claim("iss")),
        (json!({ "exp": NOW - 31 }), TokenFault::Expired(31)),
        (json!({ "exp": "soon" }), TokenFault::Claim("exp")),
        (json!({ "exp": null }), TokenFault::Claim("exp")),
        (json!({ "exp": -1 }), TokenFault::Claim("exp")),
        (json!({ "nbf": NOW + 31 }), TokenFault::Early(31)),
        (json!({ "nbf": true }), TokenFault::Claim("nbf")),
    ] {
        let mut all = claims();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(fault(&signed(&Header::default(), &all), &issuer).await, Some(expect), "{change}");
    }
    for change in [json!({ "aud": ["x", "web"] }), json!({ "exp": NOW - 29 }), json!({ "nbf": NOW as f64 + 29.5 })] {
        let mut all = claims();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(fault(&signed(&Header::default(), &all), &issuer).await, None, "{change}");
    }
}

#[tokio::test]
async fn what_a_token_says_of_itself_decides_nothing() {
    let issuer = issuer("");
    let payload = claims().to_string();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS255", "hs256"] {
        let token = raw(&format!("{{\"alg\":\"{alg}\"}}"), &payload);
        assert_eq!(fault(&token, &issuer).await, Some(TokenFault::Algorithm(alg.to_owned())));
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_eq!(fault(&unsigned, &issuer).await, Some(TokenFault::Algorithm(alg.to_owned())));
    }
    // A key that the token brings along, or points to, is not looked at.
    let brought =
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"},"jku":"http://evil.test/k","x5u":"http://evil.test/c"}"#;
    assert_eq!(fault(&raw(brought, &payload), &issuer).await, None);
    let mut other = raw(brought, &payload);
    other.truncate(other.rfind('.').unwrap() + 1);
    other += &BASE64_URL_SAFE_NO_PAD.encode([0; 32]);
    assert_eq!(fault(&other, &issuer).await, Some(TokenFault::Signature));
    for (header, expect) in [
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, TokenFault::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, TokenFault::Critical),
        (r#"{"alg":"HS256","alg":"none"}"#, TokenFault::Shape("its header is no JSON object that means one thing")),
        (r#"{"typ":"JWT"}"#, TokenFault::Shape("it names no algorithm")),
        (r#"{"alg":"HS256","kid":7}"#, TokenFault::Shape("its `kid` is no short text")),
        (r#"{"alg":"HS384"}"#, TokenFault::Key),
        (r#"{"alg":"RS256"}"#, TokenFault::Key),
    ] {
        assert_eq!(fault(&raw(header, &payload), &issuer).await, Some(expect), "{header}");
    }
    let doubled = payload.replace("\"sub\"", "\"sub\":\"admin\",\"sub\"");
    let expect = TokenFault::Shape("its payload is no JSON object that means one thing");
    assert_eq!(fault(&raw(r#"{"alg":"HS256"}"#, &doubled), &issuer).await, Some(expect));
}

#[tokio::test]
async fn a_token_has_one_form() {
    let issuer = issuer("token_max = \"1KiB\"\n");
    let good = signed(&Header::default(), &claims());
    assert_eq!(fault(&good, &issuer).await, None);
    let (message, signature) = good.rsplit_once('.').unwrap();
    // The last of 43 digits holds two bits that do not count.
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = digits.find(signature.chars().last().unwrap()).unwrap();
    let twin = digits.chars().nth(last ^ 1).unwrap();
    let malleable = format!("{message}.{}{twin}", &signature[..signature.len() - 1]);
    for token in [
        malleable,
        format!("{good}="),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}\n"),
        good.replace('.', ".."),
        message.to_owned(),
        String::new(),
        "a.b.c".to_owned(),
        format!("{}{good}", "x".repeat(1024)),
        good[..good.len() - 1].to_owned(),
    ] {
        assert!(fault(&token, &issuer).await.is_some(), "{token}");
    }
}

#[tokio::test]
async fn the_type_is_held_to_where_it_is_asked() {
    let issuer = issuer("type = \"at+jwt\"\n");
    let with = |typ: Option<&str>| signed(&Header { typ: typ.map(str::to_owned), ..Header::default() }, &claims());
    for (typ, good) in [(Some("at+jwt"), true), (Some("application/AT+JWT"), true), (Some("JWT"), false), (None, false)]
    {
        assert_eq!(fault(&with(typ), &issuer).await.is_none(), good, "{typ:?}");
    }
}

#[test]
fn mistakes_are_told() {
    for (text, expect) in [
        ("issuer = 'x'", "it is not said where its keys are"),
        ("issuer = 'x'\nsecret = 'short'", "can be guessed"),
        ("jwks = 'http://a/k'", "`issuer` is missing"),
        ("issuer = 'x'\njwks = 'nonsense'", "is not a URL"),
        ("issuer = 'x'\nkeys = 'nonsense'", "no keys"),
        ("issuer = 'x'\njwks = 'http://a/k'\nalgorithms = 'HS256'", "HS256 does not fit the keys"),
        ("issuer = 'x'\naudience='a'\njwks = 'http://a/k'\nca = 'nonsense'", "no certificate in PEM"),
        ("issuer = 'x'\njwks = 'http://a/k'", "for anybody are taken"),
    ] {
        let words: config::Issuer = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        Issuer::compile("a", &words, &Path::default(), &mut problems);
        assert!(problems.iter().any(|problem| problem.to_string().contains(expect)), "{text}: {problems:?}");
    }
}
