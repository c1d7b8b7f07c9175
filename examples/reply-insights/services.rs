//! The services of reply insights, as small as they can be: one gives out tokens, one says who it is and what reached it,
//! one counts over gRPC and lets only the gateway in.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const ISSUER: &str = "https://accounts.reply-insights.test";
/// What Analytics/Count answers: field 1, a varint: 42.
const COUNTED: [u8; 2] = [0x08, 42];

/// The key that tokens are signed with.
struct Accounts {
    signs: EncodingKey,
    jwks: Value,
}

impl Accounts {
    fn new() -> io::Result<Accounts> {
        let pair = KeyPair::generate().map_err(io::Error::other)?;
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        // An uncompressed point: 4, x, y.
        let (x, y) = pair.der_bytes().get(1..).unwrap_or_default().split_at(32);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": text(x), "y": text(y) });
        let signs = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).map_err(io::Error::other)?;
        Ok(Accounts { signs, jwks: json!({ "keys": [jwk] }) })
    }

    /// `{"user": "alice", "plan": "pro"}` becomes a token. Whoever asks is believed: it is an example.
    fn token(&self, asked: &Value) -> Result<Json<Value>, StatusCode> {
        let user = asked.get("user").and_then(Value::as_str).ok_or(StatusCode::BAD_REQUEST)?;
        let plan = asked.get("plan").and_then(Value::as_str).unwrap_or("free");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims =
            json!({ "iss": ISSUER, "aud": "insights", "sub": user, "plan": plan, "iat": now, "exp": now + 3600 });
        let header = Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.signs);
        Ok(Json(json!({ "token": token.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)? })))
    }
}

/// Gives out tokens and publishes its keys.
pub(crate) async fn auth(listener: TcpListener) -> io::Result<()> {
    let accounts = Arc::new(Accounts::new()?);
    let app = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/jwks", get(|State(accounts): State<Arc<Accounts>>| async move { Json(accounts.jwks.clone()) }))
        .route(
            "/token",
            post(
                |State(accounts): State<Arc<Accounts>>, Json(asked): Json<Value>| async move { accounts.token(&asked) },
            ),
        )
        .with_state(accounts);
    axum::serve(listener, app).await
}

/// One instance of the API: says who it is and who is said to ask.
pub(crate) async fn replies(listener: TcpListener, name: &'static str) -> io::Result<()> {
    let tell = |State(name): State<&'static str>, request: Request| async move {
        let header = |headers: &HeaderMap, name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        let of = |name: &str| header(request.headers(), name);
        Json(json!({
            "service": name,
            "path": request.uri().path(),
            "user": of("x-user-id"),
            "plan": of("x-plan"),
            "trace": of("traceparent"),
        }))
    };
    let app = Router::new().route("/health", get(|| async { "ok" })).fallback(tell).with_state(name);
    axum::serve(listener, app).await
}

/// What services and gateway show each other, all in PEM.
pub(crate) struct Trust {
    pub(crate) ca: String,
    pub(crate) gateway_certificate: String,
    pub(crate) gateway_key: String,
    analytics: Arc<ServerConfig>,
}

impl Trust {
    pub(crate) fn new() -> io::Result<Trust> {
        let failed = io::Error::other::<rcgen::Error>;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?).map_err(failed)?;
        let issue = |name: &str| {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &ca)?;
            Ok::<_, rcgen::Error>((certificate, key))
        };
        let (gateway, gateway_key) = issue("gateway.internal").map_err(failed)?;
        let (analytics, analytics_key) = issue("analytics.internal").map_err(failed)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let clients = clients.build().map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(analytics_key.serialize_der()).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![analytics.der().clone()], key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Trust {
            ca: ca.pem(),
            gateway_certificate: gateway.pem(),
            gateway_key: gateway_key.serialize_pem(),
            analytics: config.into(),
        })
    }
}

/// Counts, over gRPC, for whoever shows a certificate of the services' CA.
pub(crate) async fn analytics(listener: TcpListener, trust: &Trust) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(trust.analytics.clone());
    loop {
        let (tcp, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(tls), service_fn(count)).await;
        });
    }
}

async fn count(
    request: hyper::Request<hyper::body::Incoming>,
) -> io::Result<Response<StreamBody<impl stream::Stream<Item = io::Result<Frame<Bytes>>>>>> {
    let known = request.uri().path() == "/insights.v1.Analytics/Count";
    let mut frames = Vec::new();
    if known {
        let message = [&[0, 0, 0, 0, COUNTED.len() as u8][..], &COUNTED].concat();
        frames.push(Ok(Frame::data(Bytes::from(message))));
    }
    // 12: unimplemented.
    let status = axum::http::HeaderValue::from_static(if known { "0" } else { "12" });
    let name = axum::http::HeaderName::from_static("grpc-status");
    frames.push(Ok(Frame::trailers(HeaderMap::from_iter([(name, status)]))));
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(StreamBody::new(stream::iter(frames))).map_err(io::Error::other)
}
