//! What the load benches share: an origin, programs under test held to one core, load with latencies, and a table.

pub(crate) mod driver;
pub(crate) mod gateway;
pub(crate) mod origin;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod tls;

/// The core of the program under test; origin and load run on all others.
pub(crate) const CORE: &str = "0";

/// Where the binaries lie, after building them with profile `dist`: what ships is what is measured. (`--profile dev` is
/// for trying the bench itself.)
pub(crate) fn build(targets: &[&str]) -> std::path::PathBuf {
    let profile = text("--profile").unwrap_or_else(|| "dist".to_owned());
    let status = std::process::Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", &profile])
        .args(targets)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "the build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), std::path::PathBuf::from);
    target.join(if profile == "dev" { "debug" } else { &profile })
}

/// An option with a number: `--seconds 5` after `cargo bench --`.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    text(name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}
