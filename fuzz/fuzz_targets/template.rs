//! Templates over facts: text without facts renders as itself.
#![no_main]

use std::borrow::Cow;

use tollgate::facts::{Fact, Facts, Template};

struct Echo;

impl Facts for Echo {
    fn fact(&self, fact: &Fact) -> Option<Cow<'_, str>> {
        Some(fact.to_string().into())
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(template) = text.parse::<Template>() {
        let rendered = template.render(&Echo);
        assert!(template.fixed().is_none_or(|fixed| rendered.as_deref() == Some(fixed)));
    }
});
