//! A host of the public network for a broker in a test network: it listens on this machine, speaks
//! https with a certificate of the test authority, serves given pages, and counts requests and
//! connections.
//!
//! Its certificate is valid for `client.example` and the names one level below. The key of the
//! authority no longer exists. Only a broker with the feature `testing` can be told of such a
//! network ([`network`]).

use std::{
    collections::HashMap,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::Value;
use tokio_rustls::TlsAcceptor;

use crate::http_server::HttpServer;

/// A running host. Dropping it ends it.
#[derive(Debug)]
pub struct Host {
    server: HttpServer,
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, String)>,
    pub body: String,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// The body continues until the reader stops.
    Endless,
    /// The connection stays open and silent.
    Silence,
}

/// The variable that tells a broker of a test network.
const VARIABLE: &str = "FORGEJO_MCP_BROKER_TEST_NETWORK";
const CERTIFICATE: &[u8] = include_bytes!("../fixtures/host.pem");
const KEY: &[u8] = include_bytes!("../fixtures/host.key.pem");

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
    requests: Mutex<HashMap<String, usize>>,
}

/// The environment variable for a broker: `at` maps names to hosts of this machine; `resolving`
/// maps names to the addresses that a name server returns for them, separated by commas, which the
/// broker judges as in the real network.
pub fn network(at: &[(&str, &Host)], resolving: &[(&str, &str)]) -> (String, String) {
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/authority.pem");
    let mut value = authority.display().to_string();
    for (name, host) in at {
        value += &format!(";{name}={}", host.server.address());
    }
    for (name, addresses) in resolving {
        value += &format!(";{name}={addresses}");
    }
    (VARIABLE.to_owned(), value)
}

impl Host {
    pub async fn start() -> Result<Self> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE)?],
                PrivateKeyDer::from_pem_slice(KEY)?,
            )?;
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = HttpServer::bind(0, router, Some(TlsAcceptor::from(Arc::new(config)))).await?;
        Ok(Self { server, shared })
    }

    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    pub fn put(&self, path: &str, page: Page) {
        lock(&self.shared.pages).insert(path.to_owned(), page);
    }

    pub fn json(&self, path: &str, value: &Value) {
        self.put(path, Page::json(value.to_string()));
    }

    pub fn requests_to(&self, path: &str) -> usize {
        lock(&self.shared.requests).get(path).copied().unwrap_or(0)
    }

    /// The number of connections, those without a request included.
    pub fn connections(&self) -> usize {
        self.server.accepted()
    }
}

impl Page {
    /// A JSON document that may be cached for an hour.
    pub fn json(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![
                (header::CONTENT_TYPE, "application/json".to_owned()),
                (header::CACHE_CONTROL, "max-age=3600".to_owned()),
            ],
            body: body.into(),
            end: End::Whole,
        }
    }

    /// A redirect with a document in its body, for a reader that does not follow.
    pub fn redirect(status: StatusCode, location: &str, body: impl Into<String>) -> Self {
        let mut page = Self {
            status,
            ..Self::json(body)
        };
        page.headers.push((header::LOCATION, location.to_owned()));
        page
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    *lock(&shared.requests).entry(uri.path().to_owned()).or_default() += 1;
    let page = lock(&shared.pages).get(uri.path()).cloned();
    let Some(page) = page else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let spaces = Bytes::from_static(&[b' '; 1024]);
    let beginning = stream::iter([Ok::<_, Infallible>(Bytes::from(page.body))]);
    let body = match page.end {
        End::Whole => Body::from_stream(beginning),
        End::Endless => Body::from_stream(beginning.chain(stream::repeat(Ok(spaces)))),
        End::Silence => Body::from_stream(beginning.chain(stream::pending())),
    };
    let mut response = (page.status, body).into_response();
    for (name, value) in page.headers {
        let value = HeaderValue::try_from(value).expect("the headers of a page are valid");
        response.headers_mut().append(name, value);
    }
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
