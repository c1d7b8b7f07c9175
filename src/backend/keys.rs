//! The keys that sign tokens: ES256, kept in the database, one after the other.
//!
//! ```text
//! key 1  signs ─────────────────────┤ published until its last token has ended ┤
//! key 2                published ┤ signs ─────────────────────────────────
//! ```
//! A key is published before it signs, so that whoever verifies has it already.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::{DecodingKey, EncodingKey};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::moment::{self, Ms, ms, new_id};
use super::refusal::Refusal;
use super::tokens::base64url;

/// Clocks of others may be behind by this much.
const SLACK: Ms = 60_000;
/// A key is published this long before it signs, or a tenth of its time if that is shorter.
const LEAD_MAX: Duration = Duration::from_secs(600);

/// A key, as long as anything depends on it.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: DecodingKey,
    x: String,
    y: String,
    signs_from: Ms,
}

/// All keys, in the order in which they sign.
#[derive(Default)]
pub(super) struct Ring {
    keys: Vec<Arc<Key>>,
    /// How many rows the one connection that writes had changed when this was read: of two rings the later one has more.
    read_at: u64,
}

/// How long keys sign and their tokens live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) rotate: Duration,
    pub(super) access: Duration,
}

impl Times {
    pub(super) fn lead(&self) -> Duration {
        (self.rotate / 10).min(LEAD_MAX)
    }

    /// How often it is looked whether a key is due.
    pub(super) fn look(&self) -> Duration {
        (self.lead() / 4).clamp(Duration::from_millis(50), Duration::from_secs(60))
    }
}

impl Key {
    fn read(id: String, pkcs8: &[u8], signs_from: Ms) -> Result<Key, Refusal> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(Refusal::internal)?;
        // An uncompressed point: 4, x, y.
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err(Refusal::internal("a signing key is of another kind"));
        };
        let (x, y) = (base64url(x), base64url(y));
        let verifying = DecodingKey::from_ec_components(&x, &y).map_err(Refusal::internal)?;
        Ok(Key { id, signing: EncodingKey::from_ec_der(pkcs8), verifying, x, y, signs_from })
    }

    fn jwk(&self) -> Value {
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id, "x": self.x, "y": self.y })
    }
}

impl Ring {
    /// The one that signs now.
    pub(super) fn signing(&self, now: Ms) -> Option<&Arc<Key>> {
        self.keys.iter().rfind(|key| key.signs_from <= now)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Arc<Key>> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// What whoever verifies tokens is shown (RFC 7517).
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
    }

    fn read(connection: &Connection) -> Result<Ring, Refusal> {
        let mut query = connection.prepare("SELECT id, pkcs8, signs_from FROM signing_keys ORDER BY signs_from, id")?;
        let mut rows = query.query([])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(Arc::new(Key::read(row.get(0)?, &row.get::<_, Vec<u8>>(1)?, row.get(2)?)?));
        }
        Ok(Ring { keys, read_at: connection.total_changes() })
    }

    /// Puts a ring in the place of an older one. Whoever was overtaken on the way from the database changes nothing: a key that
    /// was replaced meanwhile must not come back.
    pub(super) fn adopt(self, place: &ArcSwap<Ring>) {
        let new = Arc::new(self);
        place.rcu(|now| if now.read_at <= new.read_at { new.clone() } else { now.clone() });
    }

    /// Makes the key that is due, takes out those that have ended, and reads what is left.
    pub(super) fn turn(connection: &Connection, times: Times, now: Ms) -> Result<Ring, Refusal> {
        match Ring::read(connection)?.keys.last().map(|key| key.signs_from + ms(times.rotate)) {
            None => add(connection, now)?,
            // One that was missed while nothing ran is published first, too.
            Some(due) if due - ms(times.lead()) <= now => add(connection, due.max(now + ms(times.lead())))?,
            Some(_) => {}
        }
        for pair in Ring::read(connection)?.keys.windows(2) {
            if let [old, next] = pair
                && next.signs_from + ms(times.access) + SLACK < now
            {
                connection.execute("DELETE FROM signing_keys WHERE id = ?1", [&old.id])?;
            }
        }
        Ring::read(connection)
    }

    /// A new key at once, and no token of the old ones is right any more: for keys that others know.
    pub(super) fn replace(connection: &Connection, now: Ms) -> Result<Ring, Refusal> {
        connection.execute("DELETE FROM signing_keys", [])?;
        add(connection, now)?;
        Ring::read(connection)
    }
}

