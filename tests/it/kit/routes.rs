//! Documents that many tests share.

use std::net::SocketAddr;

/// One upstream, `origin`, and one route, `all`, for everything.
pub(crate) fn all_to(address: SocketAddr) -> String {
    with(address, "", "")
}

/// The same with more lines in `[upstream.origin]` and in `[[route]]`.
pub(crate) fn with(address: SocketAddr, upstream: &str, route: &str) -> String {
    format!(
        "[upstream.origin]\naddress = \"{address}\"\n{upstream}\n[[route]]\nname = \"all\"\nupstream = \"origin\"\n{route}\n"
    )
}

/// Several targets in one upstream.
pub(crate) fn all_to_each(addresses: &[SocketAddr], upstream: &str, route: &str) -> String {
    let targets: Vec<_> = addresses.iter().map(|address| format!("{{ to = \"{address}\" }}")).collect();
    format!(
        "[upstream.origin]\naddress = [{}]\n{upstream}\n[[route]]\nname = \"all\"\nupstream = \"origin\"\n{route}\n",
        targets.join(", ")
    )
}

/// One route that answers by itself.
pub(crate) fn answering(text: &str) -> String {
    format!("[[route]]\nname = \"all\"\nrespond = {{ body = {text:?} }}\n")
}
