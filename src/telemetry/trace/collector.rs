//! How spans reach their collector: one HTTP/1.1 exchange per batch, over a connection of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for a whole exchange.
const EXCHANGE: Duration = Duration::from_secs(5);
/// A collector answers with a few bytes.
const ANSWER_MAX: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(super) struct Client {
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Client {
    /// For a collector at this URL: `http`, or `https` with the roots of the system.
    pub(super) fn for_endpoint(endpoint: &Uri) -> io::Result<Client> {
        let tls = match endpoint.scheme_str() {
            Some("https") => Some(Arc::new(tls_config()?)),
            Some("http") => None,
            _ => return Err(io::Error::other("the URL of a collector begins with http:// or https://")),
        };
        match endpoint.host() {
            Some(_) => Ok(Client { tls }),
            None => Err(io::Error::other("the URL of a collector names a host")),
        }
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri().clone();
        let host = uri.host().ok_or("no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((&*host, port)).await?;
        match &self.tls {
            None => over(stream, request).await,
            Some(config) => {
                let name = ServerName::try_from(host)?;
                over(TlsConnector::from(config.clone()).connect(name, stream).await?, request).await
            }
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        tokio::time::timeout(EXCHANGE, self.exchange(request)).await?
    }
}

async fn over<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let response = sender.send_request(origin_form(request)?).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The connection is driven here rather than in a task: it ends with its one exchange.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}

/// The request as it goes to an origin: the path in the target, the authority in `Host` (RFC 9112 3.2.1).
fn origin_form(request: Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        head.headers.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    }
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut target = uri::Parts::default();
    target.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(target)?;
    Ok(Request::from_parts(head, Full::new(body)))
}

fn tls_config() -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::other("the system has no root certificates for an https collector"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}
