//! The body of an answer on its way to the client: compressed, or with an error page in its place.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    LAST_MODIFIED, TRANSFER_ENCODING, VARY,
};
use http::{HeaderName, Method, Version};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::gate::Gate;
use super::sink::ResponseSink;
use crate::policy::{Encoder, Wrong};
use crate::rejection::Code;

/// What a head says of the body that is not there any more.
const OF_THE_BODY: [HeaderName; 10] = [
    TRANSFER_ENCODING,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

impl Gate {
    /// Puts the route's page in the place of an upstream's answer, where it says so.
    pub(super) fn stand_in(&self, session: &Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
        if !ctx.route.as_ref().is_some_and(|route| route.answers.pages.replaces()) {
            return Ok(());
        }
        let length = head.headers.get(CONTENT_LENGTH);
        // Where nothing tells that there is a body there may be none: its head then ends the answer.
        let has_body = head.headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0");
        if !has_body || session.req_header().method == Method::HEAD || !is_error(head) {
            return Ok(());
        }
        let status = head.status;
        let (code, title) = (status.as_str().to_owned(), status.canonical_reason().unwrap_or_default());
        let wrong = Wrong { status, code: &code, title };
        let page =
            self.with_answers(session, ctx, |answers, request, facts| answers.pages.instead(wrong, request, facts));
        let Some((kind, page)) = page else { return Ok(()) };
        for name in &OF_THE_BODY {
            head.remove_header(name);
        }
        head.append_header(VARY, "accept")?;
        head.insert_header(CONTENT_TYPE, kind)?;
        head.insert_header(CONTENT_LENGTH, page.len().to_string())?;
        (ctx.page, ctx.replaced) = (Some(page), true);
        Ok(())
    }

    /// Begins to compress an answer, where its route says so and the client takes it. HTTP/1.0 cannot frame what comes then.
    pub(super) fn compress(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        head: &mut ResponseHeader,
        trailers: bool,
    ) -> Result<()> {
        let request = session.req_header();
        if trailers || request.version == Version::HTTP_10 {
            return Ok(());
        }
        let Some(encoder) = self.encoder(session, ctx, head) else { return Ok(()) };
        if !ctx.http2 {
            // An HTTP/1.0 upstream's answer, too: chunks are 1.1's.
            head.set_version(Version::HTTP_11);
            head.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        ctx.encoder = Some(Box::new(encoder));
        Ok(())
    }

    /// As `compress`, for a body that is here.
    pub(super) fn compress_whole(
        &self,
        session: &Session,
        ctx: &Ctx,
        head: &mut ResponseHeader,
        body: Bytes,
    ) -> Result<Bytes> {
        let busy = ctx.rejection.as_ref().is_some_and(|rejection| rejection.code == Code::Overload);
        if body.is_empty() || busy {
            return Ok(body);
        }
        let Some(encoder) = self.encoder(session, ctx, head) else { return Ok(body) };
        let body = encoder.finish(&body).or_err(ErrorType::InternalError, "compressing an answer")?;
        head.insert_header(CONTENT_LENGTH, body.len().to_string())?;
        Ok(body)
    }

    fn encoder(&self, session: &Session, ctx: &Ctx, head: &mut ResponseHeader) -> Option<Encoder> {
        let compression = match &ctx.route {
            Some(route) => route.answers.compression.as_ref()?.clone(),
            None => ctx.table.as_ref()?.default_answers.compression.as_ref()?.clone(),
        };
        let request = session.req_header();
        let head_only = request.method == Method::HEAD;
        let (encoder, changes) = compression.begin(&request.headers, head.status, &head.headers, head_only);
        changes.apply(&mut ResponseSink(head));
        encoder
    }
}

fn is_error(head: &ResponseHeader) -> bool {
    head.status.is_client_error() || head.status.is_server_error()
}

/// One piece of the body, as it goes on.
pub(super) fn recode(ctx: &mut Ctx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    if ctx.upgraded {
        return Ok(());
    }
    if ctx.replaced {
        // As soon as there is anything: what it stands for is thrown away as it comes.
        *body = ctx.page.take();
    }
    let failed = "compressing an answer";
    if end {
        if let Some(encoder) = ctx.encoder.take() {
            let bytes = encoder.finish(body.as_deref().unwrap_or_default());
            *body = Some(bytes.or_err(ErrorType::InternalError, failed)?);
        }
    } else if let (Some(encoder), Some(bytes)) = (&mut ctx.encoder, body.as_mut().filter(|bytes| !bytes.is_empty())) {
        *bytes = encoder.piece(bytes).or_err(ErrorType::InternalError, failed)?;
    }
    Ok(())
}
