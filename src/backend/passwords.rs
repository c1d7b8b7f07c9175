//! Passwords: argon2id, slow on purpose. A few at a time, off the threads of requests; an account that nobody has takes as
//! long as one that somebody has.

use std::sync::Arc;
use std::time::Duration;

use argon2::{Argon2, PasswordHash, PasswordVerifier as _};
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use crate::policy::users;
use crate::scalar::Secret;
use crate::settings::backend::PASSWORD_MIN;

/// Others wait this long for their turn, and are told to come again.
const WAIT: Duration = Duration::from_secs(2);
const PASSWORD_MAX: usize = 1024;

pub(super) struct Passwords {
    places: Arc<Semaphore>,
    /// Of no password: what is compared with when there is no account.
    nobody: String,
}

impl Passwords {
    pub(super) fn new(at_once: usize) -> Result<Passwords, String> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "no random bytes".to_owned())?;
        let nobody = users::hash(&super::tokens::base64url(&random))?;
        Ok(Passwords { places: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))), nobody })
    }

    pub(super) async fn hash(&self, password: Secret) -> Result<String, Refusal> {
        let length = password.expose().chars().count();
        if length < PASSWORD_MIN || password.expose().len() > PASSWORD_MAX {
            let message = format!("a password has {PASSWORD_MIN} characters or more, and {PASSWORD_MAX} bytes at most");
            return Err(Refusal::invalid("password", message));
        }
        self.aside(move || users::hash(password.expose())).await?.map_err(Refusal::Internal)
    }

    /// Whether it is the password of this hash; `None` is nobody's.
    pub(super) async fn verify(&self, hash: Option<String>, password: Secret) -> Result<bool, Refusal> {
        if password.expose().len() > PASSWORD_MAX {
            return Ok(false);
        }
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let right = self.aside(move || is_right(&hash, password.expose())).await?;
        Ok(right && known)
    }

    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let place = tokio::time::timeout(WAIT, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Refusal::Busy) };
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(Refusal::internal)
    }
}

fn is_right(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_is_right_and_nobody_has_one() {
        let passwords = Passwords::new(2).unwrap();
        let hash = passwords.hash(Secret::new("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        for (hash, password, expect) in [
            (Some(hash.clone()), "correct horse", true),
            (Some(hash.clone()), "correct horsf", false),
            (Some(hash), &"x".repeat(PASSWORD_MAX + 1), false),
            (None, "correct horse", false),
        ] {
            assert_eq!(passwords.verify(hash, Secret::new(password)).await, Ok(expect), "{password}");
        }
        for short in ["", "seven77"] {
            assert!(matches!(passwords.hash(Secret::new(short)).await, Err(Refusal::Invalid { .. })), "{short}");
        }
    }
}
