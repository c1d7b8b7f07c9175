//! Users with passwords (RFC 7617). Hashes are slow on purpose: they are computed a few at a time, off the request threads,
//! and what was right is remembered for a while.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use aws_lc_rs::digest;
use tokio::sync::Semaphore;

use super::auth::Proving;
use super::network::{Network, network};
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
/// Requests of one client that wait, and clients.
const WAITING_MAX: usize = 64;
const CLIENTS_MAX: usize = 1024;

static AT_WORK: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));
/// Clients whose passwords are looked at, and how many of each.
static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);

type Turns = HashMap<Network, (Arc<Semaphore>, usize)>;

/// A client that waits for its passwords, one after the other.
struct Turn {
    client: Network,
    place: Arc<Semaphore>,
}

impl Turn {
    /// `None`: too many wait already.
    fn of(client: IpAddr) -> Option<Turn> {
        let client = network(client);
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= CLIENTS_MAX && !turns.contains_key(&client) {
            return None;
        }
        let (place, waiting) = turns.entry(client).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        if *waiting >= WAITING_MAX {
            return None;
        }
        *waiting += 1;
        Some(Turn { client, place: place.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, waiting)) = turns.get_mut(&self.client) {
            *waiting -= 1;
            if *waiting == 0 {
                turns.remove(&self.client);
            }
        }
    }
}

/// Users by name.
#[derive(Debug)]
pub struct Users {
    pub name: Arc<str>,
    /// `WWW-Authenticate`.
    pub challenge: String,
    users: BTreeMap<String, Secret>,
    /// Verified, by a digest of user and password.
    remembered: OnceLock<Arc<Bounded<Instant>>>,
}

/// What came of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    /// Too many are asked about at once.
    Busy,
    /// It is not known already, and was not to be found out.
    Unknown,
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
            remembered: OnceLock::new(),
        }
    }

    /// One of a client at a time, so that its wrong ones are counted before the next is looked at, and so that others have
    /// their turn. `known_only`: nothing is hashed.
    pub async fn verify(
        &self,
        user: &str,
        password: &str,
        client: IpAddr,
        proving: &Proving,
        known_only: bool,
    ) -> Verdict {
        if password.len() > PASSWORD_MAX {
            return Verdict::Wrong;
        }
        let digest = digest::digest(&digest::SHA256, format!("{user}\0{password}").as_bytes());
        // For the network that has proven it: others may only guess.
        let key = self.remembered().key((digest.as_ref(), network(client)));
        let is_known = || self.remembered().get(key).is_some_and(|at| at.elapsed() < REMEMBERED_FOR);
        if is_known() {
            return Verdict::Right;
        }
        if known_only {
            return Verdict::Unknown;
        }
        let Some(turn) = Turn::of(client) else { return Verdict::Busy };
        let Ok(Ok(_mine)) = tokio::time::timeout(WAIT, turn.place.acquire()).await else { return Verdict::Busy };
        // Meanwhile another request of the client has proven the same, or it has failed too often.
        if is_known() {
            return Verdict::Right;
        }
        if proving.is_blocked(client).is_some() {
            return Verdict::Unknown;
        }
        let Ok(Ok(permit)) = tokio::time::timeout(WAIT, AT_WORK.clone().acquire_owned()).await else {
            return Verdict::Busy;
        };
        // A user that is not there takes as long as one that is.
        let known = self.users.contains_key(user);
        let hash = self.users.get(user).or(self.users.values().next()).cloned();
        let password = Secret::new(password);
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            hash.is_some_and(|hash| is_right(hash.expose(), password.expose()))
        });
        if checked.await.unwrap_or(false) && known {
            self.remembered().put(key, Instant::now());
            return Verdict::Right;
        }
        proving.failed(client);
        Verdict::Wrong
    }

    /// What was right stays right while the users are the same.
    pub fn inherit(&self, previous: &Users) {
        if self.users == previous.users {
            let _ = self.remembered.set(previous.remembered().clone());
        }
    }

    fn remembered(&self) -> &Arc<Bounded<Instant>> {
        self.remembered.get_or_init(|| Arc::new(Bounded::new(REMEMBERED_MAX)))
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

    fn proving(burst: u32) -> Proving {
        Proving::new(&config::AuthFailures { rate: "1/h".parse().unwrap(), burst })
    }

    #[tokio::test]
    async fn passwords_are_verified_and_remembered() {
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        let client = "192.0.2.1".parse().unwrap();
        for hash in [hash("secret").unwrap(), bcrypt] {
            let (users, proving) = (users(&hash), proving(100));
            let verify = async |user, password| users.verify(user, password, client, &proving, false).await;
            assert_eq!(users.verify("alice", "secret", client, &proving, true).await, Verdict::Unknown);
            assert_eq!(verify("alice", "secret").await, Verdict::Right);
            assert_eq!(users.verify("alice", "secret", client, &proving, true).await, Verdict::Right);
            assert_eq!(users.remembered().len(), 1);
            assert_eq!(verify("alice", "wrong").await, Verdict::Wrong);
            assert_eq!(verify("bob", "secret").await, Verdict::Wrong);
            assert_eq!(users.remembered().len(), 1, "what is wrong is not remembered");
        }
        assert!(TURNS.lock().unwrap().get(&network(client)).is_none(), "nobody waits");
    }

    /// However many a client sends at once, no more are looked at than it may fail.
    #[tokio::test]
    async fn guesses_at_once_are_counted_one_by_one() {
        let users = Arc::new(users(&bcrypt::hash("secret", 4).unwrap()));
        let proving = Arc::new(proving(3));
        let client = "192.0.2.2".parse().unwrap();
        let guesses: Vec<_> = (0..30)
            .map(|number| {
                let (users, proving) = (users.clone(), proving.clone());
                tokio::spawn(async move { users.verify("alice", &number.to_string(), client, &proving, false).await })
            })
            .collect();
        let mut wrong = 0;
        for guess in guesses {
            wrong += u32::from(guess.await.unwrap() == Verdict::Wrong);
        }
        assert_eq!(wrong, 4, "three, and the one that was too many");
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
