//! A small HTTP/1.1 server on loopback, for the doubles of this crate.
//!
//! It reads a request whole, hands it to one function and writes what comes back. A handler that answers with
//! [`NoAnswer`] makes the server close the connection without a byte of a response, which is how a lost response looks
//! to a client. Every task belongs to the server: [`HttpServer::stop`] waits for them and lets their panics through;
//! dropping it ends them.
//!
//! Left out: TLS, HTTP/2 and streamed bodies.

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// What a handler promises: a response, or that there will be none.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, NoAnswer>> + Send>>;

/// The function behind a server.
pub(crate) type Handler = Arc<dyn Fn(Request<Bytes>) -> Answer + Send + Sync>;

/// A running server.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(crate) struct NoAnswer;

/// The largest request body that is read; beyond it the answer is 413.
const BODY_LIMIT: usize = 1 << 20;

/// How long a stopping server waits for the exchanges that are under way.
const DRAIN: Duration = Duration::from_secs(1);

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

impl HttpServer {
    /// Binds `127.0.0.1:port` (0 chooses a free port) and serves from then on.
    pub(crate) async fn start(port: u16, handler: Handler) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, handler, stop.clone()));
        Ok(Self { address, stop, tasks })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets exchanges under way finish for up to a second, and ends the rest. A panic of a handler
    /// becomes a panic here.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            surface(ended);
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed without an answer, as asked")
    }
}

impl std::error::Error for NoAnswer {}

async fn accept(listener: TcpListener, handler: Handler, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    // A panic is kept for the end: until then the server serves on, so that the test fails where it looks.
    let mut ended = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(end) = connections.join_next(), if !connections.is_empty() => if end.is_err() { ended.push(end) },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&handler), stop.clone()));
                }
                // Out of descriptors, most likely: the next try must not be at once.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    drop(listener);
    let drained = timeout(DRAIN, async {
        while let Some(end) = connections.join_next().await {
            ended.push(end);
        }
    });
    if drained.await.is_err() {
        connections.abort_all();
    }
    ended.into_iter().for_each(surface);
}

async fn connection(stream: TcpStream, handler: Handler, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (parts, body) = request.into_parts();
            match Limited::new(body, BODY_LIMIT).collect().await {
                Ok(body) => handler(Request::from_parts(parts, body.to_bytes())).await,
                Err(_) => Ok(too_large()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection that breaks, or that a handler wanted broken, is not a failure of the server.
    let _ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

fn too_large() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
}

fn surface(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http::{Response, StatusCode};
    use http_body_util::Full;

    use super::{Handler, HttpServer, NoAnswer};
    use crate::plain;

    fn handler() -> Handler {
        Arc::new(|request| {
            Box::pin(async move {
                match request.uri().path() {
                    "/drop" => Err(NoAnswer),
                    "/panic" => panic!("the handler panicked"),
                    _ => Ok(Response::new(Full::new(request.into_body()))),
                }
            })
        })
    }

    async fn started() -> (HttpServer, reqwest::Client, String) {
        let server = HttpServer::start(0, handler()).await.unwrap();
        let url = format!("http://{}", server.address());
        (server, plain::client(Duration::from_secs(10)), url)
    }

    #[tokio::test]
    async fn a_stopped_server_frees_its_port() {
        let (server, http, url) = started().await;
        let answer = http.post(format!("{url}/echo")).body("hello").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
        let port = server.address().port();
        server.stop().await;
        assert!(http.get(&url).send().await.unwrap_err().is_connect());
        HttpServer::start(port, handler()).await.unwrap().stop().await;
    }

    #[tokio::test]
    async fn a_dropped_answer_is_a_broken_connection_and_a_large_body_is_413() {
        let (server, http, url) = started().await;
        assert!(http.get(format!("{url}/drop")).send().await.unwrap_err().is_request());
        let answer = http
            .post(&url)
            .body(vec![0; super::BODY_LIMIT + 1])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        server.stop().await;
    }

    #[tokio::test]
    #[should_panic(expected = "the handler panicked")]
    async fn a_panic_surfaces_at_the_stop_and_the_server_serves_on_until_then() {
        let (server, http, url) = started().await;
        assert!(http.get(format!("{url}/panic")).send().await.is_err());
        assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::OK);
        server.stop().await;
    }
}
