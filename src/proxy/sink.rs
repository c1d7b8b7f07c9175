//! Header edits on Pingora's answers, through its own methods: they keep the case of HTTP/1 names in step with the map.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::ResponseHeader;

use crate::policy::HeaderSink;

/// A response head that edits are applied to.
pub(crate) struct ResponseSink<'a>(pub(crate) &'a mut ResponseHeader);

impl HeaderSink for ResponseSink<'_> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        let _ = self.0.insert_header(name.clone(), value);
    }
    fn add(&mut self, name: &HeaderName, value: HeaderValue) {
        let _ = self.0.append_header(name.clone(), value);
    }
    fn remove(&mut self, name: &HeaderName) {
        let _ = self.0.remove_header(name);
    }
    fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }
}
