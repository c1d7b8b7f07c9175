//! Clients that we did not write: curl, OpenSSL and a browser, before and after they trust the local CA.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::kit::{Gateway, Origin, routes};

async fn gateway(origin: &Origin) -> Gateway {
    let document = routes::all_to(origin.address()) + "[host.\"app.test\"]\ncertificate = \"internal\"\n";
    Gateway::start(&document).await
}

/// Runs it off the threads of the test, in the directory of the gateway.
async fn run(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env("HOME", directory).stdin(Stdio::null());
    let name = program.to_owned();
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{name}: {error}; ./test installs it"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_gets_through_once_it_trusts_the_ca() {
    let origin = Origin::text("hello");
    let gateway = gateway(&origin).await;
    let port = gateway.address("https").port();
    let (resolve, url) = (format!("app.test:{port}:127.0.0.1"), format!("https://app.test:{port}/"));
    let common = ["-sS", "-m", "20", "--resolve", &resolve, "-w", " %{http_version} %{ssl_verify_result}", &url];
    let ca = ["--cacert", "state/local-ca.pem"];
    let output = run(gateway.directory(), "curl", &[&ca[..], &common[..]].concat()).await;
    assert_eq!(text(&output), "hello 2 0");
    let output = run(gateway.directory(), "curl", &common).await;
    assert_eq!(output.status.code(), Some(60), "an unknown CA");
}

#[tokio::test]
async fn openssl_verifies_and_takes_sessions_up_again() {
    let origin = Origin::text("hello");
    let gateway = gateway(&origin).await;
    let address = gateway.address("https").to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = async |session: &str| {
            let line = format!(
                "printf 'GET / HTTP/1.1\\r\\nHost: app.test\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -connect {address} \
                 -servername app.test {version} -CAfile state/local-ca.pem -verify_return_error -verify_hostname app.test \
                 -ign_eof {session}"
            );
            text(&run(gateway.directory(), "sh", &["-c", &line]).await)
        };
        let first = ask("-sess_out session.pem").await;
        assert!(first.contains("Verify return code: 0 (ok)") && first.contains("hello"), "{first}");
        let again = ask("-sess_in session.pem").await;
        assert!(again.contains("Reused, TLSv1") && again.contains("hello"), "{version}: {again}");
    }
    // Old versions are not spoken.
    let line = format!("openssl s_client -connect {address} -tls1_1 -cipher 'ALL:@SECLEVEL=0' < /dev/null 2>&1");
    let old = run(gateway.directory(), "sh", &["-c", &line]).await;
    assert!(!old.status.success(), "{}", text(&old));
}

#[tokio::test]
async fn a_browser_shows_the_page_once_it_trusts_the_ca() {
    let origin = Origin::replying(|_| {
        let page = crate::kit::full("<html><body><p id=seen>behind the gateway</p></body></html>");
        http::Response::builder().header("content-type", "text/html").body(page).unwrap()
    });
    let gateway = gateway(&origin).await;
    let rules = format!("--host-resolver-rules=MAP app.test {}", gateway.address("https"));
    let page = async || {
        let output = run(
            gateway.directory(),
            "timeout",
            &[
                "60",
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--user-data-dir=profile",
                &rules,
                "--dump-dom",
                "https://app.test/",
            ],
        )
        .await;
        text(&output)
    };
    let stranger = page().await;
    assert!(!stranger.contains("behind the gateway"), "{stranger}");
    let trust = "mkdir -p .pki/nssdb && certutil -d sql:.pki/nssdb -N --empty-password && \
        certutil -d sql:.pki/nssdb -A -t C,, -n tollgate -i state/local-ca.pem";
    let trusted = run(gateway.directory(), "sh", &["-ec", trust]).await;
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let shown = page().await;
    assert!(shown.contains("behind the gateway"), "{shown}");
    assert_eq!(origin.last().header("x-forwarded-proto"), "https");
}
