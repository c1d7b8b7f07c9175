//! Users with passwords (RFC 7617). Hashes are slow on purpose: they are computed a few at a time, off the request threads,
//! and what was right is remembered for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use aws_lc_rs::digest;
use tokio::sync::Semaphore;

use crate::bounded::Bounded;
use crate::config;
use crate::facts::{Proven, Subject};
use crate::problem::{Path, Problem};
use crate::scalar::Secret;

/// Passwords that are hashed at once, over all users: each takes a core and, with argon2, its memory.
const AT_ONCE: usize = 2;
/// A password that was right is right for this long.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 10_000;
/// Others wait this long for their turn, and are told to come again.
const WAIT: Duration = Duration::from_secs(2);
const PASSWORD_MAX: usize = 1024;

static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

/// Users by name.
#[derive(Debug)]
pub struct Users {
    pub name: Arc<str>,
    /// `WWW-Authenticate`.
    pub challenge: String,
    users: BTreeMap<String, Secret>,
    /// Verified, by a digest of user and password.
    remembered: Bounded<Instant>,
}

/// What came of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Too many are asked about at once.
    Busy,
}

impl Users {
    pub fn compile(name: &str, words: &config::Users, at: &Path, problems: &mut Vec<Problem>) -> Users {
        let config::Users { realm, users } = words;
        for (user, hash) in users {
            let at = at.at("users").at(user);
            let text = hash.expose();
            let known =
                text.contains("${") || is_bcrypt(text) || PasswordHash::new(text).is_ok_and(|hash| is_argon(&hash));
            if !known {
                let help = "argon2id or bcrypt, as `tollgate hash-password` prints it";
                problems.push(Problem::error(at.clone(), "this is no hash of a password").help(help));
            }
            if user.contains(':') {
                problems.push(Problem::error(at, "the name of a user holds no `:` (RFC 7617 2)"));
            }
        }
        let realm: String = realm.as_deref().unwrap_or(name).chars().filter(|c| !c.is_control()).collect();
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        Users {
            name: name.into(),
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            users: users.clone(),
            remembered: Bounded::new(REMEMBERED_MAX),
        }
    }

    pub async fn verify(&self, user: &str, password: &str) -> Verdict {
        if password.len() > PASSWORD_MAX {
            return Verdict::Wrong;
        }
        let digest = digest::digest(&digest::SHA256, format!("{user}\0{password}").as_bytes());
        let key = self.remembered.key(digest.as_ref());
        if self.remembered.get(key).is_some_and(|at| at.elapsed() < REMEMBERED_FOR) {
            return Verdict::Right;
        }
        let Ok(Ok(turn)) = tokio::time::timeout(WAIT, TURNS.clone().acquire_owned()).await else {
            return Verdict::Busy;
        };
        // A user that is not there takes as long as one that is.
        let known = self.users.contains_key(user);
        let hash = self.users.get(user).or(self.users.values().next()).cloned();
        let password = Secret::new(password);
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            hash.is_some_and(|hash| is_right(hash.expose(), password.expose()))
        });
        let right = checked.await.unwrap_or(false) && known;
        if right {
            self.remembered.put(key, Instant::now());
        }
        if right { Verdict::Right } else { Verdict::Wrong }
    }

    pub fn subject(&self, user: &str) -> Subject {
        Subject::new(Proven::Basic, user, &self.name)
    }
}

fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|start| hash.starts_with(start)) && hash.len() == 60
}

fn is_argon(hash: &PasswordHash<'_>) -> bool {
    hash.algorithm.as_str() == "argon2id" && hash.hash.is_some()
}

fn is_right(hash: &str, password: &str) -> bool {
    match PasswordHash::new(hash) {
        Ok(parsed) if is_argon(&parsed) => Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok(),
        _ => is_bcrypt(hash) && bcrypt::verify(password, hash).unwrap_or(false),
    }
}

/// A hash of a password, as documents hold it.
pub fn hash(password: &str) -> Result<String, String> {
    use argon2::PasswordHasher as _;
    use argon2::password_hash::SaltString;
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| "no random bytes".to_owned())?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(hash: &str) -> Users {
        let words = config::Users { realm: None, users: BTreeMap::from([("alice".to_owned(), Secret::new(hash))]) };
        let mut problems = Vec::new();
        let users = Users::compile("staff", &words, &Path::default(), &mut problems);
        assert_eq!(problems, []);
        users
    }

    #[tokio::test]
    async fn passwords_are_verified_and_remembered() {
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        for hash in [hash("secret").unwrap(), bcrypt] {
            let users = users(&hash);
            assert_eq!(users.verify("alice", "secret").await, Verdict::Right);
            assert_eq!(users.verify("alice", "secret").await, Verdict::Right);
            assert_eq!(users.remembered.len(), 1);
            assert_eq!(users.verify("alice", "wrong").await, Verdict::Wrong);
            assert_eq!(users.verify("bob", "secret").await, Verdict::Wrong);
            assert_eq!(users.remembered.len(), 1, "what is wrong is not remembered");
        }
    }

    #[test]
    fn a_password_in_the_place_of_its_hash_is_told() {
        let words = config::Users { realm: None, users: BTreeMap::from([("a:b".to_owned(), Secret::new("secret"))]) };
        let mut problems = Vec::new();
        Users::compile("staff", &words, &Path::default(), &mut problems);
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|problem| !problem.to_string().contains("secret")), "{problems:?}");
    }
}
