//! One order: challenge, proof, certificate (RFC 8555 7.4).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, KeyAuthorization, NewOrder, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::challenges::{Challenges, Offer};

/// For the CA to look, and to sign.
const POLL: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("{0}")]
    Acme(#[from] Error),
    #[error("the CA offers no challenge of the kind {0}")]
    NoChallenge(&'static str),
    #[error("the CA did not accept that the name is ours: {0}")]
    Refused(String),
    #[error("no certificate for the challenge: {0}")]
    Mint(#[from] rcgen::Error),
    #[error("no certificate for the challenge: {0}")]
    Key(#[from] rustls::Error),
}

impl OrderError {
    /// RFC 8555 6.7: `accountDoesNotExist`.
    pub(super) fn is_unknown_account(&self) -> bool {
        let OrderError::Acme(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }

    /// RFC 8555 6.7: `rateLimited`.
    pub(super) fn is_rate_limit(&self) -> bool {
        let OrderError::Acme(Error::Api(problem)) = self else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":rateLimited")) || problem.status == Some(429)
    }
}

/// How a name is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    TlsAlpn01,
    Http01,
}

/// Key and chain in PEM, in this order.
pub(super) async fn obtain(
    account: &Account,
    name: &str,
    proof: Proof,
    challenges: &Arc<Challenges>,
) -> Result<String, OrderError> {
    let retries = RetryPolicy::new().timeout(POLL);
    let mut order = account.new_order(&NewOrder::new(&[Identifier::Dns(name.to_owned())])).await?;
    // Stands until the order is through.
    let mut offers: Vec<Offer> = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let (kind, text) = match proof {
            Proof::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
            Proof::Http01 => (ChallengeType::Http01, "http-01"),
        };
        let mut challenge = authorization.challenge(kind).ok_or(OrderError::NoChallenge(text))?;
        let key = challenge.key_authorization();
        offers.push(match proof {
            Proof::Http01 => challenges.offer_http(&challenge.token, key.as_str()),
            Proof::TlsAlpn01 => challenges.offer_alpn(name, Arc::new(alpn_certificate(name, &key)?)),
        });
        challenge.set_ready().await?;
    }
    match order.poll_ready(&retries).await? {
        OrderStatus::Ready | OrderStatus::Valid => {}
        _ => return Err(OrderError::Refused(why(&mut order).await)),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&retries).await?;
    Ok(format!("{key}\n{chain}"))
}

/// What the CA said about the name.
async fn why(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return problem.to_string();
        }
    }
    "it gave no reason".to_owned()
}

/// RFC 8737 3: self-signed, for the name alone, with the digest in an extension.
fn alpn_certificate(name: &str, key: &KeyAuthorization) -> Result<CertifiedKey, OrderError> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(key.digest().as_ref())];
    let certificate = params.self_signed(&pair)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let provider = rustls::crypto::CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    // Not `from_der`: it reads the certificate and stumbles over the critical extension, which is the point of it.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], provider.key_provider.load_private_key(key)?))
}
