//! Two pages for people: notes at `/`, administration at `/_/`. Both only speak with the API, as any client would.
//!
//! Script and style are files of their own, so that the content security policy can forbid everything else.

use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};

use super::refusal::Refusal;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What pages load: name, type, text.
const ASSETS: [(&str, &str, &str); 4] = [
    ("api.js", "text/javascript; charset=utf-8", include_str!("web/api.js")),
    ("notes.js", "text/javascript; charset=utf-8", include_str!("web/notes.js")),
    ("admin.js", "text/javascript; charset=utf-8", include_str!("web/admin.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("web/style.css")),
];

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Refusal> {
    let found = ASSETS.iter().find(|(known, ..)| *known == name).ok_or(Refusal::NotFound)?;
    let (_, kind, text) = *found;
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response())
}

fn page(title: &str, script: &str, body: &Markup) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                // None: browsers would ask for one at a place of their own.
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/style.css";
                script type="module" src={ "/assets/" (script) } {}
            }
            body { (body) }
        }
    };
    let fields: [(HeaderName, &str); 3] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let mut response = document.into_response();
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// The form to log in with; notes let people sign up, too.
fn entrance(signup: bool) -> Markup {
    html! {
        form #entrance hidden {
            label { "Email" input #email type="email" name="email" autocomplete="username" required; }
            label {
                "Password"
                input #password type="password" name="password" autocomplete="current-password" minlength="8" required;
            }
            div.actions {
                button type="submit" { "Log in" }
                @if signup { button.quiet type="button" #signup { "Sign up" } }
            }
        }
    }
}

pub(super) async fn notes() -> Response {
    let body = html! {
        header { h1 { "Notes" } button.quiet #logout type="button" hidden { "Log out" } }
        main {
            p #message role="status" {}
            (entrance(true))
            section #notes hidden {
                form #add {
                    label { "New note" input #text name="text" maxlength="1000" autocomplete="off" required; }
                    div.actions { button type="submit" { "Add" } }
                }
                ul #list {}
                div.actions { button.quiet #more type="button" hidden { "More" } }
            }
        }
        footer { a href="/_/" { "Administration" } }
    };
    page("Notes", "notes.js", &body)
}

/// Whom a rule may admit.
fn rules(name: &str) -> Markup {
    html! { select name=(name) { @for word in ["owner", "user", "anyone", "admin"] { option { (word) } } } }
}

pub(super) async fn admin() -> Response {
    let body = html! {
        header { h1 { "Administration" } button.quiet #logout type="button" hidden { "Log out" } }
        main {
            p #message role="status" {}
            (entrance(false))
            template #rule { (rules("")) }
            div #admin hidden {
                section { h2 { "State" } dl #state {} }
                section {
                    h2 { "Collections" }
                    div.wide { table #collections { thead { tr {
                        th { "name" } th { "records" } th { "list" } th { "read" } th { "create" } th { "update" } th { "delete" } th {}
                    } } tbody {} } }
                    form #add {
                        label { "New collection" input #name name="name" pattern="[A-Za-z][A-Za-z0-9_]*" maxlength="64" required; }
                        @for rule in ["list", "read", "create", "update", "delete"] {
                            label { (rule) (rules(rule)) }
                        }
                        div.actions { button type="submit" { "Add" } }
                    }
                }
                section #records hidden {
                    h2 { "Records of " span #collection {} }
                    form #find { label { "Filter" input #filter name="filter" autocomplete="off" placeholder="text ~ 'milk' && created > 0"; } }
                    div.wide { table { thead { tr { th { "id" } th { "owner" } th { "fields" } th {} } } tbody #rows {} } }
                    div.actions {
                        button.quiet #back type="button" { "Back" }
                        span #place {}
                        button.quiet #next type="button" { "Next" }
                    }
                }
                section {
                    h2 { "Users" }
                    div.wide { table { thead { tr { th { "email" } th { "role" } th { "id" } th { "since" } th {} } } tbody #users {} } }
                    div.actions { button.quiet #more type="button" hidden { "More" } }
                }
            }
        }
        footer { a href="/" { "Notes" } }
    };
    page("Administration", "admin.js", &body)
}
