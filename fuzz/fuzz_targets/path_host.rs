//! Paths and hosts: what is normal stays as it is when it is normalised again.
#![no_main]

use tollgate::facts::{host, path};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(once) = path::normalise(text) {
        assert_eq!(path::normalise(&once.path).as_ref(), Ok(&once));
    }
    if let Ok(once) = host::normalise(text) {
        assert_eq!(host::normalise(&once).as_ref(), Ok(&once));
    }
    let _ = path::check_query(text);
});
