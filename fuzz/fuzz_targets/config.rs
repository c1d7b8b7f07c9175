//! Documents and settings: every problem has a place that can be printed, and a text without problems has words.
#![no_main]

use tollgate::config::{References, print, read};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let references = References::symbolic();
    let (document, problems) = read::document(text, &references);
    assert!(document.is_some() || !problems.is_empty());
    print::report("routes.toml", text, &problems);
    let (settings, problems) = read::settings(text, &references, &[]);
    assert!(settings.is_some() || !problems.is_empty());
    print::report("edge.toml", text, &problems);
});
