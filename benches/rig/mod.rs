//! What the load benches share: an origin, programs under test held to one core, load with latencies, and a table.

pub(crate) mod driver;
pub(crate) mod origin;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod tls;

/// The core of the program under test; origin and load run on all others.
pub(crate) const CORE: &str = "0";

/// Where the binaries of profile `dist` lie, after building them: what ships is what is measured.
pub(crate) fn build(targets: &[&str]) -> std::path::PathBuf {
    let status = std::process::Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", "dist"])
        .args(targets)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "the build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), std::path::PathBuf::from);
    target.join("dist")
}

/// `name`, or `name` with a number: `--seconds 5` after `cargo bench -- `.
pub(crate) fn option(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}
