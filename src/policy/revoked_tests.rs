//! What is covered, and that nothing of it is lost.

use serde_json::json;

use super::*;

fn subject(claims: Value, kid: &str) -> Arc<Subject> {
    let mut subject = Subject::new(Proven::Jwt, "u1", &"accounts".into());
    subject.claims = claims.as_object().unwrap().clone();
    subject.key = Some(kid.into());
    Arc::new(subject)
}

fn revocation(value: Value) -> Revocation {
    serde_json::from_value(value).unwrap()
}

#[test]
fn all_that_is_said_must_be_true() {
    let token = subject(json!({ "iss": "accounts", "sub": "u1", "jti": "t1", "iat": 100 }), "k1");
    for (words, expect) in [
        (json!({ "jti": "t1" }), true),
        (json!({ "jti": "t2" }), false),
        (json!({ "sub": "u1" }), true),
        (json!({ "sub": "u1", "jti": "t2" }), false),
        (json!({ "kid": "k1" }), true),
        (json!({ "kid": "k1", "issuer": "others" }), false),
        (json!({ "kid": "k1", "issuer": "accounts" }), true),
        (json!({ "issued_before": 101 }), true),
        (json!({ "issued_before": 100 }), false),
        (json!({ "sub": "u1", "issued_before": 100 }), false),
    ] {
        let revocations = Revocations::default();
        revocations.add(revocation(words.clone()), 0).unwrap();
        assert_eq!(revocations.covers(&token, 0), expect, "{words}");
    }
    let undated = subject(json!({ "sub": "u1" }), "k1");
    let revocations = Revocations::default();
    revocations.add(revocation(json!({ "issued_before": 1 })), 0).unwrap();
    assert!(revocations.covers(&undated, 0), "who knows when it was given out");
}

#[test]
fn what_says_nothing_or_too_much_is_refused() {
    let revocations = Revocations::default();
    for words in [
        json!({}),
        json!({ "issuer": "accounts" }),
        json!({ "jti": "" }),
        json!({ "sub": "x".repeat(TEXT_MAX + 1) }),
        json!({ "jti": "a", "expires": 10 }),
    ] {
        assert!(revocations.add(revocation(words.clone()), 10 + LEEWAY_MAX).is_err(), "{words}");
    }
    assert_eq!(revocations.all(0).len(), 0);
    assert!(serde_json::from_value::<Revocation>(json!({ "token": "a" })).is_err());
}

#[test]
fn they_are_kept_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let first = Revocations::open(folder.path(), 0).unwrap();
    let id = first.add(revocation(json!({ "jti": "t1", "expires": 100 })), 0).unwrap();
    assert_eq!(first.add(revocation(json!({ "jti": "t1", "expires": 200, "reason": "stolen" })), 0).unwrap(), id);
    let other = first.add(revocation(json!({ "sub": "u1" })), 0).unwrap();
    let again = Revocations::open(folder.path(), 150).unwrap();
    assert_eq!(again.all(150), first.all(150));
    let late = 200 + LEEWAY_MAX;
    let token = subject(json!({ "jti": "t1" }), "k");
    assert!(again.covers(&token, late - 1) && !again.covers(&token, late), "forgotten at its end, not before");
    assert_eq!((again.all(late - 1).len(), again.all(late).len()), (2, 1));
    // Two processes write one file.
    let third = first.add(revocation(json!({ "jti": "t3" })), 0).unwrap();
    assert!(again.remove(&other, 0).unwrap() && !again.remove(&other, 0).unwrap());
    assert!(again.all(0).contains_key(&third) && first.all(0).contains_key(&other));
    first.look_again(0).unwrap();
    assert_eq!(first.all(0), again.all(0));
    std::fs::write(folder.path().join(FILE), "{").unwrap();
    assert!(Revocations::open(folder.path(), 0).is_err(), "nobody passes because a file broke");
}

#[test]
fn what_could_not_be_written_stays_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let revocations = Revocations::open(folder.path(), 0).unwrap();
    let token = subject(json!({ "jti": "t1" }), "k");
    // Nothing can be written where a directory stands.
    let path = folder.path().join(FILE);
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(revocations.add(revocation(json!({ "jti": "t1" })), 0), Err(RevocationError::Kept(_))));
    assert!(revocations.look_again(0).is_err() && revocations.covers(&token, 0));
    std::fs::remove_dir(&path).unwrap();
    revocations.look_again(0).unwrap();
    assert!(revocations.covers(&token, 0) && Revocations::open(folder.path(), 0).unwrap().covers(&token, 0));
    // Somebody has cleared the directory.
    std::fs::remove_file(&path).unwrap();
    revocations.look_again(0).unwrap();
    assert!(Revocations::open(folder.path(), 0).unwrap().covers(&token, 0));
}

#[test]
fn who_is_there_hears_of_it() {
    let revocations = Revocations::default();
    let (one, other) = (subject(json!({ "jti": "t1" }), "k"), subject(json!({ "jti": "t2" }), "k"));
    let (watched, spared) = (revocations.watch(&one), revocations.watch(&other));
    revocations.add(revocation(json!({ "jti": "t1" })), 0).unwrap();
    assert!(watched.is_revoked() && !spared.is_revoked());
    assert!(revocations.watch(&one).is_revoked(), "who comes late hears too");
}
