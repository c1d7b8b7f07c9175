//! What stands on the bus of a fleet, written by whoever may: read, or refused, whatever it is.
#![no_main]

use bytes::Bytes;
use tollgate::bus::Entry;
use tollgate::bus::found::Registration;
use tollgate::ledger::{Canary, Pointer};

libfuzzer_sys::fuzz_target!(|value: &[u8]| {
    if let Ok(read) = Registration::read(value) {
        assert_eq!(read.check(), Ok(()));
        assert!(read.address.port() != 0 && !read.address.ip().is_unspecified());
        let written = serde_json::to_vec(&read).expect("what was read can be written");
        assert_eq!(Registration::read(&written), Ok(read));
    }
    let entry = Entry { key: "head.fleet".to_owned(), value: Bytes::copy_from_slice(value), revision: 1 };
    let _ = Pointer::parse(&entry);
    let _ = Canary::parse(&entry);
    let _ = serde_json::from_slice::<tollgate::fleet::Report>(value);
    let _ = serde_json::from_slice::<tollgate::fleet::Traffic>(value);
    let _ = serde_json::from_slice::<tollgate::fleet::Wish>(value);
});
