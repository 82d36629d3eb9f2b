//! An https host on this machine with a certificate of the test authority. The fetcher takes it for
//! a public host.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use oauth::{fetch::HardenedFetcher, testing::TestNetwork};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) const AUTHORITY: &[u8] = include_bytes!("fixtures/authority.pem");
const CERTIFICATE: &[u8] = include_bytes!("fixtures/host.pem");
const KEY: &[u8] = include_bytes!("fixtures/host.key.pem");

/// The host. Dropping it stops it.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pages: Arc<Pages>,
    _tasks: JoinSet<()>,
}

/// One response.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(header::HeaderName, &'static str)>,
    pub(crate) body: String,
}

/// The pages, and the requested paths in order.
#[derive(Default)]
struct Pages {
    pages: Mutex<HashMap<String, Page>>,
    requests: Mutex<Vec<String>>,
}

impl Host {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Arc::new(Pages::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, Arc::clone(&pages)));
        Self {
            address,
            pages,
            _tasks: tasks,
        }
    }

    /// Adds or replaces a page.
    pub(crate) fn put(&self, path: &str, page: Page) {
        self.pages.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// Adds or replaces a JSON document that may be cached for an hour.
    pub(crate) fn json(&self, path: &str, value: &Value) {
        self.put(path, Page::json(value.to_string()));
    }

    /// Removes a page.
    pub(crate) fn remove(&self, path: &str) {
        self.pages.pages.lock().unwrap().remove(path);
    }

    /// The number of requests for a path.
    pub(crate) fn requests(&self, path: &str) -> usize {
        let requests = self.pages.requests.lock().unwrap();
        requests.iter().filter(|other| *other == path).count()
    }

    /// A fetcher for which `names` are this host, and the names in `answers` resolve to other
    /// addresses.
    pub(crate) fn fetcher(&self, names: &[&str], answers: &[(&str, &[&str])]) -> HardenedFetcher {
        let ips = |ips: &[&str]| ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect();
        let network = TestNetwork {
            authority_pem: AUTHORITY.to_vec(),
            hosts: names.iter().map(|&name| (name.to_owned(), self.address)).collect(),
            answers: answers
                .iter()
                .map(|&(name, list)| (name.to_owned(), ips(list)))
                .collect(),
        };
        network.fetcher().unwrap()
    }
}

impl Page {
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "max-age=3600"),
            ],
            body: body.into(),
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, pages: Arc<Pages>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (acceptor, pages) = (acceptor.clone(), Arc::clone(&pages));
        connections.spawn(async move {
            // A client that refuses the certificate disconnects.
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = pages.answer(request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Pages {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        self.requests.lock().unwrap().push(path.to_owned());
        let page = self.pages.lock().unwrap().get(path).cloned();
        let page = page.unwrap_or_else(|| Page {
            status: StatusCode::NOT_FOUND,
            ..Page::json("{}")
        });
        let mut response = Response::new(Full::from(page.body));
        *response.status_mut() = page.status;
        for (name, value) in page.headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }
}
