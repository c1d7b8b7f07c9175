//! Bodies: fixed, empty, or fed piece by piece.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Error>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// The writing end of a body; dropped, the body ends well.
pub(crate) struct Feed(mpsc::Sender<Result<Frame<Bytes>, Error>>);

impl Feed {
    /// Waits until the reader has room. `false`: nobody reads any more.
    pub(crate) async fn data(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(bytes.into()))).await.is_ok()
    }

    pub(crate) async fn trailers(self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers))).await;
    }

    /// Completes when nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

pub(crate) fn channel() -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (Feed(sender), StreamBody::new(frames).boxed_unsync())
}

/// A body of this many bytes, made as it is read.
pub(crate) fn sized(total: usize) -> Body {
    const PIECE: Bytes = Bytes::from_static(&[b'x'; 16 << 10]);
    let frames = futures_util::stream::unfold(total, |left| async move {
        let piece = PIECE.slice(..PIECE.len().min(left));
        (left > 0).then(|| (Ok(Frame::data(piece.clone())), left - piece.len()))
    });
    StreamBody::new(frames).boxed_unsync()
}
