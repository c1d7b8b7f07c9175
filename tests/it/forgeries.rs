//! Tokens that nobody gave out: the kinds of attack that are published against JSON Web Signatures (RFC 8725 2).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::kit::Origin;
use crate::kit::tokens::{ISSUER, KeyServer, Signer, now};
use crate::tokens::{ask, guarded};

/// Every token here is refused, and the service sees nothing.
#[tokio::test]
async fn forged_tokens_are_refused() {
    let signer = Signer::new("k1", Algorithm::ES256);
    let rsa = Signer::new("r1", Algorithm::RS256);
    let server = KeyServer::start(&[&signer, &rsa]);
    let origin = Origin::text("in");
    let issuer = server.block("cooldown = \"50ms\"");
    let route = "[auth_failures]\nrate = \"100000/s\"\nburst = 100000\n";
    let gateway = guarded(&issuer, &origin, "", route).await;
    assert_eq!(ask(&gateway, &signer.token(json!({}))).await.status, 200);
    let seen = origin.count();

    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let claims = json!({ "iss": ISSUER, "aud": "api", "sub": "root", "exp": now() + 600 });
    let payload = claims.to_string();
    let good = signer.token(json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let mut forged: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| forged.push((what.to_owned(), token));

    for alg in ["none", "None", "NONE", "nOnE", "", " none", "none\u{0}", "HS256 "] {
        let head = json!({ "alg": alg, "typ": "JWT" }).to_string();
        add(&format!("alg {alg:?}"), format!("{}.{}.", text(head.as_bytes()), text(payload.as_bytes())));
        add(&format!("alg {alg:?}, signed"), signer.raw(&head, &payload));
    }
    // The public key as the secret of an HMAC, in every form in which it is published (CVE-2015-9235).
    for (form, secret) in [
        ("pem", rsa.public_pem.clone().into_bytes()),
        ("pem, trimmed", rsa.public_pem.trim().as_bytes().to_vec()),
        ("jwk", rsa.jwk.to_string().into_bytes()),
        ("n", rsa.jwk["n"].as_str().unwrap().as_bytes().to_vec()),
        ("ec pem", signer.public_pem.clone().into_bytes()),
        ("nothing", Vec::new()),
    ] {
        for (kid, algorithm) in [("r1", Algorithm::HS256), ("k1", Algorithm::HS384), ("r1", Algorithm::HS512)] {
            let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
            let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
            add(&format!("{algorithm:?} with {form}"), token);
        }
    }
    // Keys that the token brings along or points to.
    let mallory = Signer::new("k1", Algorithm::ES256);
    for (what, word, value) in [
        ("embedded jwk", "jwk", mallory.jwk.clone()),
        ("jku", "jku", json!(format!("{}/jwks", server.url()))),
        ("x5u", "x5u", json!("http://127.0.0.1:1/chain.pem")),
        ("x5c", "x5c", json!(["AAAA"])),
    ] {
        add(what, mallory.raw(&json!({ "alg": "ES256", "kid": "k1", word: value }).to_string(), &payload));
    }
    for kid in ["../../../../dev/null", "/etc/passwd", "k1' OR '1'='1", "k1\u{0}", "", "r1"] {
        add(&format!("kid {kid:?}"), mallory.raw(&json!({ "alg": "ES256", "kid": kid }).to_string(), &payload));
    }
    add("kid of another kind", signer.raw(&json!({ "alg": "ES256", "kid": 1 }).to_string(), &payload));
    add("kid without end", signer.raw(&json!({ "alg": "ES256", "kid": "k".repeat(5_000) }).to_string(), &payload));
    add("another's key", mallory.exactly(&claims));
    add("key of another algorithm", signer.raw(r#"{"alg":"RS256","kid":"r1"}"#, &payload));
    add("algorithm that nobody knows", signer.raw(r#"{"alg":"ES257","kid":"k1"}"#, &payload));
    add("crit", signer.raw(r#"{"alg":"ES256","kid":"k1","crit":["exp"],"exp":1}"#, &payload));
    add("crit of nothing", signer.raw(r#"{"alg":"ES256","kid":"k1","crit":[]}"#, &payload));
    add("unencoded payload", signer.raw(r#"{"alg":"ES256","kid":"k1","b64":false,"crit":["b64"]}"#, &payload));

    let signature = BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let with = |bytes: &[u8]| format!("{}.{}.{}", parts[0], parts[1], text(bytes));
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("no third part", format!("{}.{}", parts[0], parts[1]));
    add("a fourth part", format!("{good}.{}", parts[2]));
    add("truncated signature", with(&signature[..63]));
    add("longer signature", with(&[&signature[..], &[0]].concat()));
    add("signature of zeros (CVE-2022-21449)", with(&[0; 64]));
    add("signature as DER", with(&der(&signature)));
    add("another signature", with(&[&signature[..63], &[signature[63] ^ 1]].concat()));
    add("another payload", format!("{}.{}.{}", parts[0], text(payload.as_bytes()), parts[2]));
    add("padded", format!("{good}=="));
    add("padded parts", format!("{}=.{}==.{}==", parts[0], parts[1], parts[2]));
    // The last letter holds bits that mean nothing: with others set it is another text for the same bytes.
    let (front, last) = good.split_at(good.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.find(last).unwrap();
    add("other bits behind the end", format!("{front}{}", &alphabet[value ^ 1..=value ^ 1]));
    add("other alphabet", format!("{}.{}.+/{}", parts[0], parts[1], &parts[2][2..]));
    add("white space", format!("{}.{}. {}", parts[0], parts[1], parts[2]));

    let exp = now() + 600;
    add(
        "claims that stand twice",
        signer.raw(
            r#"{"alg":"ES256","kid":"k1"}"#,
            &format!(r#"{{"iss":"{ISSUER}","aud":"api","exp":{exp},"sub":"u1","sub":"root"}}"#),
        ),
    );
    add("a header that stands twice", signer.raw(r#"{"alg":"none","alg":"ES256","kid":"k1"}"#, &payload));
    add("payload that is no object", signer.raw(r#"{"alg":"ES256","kid":"k1"}"#, "[]"));
    add("text behind the payload", signer.raw(r#"{"alg":"ES256","kid":"k1"}"#, &format!("{payload}{{}}")));
    add("header that is no JSON", signer.raw("alg=ES256", &payload));
    let deep = format!(r#"{{"iss":"{ISSUER}","aud":"api","exp":{exp},"x":{}{}}}"#, "[".repeat(900), "]".repeat(900));
    add("deep", signer.raw(r#"{"alg":"ES256","kid":"k1"}"#, &deep));
    add("huge", signer.token(json!({ "x": "x".repeat(9_000) })));
    for (what, change) in [
        ("ended", json!({ "exp": now() - 60 })),
        ("no end", json!({ "exp": null })),
        ("end as text", json!({ "exp": "2999-01-01" })),
        ("endless", json!({ "exp": 1e300 })),
        ("negative end", json!({ "exp": -1 })),
        ("begins later", json!({ "nbf": now() + 600 })),
        ("for others", json!({ "aud": ["other"] })),
        ("for nobody", json!({ "aud": null })),
        ("of another issuer", json!({ "iss": "https://evil.test" })),
        ("of an issuer that is a list", json!({ "iss": [ISSUER] })),
    ] {
        add(what, signer.token(change));
    }
    for (what, token) in &forged {
        let reply = ask(&gateway, token).await;
        // What is no legal header value is refused before.
        assert!(matches!(reply.status.as_u16(), 400 | 401 | 431), "{what}: {reply:?}");
        assert!(reply.status == 400 || reply.status == 431 || reply.code() == "auth_invalid", "{what}: {reply:?}");
    }
    assert!(forged.len() > 60, "{}", forged.len());
    assert_eq!(origin.count(), seen, "the service saw a forged token");
    assert_eq!(ask(&gateway, &good).await.status, 200);
}

/// A signature as DER (RFC 3279 2.2.3), which JWS does not take (RFC 7518 3.4).
fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut body = if bytes[0] & 0x80 == 0 { Vec::new() } else { vec![0] };
        body.extend(bytes);
        [&[2, body.len() as u8][..], &body].concat()
    };
    let (r, s) = signature.split_at(32);
    let body = [integer(r), integer(s)].concat();
    [&[0x30, body.len() as u8][..], &body].concat()
}
