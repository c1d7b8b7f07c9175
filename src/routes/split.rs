//! Upstreams by weight. Weights are laid side by side on one line; a point on it, drawn or hashed, falls on a share.
//!
//! A change of weights moves only the clients between the old border and the new one.

use std::sync::Arc;

use http::HeaderValue;

use crate::facts::{Fact, Facts, Head, Scheme, cookie};
use crate::upstream::{Pool, hash_key};

#[derive(Debug)]
pub struct Split {
    shares: Box<[Share]>,
    /// Sum of the weights, above 0.
    total: u64,
    by: Option<SplitBy>,
}

#[derive(Debug)]
pub struct Share {
    pub pool: Arc<Pool>,
    pub weight: u32,
    /// End of its stretch of the line.
    end: u64,
    sticky: Option<Sticky>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SplitBy {
    Cookie(Box<str>),
    Fact(Fact),
}

/// The cookie that leads back to a share: its value, and the two ways it is set.
#[derive(Debug)]
struct Sticky {
    token: Box<str>,
    over_http: HeaderValue,
    over_https: HeaderValue,
}

/// A share, and the `Set-Cookie` that keeps the client on it.
#[derive(Debug)]
pub struct Chosen<'s> {
    pub pool: &'s Arc<Pool>,
    pub set_cookie: Option<&'s HeaderValue>,
}

impl Split {
    /// `None` if no share has weight.
    pub(super) fn new(shares: Vec<(Arc<Pool>, u32)>, by: Option<SplitBy>) -> Option<Split> {
        let mut total = 0;
        let shares = shares
            .into_iter()
            .map(|(pool, weight)| {
                total += u64::from(weight);
                let sticky = match &by {
                    Some(SplitBy::Cookie(name)) => Sticky::new(name, pool.name()),
                    Some(SplitBy::Fact(_)) | None => None,
                };
                Share { pool, weight, end: total, sticky }
            })
            .collect();
        (total > 0).then_some(Split { shares, total, by })
    }

    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// The share of a request: where its cookie or fact leads, else by chance.
    pub fn choose(&self, head: &Head<'_>, facts: &dyn Facts) -> Option<Chosen<'_>> {
        match &self.by {
            Some(SplitBy::Cookie(name)) => {
                let token = cookie(head.headers, name);
                let kept = self.shares.iter().find(|share| {
                    share.weight > 0 && share.sticky.as_ref().is_some_and(|sticky| token == Some(&sticky.token))
                });
                if let Some(share) = kept {
                    return Some(Chosen { pool: &share.pool, set_cookie: None });
                }
                let share = self.share_at(fastrand::u64(..self.total))?;
                let set_cookie = share.sticky.as_ref().map(|sticky| match head.scheme {
                    Scheme::Http => &sticky.over_http,
                    Scheme::Https => &sticky.over_https,
                });
                Some(Chosen { pool: &share.pool, set_cookie })
            }
            Some(SplitBy::Fact(fact)) => {
                let point = match facts.fact(fact) {
                    Some(value) => self.point(mix(hash_key(value.as_bytes()))),
                    None => fastrand::u64(..self.total),
                };
                Some(Chosen { pool: &self.share_at(point)?.pool, set_cookie: None })
            }
            None => Some(Chosen { pool: &self.share_at(fastrand::u64(..self.total))?.pool, set_cookie: None }),
        }
    }

    /// A hash as a point on the line, whatever the line's length.
    fn point(&self, hash: u64) -> u64 {
        let wide = (u128::from(hash) * u128::from(self.total)) >> 64;
        u64::try_from(wide).unwrap_or(0)
    }

    fn share_at(&self, point: u64) -> Option<&Share> {
        self.shares.iter().find(|share| point < share.end)
    }
}

impl Sticky {
    /// The token names the share without telling its name.
    fn new(cookie: &str, upstream: &str) -> Option<Sticky> {
        let token = format!("{:016x}", mix(hash_key(upstream.as_bytes())));
        let value =
            |tail: &str| HeaderValue::from_str(&format!("{cookie}={token}; Path=/; HttpOnly; SameSite=Lax{tail}")).ok();
        Some(Sticky { over_http: value("")?, over_https: value("; Secure")?, token: token.into() })
    }
}

/// Spreads a hash over all its bits (the finaliser of MurmurHash3): its high ones choose.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
