//! Tokens and other credentials in headers: nothing that nobody has signed passes, whatever it is.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, header};
use tollgate::config::{References, read};
use tollgate::facts::{Head, Scheme};
use tollgate::policy::Tried;
use tollgate::routes::{self, Env, Listener, Table};
use tollgate::settings::Dns;
use tollgate::tasks::Tasks;
use tollgate::upstream::Pools;

const DOCUMENT: &str = r#"
format = 1
[issuer.a]
issuer = "https://a.test"
audience = "api"
secret = "thirty-two bytes that the fuzzer does not know"
[issuer.b]
issuer = "https://b.test"
audience = "api"
keys = '{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}'
[api_keys.k]
basic = true
header = "x-api-key"
keys = [{ name = "one", sha256 = "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35", expires = "1970-01-02T00:00:00Z" }]
[[route]]
name = "all"
auth = { any = [{ jwt = ["a", "b"], token = [{ header = "authorization" }, { cookie = "t" }, { query = "t" }] }, { api_key = "k" }] }
respond = {}
"#;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let (document, problems) = read::document(DOCUMENT, &References::symbolic());
    let document = document.unwrap_or_else(|| panic!("{problems:#?}"));
    let env = Env { listeners: vec![Listener::new("public", true)], ..Env::default() };
    let pools = Pools::new(&Dns::default(), Tasks::default()).expect("pools");
    let (table, problems) = routes::compile(&document, &env, &pools);
    table.unwrap_or_else(|| panic!("{problems:#?}"))
});

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str)| {
    let (authorization, cookie, query) = input;
    let mut headers = HeaderMap::new();
    for (name, text) in [(header::AUTHORIZATION, authorization), (header::COOKIE, cookie)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    let head = Head {
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "a.test",
        path: "/",
        query: Some(query),
        headers: &headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: "public",
        sni: None,
        client_certificate: None,
        request_id: "",
    };
    let access = TABLE.routes[0].access.as_ref().expect("a route with auth");
    for proof in &access.proofs {
        let tried = proof.attempt(&head, &access.proving, false).now_or_never().expect("keys that are there");
        assert!(!matches!(tried, Tried::Good(..)), "{tried:?}");
    }
});
