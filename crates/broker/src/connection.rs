//! One connection: HTTP/1.1, or HTTP/2 by prior knowledge, until it is idle, drained or cut.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{app_state::AppState, config::HttpLimits, connection_table::ConnectionSlot, handler};

/// Maximum time for a peer to close an idle connection.
const IDLE_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for the first request of a connection that was accepted just before a drain.
/// Closing it at once would lose the request that is in transit.
const DRAIN_FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Maximum time that a drain waits for [`DRAIN_QUIET_PERIOD`] without requests. Connections with an
/// open stream never become quiet.
const DRAIN_QUIET_TIMEOUT: Duration = Duration::from_secs(1);
/// Time without requests after which a drain closes a connection. A request that is sent while its
/// connection closes is lost (RFC 9112 section 9.3.1). So a busy client gets time for one more
/// request, whose response announces the close.
const DRAIN_QUIET_PERIOD: Duration = Duration::from_millis(500);
/// Minimum time that a drain waits before it closes a connection, for the runtime to notice a
/// request that is already in the socket.
const DRAIN_SETTLE: Duration = Duration::from_millis(20);
/// Bytes that a client may send on one HTTP/2 stream before they are read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Maximum bytes that wait to be sent on one HTTP/2 stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Interval and timeout of HTTP/2 pings to a silent peer.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Tracks the requests of one connection.
#[derive(Clone, Debug)]
struct Activity {
    uses: watch::Sender<ConnectionUse>,
    slot: Option<Arc<ConnectionSlot>>,
}

#[derive(Clone, Copy, Debug)]
struct ConnectionUse {
    requests: usize,
    /// True once the first request has begun.
    begun: bool,
    /// The last time at which a request began or ended.
    changed: Instant,
}

/// Counts one request of a connection until it is dropped.
struct RequestGuard(Activity);

/// Spawns the tasks of hyper on a [`TaskTracker`].
#[derive(Clone, Debug)]
struct TrackedExecutor(TaskTracker);

