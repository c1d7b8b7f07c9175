//! WebSocket peers on both sides of the gateway.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Raw, RawOrigin, within};

/// A client's end.
pub(crate) struct WebSocket(WebSocketStream<TcpStream>);

impl WebSocket {
    pub(crate) async fn connect(address: SocketAddr, url: &str) -> WebSocket {
        WebSocket::try_connect(address, url).await.unwrap()
    }

    pub(crate) async fn try_connect(address: SocketAddr, url: &str) -> Result<WebSocket, Error> {
        let stream = TcpStream::connect(address).await.unwrap();
        let request = url.into_client_request().unwrap();
        Ok(WebSocket(within("the upgrade", client_async(request, stream)).await?.0))
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next text; `None` when the connection is over, with or without a close frame.
    pub(crate) async fn next(&mut self) -> Option<String> {
        match within("a WebSocket message", self.0.next()).await? {
            Ok(Message::Text(text)) => Some(text.to_string()),
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::Io(_)) => None,
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => None,
            other => panic!("{other:?}"),
        }
    }

    /// There and back.
    pub(crate) async fn echoes(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.next().await.as_deref(), Some(text));
    }
}

/// Sends every text back.
pub(crate) fn echo() -> RawOrigin {
    RawOrigin::start(|connection: Raw, _| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(connection.stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}
