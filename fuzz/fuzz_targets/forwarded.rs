//! Forwarding headers: a stranger's are never believed, and the client is a hop that the next trusted one has named.
#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate::proxy::{Trusted, scheme};

libfuzzer_sys::fuzz_target!(|input: Vec<(bool, &str)>| {
    let mut headers = HeaderMap::new();
    for (standard, text) in input {
        let name = if standard { http::header::FORWARDED } else { HeaderName::from_static("x-forwarded-for") };
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.append(name, value);
        }
    }
    let trusted = Trusted::new(["10.0.0.0/8", "fd00::/8"]);
    let stranger: IpAddr = "192.0.2.1".parse().expect("an address");
    assert_eq!(trusted.client(stranger, &headers), stranger);
    let peer: IpAddr = "10.0.0.1".parse().expect("an address");
    let client = trusted.client(peer, &headers);
    // Nobody further away is believed than the first who is not trusted.
    assert_eq!(trusted.client(client, &HeaderMap::new()), client);
    let _ = scheme(&headers);
});
