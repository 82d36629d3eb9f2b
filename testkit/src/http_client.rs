//! The HTTP client of the doubles and of tests: no redirects, no proxy, no trusted root
//! certificate.
//!
//! All doubles but [`Host`](crate::Host) speak plain HTTP on loopback. reqwest requires a TLS
//! configuration all the same.

use std::{sync::Arc, time::Duration};

use reqwest::{ClientBuilder, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

pub fn client(timeout: Duration) -> reqwest::Client {
    build(builder(timeout))
}

pub fn without_keep_alive(timeout: Duration) -> reqwest::Client {
    build(builder(timeout).pool_max_idle_per_host(0))
}

fn builder(timeout: Duration) -> ClientBuilder {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    ClientBuilder::new()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .no_proxy()
        .timeout(timeout)
}

fn build(builder: ClientBuilder) -> reqwest::Client {
    builder.build().expect("a complete TLS configuration cannot fail")
}
