//! The yardstick: Pingora's proxy with nothing on it. `bare LISTEN UPSTREAM [CERT KEY]`.

// A failure here is a failure of the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use async_trait::async_trait;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::{Server, configuration::ServerConf};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Bare(std::net::SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_error::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, tls @ ..] = arguments.as_slice() else { return Err("LISTEN UPSTREAM [CERT KEY]".into()) };
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare(upstream.parse()?));
    match tls {
        [cert, key] => {
            let mut settings = TlsSettings::intermediate(cert, key)?;
            settings.enable_h2();
            proxy.add_tls_with_settings(listen, None, settings);
        }
        _ => proxy.add_tcp(listen),
    }
    server.add_service(proxy);
    server.run_forever()
}
