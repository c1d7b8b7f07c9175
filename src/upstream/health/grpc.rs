//! `kind = "grpc"`: `grpc.health.v1.Health/Check` answers SERVING. HTTP/2, whatever the pool speaks.
//!
//! Request and answer have one field each, so they are written and read here rather than by generated code:
//! `HealthCheckRequest { string service = 1 }`, `HealthCheckResponse { ServingStatus status = 1 }` with SERVING = 1.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};

use super::Check;
use super::http::absolute;
use crate::config::Protocol;
use crate::upstream::dial::dial_h2;
use crate::upstream::wire::Wire;

const METHOD: &str = "/grpc.health.v1.Health/Check";
const SERVING: u64 = 1;
/// An answer of one small number; more than this is something else.
const ANSWER_MAX: usize = 4 << 10;

pub(super) async fn check(check: &Check) -> Result<(), String> {
    let stream = dial_h2(check.address, &check.transport).await.map_err(|error| error.to_string())?;
    let mut wire = Wire::open(stream, Protocol::H2).await.map_err(|error| error.to_string())?;
    let request = Request::post(absolute(check, METHOD))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, super::USER_AGENT)
        .body(Full::new(framed(check.words.service.as_deref().unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let response = wire.send(request).await.map_err(|error| error.into_error().to_string())?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("status {}", response.status().as_u16()));
    }
    // A call that fails may end in its head (trailers only).
    succeeded(response.headers())?;
    let body = Limited::new(response.into_body(), ANSWER_MAX);
    let answer = wire.drive(body.collect()).await.map_err(|error| error.to_string())?;
    if let Some(trailers) = answer.trailers() {
        succeeded(trailers)?;
    }
    match status(&answer.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(status) => Err(format!("serving status {status}")),
        None => Err("this is not an answer of grpc.health.v1".to_owned()),
    }
}

fn succeeded(fields: &HeaderMap) -> Result<(), String> {
    match fields.get("grpc-status").map(|status| status.as_bytes()) {
        None | Some(b"0") => Ok(()),
        Some(status) => Err(format!("grpc-status {}", String::from_utf8_lossy(status))),
    }
}

/// `HealthCheckRequest` behind the five bytes of a gRPC message.
fn framed(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// The status of a framed `HealthCheckResponse`; 0 (UNKNOWN) when the field is left out, as proto3 does with 0.
fn status(framed: &[u8]) -> Option<u64> {
    let (head, rest) = framed.split_at_checked(5)?;
    let [0, length @ ..] = head else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let mut message = rest.get(..length)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// The messages as another implementation knows them.
    #[derive(Clone, PartialEq, Message)]
    struct HealthCheckRequest {
        #[prost(string, tag = "1")]
        service: String,
    }
    #[derive(Clone, PartialEq, Message)]
    struct HealthCheckResponse {
        #[prost(int32, tag = "1")]
        status: i32,
        #[prost(string, tag = "9")]
        later: String,
    }

    fn frame(message: Vec<u8>) -> Vec<u8> {
        [vec![0], (message.len() as u32).to_be_bytes().to_vec(), message].concat()
    }

    #[test]
    fn writes_what_other_implementations_read() {
        for service in ["", "pets.v1.Designs", &"x".repeat(300)] {
            let request = HealthCheckRequest { service: service.to_owned() };
            assert_eq!(framed(service), frame(request.encode_to_vec()));
        }
    }

    #[test]
    fn reads_what_other_implementations_write_and_refuses_the_rest() {
        for number in [0, 1, 2, 3] {
            let response = HealthCheckResponse { status: number, later: "unknown field".to_owned() };
            assert_eq!(status(&frame(response.encode_to_vec())), Some(number as u64));
        }
        for wrong in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x02\x08\x01", b"\0\0\0\0\x03\x08\x01", b"\0\0\0\0\x01\x08"] {
            assert_eq!(status(wrong), None, "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>) {
            let _ = status(&bytes);
            let _ = status(&frame(bytes));
        }
    }
}
