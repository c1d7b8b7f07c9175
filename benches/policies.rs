//! What policies cost by themselves: tokens beside the bare check of their signature, limits with a million keys.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _, RsaKeySize};
use serde_json::json;
use tollgate::facts::{Fact, Facts, Head, Scheme};
use tollgate::policy::Tried;
use tollgate::policy::limits::Said;
use tollgate::routes::{self as gateway_routes, Table};

#[path = "routes/mod.rs"]
#[allow(dead_code)] // each bench uses its part
mod routes;

const SECRET: &str = "thirty-two bytes that nobody else knows";
const KEYS: u32 = 1_000_000;

struct Signer {
    algorithm: Algorithm,
    signs: EncodingKey,
    verifies: DecodingKey,
    /// The words of the issuer's keys.
    words: String,
}

fn signer(algorithm: Algorithm) -> Signer {
    let kind = match algorithm {
        Algorithm::ES256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Algorithm::EdDSA => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        Algorithm::RS256 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        _ => {
            let (signs, verifies) =
                (EncodingKey::from_secret(SECRET.as_bytes()), DecodingKey::from_secret(SECRET.as_bytes()));
            return Signer { algorithm, signs, verifies, words: format!("secret = {SECRET:?}") };
        }
    };
    let pair = kind.expect("a key");
    let (private, public) = (pair.serialize_pem(), pair.public_key_pem());
    let (signs, verifies) = match algorithm {
        Algorithm::ES256 => (EncodingKey::from_ec_pem(private.as_bytes()), DecodingKey::from_ec_pem(public.as_bytes())),
        Algorithm::EdDSA => (EncodingKey::from_ed_pem(private.as_bytes()), DecodingKey::from_ed_pem(public.as_bytes())),
        _ => (EncodingKey::from_rsa_pem(private.as_bytes()), DecodingKey::from_rsa_pem(public.as_bytes())),
    };
    assert!(!pair.der_bytes().is_empty());
    Signer {
        algorithm,
        signs: signs.expect("a key"),
        verifies: verifies.expect("a key"),
        words: format!("keys = {public:?}"),
    }
}

impl Signer {
    fn token(&self) -> String {
        let claims = json!({
            "iss": "https://bench.test", "aud": "bench", "sub": "u1", "scope": "read write", "exp": 4_000_000_000_u64,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes()),
        });
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, &self.signs).expect("a token")
    }

    fn table(&self) -> Table {
        let text = format!(
            "format = 1\n[issuer.bench]\nissuer = \"https://bench.test\"\naudience = \"bench\"\n{}\n\
             [[route]]\nname = \"all\"\nauth = {{ any = [{{ jwt = \"bench\" }}] }}\nrespond = {{}}\n",
            self.words
        );
        table(&text)
    }
}

fn table(text: &str) -> Table {
    let (table, problems) = gateway_routes::compile(&routes::document(text), &routes::env(), &routes::pools());
    table.unwrap_or_else(|| panic!("{problems:#?}"))
}

fn attempt(table: &Table, headers: &HeaderMap) {
    let head = Head {
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "bench.test",
        path: "/",
        query: None,
        headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: "public",
        sni: None,
        client_certificate: None,
        request_id: "",
    };
    let access = table.routes[0].access.as_ref().expect("a route with auth");
    let tried = access.proofs[0].attempt(&head, &access.proving, false).now_or_never().expect("keys that are there");
    assert!(matches!(black_box(tried), Tried::Good(..)));
}

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a value");
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

fn tokens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token");
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA, Algorithm::HS256] {
        let signer = signer(algorithm);
        let table = signer.table();
        let name = format!("{algorithm:?}");
        group.bench_function(BenchmarkId::new("signature", &name), |bencher| {
            let setup = || signer.token();
            bencher.iter_batched(
                setup,
                |token| {
                    let (message, signature) = token.rsplit_once('.').expect("three parts");
                    let verified =
                        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &signer.verifies, algorithm);
                    assert!(verified.expect("a verdict"));
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("cold", &name), |bencher| {
            bencher.iter_batched(
                || bearer(&signer.token()),
                |headers| attempt(&table, &headers),
                BatchSize::SmallInput,
            );
        });
        let headers = bearer(&signer.token());
        group.bench_function(BenchmarkId::new("warm", &name), |bencher| {
            bencher.iter(|| attempt(&table, black_box(&headers)));
        });
    }
    group.finish();
}

struct Nothing;
impl Facts for Nothing {
    fn fact(&self, _: &Fact) -> Option<Cow<'_, str>> {
        None
    }
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

fn limits(criterion: &mut Criterion) {
    let table = table(
        "format = 1\n[limit.each]\nrate = \"1000000/s\"\nkeys = 2000000\n\
         [[route]]\nname = \"all\"\nlimits = \"each\"\nrespond = {}\n",
    );
    let limit = &table.limits[0];
    let headers = HeaderMap::new();
    let check = |number: u32| {
        let client = IpAddr::V4(Ipv4Addr::from_bits(number));
        black_box(limit.check(client, &Method::GET, &headers, &Nothing))
    };
    let before = resident();
    for number in 0..KEYS {
        assert!(matches!(check(number), Said::Allowed(..)));
    }
    let keys = limit.reading().keys;
    println!("a limit with {keys} keys: {:.1} bytes of memory each", (resident() - before) as f64 / keys as f64);
    let mut group = criterion.benchmark_group("limit");
    let mut random = fastrand::Rng::with_seed(7);
    group.bench_function("a million keys", |bencher| bencher.iter(|| check(random.u32(..KEYS))));
    group.bench_function("one key", |bencher| bencher.iter(|| check(1)));
    // Two threads beside each other: without a lock over all keys each is as fast as alone.
    group.bench_function("a million keys, beside another thread", |bencher| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(8);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    check(random.u32(..KEYS));
                }
            });
            bencher.iter(|| check(random.u32(..KEYS)));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
    group.finish();
}

// Limits first: their memory is told by what the process has.
criterion_group!(benches, limits, tokens);
criterion_main!(benches);
