//! OCSP staples (RFC 6066 8, RFC 6960): where a certificate names a responder, it is asked again and again whether the
//! certificate still holds, and its answer is shown in the handshake.
//!
//! An answer counts only if the issuer has signed it, or somebody that the issuer made a responder; it is shown until it
//! runs out. Without one the certificate is shown alone: a responder that is away stops no handshake.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use der::{Decode as _, Encode as _};
use futures_util::{FutureExt as _, StreamExt as _};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus, SingleResponse};
use x509_parser::asn1_rs::BitString;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AlgorithmIdentifier;

use crate::fetch::{self, Failure, Trust, fetch};

/// How often certificates are looked through for those that need an answer.
const LOOK: Duration = Duration::from_secs(5);
/// A responder that fails is asked again soon, and after each further failure twice as late, up to this.
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// One that answers is asked again no sooner than this.
const AGAIN_MIN: Duration = Duration::from_secs(60);
/// Responders that are asked at once.
const AT_ONCE: usize = 8;
/// A responder is given this long.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Clocks differ.
const SKEW: Duration = Duration::from_secs(300);
/// An answer that says nothing of the next one is shown for this long.
const UNSAID: Duration = Duration::from_secs(6 * 3_600);

/// Holds a certificate that can be shown with a staple.
pub trait Stapled: Send + Sync {
    fn certified(&self) -> Option<Arc<CertifiedKey>>;
    /// Puts `fresh` in the place of `old`, if that is still what is held.
    fn replace(&self, old: &Arc<CertifiedKey>, fresh: CertifiedKey);
}

/// What is known of a leaf.
#[derive(Clone, Debug)]
struct Plan {
    /// Where to ask. `None`: nowhere.
    responder: Option<String>,
    next: SystemTime,
    /// When the answer that is shown runs out.
    until: Option<SystemTime>,
    failures: u32,
}

/// An answer that counts.
struct Answer {
    bytes: Vec<u8>,
    until: SystemTime,
}

/// Keeps staples fresh for as long as the process lives.
pub async fn keep(all: impl Fn() -> Vec<Arc<dyn Stapled>> + Send) {
    let mut plans: HashMap<(usize, u64), Plan> = HashMap::new();
    let hasher = ahash::RandomState::new();
    loop {
        let mut kept = HashMap::new();
        let mut due = Vec::new();
        for holder in all() {
            let Some(certified) = holder.certified() else { continue };
            let Some(leaf) = certified.cert.first() else { continue };
            // Two may hold the same certificate, each with a staple of its own.
            let key = (Arc::as_ptr(&holder).addr(), hasher.hash_one(leaf.as_ref()));
            let now = SystemTime::now();
            let plan = plans.remove(&key).unwrap_or_else(|| Plan {
                responder: responder(leaf),
                next: now,
                until: None,
                failures: 0,
            });
            if certified.ocsp.is_some() && plan.until.is_some_and(|until| until <= now) {
                holder.replace(&certified, CertifiedKey { ocsp: None, ..CertifiedKey::clone(&certified) });
            }
            // One that was read anew has lost its staple.
            let lost = certified.ocsp.is_none() && plan.until.is_some_and(|until| until > now);
            if plan.responder.is_some() && (plan.next <= now || lost) {
                due.push((key, holder, plan));
            } else {
                kept.insert(key, plan);
            }
        }
        let asking: Vec<_> = due.into_iter().map(|(key, holder, plan)| renew(key, holder, plan).boxed()).collect();
        let asked = futures_util::stream::iter(asking);
        kept.extend(asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        plans = kept;
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks for an answer and shows it.
async fn renew(key: (usize, u64), holder: Arc<dyn Stapled>, mut plan: Plan) -> ((usize, u64), Plan) {
    let (Some(certified), Some(url)) = (holder.certified(), plan.responder.clone()) else { return (key, plan) };
    let asked = tokio::time::timeout(ASK_WITHIN, ask(&url, &certified.cert)).await;
    let now = SystemTime::now();
    match asked.unwrap_or_else(|_| Err("it took too long".into())) {
        Ok(answer) => {
            tracing::info!(event = "certificate.stapled", url, "OCSP answer taken up");
            // Half of what is left: it may have been made long before.
            let left = answer.until.duration_since(now).unwrap_or_default();
            plan.next = now + (left / 2).max(AGAIN_MIN);
            (plan.until, plan.failures) = (Some(answer.until), 0);
            let fresh = CertifiedKey { ocsp: Some(answer.bytes), ..CertifiedKey::clone(&certified) };
            holder.replace(&certified, fresh);
        }
        Err(error) => {
            tracing::warn!(url, %error, "no OCSP answer: the certificate is shown without, or with the last one");
            plan.next = now + LOOK.saturating_mul(2_u32.saturating_pow(plan.failures)).min(AGAIN_MAX);
            plan.failures = plan.failures.saturating_add(1);
        }
    }
    (key, plan)
}

/// The URL of the responder (RFC 5280 4.2.2.1).
fn responder(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, read) = X509Certificate::from_der(leaf).ok()?;
    let access = read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(access),
        _ => None,
    })?;
    access.accessdescs.iter().find_map(|one| match &one.access_location {
        GeneralName::URI(uri) if one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP && uri.starts_with("http://") => {
            Some((*uri).to_owned())
        }
        _ => None,
    })
}

