//! A reverse proxy on loopback for clients that bring no bearer, and for broken connections.
//!
//! It stands in front of a broker as a proxy of an operator would: the broker's `public_url` names it, and what it passes
//! on keeps its Host and Origin. It adds an `Authorization` header to requests at the MCP endpoint that have none, once it
//! was given a bearer. And it can play the network that loses connections: the first stream of events that answers a
//! call of a chosen tool ends after its first event, as if a proxy on the way had closed it.
//!
//! Left out: TLS, HTTP/2, and connections that are kept to the broker; each exchange has one of its own, which ends when the
//! client goes away.

mod relay;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderValue;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A running forwarder. Dropping it ends it and every exchange that is under way.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    plan: Arc<Plan>,
    _tasks: JoinSet<()>,
}

/// Where requests go and what is done to them.
#[derive(Debug)]
struct Plan {
    upstream: SocketAddr,
    /// The tool whose streams are cut.
    cut: Option<String>,
    /// Its fields do not depend on each other, so a poisoned lock is still whole; never held across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bearer: Option<HeaderValue>,
    /// Streams that were cut.
    cuts: usize,
    /// Streams that clients wanted to resume.
    resumptions: usize,
}

impl Forwarder {
    /// Binds `127.0.0.1:port` and passes on to `127.0.0.1:upstream` from then on. `cut` names the tool whose answers are
    /// cut when they are streams.
    ///
    /// # Errors
    ///
    /// If the port cannot be bound.
    pub async fn start(port: u16, upstream: u16, cut: Option<&str>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let plan = Arc::new(Plan {
            upstream: ([127, 0, 0, 1], upstream).into(),
            cut: cut.map(str::to_owned),
            state: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&plan)));
        Ok(Self {
            address,
            plan,
            _tasks: tasks,
        })
    }

    /// The root URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL that a client is given.
    #[must_use]
    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.url())
    }

    /// From now on requests without a bearer get this one.
    ///
    /// # Panics
    ///
    /// If it cannot stand in a header.
    pub fn set_bearer(&self, token: &str) {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a bearer is visible ASCII");
        bearer.set_sensitive(true);
        self.plan.state().bearer = Some(bearer);
    }

    /// How many streams it has cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.plan.state().cuts
    }

    /// How many requests came with the id of the last event that their client has seen.
    #[must_use]
    pub fn resumptions(&self) -> usize {
        self.plan.state().resumptions
    }
}

impl Plan {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, plan: Arc<Plan>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&plan)));
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

async fn serve(stream: TcpStream, plan: Arc<Plan>) {
    let service = service_fn(move |request| {
        let plan = Arc::clone(&plan);
        async move { relay::relay(&plan, request).await }
    });
    // A connection that breaks is the client's affair.
    let _ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
