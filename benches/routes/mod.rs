//! Tables of any size for the benches: ten routes to a host, host and path both varied.

use std::fmt::Write as _;

use tollgate::config::{Document, References, read};
use tollgate::routes::{self, Env, Table};
use tollgate::scalar::OneOrMany;
use tollgate::settings::Dns;
use tollgate::tasks::Tasks;
use tollgate::upstream::Pools;

pub(crate) const PER_HOST: usize = 10;
const UPSTREAMS: usize = 50;

pub(crate) fn text(size: usize) -> String {
    let mut text = "format = 1\n".to_owned();
    for number in 0..UPSTREAMS {
        let _ = write!(text, "[upstream.u{number}]\naddress = \"app-{number}.internal:8080\"\n");
    }
    for number in 0..size {
        let (host, path) = pattern(number);
        let _ = write!(
            text,
            "[[route]]\nname = \"r{number}\"\nmatch = {{ host = \"{host}\", path = \"{path}\" }}\nupstream = \"u{}\"\n",
            number % UPSTREAMS
        );
    }
    text
}

/// Host and path pattern of the route of this number.
pub(crate) fn pattern(number: usize) -> (String, String) {
    let host = number / PER_HOST;
    let path = match number % PER_HOST {
        0 => "/*".to_owned(),
        1 => "/api/{id}/orders".to_owned(),
        2 => "/api/{id}/orders/*".to_owned(),
        3 => format!("/static-{number}"),
        n => format!("/api/v{n}/s{number}/*"),
    };
    (format!("site-{host}.example.com"), path)
}

pub(crate) fn document(text: &str) -> Document {
    let (document, problems) = read::document(text, &References::symbolic());
    document.unwrap_or_else(|| panic!("{problems:#?}"))
}

pub(crate) fn pools() -> Pools {
    let dns = Dns { servers: OneOrMany(vec!["127.0.0.1:53".to_owned()]), ..Dns::default() };
    Pools::new(&dns, Tasks::default()).expect("pools")
}

pub(crate) fn env() -> Env {
    Env { listeners: vec![tollgate::routes::Listener::new("public", true)], ..Env::default() }
}

pub(crate) fn table(size: usize) -> Table {
    let (table, problems) = routes::compile(&document(&text(size)), &env(), &pools());
    table.unwrap_or_else(|| panic!("{problems:#?}"))
}
