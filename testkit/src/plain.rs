//! The HTTP client under the browser and the MCP client, for tests as well: no redirects, no proxy, no trusted root.
//!
//! Everything that the doubles talk to is plain http on loopback. A TLS configuration is built all the same, since the
//! client library wants a provider of cryptography before its first request, and trusting nobody is the honest one here.

use std::{sync::Arc, time::Duration};

use reqwest::{ClientBuilder, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// An HTTP client that gives up on an exchange after `timeout`.
///
/// # Panics
///
/// Never: a TLS configuration of fixed parts always builds.
pub fn client(timeout: Duration) -> reqwest::Client {
    build(builder(timeout))
}

/// The same, but it keeps no connection for the next request.
///
/// # Panics
///
/// Never, as [`client`].
pub fn fresh_connections(timeout: Duration) -> reqwest::Client {
    build(builder(timeout).pool_max_idle_per_host(0))
}

fn builder(timeout: Duration) -> ClientBuilder {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring serves the default protocol versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    ClientBuilder::new()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .no_proxy()
        .timeout(timeout)
}

fn build(builder: ClientBuilder) -> reqwest::Client {
    builder
        .build()
        .expect("a client with a ready TLS configuration has nothing left to fail on")
}