async fn ask(url: &str, chain: &[CertificateDer<'_>]) -> Result<Answer, Failure> {
    let [leaf, issuer, ..] = chain else { return Err("the chain does not hold the issuer".into()) };
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/ocsp-request")
        .header(header::ACCEPT, "application/ocsp-response")
        .body(Full::new(Bytes::from(question(leaf, issuer)?)))?;
    let fetch::Answer { status, body, .. } = fetch(request, &Trust::default()).await?;
    if status != StatusCode::OK {
        return Err(format!("the responder answered {status}").into());
    }
    check(&body, leaf, issuer, SystemTime::now())
}

/// DER: tag, length, contents.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let mut out = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        // A question is far shorter than 64 KiB.
        Err(_) => {
            out.push(0x82);
            out.extend(u16::try_from(contents.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend(contents);
    out
}

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;
/// AlgorithmIdentifier of SHA-1, the one hash that every responder knows (RFC 5019 2.1.1).
const SHA1: &[u8] = &[0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];

fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}

/// An OCSPRequest for one certificate (RFC 6960 4.1.1), without a nonce: answers may be made ahead.
fn question(leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> Result<Vec<u8>, Failure> {
    let (_, leaf) = X509Certificate::from_der(leaf)?;
    let (_, issuer) = X509Certificate::from_der(issuer)?;
    let name = element(OCTETS, &[&sha1(issuer.subject().as_raw())]);
    let key = element(OCTETS, &[&sha1(&issuer.public_key().subject_public_key.data)]);
    let serial = element(INTEGER, &[leaf.raw_serial()]);
    let id = element(SEQUENCE, &[SHA1, &name, &key, &serial]);
    Ok(element(SEQUENCE, &[&element(SEQUENCE, &[&element(SEQUENCE, &[&element(SEQUENCE, &[&id])])])]))
}

/// Whether an answer says that the certificate holds, and until when.
fn check(
    bytes: &[u8],
    leaf: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<Answer, Failure> {
    let answer = OcspResponse::from_der(bytes)?;
    if answer.response_status != OcspResponseStatus::Successful {
        return Err(format!("the responder says {:?}", answer.response_status).into());
    }
    let basic = answer.response_bytes.ok_or("the answer is empty")?;
    let basic = BasicOcspResponse::from_der(basic.response.as_bytes())?;
    let (_, leaf) = X509Certificate::from_der(leaf)?;
    let (_, issuer) = X509Certificate::from_der(issuer)?;
    let ours = |one: &&SingleResponse| {
        let id = &one.cert_id;
        id.serial_number.as_bytes() == leaf.raw_serial()
            && id.issuer_name_hash.as_bytes() == sha1(issuer.subject().as_raw())
            && id.issuer_key_hash.as_bytes() == sha1(&issuer.public_key().subject_public_key.data)
    };
    let one = basic.tbs_response_data.responses.iter().find(ours).ok_or("the answer is about another certificate")?;
    if !matches!(one.cert_status, CertStatus::Good(_)) {
        return Err("THE CERTIFICATE IS REVOKED, or the responder does not know it".into());
    }
    let from = one.this_update.0.to_system_time();
    let until = one.next_update.as_ref().map_or(from + UNSAID, |at| at.0.to_system_time());
    if from > now + SKEW || until <= now {
        return Err("the answer is not of now".into());
    }
    verify(&basic, &issuer)?;
    Ok(Answer { bytes: bytes.to_vec(), until })
}

/// The issuer has signed it, or a certificate in it that the issuer has made a responder's (RFC 6960 4.2.2.2).
fn verify(basic: &BasicOcspResponse, issuer: &X509Certificate<'_>) -> Result<(), Failure> {
    let signed = basic.tbs_response_data.to_der()?;
    let algorithm = basic.signature_algorithm.to_der()?;
    let (_, algorithm) = AlgorithmIdentifier::from_der(&algorithm)?;
    let signature = BitString::new(0, basic.signature.raw_bytes());
    let by = |signer: &X509Certificate<'_>| {
        x509_parser::verify::verify_signature(signer.public_key(), &algorithm, &signature, &signed).is_ok()
    };
    if by(issuer) {
        return Ok(());
    }
    for certificate in basic.certs.iter().flatten() {
        let der = certificate.to_der()?;
        let (_, responder) = X509Certificate::from_der(&der)?;
        let usage = responder.extended_key_usage()?;
        if usage.is_some_and(|usage| usage.value.ocsp_signing)
            && responder.validity().is_valid()
            && responder.verify_signature(Some(issuer.public_key())).is_ok()
            && by(&responder)
        {
            return Ok(());
        }
    }
    Err("nobody who may has signed the answer".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_der() {
        assert_eq!(element(SEQUENCE, &[&[1, 2], &[3]]), [0x30, 3, 1, 2, 3]);
        assert_eq!(element(OCTETS, &[&[0; 200]]).get(..3), Some(&[4, 0x81, 200][..]));
        assert_eq!(element(OCTETS, &[&[0; 300]]).get(..4), Some(&[4, 0x82, 1, 44][..]));
    }

    #[test]
    fn nonsense_is_no_answer() {
        let none = CertificateDer::from(vec![]);
        assert!(check(b"", &none, &none, SystemTime::now()).is_err());
        assert!(check(&[0x30, 3, 0x0a, 1, 3], &none, &none, SystemTime::now()).is_err(), "try later");
    }
}
