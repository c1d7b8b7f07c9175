//! Asking a service over HTTP/1.1, seldom and in the background: keys of an issuer, whether a name may have a certificate,
//! whether one still holds. One connection for each question, no redirects, answers up to a bound.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest answer that is read.
const ANSWER_MAX: usize = 256 << 10;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Whom `https` is believed.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// `None`: the system's roots, read when they are first needed.
    roots: Option<Arc<RootCertStore>>,
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Trust {
    pub fn only(roots: RootCertStore) -> Trust {
        Trust { roots: Some(Arc::new(roots)), config: Arc::default() }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let roots = self.roots.clone().unwrap_or_else(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        });
        let provider = rustls::crypto::CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(self.config.get_or_init(|| config).clone())
    }
}

/// Sends a request to an `http` or `https` URL. Whoever calls bounds the time.
pub async fn fetch(request: Request<Full<Bytes>>, trust: &Trust) -> Result<Answer, Failure> {
    let uri = request.uri().clone();
    let authority = uri.authority().ok_or("the URL has no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let connect = async |port: u16| TcpStream::connect((host, authority.port_u16().unwrap_or(port))).await;
    match uri.scheme_str() {
        Some("http") => exchange(connect(80).await?, request).await,
        Some("https") => {
            let name = ServerName::try_from(host.to_owned())?;
            let stream = TlsConnector::from(trust.config()?).connect(name, connect(443).await?).await?;
            exchange(stream, request).await
        }
        _ => Err("neither http nor https".into()),
    }
}

async fn exchange<S>(stream: S, mut request: Request<Full<Bytes>>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let uri = request.uri().clone();
    if let Some(authority) = uri.authority() {
        request.headers_mut().insert(http::header::HOST, authority.as_str().parse()?);
    }
    *request.uri_mut() = uri.path_and_query().map_or("/", |target| target.as_str()).parse::<Uri>()?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    // How it ends is told by the asking.
    let driving = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = asking => answer,
        never = driving => never,
    }
}
