//! Chromium without a window, driven over its DevTools protocol: <https://chromedevtools.github.io/devtools-protocol/>.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::websocket::WebSocket;

/// One page in a browser of its own. Ends when dropped.
pub(crate) struct Browser {
    child: Child,
    _profile: TempDir,
    page: WebSocket,
    count: u64,
    /// What the page said of mistakes.
    pub(crate) errors: Vec<String>,
}

impl Browser {
    pub(crate) async fn start() -> Browser {
        let profile = tempfile::Builder::new().prefix("chromium-").tempdir().unwrap();
        let child = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--remote-debugging-port=0", "--hide-scrollbars", "--force-prefers-reduced-motion", "--lang=en"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium: ./test installs it");
        let file = profile.path().join("DevToolsActivePort");
        let port: u16 = eventually!(
            std::time::Duration::from_secs(60),
            std::fs::read_to_string(&file).ok().and_then(|text| text.lines().next()?.parse().ok())
        );
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let list = super::get(address, &format!("http://{address}/json/list")).await.json();
        let target = list.as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap().clone();
        let page = WebSocket::connect(address, target["webSocketDebuggerUrl"].as_str().unwrap()).await;
        let mut browser = Browser { child, _profile: profile, page, count: 0, errors: Vec::new() };
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Calls a method and waits for its answer.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        self.page.send(&json!({ "id": self.count, "method": method, "params": params }).to_string()).await;
        loop {
            let message: Value = serde_json::from_str(&self.page.next().await.unwrap()).unwrap();
            if message["id"] == self.count {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.errors.push(message["params"].to_string()),
                Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                    self.errors.push(message["params"]["entry"].to_string());
                }
                _ => {}
            }
        }
    }

    /// What an expression is. A page that is just being left says nothing.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        answer["result"]["value"].clone()
    }

    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
        self.loaded(url).await;
    }

    async fn loaded(&mut self, url: &str) {
        eventually!({
            let at = self.eval("document.readyState + ' ' + location.href").await;
            at.as_str().is_some_and(|at| at.starts_with("complete ") && at.contains(url.split('#').next().unwrap()))
        });
    }

    /// Text of the first element that fits, or nothing.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        let found = self.eval(&format!("document.querySelector({selector:?})?.textContent ?? ''")).await;
        found.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn focus(&mut self, selector: &str) {
        let asked = format!(
            "(e => {{ e?.focus(); return document.activeElement === e }})(document.querySelector({selector:?}))"
        );
        assert_eq!(self.eval(&asked).await, true, "{selector} takes no focus");
    }

    /// As typed on a keyboard into what has the focus.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    pub(crate) async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => panic!("{other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    pub(crate) async fn click(&mut self, selector: &str) {
        let asked = format!("(e => {{ e?.click(); return !!e }})(document.querySelector({selector:?}))");
        assert_eq!(self.eval(&asked).await, true, "there is no {selector}");
    }

    /// As wide as a screen or a phone, by light or in the dark.
    pub(crate) async fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// A picture of what is seen.
    pub(crate) async fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
