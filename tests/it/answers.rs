//! What is done to answers: compression, pages in the place of errors, presets, caching, timing, ids.

use std::io::Read;

use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::kit::origin::Wire;
use crate::kit::{Gateway, Origin, Port, Reply, Settings, channel, empty, full, routes};

const TEXT: &str = "All happy families are alike; each unhappy family is unhappy in its own way. ";

async fn fetch(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(format!("http://app.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.h1().await.fetch(request.body(empty()).unwrap()).await
}

fn decoded(reply: &Reply) -> String {
    let mut text = String::new();
    let bytes = &reply.body[..];
    match reply.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap(),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_string(&mut text).unwrap(),
        "" => return reply.text().to_owned(),
        other => panic!("{other}"),
    };
    text
}

fn vary(headers: &HeaderMap) -> String {
    headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(",")
}

/// Answers by path: `/text`, `/chunked`, `/small`, `/done`, `/png`.
fn library(wire: Wire) -> Origin {
    Origin::replying_at(Port::free(), wire, |seen| {
        let answer = Response::builder().header("etag", "\"a\"").header("content-type", "text/plain; charset=utf-8");
        let text = TEXT.repeat(200);
        match seen.uri.path() {
            "/chunked" => {
                let (sender, body) = channel();
                tokio::spawn(async move {
                    for piece in text.as_bytes().chunks(3_000) {
                        sender.data(piece.to_vec()).await;
                    }
                });
                answer.body(body).unwrap()
            }
            "/small" => answer.body(full("small")).unwrap(),
            "/done" => answer.header("content-encoding", "gzip").body(full(text)).unwrap(),
            "/png" => Response::builder().header("content-type", "image/png").body(full(text)).unwrap(),
            _ => answer.body(full(text)).unwrap(),
        }
    })
}

#[tokio::test]
async fn answers_are_compressed_as_clients_take_them() {
    let whole = TEXT.repeat(200);
    for (wire, protocol) in [(Wire::H1, "h1"), (Wire::H2, "h2")] {
        let origin = library(wire);
        let document = routes::with(origin.address(), &format!("protocol = \"{protocol}\""), "compression = {}");
        let gateway = Gateway::start(&document).await;
        for (accept, coding) in
            [("gzip", "gzip"), ("br;q=1, gzip;q=0.5", "br"), ("gzip, br, zstd", "zstd"), ("identity", "")]
        {
            for path in ["/text", "/chunked"] {
                let reply = fetch(&gateway, Method::GET, path, &[("accept-encoding", accept)]).await;
                assert_eq!(reply.header("content-encoding"), coding, "{protocol} {path} {accept}");
                assert_eq!(decoded(&reply), whole, "{protocol} {path} {accept}");
                assert_eq!(vary(&reply.headers), "accept-encoding");
                let etag = if coding.is_empty() { "\"a\"" } else { "W/\"a\"" };
                assert_eq!(reply.header("etag"), etag);
                assert!(coding.is_empty() || reply.body.len() * 4 < whole.len(), "{} bytes", reply.body.len());
            }
        }
        // Over HTTP/2 to the client.
        let request = Request::get("http://app.test/chunked").header("accept-encoding", "gzip").body(empty()).unwrap();
        let reply = gateway.h2c().await.fetch(request).await;
        assert_eq!((reply.header("content-encoding"), decoded(&reply)), ("gzip", whole.clone()), "{protocol}");
        for (path, more) in [
            ("/small", None),
            ("/png", None),
            ("/text", Some(("cookie", "a=1"))),
            ("/text", Some(("authorization", "x"))),
        ] {
            let mut headers = vec![("accept-encoding", "gzip")];
            headers.extend(more);
            let reply = fetch(&gateway, Method::GET, path, &headers).await;
            assert_eq!(reply.header("content-encoding"), "", "{path} {more:?}");
        }
        let twice = fetch(&gateway, Method::GET, "/done", &[("accept-encoding", "zstd")]).await;
        assert_eq!((twice.header("content-encoding"), twice.text()), ("gzip", whole.as_str()), "never twice");
        let head = fetch(&gateway, Method::HEAD, "/text", &[("accept-encoding", "gzip")]).await;
        assert_eq!((head.header("content-encoding"), head.header("content-length")), ("gzip", ""));
        let line = gateway.access_line(|line| line["path"] == "/chunked" && line["protocol"] == "HTTP/2").await;
        assert!(line["bytes_out"].as_u64().unwrap() * 4 < whole.len() as u64, "{line}");
    }
}

#[tokio::test]
async fn streams_are_compressed_piece_by_piece() {
    let (senders, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::scripted(move |_| {
        let (sender, body) = channel();
        senders.send(sender).unwrap();
        async move { Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap()) }
    });
    let gateway =
        Gateway::start(&routes::with(origin.address(), "", "compression = { types = \"text/event-stream\" }")).await;
    let request = Request::get("http://app.test/").header("accept-encoding", "gzip").body(empty()).unwrap();
    let mut client = gateway.h1().await;
    let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
    let sender = arrived.recv().await.unwrap();
    sender.data("data: one\n\n").await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut body = answer.into_body();
    let mut seen = Vec::new();
    for event in ["data: one\n\n", "data: two\n\n"] {
        if event.contains("two") {
            sender.data(event).await;
        }
        // Every event can be read before the next one is sent.
        loop {
            let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
            seen.extend_from_slice(&frame.into_data().unwrap());
            let mut text = vec![0; 1_000];
            let mut decoder = flate2::Decompress::new_gzip(15);
            decoder.decompress(&seen, &mut text, flate2::FlushDecompress::Sync).unwrap();
            text.truncate(decoder.total_out() as usize);
            if String::from_utf8(text).unwrap().ends_with(event) {
                break;
            }
        }
    }
}

const BROWSER: [(&str, &str); 1] = [("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];

#[tokio::test]
async fn errors_have_pages() {
    let origin = Origin::replying(|seen| {
        let status: u16 = seen.uri.path()[1..].parse().unwrap();
        Response::builder()
            .status(status)
            .header("etag", "\"x\"")
            .header("x-own", "1")
            .body(full("the upstream's own"))
            .unwrap()
    });
    let pages = r#"error_pages = [
        { status = "404", html = "<style>p{color:red}</style><p>{error.code} {request.path} {error.status}", json = '{"oops":"{error.title}"}' },
        { status = "5xx", html = "<p>sorry", upstream = true },
    ]"#;
    let document =
        format!("[defaults]\n{pages}\n{}match = {{ host = \"app.test\" }}\n", routes::all_to(origin.address()));
    let gateway = Gateway::start(&document).await;
    let elsewhere = async |headers: &[(&str, &str)]| {
        let mut request = Request::get("http://other.test/%3Cb%3E");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        gateway.h1().await.fetch(request.body(empty()).unwrap()).await
    };
    let page = elsewhere(&BROWSER).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert_eq!(page.text(), "<style>p{color:red}</style><p>no_route /%3Cb%3E 404");
    let data = elsewhere(&[]).await;
    assert_eq!(
        (data.header("content-type"), data.text()),
        ("application/json", r#"{"oops":"Nothing is served here."}"#)
    );

    // An upstream's own answer stays, unless the page says otherwise.
    let own = fetch(&gateway, Method::GET, "/404", &BROWSER).await;
    assert_eq!((own.status.as_u16(), own.text(), own.header("etag")), (404, "the upstream's own", "\"x\""));
    for _ in 0..2 {
        let replaced = fetch(&gateway, Method::GET, "/503", &BROWSER).await;
        assert_eq!((replaced.status.as_u16(), replaced.text(), replaced.header("etag")), (503, "<p>sorry", ""));
        assert_eq!((replaced.header("x-own"), replaced.header("content-type")), ("1", "text/html; charset=utf-8"));
    }
    assert_eq!(origin.connections(), 1, "the connection to the upstream stays");
    assert_eq!(fetch(&gateway, Method::HEAD, "/503", &BROWSER).await.status, 503);
    assert_eq!(fetch(&gateway, Method::GET, "/200", &BROWSER).await.text(), "the upstream's own");
    // Over HTTP/2.
    let request = Request::get("http://app.test/503").header("accept", "text/html").body(empty()).unwrap();
    assert_eq!(gateway.h2c().await.fetch(request).await.text(), "<p>sorry");
}

#[tokio::test]
async fn browsers_get_a_page_where_nobody_wrote_one() {
    let gateway = Gateway::start(&format!("{}match = {{ host = \"other.test\" }}\n", routes::answering("ok"))).await;
    let page = fetch(&gateway, Method::GET, "/", &BROWSER).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (404, "text/html; charset=utf-8"));
    assert!(page.text().contains("no_route") && page.text().contains(page.header("x-request-id")), "{}", page.text());
    fetch(&gateway, Method::GET, "/", &[("accept", "*/*")]).await.is_rejected(404, "no_route");
}

#[tokio::test]
async fn presets_caching_and_timing_stand_on_every_answer() {
    let origin = Origin::replying(|seen| {
        let answer = Response::builder().header("server", "secret/1.0").header("x-powered-by", "magic");
        match seen.uri.path() {
            "/own" => answer.header("x-frame-options", "ALLOWALL").header("cache-control", "private").body(full("a")),
            "/image" => answer.header("content-type", "image/png").body(full("a")),
            "/error" => answer.status(StatusCode::INTERNAL_SERVER_ERROR).body(full("a")),
            _ => answer.body(full("a")),
        }
        .unwrap()
    });
    let words = "security_headers = \"strict\"\nserver_timing = true\ncache_control = [\n\
                 { value = \"max-age=1\", types = \"image/*\", replace = true }, { value = \"no-store\" }]\n";
    let gateway = Gateway::start(&routes::with(origin.address(), "", words)).await;
    let plain = fetch(&gateway, Method::GET, "/", &[]).await;
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("server", ""),
        ("x-powered-by", ""),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(plain.header(name), value, "{name}");
    }
    assert!(plain.header("content-security-policy").contains("frame-ancestors 'none'"));
    let timing = plain.header("server-timing");
    assert!(timing.starts_with("gateway;dur=") && timing.contains(", upstream;dur="), "{timing}");
    let own = fetch(&gateway, Method::GET, "/own", &[]).await;
    assert_eq!((own.header("x-frame-options"), own.header("cache-control")), ("ALLOWALL", "private"));
    assert_eq!(fetch(&gateway, Method::GET, "/image", &[]).await.header("cache-control"), "max-age=1");
    assert_eq!(fetch(&gateway, Method::GET, "/error", &[]).await.header("cache-control"), "");
}

#[tokio::test]
async fn ids_of_trusted_peers_are_kept() {
    let origin = Origin::text("ok");
    let trusting = |settings: &mut Settings| {
        settings.set("trust.forwarded_from", vec!["127.0.0.1"]);
    };
    let gateway = Gateway::with(&routes::all_to(origin.address()), trusting).await;
    let reply = fetch(&gateway, Method::GET, "/", &[("x-request-id", "edge-7_a.b")]).await;
    assert_eq!(
        (reply.header("x-request-id"), origin.last().header("x-request-id").as_str()),
        ("edge-7_a.b", "edge-7_a.b")
    );
    gateway.access_line(|line| line["request_id"] == "edge-7_a.b").await;
    let long = "x".repeat(65);
    for bad in ["a b", "<script>", long.as_str()] {
        let reply = fetch(&gateway, Method::GET, "/", &[("x-request-id", bad)]).await;
        assert_eq!(reply.header("x-request-id").len(), 32, "{bad}");
    }
    let gateway = Gateway::start(&routes::all_to(origin.address())).await;
    let reply = fetch(&gateway, Method::GET, "/", &[("x-request-id", "edge-7")]).await;
    assert_ne!(reply.header("x-request-id"), "edge-7");
}

/// Chunks are HTTP/1.1's, whatever the upstream speaks.
#[tokio::test]
async fn answers_of_old_upstreams_are_framed_anew() {
    let text = TEXT.repeat(100);
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let origin = crate::kit::RawOrigin::answering(answer.leak());
    let gateway = Gateway::start(&routes::with(origin.address(), "", "compression = {}")).await;
    let mut client = crate::kit::Raw::connect(gateway.http()).await;
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let compressed = client.answer().await;
    assert!(compressed.head.starts_with("HTTP/1.1 200"), "{}", compressed.head);
    let mut decoded = String::new();
    flate2::read::GzDecoder::new(&compressed.body[..]).read_to_string(&mut decoded).unwrap();
    assert_eq!(decoded, text);
    // A client that knows no chunks gets it as it is.
    let mut old = crate::kit::Raw::connect(gateway.http()).await;
    old.send("GET / HTTP/1.0\r\nHost: app.test\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let plain = old.answer().await;
    assert_eq!((plain.field("content-encoding"), plain.body.len()), (None, text.len()), "{}", plain.head);
}