fn add(connection: &Connection, signs_from: Ms) -> Result<(), Refusal> {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(Refusal::internal)?;
    let sql = "INSERT INTO signing_keys (id, pkcs8, signs_from) VALUES (?1, ?2, ?3)";
    connection.execute(sql, params![new_id(), pkcs8.as_ref(), signs_from])?;
    Ok(())
}

/// Whether `Ring::turn` would change anything: most looks find nothing to write.
pub(super) fn is_due(ring: &Ring, times: Times, now: Ms) -> bool {
    let next = ring.keys.last().is_none_or(|key| key.signs_from + ms(times.rotate) - ms(times.lead()) <= now);
    next || ring.keys.get(1).is_some_and(|next| next.signs_from + ms(times.access) + SLACK < now)
}

/// How many keys are published and when the next one signs, for the admin page.
pub(super) fn outlook(ring: &Ring, times: Times) -> Value {
    let now = moment::now();
    let next = ring.keys.iter().map(|key| key.signs_from).find(|at| *at > now);
    let next = next.or_else(|| ring.signing(now).map(|key| key.signs_from + ms(times.rotate)));
    json!({ "published": ring.keys.len(), "signing": ring.signing(now).map(|key| &key.id), "next": next })
}

#[cfg(test)]
mod tests {
    use super::super::store::migrated;
    use super::*;

    const TIMES: Times = Times { rotate: Duration::from_secs(1000), access: Duration::from_secs(100) };

    #[test]
    fn keys_are_published_before_they_sign_and_until_their_tokens_have_ended() {
        let connection = migrated();
        let turn = |now_s: Ms| Ring::turn(&connection, TIMES, now_s * 1000).unwrap();
        let first = turn(0).signing(0).unwrap().id.clone();
        assert_eq!(turn(899).keys.len(), 1);
        let ring = turn(900);
        assert_eq!(ring.keys.len(), 2, "the next one is published");
        assert_eq!(ring.signing(999_999).unwrap().id, first);
        let second = ring.signing(1_000_000).unwrap().id.clone();
        assert_ne!(first, second);
        assert!(turn(1160).by_id(&first).is_some(), "its last token may live still");
        let ring = turn(1161);
        assert!(ring.by_id(&first).is_none() && ring.by_id(&second).is_some());
    }

    #[test]
    fn one_that_was_missed_is_published_before_it_signs() {
        let connection = migrated();
        let first = Ring::turn(&connection, TIMES, 0).unwrap().signing(0).unwrap().id.clone();
        let ring = Ring::turn(&connection, TIMES, 10_000_000).unwrap();
        assert_eq!(ring.signing(10_000_000).unwrap().id, first, "the old one signs on meanwhile");
        assert_ne!(ring.signing(10_100_000).unwrap().id, first);
    }

    #[test]
    fn replaced_keys_are_gone_at_once() {
        let connection = migrated();
        let first = Ring::turn(&connection, TIMES, 0).unwrap().signing(0).unwrap().id.clone();
        let ring = Ring::replace(&connection, 1000).unwrap();
        assert!(ring.by_id(&first).is_none() && ring.signing(1000).is_some());
    }

    #[test]
    fn a_rotation_that_comes_late_does_not_bring_replaced_keys_back() {
        let (connection, place) = (migrated(), ArcSwap::default());
        let turned = Ring::turn(&connection, TIMES, 0).unwrap();
        let old = turned.signing(0).unwrap().id.clone();
        Ring::replace(&connection, 1000).unwrap().adopt(&place);
        turned.adopt(&place);
        assert!(place.load().by_id(&old).is_none() && place.load().signing(1000).is_some());
        Ring::turn(&connection, TIMES, 950_000).unwrap().adopt(&place);
        assert_eq!(place.load().keys.len(), 2, "later ones are taken");
    }

    #[test]
    fn private_keys_are_not_published() {
        let ring = Ring::turn(&migrated(), TIMES, 0).unwrap();
        let jwks = ring.jwks();
        let names: Vec<_> = jwks["keys"][0].as_object().unwrap().keys().cloned().collect();
        assert!(!names.contains(&"d".to_owned()) && names.len() == 7, "{names:?}");
    }
}