/// Serves a connection until it closes. `cut` closes it at once.
pub(crate) async fn run(stream: TcpStream, slot: ConnectionSlot, state: Arc<AppState>, cut: CancellationToken) {
    let limits = state.config.limits.clone();
    let draining = state.draining.clone();
    let (reserved, evicted) = (slot.reserved, slot.evicted.clone());
    let builder = builder(&limits, state.tasks.clone());
    let activity = Activity::new(Some(Arc::new(slot)));
    let requests = activity.clone();
    // Makes a drain wait for the first request, which has its own token once this one is dropped.
    let first = state.unfinished.token();
    if !begins(&stream, &limits, &draining, &evicted).await {
        tracing::debug!("silent connection closed");
        return;
    }
    let service = service_fn(move |request| {
        let (state, guard, unfinished) = (Arc::clone(&state), requests.begin(), state.unfinished.token());
        async move { Ok::<_, Infallible>(handler::handle(state, request, reserved, guard, unfinished).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));

    let idle = tokio::select! {
        result = connection.as_mut() => return log(result),
        () = draining.cancelled() => false,
        () = activity.wait_until_idle(&limits) => true,
        () = async {
            evicted.cancelled().await;
            // A request that began at the same moment is served.
            activity.idle_for(Duration::ZERO).await;
        } => {
            tracing::debug!("silent connection closed for another one");
            return;
        }
    };
    if !idle {
        tokio::select! {
            // Poll the connection first, so that a request which the runtime has noticed begins
            // before the connection is closed.
            biased;
            result = connection.as_mut() => return log(result),
            () = activity.wait_until_quiet() => {}
            () = cut.cancelled() => {}
        }
    }
    drop(first);
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = connection => log(result),
        () = cut.cancelled() => tracing::debug!("connection cut"),
        () = sleep(IDLE_CLOSE_TIMEOUT), if idle => tracing::debug!("idle connection cut"),
    }
}

/// Waits for the first byte of a connection. Returns false if it is not worth serving.
async fn begins(
    stream: &TcpStream,
    limits: &HttpLimits,
    draining: &CancellationToken,
    evicted: &CancellationToken,
) -> bool {
    let mut byte = [0];
    tokio::select! {
        biased;
        // The drain has its own limit for the first request.
        () = draining.cancelled() => true,
        // Readiness alone may be false.
        first = timeout(limits.first_byte_timeout, stream.peek(&mut byte)) => matches!(first, Ok(Ok(1))),
        () = evicted.cancelled() => false,
    }
}

fn builder(limits: &HttpLimits, tasks: TaskTracker) -> auto::Builder<TrackedExecutor> {
    let head_bytes = limits.head_bytes.max(8192);
    let mut builder = auto::Builder::new(TrackedExecutor(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(head_bytes)
        .max_headers(limits.head_fields)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        // What a connection may hold besides the bodies that are counted.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

fn log(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        // Operators need no warning of a peer that goes away or does not speak HTTP.
        tracing::debug!(error, "connection failed");
    }
}

impl Activity {
    fn new(slot: Option<Arc<ConnectionSlot>>) -> Self {
        let uses = watch::Sender::new(ConnectionUse {
            requests: 0,
            begun: false,
            changed: Instant::now(),
        });
        Self { uses, slot }
    }

    fn begin(&self) -> RequestGuard {
        self.uses.send_modify(|connection| {
            if let Some(slot) = self.slot.as_ref().filter(|_| connection.requests == 0) {
                slot.set_busy();
            }
            connection.requests += 1;
            connection.begun = true;
            connection.changed = Instant::now();
        });
        RequestGuard(self.clone())
    }

    /// Returns once a draining connection may be closed after its requests in flight.
    async fn wait_until_quiet(&self) {
        sleep(DRAIN_SETTLE).await;
        if self.uses.borrow().begun {
            let _ = timeout(DRAIN_QUIET_TIMEOUT, self.idle_for(DRAIN_QUIET_PERIOD)).await;
        } else {
            let mut changes = self.uses.subscribe();
            let first = changes.wait_for(|connection| connection.begun);
            let _ = timeout(DRAIN_FIRST_REQUEST, first).await;
        }
    }

    /// Returns once the connection has been without a request for too long: before its first one
    /// the limit is that of a head.
    async fn wait_until_idle(&self, limits: &HttpLimits) {
        let mut changes = self.uses.subscribe();
        let first = changes.wait_for(|connection| connection.begun);
        if timeout(limits.head_timeout.min(limits.idle_timeout), first)
            .await
            .is_ok()
        {
            self.idle_for(limits.idle_timeout).await;
        }
    }

    /// Returns once there has been no request for `time`.
    async fn idle_for(&self, time: Duration) {
        let mut changes = self.uses.subscribe();
        loop {
            let ConnectionUse { requests, changed, .. } = *changes.borrow_and_update();
            tokio::select! {
                () = sleep_until(changed + time), if requests == 0 => return,
                // Every change restarts the wait, so even an instant request counts. It cannot
                // fail, since `self` is the sender.
                _ = changes.changed() => {}
            }
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.uses.send_modify(|connection| {
            connection.requests = connection.requests.saturating_sub(1);
            connection.changed = Instant::now();
            if let Some(slot) = self.0.slot.as_ref().filter(|_| connection.requests == 0) {
                slot.set_silent(connection.changed);
            }
        });
    }
}

impl<F> Executor<F> for TrackedExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connection_is_idle_only_after_its_last_request() {
        let activity = Activity::new(None);
        let limit = Duration::from_secs(60);
        let began = Instant::now();
        let (first, second) = (activity.begin(), activity.begin());
        let requests = async {
            sleep(Duration::from_secs(100)).await;
            drop(first);
            sleep(Duration::from_secs(100)).await;
            drop(second);
            sleep(Duration::from_secs(30)).await;
            drop(activity.begin());
        };
        tokio::join!(activity.idle_for(limit), requests);
        assert_eq!(began.elapsed(), Duration::from_secs(290));
    }
}
