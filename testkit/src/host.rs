//! A host of the public network, as far as a broker in a test network can tell: it listens on this machine, speaks https
//! with a certificate of the test authority, answers what it is told to, and counts who comes.
//!
//! Its certificate is good for `client.example` and the names one level below. The key of the authority was thrown away
//! once it had signed it. Only a broker that was built with the feature `testing` can be told of such a network
//! ([`network`]).
//!
//! Left out: HTTP/2, request bodies, anything but `GET`.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// The host. It is gone when it is dropped.
#[derive(Debug)]
pub struct Host {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Vec<(HeaderName, String)>,
    /// What it begins with.
    pub body: String,
    /// How it goes on.
    pub end: End,
}

/// How an answer goes on after its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not at all.
    Whole,
    /// With more and more, for as long as somebody reads.
    Endless,
    /// With nothing, and without an end.
    Silence,
}

/// The variable that tells a broker of a test network.
const VARIABLE: &str = "FORGEJO_MCP_BROKER_TEST_NETWORK";
const CERTIFICATE: &[u8] = include_bytes!("../fixtures/host.pem");
const KEY: &[u8] = include_bytes!("../fixtures/host.key.pem");

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
    /// Which paths were asked for. Invariant: only added to, in the order in which they came.
    asked: Mutex<Vec<String>>,
    /// How many connections were made, whether or not anything was asked on them.
    connections: AtomicUsize,
}

/// The body of a [`Page`].
struct Paged {
    begin: Option<Bytes>,
    end: End,
}

/// What a broker has to find in its environment: `at` are names that are found on hosts of this machine; `resolving` are
/// names and the addresses that a name server gives for them, several with commas, which are judged as in the real network.
#[must_use]
pub fn network(at: &[(&str, &Host)], resolving: &[(&str, &str)]) -> (String, String) {
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/authority.pem");
    let mut value = authority.display().to_string();
    for (name, host) in at {
        value += &format!(";{name}={}", host.address);
    }
    for (name, addresses) in resolving {
        value += &format!(";{name}={addresses}");
    }
    (VARIABLE.to_owned(), value)
}

impl Host {
    /// Starts a host on a free port of 127.0.0.1, with nothing on it.
    ///
    /// # Errors
    ///
    /// If it cannot listen.
    pub async fn start() -> Result<Self> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE)?],
                PrivateKeyDer::from_pem_slice(KEY)?,
            )?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&shared),
        ));
        Ok(Self {
            address,
            shared,
            _tasks: tasks,
        })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Puts a page at a path, or another one in its place.
    pub fn put(&self, path: &str, page: Page) {
        lock(&self.shared.pages).insert(path.to_owned(), page);
    }

    /// Puts a JSON document at a path.
    pub fn json(&self, path: &str, value: &Value) {
        self.put(path, Page::json(value.to_string()));
    }

    /// How often a path was asked for.
    #[must_use]
    pub fn asked(&self, path: &str) -> usize {
        lock(&self.shared.asked).iter().filter(|other| *other == path).count()
    }

    /// How many connections were made, for whatever.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Page {
    /// A JSON document that may be kept for an hour.
    #[must_use]
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

    /// A redirect; a reader that does not follow finds a document in it.
    #[must_use]
    pub fn redirect(status: StatusCode, location: &str, body: impl Into<String>) -> Self {
        let mut page = Self {
            status,
            ..Self::json(body)
        };
        page.headers.push((header::LOCATION, location.to_owned()));
        page
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok((socket, _)) = accepted else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            // Who does not like the certificate goes away.
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = shared.answer(request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            // A reader that has had enough breaks the connection, which is no failure of the host.
            let _broken = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Shared {
    fn answer(&self, path: &str) -> Response<Paged> {
        lock(&self.asked).push(path.to_owned());
        let page = lock(&self.pages).get(path).cloned();
        let page = page.unwrap_or_else(|| Page {
            status: StatusCode::NOT_FOUND,
            ..Page::json("{}")
        });
        let mut response = Response::new(Paged {
            begin: Some(Bytes::from(page.body)),
            end: page.end,
        });
        *response.status_mut() = page.status;
        for (name, value) in page.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

impl Body for Paged {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(begin) = self.begin.take() {
            return Poll::Ready(Some(Ok(Frame::data(begin))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1024]))))),
            End::Silence => Poll::Pending,
        }
    }
}

impl fmt::Debug for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paged").field("end", &self.end).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
