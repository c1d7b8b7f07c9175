//! The dashboard as an operator uses it, in a real browser: by keyboard, in light and dark, on a phone.
//!
//! `SCREENSHOTS=1 cargo test --test it dashboard::` writes the pictures of docs/ anew.

use std::path::{Path, PathBuf};

use crate::controller::{member, push};
use crate::kit::browser::Browser;
use crate::kit::controller::{Controller, TOKEN};
use crate::kit::load::Load;
use crate::kit::nats::Nats;
use crate::kit::tollgate::tollgate;

fn document(text: &str) -> String {
    format!(
        "format = 1\n\n[[route]]\nname = \"shop\"\nmatch = {{ path = \"/shop/*\" }}\nrespond = {{ body = \"{text}\" }}\n\n\
        [[route]]\nname = \"rest\"\nrespond = {{ status = 200, body = \"rest\" }}\n"
    )
}

/// Where pictures go: to docs/ if they are wanted, else to nowhere in particular.
fn pictures(directory: &Path) -> PathBuf {
    match std::env::var_os("SCREENSHOTS") {
        Some(_) => Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"),
        None => directory.to_owned(),
    }
}

async fn log_in(browser: &mut Browser, controller: &Controller) {
    browser.open(&controller.url("/")).await;
    assert!(browser.eval("location.pathname").await == "/login");
    assert_eq!(browser.eval("document.activeElement.id").await, "token", "one can type at once");
    browser.write("not the token").await;
    browser.press("Enter").await;
    eventually!(browser.text("[role=alert]").await.contains("not the token"));
    browser.focus("#token").await;
    browser.write(TOKEN).await;
    browser.press("Enter").await;
    eventually!(browser.text("h1").await == "Fleet");
}

#[tokio::test]
async fn an_operator_watches_changes_and_goes_back() {
    let nats = Nats::start().await;
    let controller = Controller::start(&nats).await;
    push(&controller, &document("one"), 0).await;
    let gateway = member(&nats, "fra-1").await;
    eventually!(gateway.get("http://app.test/shop/").await.text() == "one");
    let mut browser = Browser::start().await;
    browser.look(1280, 900, "light").await;
    log_in(&mut browser, &controller).await;

    // A live chart moves while one looks at it.
    eventually!(browser.text("#applied").await == "1 of 1");
    let line = "#rate-900 path.ok";
    let load = Load::start(gateway.http(), "http://app.test/shop/", 2);
    let drawn = async |browser: &mut Browser| {
        browser
            .eval(&format!("document.querySelector({line:?})?.getAttribute('d') ?? ''"))
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    browser.eval("window.unloaded = 'no'").await;
    let before = eventually!(Some(drawn(&mut browser).await).filter(|drawn| !drawn.is_empty()));
    eventually!(drawn(&mut browser).await != before);
    assert_eq!(browser.eval("window.unloaded").await, "no", "the page was patched, not loaded again");
    eventually!(browser.text("#rate-900 .key.ok").await.contains("/s"));

    // The editor: explain, check, diff, push; by keyboard where it is typed.
    browser.open(&controller.url("/documents")).await;
    let text = browser.eval("document.querySelector('#text').value").await;
    assert_eq!(text, document("one"), "byte for byte");
    browser.focus("input[name=question]").await;
    browser.write("GET http://app.test/shop/x").await;
    browser.click("button[value=explain]").await;
    eventually!(browser.text("#result").await.contains("Route shop"));
    browser
        .eval("document.querySelector('#text').value = document.querySelector('#text').value.replace('one', 'two')")
        .await;
    browser.click("button[value=diff]").await;
    eventually!(browser.text("#result .added").await.contains("two"));
    browser.click("button[value=check]").await;
    eventually!(browser.text("#result").await.contains("Every gateway would take this."));
    browser.focus("input[name=reason]").await;
    browser.write("two is better").await;
    browser.focus("#push").await;
    browser.press("Enter").await;
    eventually!(browser.text("#result").await.contains("Revision 2 is in force."));
    eventually!(browser.text("#applied").await == "1 of 1" && browser.text("#head").await == "2");
    eventually!(gateway.get("http://app.test/shop/").await.text() == "two");
    let out = pictures(controller.path());
    browser.picture(&out.join("dashboard-configuration.png")).await;

    // And back.
    browser.click(".rollback").await;
    eventually!(browser.text("#result").await.contains("Revision 3 is in force."));
    eventually!(gateway.get("http://app.test/shop/").await.text() == "one");
    let log = tollgate(controller.path(), &["log", "--nats", &nats.url()]).exits(0).stdout;
    assert!(log.contains("two is better") && log.contains("(back to 1)"), "{log}");

    // Every page shows itself without a mistake, narrow and dark too, and nothing is wider than the phone.
    for path in [
        "/",
        "/routes",
        "/route?name=shop",
        "/upstreams",
        "/limits",
        "/certificates",
        "/events",
        "/logs",
        "/alerts",
        "/documents",
    ] {
        for (width, scheme) in [(1280, "light"), (390, "dark")] {
            browser.look(width, 844, scheme).await;
            browser.open(&controller.url(path)).await;
            assert!(!browser.text("h1").await.is_empty(), "{path}");
            assert!(
                browser.eval("document.documentElement.scrollWidth <= innerWidth").await == true,
                "{path} is too wide at {width}"
            );
        }
    }
    browser.look(390, 844, "dark").await;
    browser.open(&controller.url("/")).await;
    assert_eq!(browser.eval("getComputedStyle(document.documentElement).backgroundColor").await, "rgb(20, 23, 27)");
    eventually!(!drawn(&mut browser).await.is_empty());
    browser.picture(&out.join("dashboard-phone-dark.png")).await;
    browser.press("Tab").await;
    assert_eq!(
        browser.eval("document.activeElement.className").await,
        "skip",
        "the first stop leads past the navigation"
    );
    browser.look(1280, 1000, "light").await;
    browser.open(&controller.url("/")).await;
    eventually!(browser.text("#rate-900 .key.ok").await.contains("/s"));
    browser.picture(&out.join("dashboard-fleet.png")).await;
    load.finish().await;
    // The one mistake is the login that was meant to fail.
    browser.errors.retain(|error| !error.contains("401"));
    assert!(browser.errors.is_empty(), "{:#?}", browser.errors);
}
