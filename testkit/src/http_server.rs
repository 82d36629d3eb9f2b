//! The HTTP/1.1 server on loopback under the doubles: an axum router, with or without TLS.
//!
//! The server owns every task: [`HttpServer::stop`] waits for them and passes their panics on;
//! dropping the server aborts them.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{
    rt::{Read, Write},
    server::conn::http1,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    accepted: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Connection {
    router: Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

impl HttpServer {
    /// Binds `127.0.0.1:port` (0 chooses a free port) and serves plain HTTP.
    pub(crate) async fn start(port: u16, router: Router) -> io::Result<Self> {
        Self::bind(port, router, None).await
    }

    /// Binds `127.0.0.1:port` (0 chooses a free port) and serves HTTP, inside TLS if there is an
    /// acceptor.
    pub(crate) async fn bind(port: u16, router: Router, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let (stop, accepted) = (CancellationToken::new(), Arc::default());
        let connection = Connection {
            router,
            tls,
            stop: stop.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, connection, Arc::clone(&accepted)));
        Ok(Self {
            address,
            stop,
            accepted,
            tasks,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of connections accepted so far, those with a failed TLS handshake included.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Stops accepting, gives exchanges in flight a second, and aborts the rest. A panic of a
    /// handler becomes a panic here.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            resume_panic(ended);
        }
    }
}

async fn accept(listener: TcpListener, connection: Connection, accepted: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    // Panics are kept until the end: the server serves on, so that the test fails at its own
    // assertion.
    let mut ended = Vec::new();
    loop {
        tokio::select! {
            () = connection.stop.cancelled() => break,
            Some(end) = connections.join_next() => if end.is_err() { ended.push(end) },
            stream = listener.accept() => match stream {
                Ok((stream, _)) => {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(connection.clone().serve(stream));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    drop(listener);
    let drain = async {
        while let Some(end) = connections.join_next().await {
            ended.push(end);
        }
    };
    if timeout(DRAIN_TIMEOUT, drain).await.is_err() {
        connections.abort_all();
    }
    ended.into_iter().for_each(resume_panic);
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        match &self.tls {
            None => self.exchange(TokioIo::new(stream)).await,
            // A client that rejects the certificate goes away.
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.exchange(TokioIo::new(stream)).await;
                }
            }
        }
    }

    async fn exchange(&self, io: impl Read + Write + Unpin) {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(io, service);
        tokio::pin!(connection);
        // A broken connection, wanted or not, is no failure of the server.
        let _ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    }
}

fn resume_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Bytes, extract::DefaultBodyLimit, routing::any};
    use http::StatusCode;

    use super::*;
    use crate::http_client;

    async fn start(port: u16) -> (HttpServer, reqwest::Client, String) {
        let router = Router::new()
            .route("/panic", any(async || -> () { panic!("the handler panicked") }))
            .fallback(async |body: Bytes| body)
            .layer(DefaultBodyLimit::max(1024));
        let server = HttpServer::start(port, router).await.unwrap();
        let url = format!("http://{}", server.address());
        (server, http_client::client(Duration::from_secs(10)), url)
    }

    #[tokio::test]
    async fn stopped_server_frees_its_port() {
        let (server, http, url) = start(0).await;
        let answer = http.post(format!("{url}/echo")).body("hello").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
        let port = server.address().port();
        server.stop().await;
        assert!(http.get(&url).send().await.unwrap_err().is_connect());
        start(port).await.0.stop().await;
    }

    #[tokio::test]
    async fn large_body_is_413() {
        let (server, http, url) = start(0).await;
        let answer = http.post(&url).body(vec![0; 1025]).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        server.stop().await;
    }

    #[tokio::test]
    #[should_panic(expected = "the handler panicked")]
    async fn panic_surfaces_at_stop_and_server_serves_until_then() {
        let (server, http, url) = start(0).await;
        assert!(http.get(format!("{url}/panic")).send().await.is_err());
        assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::OK);
        server.stop().await;
    }
}
