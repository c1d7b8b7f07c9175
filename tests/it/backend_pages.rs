//! The two pages of the backend as people use them, in a real browser.

use serde_json::json;

use crate::kit::backend::{ADMIN, Backend};
use crate::kit::browser::Browser;

async fn open(backend: &Backend, path: &str) -> Browser {
    let mut browser = Browser::start().await;
    browser.open(&format!("http://{}{path}", backend.address())).await;
    eventually!(shown(&mut browser, "#entrance").await);
    browser
}

/// Whether it can be seen.
async fn shown(browser: &mut Browser, selector: &str) -> bool {
    browser.eval(&format!("document.querySelector({selector:?})?.checkVisibility() ?? false")).await == true
}

async fn fill(browser: &mut Browser, selector: &str, text: &str) {
    browser.focus(selector).await;
    browser.eval("document.activeElement.value = ''").await;
    browser.write(text).await;
}

async fn log_in(browser: &mut Browser, (email, password): (&str, &str)) {
    fill(browser, "#email", email).await;
    fill(browser, "#password", password).await;
    browser.press("Enter").await;
}

/// Nothing went wrong but what was meant to: refused requests are errors to a browser.
fn sound(browser: &Browser, meant: &[&str]) {
    let others: Vec<_> =
        browser.errors.iter().filter(|error| !meant.iter().any(|status| error.contains(status))).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test]
async fn somebody_signs_up_keeps_notes_and_finds_them_again() {
    let backend = Backend::start().await;
    let mut browser = open(&backend, "/").await;
    fill(&mut browser, "#email", "ada@example.com").await;
    fill(&mut browser, "#password", "short").await;
    browser.click("#signup").await;
    assert!(shown(&mut browser, "#entrance").await, "the browser itself refuses it");
    fill(&mut browser, "#password", "long enough").await;
    browser.click("#signup").await;
    eventually!(shown(&mut browser, "#notes").await);
    for note in ["buy milk", "<b>not bold</b>"] {
        fill(&mut browser, "#text", note).await;
        browser.press("Enter").await;
        eventually!(browser.text("#list li span").await == note);
    }
    assert_eq!(browser.eval("document.querySelectorAll('#list b').length").await, 0, "text stays text");

    // The tab is loaded again: the session goes on.
    browser.open(&format!("http://{}/?again", backend.address())).await;
    eventually!(browser.text("#list li span").await == "<b>not bold</b>");
    browser.click("#list li button").await;
    eventually!(browser.text("#list li span").await == "buy milk");
    browser.click("#logout").await;
    eventually!(shown(&mut browser, "#entrance").await && !shown(&mut browser, "#notes").await);
    log_in(&mut browser, ("ada@example.com", "a wrong one")).await;
    eventually!(browser.text("#message").await == "the address or the password is wrong");
    log_in(&mut browser, ("ada@example.com", "long enough")).await;
    eventually!(browser.text("#list li span").await == "buy milk");
    assert_eq!(browser.text("#message").await, "");
    sound(&browser, &["401"]);
}

#[tokio::test]
async fn an_administrator_sees_and_changes_everything_and_nobody_else_does() {
    let backend = Backend::start().await;
    let ada = backend.sign_up("ada@example.com").await;
    ada.post("/api/collections/notes/records", &json!({ "text": "buy milk" })).await;
    ada.post("/api/collections/notes/records", &json!({ "text": "read" })).await;
    let mut browser = open(&backend, "/_/").await;
    log_in(&mut browser, ("ada@example.com", "long enough")).await;
    eventually!(browser.text("#message").await == "this account is no administrator's");
    assert!(!shown(&mut browser, "#admin").await);
    log_in(&mut browser, ADMIN).await;
    eventually!(shown(&mut browser, "#admin").await);
    eventually!(browser.text("#users").await.contains("ada@example.com"));
    eventually!(browser.text("#state").await.contains("users2"));

    // A new collection, and the records of one, by a filter.
    fill(&mut browser, "#name", "lists").await;
    browser.eval("document.querySelector('#add select[name=list]').value = 'anyone'").await;
    browser.press("Enter").await;
    eventually!(browser.text("#collections tbody tr").await.contains("lists"));
    assert_eq!(backend.anyone().get("/api/collections/lists/records").await.status, 200, "anyone may");
    fill(&mut browser, "#name", "lists").await;
    browser.press("Enter").await;
    eventually!(browser.text("#message").await == "there is one of this name already");
    browser.click("#collections tbody tr:last-child button").await;
    eventually!(browser.text("#collection").await == "notes" && browser.text("#place").await.contains("2 records"));
    fill(&mut browser, "#filter", "text ~ 'milk'").await;
    browser.press("Enter").await;
    eventually!(browser.text("#place").await == "page 1 of 1, 1 records");
    assert!(browser.text("#rows").await.contains("buy milk"));
    browser.eval("window.confirm = () => true").await;
    browser.click("#rows button").await;
    eventually!(browser.text("#place").await == "page 1 of 1, 0 records");
    assert_eq!(ada.get("/api/collections/notes/records").await.json()["total"], 1);

    // Rules are changed where they are shown.
    let rule = "#collections tr[data-name=lists] select[name=list]";
    assert_eq!(browser.eval(&format!("document.querySelector({rule:?}).value")).await, "anyone");
    let choose = format!(
        "(rule => {{ rule.value = 'admin'; rule.dispatchEvent(new Event('change')) }})(document.querySelector({rule:?}))"
    );
    browser.eval(&choose).await;
    eventually!(backend.anyone().get("/api/collections/lists/records").await.status == 401);
    eventually!(browser.text("#message").await == "The rules of lists are changed.");
    browser.click("#collections tr[data-name=lists] button.remove").await;
    eventually!(browser.text("#collections tr[data-name=lists]").await.is_empty());
    let own = format!("#users tr[data-id='{}'] button.remove", ada.id);
    assert_eq!(browser.eval("document.querySelectorAll('#users button.remove').length").await, 1, "not oneself");
    browser.click(&own).await;
    eventually!(!browser.text("#users").await.contains("ada@example.com"));
    ada.get("/api/auth/me").await.is_rejected(401, "auth_token");
    sound(&browser, &["409"]);
}
