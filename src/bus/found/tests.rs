//! Who is there, who is gone, and who never was.

use super::*;
use crate::bus::{Bucket, Local};

async fn bus() -> Bus {
    let bus = Bus::new(Local::default());
    bus.make_bucket(&Bucket { name: "found".to_owned(), max_age: Duration::ZERO }).await.unwrap();
    bus
}

fn at(port: u16) -> Registration {
    Registration::new(([10, 0, 0, 1], port).into())
}

fn ports(told: Told) -> Vec<u16> {
    match told {
        Told::Endpoints(all) => all.iter().map(|one| one.address.port()).collect(),
        Told::Lost(reason) => panic!("{reason}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_there_while_it_says_so() {
    let bus = bus().await;
    let mut endpoints = Endpoints::of(&bus, "found", "builder", false);
    assert_eq!(ports(endpoints.next().await), [0_u16; 0]);
    let stop = CancellationToken::new();
    let keep = |port: u16, stop: CancellationToken| {
        let bus = bus.clone();
        tokio::spawn(async move {
            register(bus, "found".to_owned(), "builder", &port.to_string(), at(port), stop).await.unwrap();
        })
    };
    let one = keep(1, stop.clone());
    assert_eq!(ports(endpoints.next().await), [1]);
    let dies = keep(2, CancellationToken::new());
    assert_eq!(ports(endpoints.next().await), [1, 2]);
    let quiet = timeout(Duration::from_secs(120), endpoints.next()).await;
    assert!(quiet.is_err(), "renewing is no news: {quiet:?}");
    let died = Instant::now();
    dies.abort();
    assert_eq!(ports(endpoints.next().await), [1]);
    let took = died.elapsed();
    assert!(took <= Duration::from_secs(TERM_S) && took > Duration::from_secs(TERM_S / 2), "{took:?}");
    let left = Instant::now();
    stop.cancel();
    assert_eq!(ports(endpoints.next().await), [0_u16; 0]);
    assert!(left.elapsed() < Duration::from_secs(1), "who leaves says so");
    one.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_registration_changes_nothing() {
    let bus = bus().await;
    let bucket = bus.bucket("found").await.unwrap();
    bucket.put("builder.a", serde_json::to_vec(&at(1)).unwrap().into()).await.unwrap();
    bucket.put("other.a", serde_json::to_vec(&at(9)).unwrap().into()).await.unwrap();
    let mut endpoints = Endpoints::of(&bus, "found", "builder", false);
    assert_eq!(ports(endpoints.next().await), [1]);
    for text in [
        "",
        "{}",
        r#"{"address":"builder.internal:80"}"#,
        r#"{"address":"0.0.0.0:80"}"#,
        r#"{"address":"169.254.169.254:80"}"#,
        r#"{"address":"[::ffff:169.254.169.254]:80"}"#,
        r#"{"address":"10.0.0.1:0"}"#,
        r#"{"address":"127.0.0.1:80"}"#,
        r#"{"address":"[::1]:80"}"#,
        r#"{"address":"[::ffff:127.0.0.1]:80"}"#,
        r#"{"address":"10.0.0.1:1","weight":1001}"#,
        r#"{"address":"10.0.0.1:1","term_s":2}"#,
    ] {
        let read = Registration::read(text.as_bytes());
        assert!(read.is_err() || read.is_ok_and(|read| read.address.ip().to_canonical().is_loopback()), "{text}");
        bucket.put("builder.b", text.to_owned().into()).await.unwrap();
    }
    let told = timeout(Duration::from_secs(1), endpoints.next()).await;
    assert!(told.is_err(), "{told:?}");
    bucket.put("builder.b", r#"{"address":"10.0.0.1:2","weight":3}"#.into()).await.unwrap();
    assert_eq!(ports(endpoints.next().await), [1, 2]);
}
