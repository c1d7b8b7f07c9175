//! Asking a service over HTTP/1.1, in the clear and seldom: whether a name may have a certificate, whether one still holds.

use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest answer that is read.
const ANSWER_MAX: usize = 64 << 10;

/// Sends a request to an `http` URL. Whoever calls bounds the time.
pub(super) async fn fetch(mut request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
    let uri = request.uri().clone();
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or("not an http URL")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    request.headers_mut().insert(http::header::HOST, authority.as_str().parse()?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |target| target.as_str()).parse::<Uri>()?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok((head.status, body))
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
