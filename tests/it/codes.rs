//! Every rejection code is reached, and tells the same in the answer, the access log and the metrics; one `finish`
//! writes the headers of every answer.

use http::{Request, Response};
use tollgate::rejection::Code;

use crate::kit::dns::Dns;
use crate::kit::raw::Message;
use crate::kit::{Gateway, Origin, Port, Raw, RawOrigin, Settings, empty, full, routes, tls};

const DEFAULTS: &str = "[defaults]\nresponse_headers = { set = { x-finished = \"yes\" } }\n";

/// A gateway on which something goes wrong, and the answer to it.
struct Reached {
    gateway: Gateway,
    answer: Message,
}

async fn start(document: String, change: impl FnOnce(&mut Settings)) -> Gateway {
    Gateway::with(&format!("{DEFAULTS}{document}"), change).await
}

/// Starts a gateway with this document and sends these bytes to it.
async fn ask(document: String, change: impl FnOnce(&mut Settings), bytes: impl AsRef<[u8]>) -> Reached {
    let gateway = start(document, change).await;
    let mut client = Raw::connect(gateway.http()).await;
    client.send(bytes).await;
    let answer = client.answer().await;
    Reached { gateway, answer }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
/// The rest of a route that wants an API key: `k1`.
const KEYS: &str = "auth = { any = [{ api_key = \"partners\" }] }\n[api_keys.partners]\nkeys = [{ name = \"one\", sha256 = \"6ab9f1eb8f7d3388f4f9d586f66e99fd54080df2c446f0e58668b09c08a16dd0\" }]\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\nbody";

/// An origin that never answers, and a gateway with one request waiting for it.
async fn occupied(upstream: &str) -> Reached {
    let silent = RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    let gateway = start(routes::with(silent.address(), upstream, ""), |_| {}).await;
    let mut first = Raw::connect(gateway.http()).await;
    first.send(GET).await;
    eventually!(silent.connections() == 1);
    let mut client = Raw::connect(gateway.http()).await;
    client.send(GET).await;
    let answer = client.answer().await;
    Reached { gateway, answer }
}

/// How each code comes about. `None`: only a defect of ours leads to it.
async fn reach(code: Code) -> Option<Reached> {
    let fixed = || routes::answering("ok");
    let silent = || RawOrigin::start(|mut connection, _| async move { while connection.message().await.is_some() {} });
    Some(match code {
        Code::BadRequest => ask(fixed(), |_| {}, "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n").await,
        Code::NoRoute => ask(format!("{}match = {{ host = \"other.test\" }}\n", fixed()), |_| {}, GET).await,
        Code::MethodNotAllowed => ask(format!("{}match = {{ method = \"GET\" }}\n", fixed()), |_| {}, POST).await,
        Code::HeadTimeout => {
            let short = |settings: &mut Settings| {
                settings.set("limits.head_timeout", "200ms");
            };
            ask(fixed(), short, "GET / HTTP/1.1\r\nHost:").await
        }
        Code::BodyTimeout => {
            let origin = Origin::echo();
            let short = |settings: &mut Settings| {
                settings.set("limits.body_idle", "200ms");
            };
            ask(routes::all_to(origin.address()), short, POST.trim_end_matches("dy")).await
        }
        Code::BodyTooLarge => {
            let origin = Origin::echo();
            ask(routes::with(origin.address(), "", "body = { max = \"3B\" }"), |_| {}, POST).await
        }
        Code::UriTooLong => {
            ask(fixed(), |_| {}, format!("GET /{} HTTP/1.1\r\nHost: app.test\r\n\r\n", "x".repeat(10_000))).await
        }
        Code::HeadTooLarge => {
            ask(fixed(), |_| {}, format!("GET / HTTP/1.1\r\nHost: app.test\r\nX: {}\r\n\r\n", "x".repeat(40_000))).await
        }
        Code::Misdirected => {
            let gateway = start(fixed(), |_| {}).await;
            let tcp = tokio::net::TcpStream::connect(gateway.address("https")).await.unwrap();
            let mut client = Raw::over(tls::connect(tcp, "app.test", gateway.authority.client(&[])).await.unwrap());
            client.send(GET.replace("app.test", "elsewhere.test")).await;
            let answer = client.answer().await;
            Reached { gateway, answer }
        }
        Code::AddressDenied => ask(format!("{}addresses = {{ deny = \"127.0.0.0/8\" }}\n", fixed()), |_| {}, GET).await,
        Code::AuthRequired => ask(format!("{}{KEYS}", fixed()), |_| {}, GET).await,
        Code::AuthInvalid => {
            ask(format!("{}{KEYS}", fixed()), |_| {}, GET.replace("\r\n\r\n", "\r\nX-Api-Key: bad\r\n\r\n")).await
        }
        Code::AuthForbidden => {
            let auth = KEYS.replace("] }\n[", "], require = { claim = \"none\" } }\n[");
            ask(format!("{}{auth}", fixed()), |_| {}, GET.replace("\r\n\r\n", "\r\nX-Api-Key: k1\r\n\r\n")).await
        }
        Code::AuthUnavailable => {
            let nobody = Port::free().address();
            let document = format!(
                "{}auth = {{ any = [{{ forward = \"a\" }}] }}\n[forward_auth.a]\nupstream = \"a\"\n[upstream.a]\naddress = \"{nobody}\"\n",
                fixed()
            );
            ask(document, |_| {}, GET).await
        }
        Code::Limit => {
            let document = format!(
                "{}limits = \"none\"\n[limit.none]\nrate = \"1/h\"\nkey = \"header.x\"\nmissing = \"deny\"\n",
                fixed()
            );
            ask(document, |_| {}, GET).await
        }
        Code::Overload => {
            let full = |settings: &mut Settings| {
                settings.set("overload.memory", "1MiB");
            };
            let gateway = start(fixed(), full).await;
            eventually!(gateway.metric("tollgate_overload_level").await == 2.0);
            let mut client = Raw::connect(gateway.http()).await;
            client.send(GET).await;
            let answer = client.answer().await;
            Reached { gateway, answer }
        }
        Code::UpstreamConnect => ask(routes::all_to(Port::free().address()), |_| {}, GET).await,
        Code::UpstreamTls => {
            let plain = Origin::text("plain");
            let words = "tls = { server_name = \"origin.test\", verify = false }";
            ask(routes::with(plain.address(), words, ""), |_| {}, GET).await
        }
        Code::UpstreamReset => {
            let origin = RawOrigin::start(|mut connection, _| async move {
                connection.message().await;
            });
            ask(routes::all_to(origin.address()), |_| {}, POST).await
        }
        Code::UpstreamProtocol => {
            let origin = RawOrigin::answering("NONSENSE\r\n\r\n");
            ask(routes::all_to(origin.address()), |_| {}, POST).await
        }
        Code::NoEndpoint => {
            let dns = Dns::start().await;
            let document = "[upstream.o]\naddress = \"nowhere.test:80\"\n[[route]]\nname = \"all\"\nupstream = \"o\"\n";
            let asking = |settings: &mut Settings| {
                settings.set("dns.servers", dns.address());
            };
            ask(document.to_owned(), asking, GET).await
        }
        Code::BreakerOpen => occupied("breaker = { in_flight = 1 }").await,
        Code::ConnectionLimit => occupied("connections = { max = 1 }").await,
        Code::UpstreamTimeout => {
            ask(routes::with(silent().address(), "", "timeout = { head = \"200ms\" }"), |_| {}, POST).await
        }
        Code::RequestTimeout => {
            let origin = silent();
            ask(routes::with(origin.address(), "", "timeout = { request = \"200ms\" }"), |_| {}, POST).await
        }
        Code::Loop => {
            let gateway = start(fixed(), |_| {}).await;
            gateway.change(&format!("{DEFAULTS}{}", routes::all_to(gateway.http()))).await;
            let mut client = Raw::connect(gateway.http()).await;
            client.send(GET).await;
            let answer = client.answer().await;
            Reached { gateway, answer }
        }
        Code::Internal => return None,
    })
}

async fn is_told_everywhere(code: Code) {
    let Some(Reached { gateway, answer }) = reach(code).await else { return };
    let shown = (answer.status(), answer.code());
    assert_eq!(shown, (code.status().as_u16(), code.as_str().to_owned()), "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    assert_eq!(answer.field("x-finished"), Some("yes"), "`finish` did not see {code:?}: {answer:?}");
    if let Some(kind) = code.proxy_status() {
        let told = answer.field("proxy-status").unwrap_or_default();
        assert!(told.contains(kind), "{code:?}: {told:?}");
    }
    assert!(!answer.text().contains("127.0.0.1"), "an internal address: {answer:?}");
    let line = gateway.access_line(|line| line["code"] == code.as_str()).await;
    assert_eq!(line["status"], code.status().as_u16(), "{line}");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(line["request_id"], problem["request_id"], "{line}");
    let series = format!("tollgate_rejections_total{{code=\"{}\"}}", code.as_str());
    eventually!(gateway.metric(&series).await >= 1.0);
}

macro_rules! each_code {
    ($($name:ident: $code:ident,)+) => {
        $(#[tokio::test] async fn $name() { is_told_everywhere(Code::$code).await })+
        /// One test per code; the match of `reach` makes a new one fail to compile.
        #[test]
        fn none_is_forgotten() {
            let tested = [$(Code::$code),+];
            let missing: Vec<_> = Code::ALL.iter().filter(|code| !tested.contains(code)).collect();
            assert_eq!(missing, [&Code::Internal]);
        }
    };
}

each_code! {
    bad_request: BadRequest,
    no_route: NoRoute,
    method_not_allowed: MethodNotAllowed,
    head_timeout: HeadTimeout,
    body_timeout: BodyTimeout,
    body_too_large: BodyTooLarge,
    uri_too_long: UriTooLong,
    misdirected: Misdirected,
    address_denied: AddressDenied,
    auth_required: AuthRequired,
    auth_invalid: AuthInvalid,
    auth_forbidden: AuthForbidden,
    auth_unavailable: AuthUnavailable,
    limit: Limit,
    overload: Overload,
    head_too_large: HeadTooLarge,
    upstream_connect: UpstreamConnect,
    upstream_tls: UpstreamTls,
    upstream_reset: UpstreamReset,
    upstream_protocol: UpstreamProtocol,
    no_endpoint: NoEndpoint,
    breaker_open: BreakerOpen,
    connection_limit: ConnectionLimit,
    upstream_timeout: UpstreamTimeout,
    request_timeout: RequestTimeout,
    looping: Loop,
}

#[tokio::test]
async fn every_destination_is_finished() {
    let origin = Origin::replying(|_| Response::builder().header("x-finished", "no").body(full("ok")).unwrap());
    let document = format!(
        r#"{DEFAULTS}
        [upstream.o]
        address = "{}"
        [[route]]
        name = "upstream"
        match = {{ path = "/upstream" }}
        upstream = "o"
        [[route]]
        name = "split"
        match = {{ path = "/split" }}
        split = [{{ upstream = "o", weight = 1 }}]
        [[route]]
        name = "redirect"
        match = {{ path = "/redirect" }}
        redirect = {{ to = "/x" }}
        [[route]]
        name = "respond"
        match = {{ path = "/respond" }}
        respond = {{ body = "x" }}
        [[route]]
        name = "own"
        match = {{ path = "/own" }}
        respond = {{ body = "x" }}
        response_headers = {{ set = {{ x-other = "own" }} }}
        "#,
        origin.address()
    );
    let gateway = Gateway::start(&document).await;
    for mut client in [gateway.h1().await, gateway.h2c().await, gateway.tls("app.test", &["h2"]).await] {
        for (path, finished) in [
            ("/upstream", "yes"),
            ("/split", "yes"),
            ("/redirect", "yes"),
            ("/respond", "yes"),
            ("/nowhere", "yes"),
            // A route's own block replaces the default block whole.
            ("/own", ""),
        ] {
            let reply = client.fetch(Request::get(format!("http://app.test{path}")).body(empty()).unwrap()).await;
            assert_eq!(reply.header("x-finished"), finished, "{path}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_told_in_whole_seconds() {
    let Reached { answer, .. } = occupied("breaker = { in_flight = 1 }").await;
    let seconds: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}
