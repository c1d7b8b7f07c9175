//! Sealing what stands where others can read it: AES-256-GCM under a key the operator gives, each value bound to its place.

use std::io::{self, ErrorKind};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::scalar::Secret;

/// The key that values are sealed with.
pub struct Seal(RandomizedNonceKey);

impl Seal {
    /// Of a secret of 32 characters or more, the same on every node.
    pub fn new(secret: &Secret) -> Option<Seal> {
        let secret = secret.expose().trim();
        if secret.len() < 32 {
            return None;
        }
        let mut key = Zeroizing::new([0; 32]);
        let salt = Salt::new(HKDF_SHA256, b"tollgate sealed store");
        salt.extract(secret.as_bytes()).expand(&[b"aes-256-gcm"], Key).ok()?.fill(&mut *key).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &*key).ok().map(Seal)
    }

    pub fn seal(&self, place: &str, value: &[u8]) -> io::Result<Bytes> {
        let mut sealed = value.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut sealed).map_err(wrong)?;
        let mut out = nonce.as_ref().to_vec();
        out.append(&mut sealed);
        Ok(out.into())
    }

    pub fn open(&self, place: &str, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) =
            sealed.split_at_checked(NONCE_LEN).ok_or_else(|| io::Error::from(ErrorKind::InvalidData))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(wrong)?;
        let mut value = Zeroizing::new(sealed.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(place.as_bytes()), &mut value).map_err(wrong)?.len();
        value.truncate(length);
        Ok(value)
    }
}

fn wrong(_: aws_lc_rs::error::Unspecified) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it was not sealed with this key, or it was changed")
}

struct Key;

impl KeyType for Key {
    fn len(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_stands_for_its_own_place_and_is_whole_or_nothing() {
        let seal = Seal::new(&Secret::new("a secret of thirty-two characters")).unwrap();
        let sealed = seal.seal("here", b"KEY").unwrap();
        assert_eq!(seal.open("here", &sealed).unwrap().as_slice(), b"KEY");
        assert!(seal.open("there", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(seal.open("here", &changed).is_err(), "{at}");
            assert!(seal.open("here", &sealed[..at]).is_err(), "{at}");
        }
        assert!(Seal::new(&Secret::new("too short")).is_none());
    }
}
