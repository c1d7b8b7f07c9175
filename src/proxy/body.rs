//! The body of an answer on its way to the client: compressed, or with an error page in its place.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED,
    TRANSFER_ENCODING,
};
use http::{Method, Version};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::ctx::Ctx;
use super::gate::Gate;
use super::sink::ResponseSink;
use crate::policy::{Encoder, Wrong};

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
        for name in [TRANSFER_ENCODING, CONTENT_ENCODING, CONTENT_LANGUAGE, ETAG, LAST_MODIFIED, ACCEPT_RANGES] {
            head.remove_header(&name);
        }
        head.insert_header(CONTENT_TYPE, kind)?;
        head.insert_header(CONTENT_LENGTH, page.len().to_string())?;
        (ctx.page, ctx.replaced) = (Some(page), true);
        Ok(())
    }

    /// Begins to compress an answer, where its route says so and the client takes it.
    pub(super) fn compress(&self, session: &Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
        let Some(encoder) = self.encoder(session, ctx, head) else { return Ok(()) };
        if session.req_header().method == Method::HEAD {
            return Ok(());
        }
        if !ctx.http2 && session.req_header().version == Version::HTTP_11 {
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
        let Some(encoder) = self.encoder(session, ctx, head) else { return Ok(body) };
        let body = encoder.finish(&body).or_err(ErrorType::InternalError, "compressing an answer")?;
        head.insert_header(CONTENT_LENGTH, body.len().to_string())?;
        Ok(body)
    }

    fn encoder(&self, session: &Session, ctx: &Ctx, head: &mut ResponseHeader) -> Option<Encoder> {
        let compression = match &ctx.route {
            Some(route) => route.answers.compression.clone()?,
            None => ctx.table.as_ref()?.default_answers.compression.clone()?,
        };
        let (encoder, changes) = compression.begin(&session.req_header().headers, head.status, &head.headers);
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
        *body = if end { ctx.page.take() } else { None };
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
