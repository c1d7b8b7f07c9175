//! gRPC by hand: length-prefixed messages over HTTP/2, an origin with all four kinds of call, trailers included.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::origin::Wire;
use super::{Body, Origin, Port, body, channel, within};

/// One message with its prefix: not compressed.
pub(crate) fn message(payload: impl AsRef<[u8]>) -> Bytes {
    let payload = payload.as_ref();
    let mut framed = BytesMut::with_capacity(payload.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(payload.len()).unwrap());
    framed.put_slice(payload);
    framed.freeze()
}

/// Messages as they arrive, and the trailers after them.
pub(crate) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    pub(crate) trailers: HeaderMap,
}

impl Messages {
    pub(crate) fn of(body: Incoming) -> Messages {
        Messages { body, buffer: BytesMut::new(), trailers: HeaderMap::new() }
    }

    /// `None` at the end of the stream; then `trailers` is filled.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        within("a gRPC message", async {
            loop {
                if let Some(length) = self.buffer.get(1..5).map(|mut prefix| prefix.get_u32() as usize)
                    && self.buffer.len() >= 5 + length
                {
                    self.buffer.advance(5);
                    return Some(self.buffer.split_to(length).freeze());
                }
                match self.body.frame().await? {
                    Err(error) => panic!("the stream broke: {error:?}"),
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => self.buffer.extend_from_slice(&data),
                        Err(frame) => self.trailers = frame.into_trailers().unwrap(),
                    },
                }
            }
        })
        .await
    }

    /// All that come, as texts.
    pub(crate) async fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(String::from_utf8(message.to_vec()).unwrap());
        }
        all
    }

    pub(crate) fn status(&self) -> &str {
        self.trailers.get("grpc-status").map_or("", |status| status.to_str().unwrap())
    }
}

/// A call of `test.Echo`.
pub(crate) fn call(method: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://grpc.test/test.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

/// `test.Echo`: `Unary` and `Fail` (one in, one or a status out), `Collect` (many in, one out), `Repeat` (one in, three
/// out), `Chat` (each one at once).
pub(crate) fn origin() -> Origin {
    Origin::start(Port::free(), Wire::H2, |request| async move {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let (feed, answer) = channel();
        let mut messages = Messages::of(request.into_body());
        tokio::spawn(async move {
            let mut collected = Vec::new();
            while let Some(payload) = messages.next().await {
                match method.as_str() {
                    "Collect" => collected.extend_from_slice(&payload),
                    "Repeat" => {
                        for _ in 0..3 {
                            feed.data(message(&payload)).await;
                        }
                    }
                    "Fail" => {}
                    _ => {
                        feed.data(message(&payload)).await;
                    }
                }
            }
            if method == "Collect" {
                feed.data(message(&collected)).await;
            }
            let status = if method == "Fail" { "9" } else { "0" };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            trailers.insert("x-trailer", "of-the-origin".parse().unwrap());
            feed.trailers(trailers).await;
        });
        Ok::<_, body::Error>(Response::builder().header("content-type", "application/grpc").body(answer).unwrap())
    })
}
