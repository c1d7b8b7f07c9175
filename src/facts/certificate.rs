//! What a client's certificate says. Its chain was verified in the handshake; nothing here is the client's own word.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A verified client certificate, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientCertificate {
    /// RFC 4514, most specific first: `CN=builder,O=Example`.
    pub subject: String,
    pub issuer: String,
    /// Hex digits in lower case.
    pub serial: String,
    /// SHA-256, 64 hex digits in lower case.
    pub fingerprint: String,
    /// Subject alternative names with their kind: `dns:..`, `uri:..`, `email:..`, `ip:..`.
    pub san: Vec<String>,
    /// As the header `Client-Cert` has it (RFC 9440): `:BASE64:`. Empty where nobody showed one.
    pub certificate: String,
}

/// A field of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateField {
    Subject,
    Issuer,
    Serial,
    Fingerprint,
    San,
    Certificate,
}

/// Kinds of subject alternative names, as they stand before the value.
pub const SAN_KINDS: [&str; 4] = ["dns:", "uri:", "email:", "ip:"];

impl CertificateField {
    const ALL: [CertificateField; 6] = [
        CertificateField::Subject,
        CertificateField::Issuer,
        CertificateField::Serial,
        CertificateField::Fingerprint,
        CertificateField::San,
        CertificateField::Certificate,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            CertificateField::Subject => "subject",
            CertificateField::Issuer => "issuer",
            CertificateField::Serial => "serial",
            CertificateField::Fingerprint => "fingerprint",
            CertificateField::San => "san",
            CertificateField::Certificate => "certificate",
        }
    }

    pub(super) fn named(name: &str) -> Option<CertificateField> {
        CertificateField::ALL.into_iter().find(|field| field.as_str() == name)
    }
}

impl ClientCertificate {
    /// Every value of a field: names may be several, others are one or none.
    pub fn values(&self, field: CertificateField) -> impl Iterator<Item = &str> {
        let one = match field {
            CertificateField::Subject => &self.subject,
            CertificateField::Issuer => &self.issuer,
            CertificateField::Serial => &self.serial,
            CertificateField::Fingerprint => &self.fingerprint,
            CertificateField::Certificate => &self.certificate,
            CertificateField::San => "",
        };
        let many = if field == CertificateField::San { self.san.as_slice() } else { &[] };
        std::iter::once(one).filter(|one| !one.is_empty()).chain(many.iter().map(String::as_str))
    }

    /// The value of a field as one text: names are joined by `,`.
    pub(super) fn text(&self, field: CertificateField) -> Option<Cow<'_, str>> {
        let mut values = self.values(field);
        let first = values.next()?;
        Some(match values.next() {
            None => Cow::Borrowed(first),
            Some(_) => Cow::Owned(self.values(field).collect::<Vec<_>>().join(",")),
        })
    }
}
